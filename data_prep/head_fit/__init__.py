"""Heads in video: posed and drawn without torch."""
