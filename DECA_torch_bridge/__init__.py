"""The PyTorch side of the project: checkpoints in and out, and networks kept in PyTorch to compare with.

Nothing in `asccl_jax` imports this package; it is started by name. What computes with PyTorch needs
`pip install asccl-jax[bridge]`; fitting and drawing heads does not.
"""
