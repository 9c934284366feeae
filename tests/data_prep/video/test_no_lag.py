"""The whole of `asccl manipulate` from mouth to mouth: what the source's does in frame t is drawn into frame t."""

import dataclasses
import sys

import numpy as np
import pytest

from asccl_jax.models.manipulator import Manipulator
from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import save_manipulator, save_renderer
from data_prep.evaluate.lip_landmarks import lag_frames, mouth_correlation, mouth_opening
from data_prep.media.decode import read_frames
from data_prep.reconstruct.drawing import warped
from data_prep.video.manipulate import Manipulation, main
from tests.data_prep.video.talking_clip import write_talking_clip
from tests.models import tiny_manipulator, tiny_renderer

MANIPULATOR = dataclasses.replace(tiny_manipulator.TINY_MANIPULATOR, coefficients=51)
CHEEKS = slice(120, 150), slice(100, 156)


@pytest.mark.slow
def test_a_result_shows_the_sources_mouth_without_lag(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    talk = write_talking_clip(tmp_path)
    save_manipulator(
        tmp_path / "manipulator", Manipulator(tiny_manipulator.drawn_manipulator(MANIPULATOR), MANIPULATOR)
    )
    save_renderer(
        tmp_path / "renderer",
        Renderer(tiny_renderer.drawn_renderer(tiny_renderer.TINY_RENDERER), tiny_renderer.TINY_RENDERER),
    )
    for name in ("_edit", "_render"):
        monkeypatch.setattr(Manipulation, name, with_copying_networks(getattr(Manipulation, name)))
    output, work = tmp_path / "happy.mp4", tmp_path / "work"
    words = [str(talk), "--emotion", "happy", "-o", str(output), "--work", str(work)]
    words += ["--manipulator", str(tmp_path / "manipulator"), "--renderer", str(tmp_path / "renderer")]
    words += ["--landmarks", "precomputed", "--landmark-table", "synthetic", "--device", "cpu", "--workers", "1"]
    assert main(words) == 0

    with np.load(talk.with_suffix(".npz")) as archive:
        opening = mouth_opening(archive["lm68"])
    (track,) = (work / "records" / "tracks").glob("*.npz")
    with np.load(track) as archive:
        align, flags = archive["align_transforms"], archive["flags"]
    images = (frame.image for frame in read_frames(output))
    faces = [warped(image, None, matrix, 256) for image, matrix in zip(images, align, strict=True)]
    light = np.array([face[CHEEKS].mean() for face in faces])
    light[flags > 0] = np.nan  # frames that stay as they are
    assert lag_frames(opening, light) == 0
    # A fitted head's mouth is not quite the landmarks'; what is drawn of it goes through 32 pixels and H.264.
    assert mouth_correlation(opening, light) > 0.9


def with_copying_networks(stage_of):
    """The stage's own command, with networks that copy."""

    def replaced(run):
        stage = stage_of(run)
        words = [sys.executable, "-m", "tests.data_prep.video.copying_networks", *stage.words[3:]]
        return dataclasses.replace(stage, words=tuple(words))

    return replaced
