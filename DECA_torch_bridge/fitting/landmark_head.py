"""What of a head matters for 68 landmarks: 51 points fixed to its skin and the candidates for its outline."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from DECA_torch_bridge.fitting.contour import CONTOUR, contour_candidates
from DECA_torch_bridge.fitting.landmark_tables import LandmarkTable
from DECA_torch_bridge.head_assets import HeadAssets

__all__ = ["EXPRESSION_START", "IDENTITY_SIZE", "STATIC", "LandmarkHead", "build_landmark_head"]

STATIC = 51
"""Landmarks 17..67: brows, nose, eyes, lips."""

EXPRESSION_START = 300
IDENTITY_SIZE = 100

_ROOT, _JAW = 0, 2
_JAW_FEATURES = slice(9, 18)  # the pose correctives that follow the jaw's rotation


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkHead:
    """Points of a head as linear functions of identity and expression, metres, before the jaw and the head turn.

    Attributes:
      points: 51 static landmarks, then candidates for the outline, at rest.
      identity: Their displacement per identity coefficient.
      expression: Their displacement per expression coefficient.
      jaw_weights: Share of the jaw's rotation each takes.
      jaw_correctives: Displacement per entry of the jaw's rotation matrix minus one.
      joints: Root and jaw joint of the mean head.
      joint_identity: Displacement of both joints per identity coefficient.
      joint_expression: Displacement of both joints per expression coefficient.
      insets: How far inside the outline each of the landmarks 0..16 lies.
      centre: Point that the fit turns the head about; the root joint takes its place in the result.
      unit_names: Names of the expression coefficients where they are action units, else empty.
    """

    points: Float[np.ndarray, "k 3"]
    identity: Float[np.ndarray, "k 3 i"]
    expression: Float[np.ndarray, "k 3 e"]
    jaw_weights: Float[np.ndarray, " k"]
    jaw_correctives: Float[np.ndarray, "k 3 9"]
    joints: Float[np.ndarray, "2 3"]
    joint_identity: Float[np.ndarray, "2 3 i"]
    joint_expression: Float[np.ndarray, "2 3 e"]
    insets: Float[np.ndarray, "17"]
    centre: Float[np.ndarray, "3"]
    unit_names: tuple[str, ...]

    @property
    def identity_size(self) -> int:
        """Identity coefficients in use."""
        return self.identity.shape[-1]

    @property
    def expression_size(self) -> int:
        """Expression coefficients in use."""
        return self.expression.shape[-1]

    @property
    def size_slope(self) -> Float[np.ndarray, " i"]:
        """Relative growth of the landmarks' spread in the picture plane per identity coefficient."""
        spread = (self.points[:STATIC] - self.points[:STATIC].mean(0))[:, :2]
        change = (self.identity[:STATIC] - self.identity[:STATIC].mean(0))[:, :2]
        return np.einsum("kc,kci->i", spread, change) / np.square(spread).sum()

    def restricted(self, coefficients: slice | list[int]) -> LandmarkHead:
        """Returns the head with some of its expression coefficients."""
        return dataclasses.replace(
            self,
            expression=self.expression[..., coefficients],
            joint_expression=self.joint_expression[..., coefficients],
        )


def build_landmark_head(
    assets: HeadAssets, table: LandmarkTable, *, identity_size: int = IDENTITY_SIZE
) -> LandmarkHead:
    """Returns the landmarks of a head as a detector sees them.

    Args:
      assets: The head.
      table: Where the detector puts its landmarks on this head.
      identity_size: Identity coefficients to fit.
    """
    candidates = contour_candidates(assets)
    corners = assets.faces[assets.static_landmark_faces]
    weights = assets.static_landmark_weights.astype(np.float64)

    def at_points(field: np.ndarray) -> np.ndarray:
        """Values of a per-vertex field at landmarks and candidates."""
        static = np.einsum("kj,kj...->k...", weights, field[corners].astype(np.float64))
        return np.concatenate([static, field[candidates].astype(np.float64)])

    names, used = _expression_coefficients(assets)
    identity = assets.shapedirs[:, :, :identity_size]
    expression = assets.shapedirs[:, :, EXPRESSION_START : EXPRESSION_START + used]
    regressor = assets.joint_regressor[[_ROOT, _JAW]].astype(np.float64)
    points = at_points(assets.v_template)
    points[:STATIC] += table.offsets_m
    return LandmarkHead(
        points=points,
        identity=at_points(identity),
        expression=at_points(expression),
        jaw_weights=at_points(assets.skinning_weights[:, _JAW]),
        jaw_correctives=at_points(assets.posedirs[:, :, _JAW_FEATURES]),
        joints=regressor @ assets.v_template.astype(np.float64),
        joint_identity=np.einsum("jn,nci->jci", regressor, identity, optimize=True),
        joint_expression=np.einsum("jn,nce->jce", regressor, expression, optimize=True),
        insets=table.insets_m.copy(),
        centre=points[:STATIC].mean(0),
        unit_names=names,
    )


def _expression_coefficients(assets: HeadAssets) -> tuple[tuple[str, ...], int]:
    """Names of the action units, where there are, and how many coefficients are worth fitting."""
    if assets.source != "builtin":
        return (), assets.expression_size
    from data_prep.synthetic.action_units import ACTION_UNITS

    return ACTION_UNITS, len(ACTION_UNITS)


assert STATIC + CONTOUR == 68
