"""Who speaks: looks and shape of a person, drawn from a seed."""

from __future__ import annotations

import colorsys
import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.head import build_head
from data_prep.synthetic.skin_surface import bell, mirrored_bell, ramp

__all__ = ["Look", "Person", "linear", "sample_person"]

Colour = tuple[float, float, float]
"""Linear red, green, blue, 0..1."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What a person's surface looks like.

    Attributes:
      skin: Colour of the cheek.
      lip: Colour of the lips.
      lip_paint: 0 for bare lips, 1 for lipstick.
      brow: Colour of the brows.
      brow_width: Thickness of the brows, 1 is usual.
      lash: Strength of lashes and eye liner.
      iris: Colour of the eyes.
      hair: Colour of the hair.
      hair_style: One of `hair.HAIR_STYLES`.
      beard: One of `texture.BEARDS`.
      beard_strength: 0..1.
      freckles: 0..1.
      cloth: Colour of the clothes.
      collar: "crew", "v" or "shirt".
      background: Colour of the wall behind.
    """

    skin: Colour
    lip: Colour
    lip_paint: float
    brow: Colour
    brow_width: float
    lash: float
    iris: Colour
    hair: Colour
    hair_style: str
    beard: str
    beard_strength: float
    freckles: float
    cloth: Colour
    collar: str
    background: Colour


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A synthetic person.

    Attributes:
      name: Speaker name in file names.
      seed: Of everything that is random about the person.
      identity: Coefficients of the head's identity basis.
      look: Colours and styles.
      pitch_hz: Mean pitch of the voice.
      tract: Length of the vocal tract relative to a man's: formants lie at 1 / tract.
    """

    name: str
    seed: int
    identity: Float[np.ndarray, " k"]
    look: Look
    pitch_hz: float
    tract: float


def linear(red: float, green: float, blue: float) -> Colour:
    """Returns the linear colour of a picture's colour 0..1."""
    return (red**2.2, green**2.2, blue**2.2)


# From fair to deep, as a picture shows them.
_SKIN_TONES = np.array(
    [
        (0.93, 0.78, 0.71),
        (0.90, 0.72, 0.62),
        (0.85, 0.65, 0.53),
        (0.77, 0.57, 0.44),
        (0.67, 0.47, 0.35),
        (0.53, 0.355, 0.26),
        (0.40, 0.26, 0.19),
        (0.31, 0.20, 0.15),
    ]
)
_HAIR_COLOURS = {
    "black": (0.075, 0.065, 0.065),
    "dark_brown": (0.15, 0.10, 0.07),
    "brown": (0.28, 0.18, 0.12),
    "auburn": (0.38, 0.17, 0.10),
    "ginger": (0.60, 0.31, 0.14),
    "blond": (0.70, 0.54, 0.33),
    "grey": (0.50, 0.49, 0.48),
}
_IRIS_COLOURS = {
    "dark": (0.25, 0.16, 0.10),
    "brown": (0.40, 0.26, 0.14),
    "hazel": (0.46, 0.40, 0.20),
    "green": (0.36, 0.48, 0.36),
    "blue": (0.36, 0.52, 0.68),
    "grey": (0.50, 0.56, 0.60),
}
_IDENTITY_USED = 120


