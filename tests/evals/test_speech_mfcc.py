"""SyncNet's cepstra: rows of the package it was trained with, and its rules at the ends of the sound."""

import json
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.speech_mfcc import INT16_AMPLITUDE, STEP_25FPS, STEP_30FPS, syncnet_mfcc

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "speech_mfcc.json").read_text())


def formula_sound(count=4000):
    """A rising tone under a steady one, with digital silence in between."""
    k = np.arange(count)
    sound = 0.4 * np.sin(0.05 * k + 2e-5 * k * k) + 0.2 * np.sin(0.9 * k)
    sound[1600:2300] = 0
    return sound


@pytest.mark.parametrize(("name", "step", "amplitude"), [("25fps", 160, 32768.0), ("30fps", 133, 1.0)])
def test_rows_are_those_of_the_reference_package(name, step, amplitude):
    columns = syncnet_mfcc(formula_sound(), step, amplitude=amplitude)
    assert columns.shape == (GOLDEN[name]["columns"], 13)
    for row, expected in GOLDEN[name]["rows"].items():
        # The golden has twelve digits; the two agree to the last bit where it was made.
        np.testing.assert_allclose(columns[int(row)], expected, rtol=1e-9, atol=1e-9, err_msg=row)


@pytest.mark.parametrize(
    ("count", "step", "columns"),
    [
        (1, 160, 1),
        (399, 133, 1),
        (400, 133, 1),
        (401, 160, 2),
        (533, 133, 2),
        (534, 133, 3),
        (560, 160, 2),
        (561, 160, 3),
    ],
)
def test_the_last_window_is_filled_with_zeros(count, step, columns):
    sound = formula_sound(count)
    made = syncnet_mfcc(sound, step)
    assert made.shape == (columns, 13)
    # Samples that the pre-emphasis turns into zeros.
    longer = list(sound)
    while len(longer) < 400 + (columns - 1) * step:
        longer.append(0.97 * longer[-1])
    np.testing.assert_array_equal(syncnet_mfcc(np.array(longer), step), made)


def test_only_the_energy_tells_16_bit_integers_from_fractions():
    sound = formula_sound()[:1600]
    small, large = syncnet_mfcc(sound, STEP_25FPS), syncnet_mfcc(sound, STEP_25FPS, amplitude=INT16_AMPLITUDE)
    np.testing.assert_allclose(large[:, 1:], small[:, 1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(large[:, 0] - small[:, 0], 2 * np.log(32768), rtol=0, atol=1e-9)


def test_long_sound_is_the_same_in_pieces():
    sound = np.random.default_rng(0).normal(0, 0.1, 4100 * STEP_30FPS)
    columns = syncnet_mfcc(sound, STEP_30FPS)
    later = syncnet_mfcc(sound[4080 * STEP_30FPS :], STEP_30FPS)
    # The first window of the later part lacks the sample before it.
    np.testing.assert_allclose(columns[4081:], later[1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sound", [np.zeros(0), np.array([0.0, np.nan])])
def test_no_sound_is_refused(sound):
    with pytest.raises(InputError, match="expected finite"):
        syncnet_mfcc(sound, STEP_25FPS)
