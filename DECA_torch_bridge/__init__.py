"""The PyTorch side of the project: DECA's networks, drawing with wrinkles or on a GPU, checkpoints in and out.

Nothing in `asccl_jax` imports this package; `data_prep` does only where a user asks for what it does. It needs
`pip install asccl-jax[bridge]`; fitting and drawing heads does not.
"""