def sample_person(seed: int, *, name: str | None = None) -> Person:
    """Returns the person of a seed; the same one every time."""
    rng = np.random.default_rng([0x50E0, seed])
    feminine = seed % 2 == 0
    tone = _spread(seed, 0.13)
    fair = tone < 0.35
    position = tone * (len(_SKIN_TONES) - 1)
    skin = np.array([np.interp(position, np.arange(len(_SKIN_TONES)), channel) for channel in _SKIN_TONES.T])
    hair_names = ["black", "dark_brown"] if tone > 0.55 else list(_HAIR_COLOURS)[1 if fair else 0 : -1]
    if not feminine and rng.random() < 0.15:
        hair_names = ["grey"]
    hair = str(rng.choice(hair_names))
    iris_names = list(_IRIS_COLOURS)[: 2 if tone > 0.5 else 3] if not fair else list(_IRIS_COLOURS)[1:]
    lip = skin * (0.90, 0.62, 0.66)
    lip_paint = float(rng.uniform(0.4, 1.0)) if feminine and rng.random() < 0.55 else 0.0
    if lip_paint:
        lip = lip * (1 - 0.5 * lip_paint) + 0.5 * lip_paint * np.array(
            colorsys.hsv_to_rgb(rng.uniform(-0.06, 0.01) % 1, 0.68, 0.68)
        )
    beards = ("none", "stubble", "full", "none", "moustache", "goatee")
    styles = ("long", "bob", "bun", "wavy", "fringe") if feminine else ("short", "side_part", "buzz", "crop", "quiff")
    hair_linear = linear(*_HAIR_COLOURS[hair])
    darker = 0.55 if hair in ("blond", "ginger", "grey") else 0.9
    look = Look(
        skin=linear(*skin),
        lip=linear(*lip),
        lip_paint=lip_paint,
        brow=tuple(darker * channel for channel in hair_linear),  # type: ignore[arg-type]
        brow_width=float(rng.uniform(0.65, 0.95) if feminine else rng.uniform(1.0, 1.45)),
        lash=float(rng.uniform(0.7, 1.0) if feminine else rng.uniform(0.25, 0.45)),
        iris=linear(*_IRIS_COLOURS[str(rng.choice(iris_names))]),
        hair=hair_linear,
        hair_style=styles[(seed // 2) % len(styles)],
        beard="none" if feminine else beards[(seed // 2 + int(rng.integers(2))) % len(beards)],
        beard_strength=float(rng.uniform(0.6, 1.0)),
        freckles=float(rng.uniform(0.3, 1.0)) if fair and rng.random() < 0.4 else 0.0,
        cloth=linear(*colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.65), rng.uniform(0.2, 0.85))),
        collar=str(rng.choice(["crew", "v", "shirt"])),
        background=linear(*colorsys.hsv_to_rgb(_spread(seed, 0.4), rng.uniform(0.12, 0.4), rng.uniform(0.45, 0.75))),
    )
    identity = 0.85 * np.clip(rng.standard_normal(_IDENTITY_USED), -2.2, 2.2)
    identity = identity + rng.uniform(0.5, 1.1) * (-1 if feminine else 1) * _masculine_direction()
    pitch = rng.uniform(175, 235) if feminine else rng.uniform(92, 140)
    tract = rng.uniform(0.82, 0.90) if feminine else rng.uniform(0.95, 1.06)
    return Person(name or f"syn{seed:03d}", seed, identity.astype(np.float32), look, float(pitch), float(tract))


@functools.cache
def _masculine_direction() -> Float[np.ndarray, " k"]:
    """Identity coefficients that come closest to a stronger jaw, chin, brow, nose and neck, and thinner lips."""
    head = build_head()
    x, y, z = head.v_template.T.astype(np.float64)
    front = ramp(z, 0.0, 0.04)
    wide = x * (0.075 * bell(y + 0.062, 0.024) + 0.08 * ramp(y, -0.078, -0.105) + 0.020 * bell(y - 0.04, 0.04))
    tall = -0.0040 * ramp(y, -0.050, -0.085) - 0.0016 * mirrored_bell(x, 0.030, 0.025) * bell(y - 0.041, 0.008) * front
    tall += 0.0012 * bell(x, 0.02) * (bell(y + 0.053, 0.006) - bell(y + 0.036, 0.006)) * front
    deep = 0.0030 * bell(y - 0.043, 0.010) * front + 0.0026 * bell(x, 0.018) * bell(y + 0.078, 0.014) * front
    deep += 0.0026 * bell(x, 0.011) * bell(y + 0.006, 0.016) * front - 0.0012 * bell(x, 0.022) * bell(y + 0.044, 0.010)
    wanted = np.stack([wide, tall, deep], -1)[::3].ravel()
    basis = head.shapedirs[::3, :, :_IDENTITY_USED].reshape(-1, _IDENTITY_USED).astype(np.float64)
    # Coefficients have unit variance: the ridge is the variance of what no component should be bent to match.
    ridge = len(wanted) * 0.0012**2
    return np.linalg.solve(basis.T @ basis + ridge * np.eye(_IDENTITY_USED) / 50, basis.T @ wanted)


def _spread(seed: int, start: float) -> float:
    """A number in 0..1 that differs much between neighbouring seeds: the golden ratio's sequence."""
    return (start + seed * 0.6180339887) % 1.0
