"""Facial action units as displacement fields, the seven emotions and the visemes as their combinations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from data_prep.synthetic.skin_surface import (
    EYE_HALF_WIDTH,
    EYE_RADIUS,
    EYE_X,
    EYE_Y,
    EYE_Z,
    LID_RADIUS,
    MOUTH_HALF_WIDTH,
    MOUTH_Y,
    Field,
    SkinSheet,
    bell,
    mirrored_bell,
    ramp,
)

__all__ = [
    "ACTION_UNITS",
    "EMOTION_UNITS",
    "EXPRESSION_SIZE",
    "SPEECH_CHANNELS",
    "UPPER_FACE_UNITS",
    "VISEMES",
    "action_unit_fields",
    "expression_vector",
    "jaw_weights",
    "speech_units",
]

EXPRESSION_SIZE = 50
"""Expression coefficients of the head; those beyond the named units are zero fields."""

SYMMETRIC_UNITS = (
    "brow_inner_up",
    "brow_outer_up",
    "brow_lower",
    "lid_wide",
    "blink",
    "squint",
    "cheek_raise",
    "nose_wrinkle",
    "smile",
    "corner_down",
    "lip_stretch",
    "pucker",
    "upper_lip_raise",
    "lower_lip_down",
    "lower_lip_tuck",
    "lip_press",
    "chin_raise",
    "cheek_puff",
)

ACTION_UNITS = (*SYMMETRIC_UNITS, *(f"{name}_left" for name in SYMMETRIC_UNITS if name != "pucker"))
"""Names of the expression coefficients in order. "_left" adds to the person's left what it takes from the right."""

UPPER_FACE_UNITS = ("brow_inner_up", "brow_outer_up", "brow_lower", "lid_wide", "squint")
"""Units that move nothing below the cheeks."""

EMOTION_UNITS: Mapping[str, Mapping[str, float]] = {
    "neutral": {},
    "angry": {"brow_lower": 1.2, "squint": 0.35, "lid_wide": 0.25, "nose_wrinkle": 0.4, "lip_press": 0.3},
    "disgusted": {
        "nose_wrinkle": 1.2,
        "upper_lip_raise": 0.8,
        "brow_lower": 0.5,
        "squint": 0.65,
        "corner_down": 0.35,
        "cheek_raise": 0.5,
    },
    "fear": {"brow_inner_up": 1.05, "brow_outer_up": 0.5, "brow_lower": 0.4, "lid_wide": 1.0, "lip_stretch": 0.8},
    "happy": {"smile": 1.05, "cheek_raise": 0.9, "squint": 0.35, "upper_lip_raise": 0.20},
    "sad": {"brow_inner_up": 1.1, "brow_lower": 0.25, "corner_down": 1.0, "blink": 0.22, "chin_raise": 0.3},
    "surprised": {"brow_inner_up": 1.05, "brow_outer_up": 1.2, "lid_wide": 1.15},
}
"""Action units of each emotion at intensity 1; jaw, lower lip and pucker belong to speech."""

assert tuple(EMOTION_UNITS) == EMOTIONS

SPEECH_CHANNELS = ("jaw", "spread", "pucker", "lower_lip")
"""What a speech track holds per frame: jaw angle in radians, then strengths; lower_lip is -1 (tucked in) to 1."""

VISEMES: Mapping[str, tuple[float, float, float, float]] = {
    "silence": (0.000, 0.00, 0.00, 0.00),
    "a": (0.330, 0.10, 0.00, 0.25),
    "e": (0.180, 0.60, 0.00, 0.25),
    "i": (0.075, 0.90, 0.00, 0.30),
    "o": (0.245, 0.00, 0.75, 0.00),
    "u": (0.095, 0.00, 1.00, 0.00),
    "m": (0.000, 0.00, 0.10, -0.30),
    "f": (0.055, 0.25, 0.00, -1.00),
    "s": (0.050, 0.55, 0.00, 0.45),
    "sh": (0.075, 0.00, 0.70, 0.45),
    "l": (0.165, 0.25, 0.00, 0.20),
    "n": (0.095, 0.30, 0.00, 0.15),
}
"""Mouth shapes of speech in `SPEECH_CHANNELS`."""


def speech_units(speech: Float[np.ndarray, "*t 4"]) -> dict[str, Float[np.ndarray, "*t"]]:
    """Returns the action units that a speech track sets, besides the jaw's angle."""
    spread, pucker, lower_lip = speech[..., 1], speech[..., 2], speech[..., 3]
    return {
        "lip_stretch": 0.55 * spread,
        "pucker": pucker,
        "lower_lip_down": np.maximum(lower_lip, 0) * 0.8,
        "lower_lip_tuck": np.maximum(-lower_lip, 0),
        "upper_lip_raise": np.maximum(-lower_lip - 0.35, 0) * 0.75,  # the teeth on the lip show
    }


