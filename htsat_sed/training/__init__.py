"""Training HTS-AT from labelled clips: soundscapes made on the fly, recipe, Lightning module, fit."""
