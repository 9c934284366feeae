"""Checkpoints of a run: written, kept, found whole or damaged, listed and exported."""