def expression_vector(*parts: Mapping[str, float | Float[np.ndarray, "t"]]) -> Float[np.ndarray, "*t 50"]:
    """Returns the sum of named action units as expression coefficients.

    Args:
      *parts: Strengths by name, as numbers or as tracks of one length.

    Raises:
      KeyError: A name that is no action unit.
    """
    position = {name: index for index, name in enumerate(ACTION_UNITS)}
    strengths = [(position[name], np.asarray(value, np.float32)) for part in parts for name, value in part.items()]
    shape = np.broadcast_shapes(*(value.shape for _, value in strengths)) if strengths else ()
    vector = np.zeros((*shape, EXPRESSION_SIZE), np.float32)
    for index, value in strengths:
        vector[..., index] += value
    return vector


def action_unit_fields(skin: SkinSheet) -> Float[np.ndarray, "n 3 50"]:
    """Returns the displacement of each skin vertex per unit of each expression coefficient, in metres."""
    upper_face, lower_face = _upper_face_fields(skin), _lower_face_fields(skin)
    fields = np.zeros((len(skin.vertices), 3, EXPRESSION_SIZE))
    handedness = np.tanh(skin.vertices[:, :1] / 0.006)
    for index, name in enumerate(ACTION_UNITS):
        base = name.removesuffix("_left")
        field = upper_face[base] if base in upper_face else lower_face[base]
        fields[:, :, index] = field if name == base else field * handedness
    return fields


def jaw_weights(skin: SkinSheet) -> Float[np.ndarray, " n"]:
    """Returns the share of the jaw's rotation each skin vertex takes.

    Between the corners the lips part along an ellipse, which is what makes an open mouth round; beyond the corners
    the share falls smoothly from the jaw's edge to the cheek.
    """
    x, y, z = skin.vertices.T
    along = np.clip(np.abs(x) / _corner(skin), 0, 1)
    parting = np.sqrt(np.clip(1 - along**2, 0, 1)) ** 0.9
    height = y - MOUTH_Y
    lower = skin.below_mouth
    lips = np.where(lower, 0.5 + 0.5 * parting, 0.5 - 0.5 * parting)
    # Away from the lips the seam is forgotten: all of the jaw below, nothing above.
    far = np.where(lower, ramp(height, 0.012, -0.018), ramp(height, 0.016, -0.016))
    near = np.where(lower, bell(height, 0.010), bell(height, 0.0105))
    weight = near * lips + (1 - near) * far
    sideways = 1 - ramp(np.abs(x), 0.030, 0.064) * ramp(height, -0.035, 0.004)
    hinge = ramp(z, -0.012, 0.040)
    throat = 1 - ramp(_loop_of(skin), 13.6, 15.4)
    return np.clip(weight * sideways * hinge * throat, 0, 1)


def _corner(skin: SkinSheet) -> float:
    return float(np.abs(skin.vertices[skin.lip_edge[0], 0]).max())


def _loop_of(skin: SkinSheet) -> Float[np.ndarray, " n"]:
    rows, columns = skin.grid_shape
    return np.concatenate([np.repeat(skin.loop, columns), np.full(len(skin.vertices) - rows * columns, 9.0)])


def _vectors(x: Field | float, y: Field | float, z: Field | float, weight: Field) -> Float[np.ndarray, "n 3"]:
    return np.stack([np.broadcast_to(part, weight.shape) * weight for part in (x, y, z)], -1)


