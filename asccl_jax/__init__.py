"""ASCCL in JAX: a correlation metric for speech-preserving facial expression manipulation.

What a newcomer wants first is offered here, and imported when it is asked for: the package alone imports no JAX.

* ``asccl_loss``: the metric as a loss for any JAX generator.
* ``load_metric``, ``load_manipulator``, ``load_renderer``: trained networks, by their folder.

Training is ``python -m asccl_jax.main --config configs/asccl.py``.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asccl_jax.losses import asccl_loss
    from asccl_jax.weights import load_manipulator, load_metric, load_renderer

__all__ = ["__version__", "asccl_loss", "load_manipulator", "load_metric", "load_renderer"]

__version__ = "0.1.0"

_MODULES = {
    "asccl_loss": "asccl_jax.losses",
    "load_manipulator": "asccl_jax.weights",
    "load_metric": "asccl_jax.weights",
    "load_renderer": "asccl_jax.weights",
}


if not TYPE_CHECKING:  # to a type checker, it would make any name an attribute of the package

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
