"""Which checkpoints stay: the newest ones, one every so many steps for good, and the best one scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

__all__ = ["BestScored", "best_scored", "retention"]


def retention(*, newest: int, every: int, scores: Mapping[int, float]) -> policies.AnyPreservationPolicy:
    """Returns the rule by which Orbax removes checkpoints, as one that keeps what any of its parts keeps.

    Args:
      newest: How many of the newest stay.
      every: Checkpoints at a multiple of so many steps stay for good; 0 for none.
      scores: Held-out score of the checkpoints that have one, lower is better; may grow while it is in use.
    """
    rules: list[Any] = [policies.LatestN(newest), BestScored(scores)]
    if every:
        rules.append(policies.EveryNSteps(every))
    return policies.AnyPreservationPolicy(rules)


@dataclasses.dataclass(frozen=True)
class BestScored:
    """Keeps the checkpoint of the lowest score, the earliest of several; none where none is scored.

    Orbax's `BestN` takes scores that Orbax itself has written beside the weights, and keeps a checkpoint without one
    for good or lets it replace the best; ours are among the notes of the loop.

    Attributes:
      scores: Score of each checkpoint that has one.
    """

    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: policies.PreservationContext) -> Sequence[bool]:
        """Returns for each checkpoint, whatever has a `step`, whether it stays."""
        del context
        steps = [int(checkpoint.step) for checkpoint in checkpoints]
        best = best_scored({step: self.scores[step] for step in steps if step in self.scores})
        return [step == best for step in steps]


def best_scored(scores: Mapping[int, float]) -> int | None:
    """Returns the step of the lowest score, the earliest of several; None where there is no score.

    >>> best_scored({100: 0.5, 200: 0.4, 300: 0.4})
    200
    """
    return min(scores, key=lambda step: (scores[step], step), default=None)