def _upper_face_fields(skin: SkinSheet) -> dict[str, Float[np.ndarray, "n 3"]]:
    x, y, z = skin.vertices.T
    front = ramp(z, 0.015, 0.045)
    side = np.tanh(x / 0.004)
    brow_y = 0.0415
    inner_up = _vectors(-0.0008 * side, 0.0098, 0.0008, mirrored_bell(x, 0.0125, 0.0105) * bell(y - brow_y, 0.0095))
    inner_up -= _vectors(0, 0.0022, 0, mirrored_bell(x, 0.0450, 0.0090) * bell(y - 0.037, 0.0085))
    inner_up += _vectors(0, 0.0030, 0, bell(x, 0.026) * bell(y - 0.064, 0.010))
    outer_up = _vectors(0, 0.0088, 0.0004, mirrored_bell(x, 0.0410, 0.0125) * bell(y - brow_y, 0.0105))
    outer_up += _vectors(0, 0.0030, 0, mirrored_bell(x, 0.0350, 0.020) * bell(y - 0.064, 0.010))
    lower = _vectors(
        -0.0030 * side, -0.0070, 0.0014, mirrored_bell(x, 0.0155, 0.0120) * bell(y - brow_y + 0.001, 0.0085)
    )
    lower += _vectors(0, -0.0030, 0.0004, mirrored_bell(x, 0.0330, 0.0110) * bell(y - brow_y, 0.0080))
    lower += _vectors(0, 0.0012, 0, mirrored_bell(x, 0.0500, 0.0080) * bell(y - brow_y, 0.0090))
    lower -= _vectors(0, 0, 0.0022, mirrored_bell(x, 0.0038, 0.0014) * bell(y - 0.0400, 0.0070))  # frown lines
    wrinkle = _vectors(-0.0006 * side, 0.0042, 0.0010, mirrored_bell(x, 0.0125, 0.0075) * bell(y + 0.0090, 0.0110))
    wrinkle += _vectors(0, -0.0034, 0.0008, mirrored_bell(x, 0.0110, 0.0100) * bell(y - 0.0370, 0.0080))
    wrinkle -= _vectors(0, 0, 0.0012, bell(x, 0.0080) * bell(y - 0.0180, 0.0016))
    wrinkle -= _vectors(0, 0, 0.0010, bell(x, 0.0080) * bell(y - 0.0110, 0.0016))
    cheek = _vectors(0, 0.0044, 0.0040, mirrored_bell(x, 0.0370, 0.0125) * bell(y + 0.0060, 0.0100))
    cheek -= _vectors(0, 0, 0.0010, mirrored_bell(x, 0.0500, 0.0050) * bell(y - 0.0200, 0.0100))
    fields = {
        "brow_inner_up": inner_up,
        "brow_outer_up": outer_up,
        "brow_lower": lower,
        "nose_wrinkle": wrinkle,
        "cheek_raise": cheek,
    }
    fields = {name: field * front[:, None] for name, field in fields.items()}
    return {name: _carry_lids(skin, field) for name, field in fields.items()} | _lid_fields(skin)


