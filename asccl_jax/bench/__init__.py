"""Speed and memory, measured beside PyTorch: `python -m asccl_jax.bench metric`, `python -m asccl_jax.bench input`."""
