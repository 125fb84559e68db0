"""Archives of embeddings as Parquet files, with similarity search and clustering."""
