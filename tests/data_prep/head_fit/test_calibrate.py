import numpy as np

from data_prep.head_fit.calibrate import MIRROR, learn_table
from data_prep.head_fit.head_assets import builtin_assets
from tests.acceptance.synthetic_truth import act_clip


def test_a_detectors_bias_is_learnt() -> None:
    """Inner brow ends 3 mm too high and mouth corners 2 mm too far out, in every frame of two speakers."""
    bias = np.zeros((68, 2))
    bias[[21, 22], 1] = -3
    bias[48, 0], bias[54, 0] = -2, 2
    speakers = {
        str(seed): [act_clip(seed, "neutral", take=0, syllables=(3, 4)).landmarks[::2] + bias] for seed in (3, 4)
    }
    table = learn_table("mediapipe", speakers, builtin_assets())
    offsets = 1000 * table.offsets_m
    # The shape takes the smooth part of the bias; the rest must be there, on the right landmarks and sides.
    assert (offsets[[4, 5], 1] > 1).all()
    assert offsets[31, 0] < -0.5
    assert offsets[37, 0] > 0.5
    others = np.delete(np.abs(offsets), [3, 4, 5, 6, 31, 37, 43, 47], axis=0)
    assert np.median(others) < 0.3


def test_mirror_is_its_own_inverse() -> None:
    assert [MIRROR[MIRROR[k]] for k in range(68)] == list(range(68))
    assert sum(MIRROR[k] == k for k in range(68)) == 10
