"""Flax Linen modules: they return features and embeddings, and know no loss, no file and no configuration."""
