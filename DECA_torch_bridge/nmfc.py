"""Normalised mean face coordinates: a colour for each place of the mean head."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

__all__ = ["nmfc_colours"]


def nmfc_colours(template: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Returns red, green and blue of each vertex: its x, y and z on the mean head, each scaled to 0..1."""
    least, most = template.amin(dim=0), template.amax(dim=0)
    return (template - least) / (most - least)
