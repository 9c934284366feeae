"""Inference: source coefficients and a wanted emotion in, edited coefficients out."""
