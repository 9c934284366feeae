"""ASCCL in JAX: a correlation metric for speech-preserving facial expression manipulation.

The package imports without side effects. The pieces a newcomer wants first:

* ``asccl_jax.losses``: the metric as a loss for any JAX generator.
* ``asccl_jax.weights``: load and save a trained metric.
* ``asccl_jax.main``: training, ``python -m asccl_jax.main --config configs/asccl.py``.
"""

__version__ = "0.1.0"
