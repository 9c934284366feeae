"""Functions compiled by Numba, kept on disk where it can be written, so that a second start does not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from asccl_jax.paths import cache_folder

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """Returns the decorator `numba.njit` with a cache: beside the code or with the user's caches, as Numba has it.

    Where Numba finds no such place (a package that cannot be written, no home), in `cache_folder`, else nowhere.

    Args:
      **options: Of `numba.njit`, but `cache`.
    """

    def decorate(function: Function) -> Function:
        settings: Any = numba.config
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "no locator available"
            folder = None if settings.CACHE_DIR else cache_folder()
        if folder is not None:
            settings.CACHE_DIR = str(folder / "numba")
        return numba.njit(cache=folder is not None, **options)(function)

    return decorate
