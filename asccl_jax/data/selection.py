"""A few of many examples, the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["evenly_spaced"]

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Returns at most `limit` items at even distances, both ends among them; all of them without a limit.

    >>> evenly_spaced(range(10), 4)
    [0, 3, 6, 9]
    >>> evenly_spaced("abc", 8)
    ['a', 'b', 'c']
    """
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]