def _carry_lids(skin: SkinSheet, field: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Fades a field out toward the lids' edges, which lids alone move."""
    x, y, _ = skin.vertices.T
    from_eye = np.minimum(np.hypot(x - EYE_X, 1.25 * (y - EYE_Y)), np.hypot(x + EYE_X, 1.25 * (y - EYE_Y)))
    return field * ramp(from_eye, 0.0085, 0.0190)[:, None]


def _lid_fields(skin: SkinSheet) -> dict[str, Float[np.ndarray, "n 3"]]:
    """Lids slide over the ball: every field's end point lies on it."""
    # Strength of the upper lid's lift and of the lower lid's, in metres at the middle of the eye.
    travel = {"blink": (-0.0101, 0.0018), "lid_wide": (0.0026, -0.0008), "squint": (-0.0018, 0.0026)}
    rest = skin.vertices
    x, y, z = rest.T
    fields = {}
    for name, (upper, lower) in travel.items():
        field = np.zeros_like(rest)
        for side, edges in zip((-1, 1), skin.lid_edges, strict=True):
            along = (x - side * EYE_X) / EYE_HALF_WIDTH
            edge_y = [_edge_height(rest[edge], x) for edge in edges]
            is_upper = ~skin.below_eyes
            reach = np.clip(1 - along**2, 0, None) * (z > 0.03)
            opening = np.clip((edge_y[0] - edge_y[1]) / 0.0105, 0, 1.2) * (reach > 0)
            beyond = np.where(is_upper, y - edge_y[0], edge_y[1] - y)
            falloff = np.exp(-np.clip(beyond, 0, None) / np.where(is_upper, 0.0058, 0.0052))
            amount = np.where(is_upper, upper, lower) * opening * falloff
            end = y + amount
            climb = _ball_height(x - side * EYE_X, end) - _ball_height(x - side * EYE_X, y)
            covered = ramp(np.hypot(x - side * EYE_X, y - EYE_Y), 1.02 * LID_RADIUS, 0.9 * LID_RADIUS)
            field += np.stack([0 * x, amount, climb * covered], -1) * (z > 0.03)[:, None]
        fields[name] = field
    soft = ramp(np.abs(y - 0.006), 0.012, 0.0) * ramp(z, 0.015, 0.045) * mirrored_bell(x, 0.036, 0.012)
    fields["squint"] = fields["squint"] + _vectors(0, 0.0012, 0.0010, soft)
    return fields


def _edge_height(edge: Float[np.ndarray, "m 3"], x: Field) -> Field:
    return np.interp(x, edge[:, 0], edge[:, 1])


def _ball_height(x: Field, y: Field) -> Field:
    return EYE_Z + np.sqrt(np.clip(LID_RADIUS**2 - x**2 - (y - EYE_Y) ** 2, (0.25 * EYE_RADIUS) ** 2, None))


def _lower_face_fields(skin: SkinSheet) -> dict[str, Float[np.ndarray, "n 3"]]:
    x, y, z = skin.vertices.T
    front = ramp(z, 0.010, 0.040) * ramp(_loop_of(skin), 15.0, 13.6)
    side = np.tanh(x / 0.004)
    lower = skin.below_mouth
    corner = mirrored_bell(x, MOUTH_HALF_WIDTH, 0.0105) * bell(y - MOUTH_Y, 0.0140)
    across = np.clip(1 - np.square(x / _corner(skin)), 0, None)
    height = y - MOUTH_Y
    upper_lip = np.where(lower, 0.0, across**0.6 * np.exp(-np.clip(height, 0, None) / 0.0130))
    lower_lip = np.where(lower, across**0.6 * np.exp(-np.clip(-height, 0, None) / 0.0120), 0.0)
    middle = bell(x, 0.0140) * bell(height, 0.0110)
    fold = mirrored_bell(x, 0.0300, 0.0030) * bell(y + 0.0310, 0.0100)

    smile = _vectors(0.0088 * side, 0.0090, -0.0046, corner)
    smile += _vectors(0.0010 * side, 0.0042, 0.0036, mirrored_bell(x, 0.0400, 0.0115) * bell(y + 0.0140, 0.0120))
    smile += _vectors(0, 0.0020, -0.0016, upper_lip * bell(x, 0.016)) - _vectors(0, 0, 0.0022, fold)
    smile += _vectors(0, 0.0012, -0.0010, lower_lip * bell(x, 0.016))
    down = _vectors(0.0012 * side, -0.0082, -0.0012, corner)
    down += _vectors(0, 0.0012, 0.0006, middle) - _vectors(
        0, 0, 0.0014, mirrored_bell(x, 0.0330, 0.003) * bell(y + 0.056, 0.008)
    )
    stretch = _vectors(0.0092 * side, -0.0018, -0.0058, corner) - _vectors(0, 0, 0.0010, middle)
    reach = bell(x, 0.0165) * bell(height, 0.0125)
    pucker = _vectors(-0.0108 * side, 0, 0.0030, corner) + _vectors(-0.22 * x, 0, 0.0072, reach)
    # Lips round up: where they meet the skin, their middle flattens and their sides fill.
    upper_border, lower_border = bell(height - 0.0090, 0.0042), bell(height + 0.0105, 0.0048)
    pucker += _vectors(0, -0.0030, 0, upper_border * bell(x, 0.0065)) + _vectors(
        0, 0.0022, 0, lower_border * bell(x, 0.008)
    )
    sides = mirrored_bell(x, 0.0165, 0.0065)
    pucker += _vectors(0, 0.0022, 0.0016, upper_border * sides) + _vectors(0, -0.0026, 0.0016, lower_border * sides)
    nostril = mirrored_bell(x, 0.0135, 0.0070) * bell(y + 0.0180, 0.0075)
    raise_ = _vectors(0, 0.0070, 0.0012, upper_lip * (0.55 * bell(x, 0.020) + 0.55 * mirrored_bell(x, 0.0130, 0.0080)))
    raise_ += _vectors(0, 0.0028, 0.0004, nostril) - _vectors(
        0, 0, 0.0020, mirrored_bell(x, 0.0250, 0.003) * bell(y + 0.0260, 0.008)
    )
    drop = _vectors(0, -0.0062, 0.0006, lower_lip * bell(x, 0.0190))
    tuck = _vectors(0, 0.0030, -0.0052, lower_lip * bell(x, 0.0200)) + _vectors(
        0, 0.0012, 0, bell(x, 0.017) * bell(y + 0.066, 0.01)
    )
    press = _vectors(0, -0.0016, -0.0030, upper_lip * bell(x, 0.022)) + _vectors(
        0, 0.0016, -0.0034, lower_lip * bell(x, 0.022)
    )
    press += _vectors(0, 0, 0.0016, bell(x, 0.020) * (bell(height - 0.0115, 0.003) + bell(height + 0.0140, 0.003)))
    chin = _vectors(0, 0.0042, 0.0020, bell(x, 0.0150) * bell(y + 0.0720, 0.0100)) + _vectors(
        0, 0.0022, 0.0020, lower_lip * bell(x, 0.016)
    )
    chin += _vectors(0, 0.0016, 0.0008, upper_lip * bell(x, 0.016))
    puff = _vectors(0.0030 * side, 0, 0.0046, mirrored_bell(x, 0.0360, 0.0120) * bell(y + 0.0380, 0.0130))
    fields = {
        "smile": smile,
        "corner_down": down,
        "lip_stretch": stretch,
        "pucker": pucker,
        "upper_lip_raise": raise_,
        "lower_lip_down": drop,
        "lower_lip_tuck": tuck,
        "lip_press": press,
        "chin_raise": chin,
        "cheek_puff": puff,
    }
    return {name: field * front[:, None] for name, field in fields.items()}
