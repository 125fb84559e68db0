"""Training HTS-AT on labelled clips and synthetic soundscapes: recipes, data, Lightning module, teaching."""
