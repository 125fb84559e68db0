"""An archive of embeddings as Parquet, and what in it sounds alike."""
