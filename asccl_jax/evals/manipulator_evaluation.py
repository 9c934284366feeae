"""One evaluation: several manipulators and a copy of the source, scored on the same deliveries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax

from asccl_jax.data.tracks import TrueDelivery
from asccl_jax.errors import InputError
from asccl_jax.evals.manipulator_scores import ClipScore, Edit, by_label, by_reference, copy_source, score_clips
from asccl_jax.geometry.head_model import HeadModel
from asccl_jax.geometry.mouth_points import mouth_points
from asccl_jax.models.manipulator import Manipulator

__all__ = ["COPY", "Candidate", "Evaluation", "Row", "evaluate"]

COPY = "copy of source"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A manipulator to score.

    Attributes:
      name: Heading of its rows.
      manipulator: The networks.
      source: Where they come from.
    """

    name: str
    manipulator: Manipulator
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A way to edit clips, and its figures.

    Attributes:
      name: Heading.
      edit: The way.
      scores: Figures of every clip and emotion.
      source: Where it comes from.
    """

    name: str
    edit: Edit
    scores: tuple[ClipScore, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation leaves behind.

    Attributes:
      deliveries: What was edited.
      rows: The first candidate, told by label, first; the copy of the source last.
      head: The head the mouth was measured on, and faces are drawn with; None if there was none.
    """

    deliveries: tuple[TrueDelivery, ...]
    rows: tuple[Row, ...]
    head: HeadModel | None


def evaluate(
    candidates: Sequence[Candidate],
    deliveries: Sequence[TrueDelivery],
    *,
    head: HeadModel | None = None,
    seed: int = 0,
    references: bool = True,
    advance: Callable[[int], object] = lambda clips: None,
) -> Evaluation:
    """Returns the figures of manipulators, each told emotions by label and, if asked for, shown them by references.

    Args:
      candidates: Manipulators, each with a name of its own.
      deliveries: Held-out neutral clips with their truth.
      head: Measures the mouth; None leaves it out.
      seed: Of the noise that styles of labels are made from, the same for all candidates.
      references: Also score reference-driven edits, if there are two speakers.
      advance: Told how many clips were done; `len(deliveries)` a row.

    Raises:
      InputError: Two candidates have the same name.
    """
    names = [*(candidate.name for candidate in candidates), COPY]
    if len(set(names)) < len(names):
        raise InputError(f"rows {', '.join(names)}: each needs another name; change --name or --also NAME=DIR")
    mouth = None if head is None else mouth_points(head)
    several = len({delivery.speaker for delivery in deliveries}) > 1
    edits: list[tuple[str, Edit, str]] = []
    for candidate in candidates:
        manipulator = jax.device_put(candidate.manipulator)
        edits.append((candidate.name, by_label(manipulator, jax.random.key(seed)), candidate.source))
    if references and several:
        for candidate in candidates:
            name = f"{candidate.name}, by reference"
            edits.append((name, by_reference(jax.device_put(candidate.manipulator), deliveries), candidate.source))
    edits.append((COPY, copy_source, "the source's own coefficients"))
    rows = [
        Row(name, edit, score_clips(deliveries, edit, mouth=mouth, advance=advance), source)
        for name, edit, source in edits
    ]
    return Evaluation(tuple(deliveries), tuple(rows), head)
