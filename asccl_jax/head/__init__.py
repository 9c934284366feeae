"""The head in JAX: posed, drawn, and where its mouth and eyes are."""
