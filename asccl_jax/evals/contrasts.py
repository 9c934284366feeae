"""What a speech-preserving metric should tell apart: pairs of conditions, and the parts of the face to look at."""

from __future__ import annotations

import dataclasses

from asccl_jax.sampling import Box

__all__ = ["BROW", "CONTRASTS", "MOUTH", "REGIONS", "Contrast", "contrast"]

MOUTH: Box = (0.62, 0.92, 0.25, 0.75)
"""Mouth and chin in a crop made from the box of the 68 landmarks plus a tenth on each side.

On the synthetic heads lips lie in rows 0.57 to 0.76. On recordings they begin at 0.48 to 0.57, so that the upper lip,
at which smiles and snarls pull, lies above; the jaw is what speech moves most.
"""


BROW: Box = (0.04, 0.20, 0.15, 0.85)
"""Eyebrows in such a crop."""


REGIONS: dict[str, Box | None] = {"face": None, "mouth": MOUTH, "brow": BROW}
"""Parts of the face to which comparisons may be confined; None is all of it."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two conditions; a loss that measures speech is lower under the first than under the second.

    Attributes:
      name: Key in tables and files.
      lower: Condition that should have the lower loss.
      higher: Condition that should have the higher loss.
      title: Short heading.
      question: What a right answer shows, in one sentence.
    """

    name: str
    lower: str
    higher: str
    title: str
    question: str


CONTRASTS: tuple[Contrast, ...] = (
    Contrast(
        "speech",
        "matched",
        "other_speech",
        "clearly other speech",
        "Same person and emotion: is a frame of clearly other speech worse than the aligned one?",
    ),
    Contrast(
        "small_speech",
        "matched",
        "small_speech_change",
        "slightly other speech",
        "Same person and emotion: is even a small change of speech seen?",
    ),
    Contrast(
        "neutral_speech",
        "neutral_same_speech",
        "neutral_other_speech",
        "other speech, both neutral",
        "No emotion involved: is changed speech worse than changed pose and blink?",
    ),
    Contrast(
        "other_identity",
        "other_identity_same_speech",
        "other_identity_other_speech",
        "other speech, other person",
        "Against another person's face: is other speech still worse than the same speech?",
    ),
    Contrast(
        "speech_over_brow",
        "brow_only",
        "neutral_other_speech",
        "speech over brows",
        "Does changed speech cost more than changed brows?",
    ),
    Contrast(
        "speech_over_emotion",
        "matched",
        "neutral_other_speech",
        "speech over emotion",
        "Does changed speech on a neutral face cost more than a full emotion with the same speech?",
    ),
    Contrast(
        "speech_over_identity",
        "other_identity_same_speech",
        "other_speech",
        "speech over identity",
        "Does other speech of the same person cost more than another person with the same speech?",
    ),
)


def contrast(name: str) -> Contrast:
    """Returns the contrast of that name."""
    return next(entry for entry in CONTRASTS if entry.name == name)
