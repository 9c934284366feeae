"""What is wrong with the values of a state dict, whatever network it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["value_faults"]


def value_faults(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns one phrase for every array that holds anything but finite real numbers.

    >>> value_faults({"a": np.zeros(2), "b": np.array([1]), "c": np.array([np.nan])})
    ['b holds int64, expected real numbers', 'c holds values that are not finite']
    """
    faults = []
    for key in sorted(arrays):
        if not np.issubdtype(arrays[key].dtype, np.floating):
            faults.append(f"{key} holds {arrays[key].dtype}, expected real numbers")
        elif not np.isfinite(arrays[key]).all():
            faults.append(f"{key} holds values that are not finite")
    return faults
