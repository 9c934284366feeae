"""Speed and memory, measured beside PyTorch: `python -m asccl_jax.bench metric`, and `bridge`, and `input`."""
