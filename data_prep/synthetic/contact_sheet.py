"""A picture of what the synthetic people can do: people by emotions, then emotions by mouth shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from asccl_jax.data.atomic import atomic_file
from asccl_jax.data.schema import EMOTIONS
from data_prep.synthetic.action_units import VISEMES
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.performance import compose
from data_prep.synthetic.renderer import Renderer

__all__ = ["contact_sheet", "write_contact_sheet"]

_GAP = 3
_SHOWN_VISEMES = ("silence", "a", "e", "i", "o", "u", "f")
_SHOWN_EMOTIONS = ("neutral", "happy", "angry")

Picture = UInt8[np.ndarray, "h w 3"]


def contact_sheet(people: Sequence[int], *, size: int = 160) -> Picture:
    """Returns rows of people in all emotions, then one person's emotions in several mouth shapes.

    Args:
      people: Seeds; the first also shows the mouth shapes.
      size: Side of one picture in pixels.
    """
    rows = []
    for person in people:
        renderer = Renderer(sample_person(person), size=size)
        rows.append([_labelled(_picture(renderer, emotion, "silence", 0.0), emotion) for emotion in EMOTIONS])
    renderer = Renderer(sample_person(people[0]), size=size)
    for emotion in _SHOWN_EMOTIONS:
        turns = np.linspace(-0.25, 0.25, len(_SHOWN_VISEMES))
        pictures = [_picture(renderer, emotion, *shape) for shape in zip(_SHOWN_VISEMES, turns, strict=True)]
        rows.append([_labelled(*pair) for pair in zip(pictures, _SHOWN_VISEMES, strict=True)])
    return np.concatenate([_framed(np.concatenate([_framed(cell) for cell in row], 1)) for row in rows])


def write_contact_sheet(path: Path, people: Sequence[int], *, size: int = 160) -> None:
    """Writes a contact sheet as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        Image.fromarray(contact_sheet(people, size=size)).save(file, format="PNG")


def _picture(renderer: Renderer, emotion: str, viseme: str, yaw: float) -> Picture:
    expression, pose = compose(emotion, np.array(VISEMES[viseme]), 1.0, 0.0, np.array([0.0, yaw, 0.0]))
    return renderer.draw(expression, pose).image


def _labelled(picture: Picture, text: str) -> Picture:
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    pen.text((5, picture.shape[0] - 14), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def _framed(picture: Picture) -> Picture:
    return np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
