"""Landmark back ends: what they find, and what they say where something is missing."""

import sys
import types
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.evaluate.landmark_sources import LandmarkFinder
from data_prep.evaluate.score_cache import Fingerprints, ScoreCache
from data_prep.evaluate.video_features import read_features
from data_prep.media import mediapipe_worker
from data_prep.media.clips import Clip
from data_prep.media.decode import BrokenMediaError, Frame
from data_prep.media.landmarks import FaceAlignment, LandmarkSettings, MediaPipe, Precomputed, make_backend
from data_prep.prepare.clip_records import ClipSettings, WorkFolder, prepare_clip
from tests.data_prep.tiny_media import face_points, picture, write_landmarks, write_video


def clip(video, **fields):
    named = {"clip_id": "A/sad/1", "speaker": "A", "emotion": "sad", "sentence": "1", "name": "1"}
    return Clip(**{**named, **fields}, video=video)


def frames(*source_indices):
    return [Frame(number, source, 0.0, picture(source)) for number, source in enumerate(source_indices)]


@pytest.mark.parametrize("key", ["landmarks68", "lm68"])
def test_precomputed_rows_are_those_of_the_source_frames(tmp_path, key):
    write_landmarks(tmp_path / "a.npz", 5, missing=[3], key=key)
    points = Precomputed().landmarks68(frames(1, 3), clip(tmp_path / "a.mp4"))
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[0], face_points())
    assert np.isnan(points[1]).all()


def test_precomputed_files_are_looked_for_in_order(tmp_path):
    (tmp_path / "given" / "A" / "sad").mkdir(parents=True)
    backend = Precomputed(tmp_path / "given")
    beside, named = tmp_path / "a.npz", tmp_path / "elsewhere.npz"
    assert backend.find(clip(tmp_path / "a.mp4")) is None
    write_landmarks(beside, 1)
    assert backend.find(clip(tmp_path / "a.mp4")) == beside
    write_landmarks(tmp_path / "given" / "a.npz", 1)
    assert backend.find(clip(tmp_path / "a.mp4")) == tmp_path / "given" / "a.npz"
    write_landmarks(tmp_path / "given" / "A" / "sad" / "1.npz", 1)
    assert backend.find(clip(tmp_path / "a.mp4")) == tmp_path / "given" / "A" / "sad" / "1.npz"
    assert backend.find(clip(tmp_path / "a.mp4", landmarks=named)) is None
    write_landmarks(named, 1)
    assert backend.find(clip(tmp_path / "a.mp4", landmarks=named)) == named


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"other": np.zeros(3)}, "no array landmarks68 or lm68; it has other"),
        ({"lm68": np.zeros((4, 5, 2))}, r"shape \(4, 5, 2\)"),
        ({"lm68": np.array([{}], object)}, "allow_pickle"),
        ({"lm68": np.full((3, 68, 2), "12")}, "landmark file a.npz: <U2, expected floating-point numbers"),
        ({"lm68": np.zeros((3, 68, 2), complex)}, "landmark file a.npz: complex128, expected floating-point numbers"),
        (None, "landmark file a.npz"),
    ],
)
def test_a_wrong_landmark_file_costs_its_clip_and_says_why(tmp_path, arrays, reason):
    if arrays is None:
        (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 broken")
    else:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BrokenMediaError, match=reason):
        Precomputed().landmarks68(frames(0, 1, 2), clip(tmp_path / "a.mp4"))


def test_a_landmark_file_that_cannot_be_inflated_costs_its_clip(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", lm68=np.arange(3 * 68 * 2.0).reshape(3, 68, 2))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    start = content.find(b"lm68.npy") + len("lm68.npy") + int.from_bytes(content[28:30], "little")
    content[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BrokenMediaError, match=r"landmark file a\.npz: Error -3 while decompressing"):
        Precomputed().landmarks68(frames(0, 1, 2), clip(tmp_path / "a.mp4"))


@pytest.mark.parametrize("rows", [2, 5])
def test_landmarks_of_more_or_fewer_frames_than_are_shown_are_refused_with_both_counts(tmp_path, rows):
    write_landmarks(tmp_path / "a.npz", rows)
    backend, of = Precomputed(), clip(tmp_path / "a.mp4")
    assert backend.landmarks68(frames(0, 1, 2), of).shape == (3, 68, 2)
    with pytest.raises(BrokenMediaError, match=f"{rows} rows, the video 3 frames: .* find them again"):
        backend.check_count(lambda: 3, of)
    backend.check_count(lambda: rows, of)


@pytest.mark.parametrize("options", [{}, {"fps": 15.0}, {"max_frames": 2}], ids=str)
@pytest.mark.parametrize("rows", [4, 5, 8])
def test_a_clip_is_prepared_with_a_row_for_each_frame_that_is_shown_only(tmp_path, rows, options):
    write_video(tmp_path / "a.mp4", 5)
    write_landmarks(tmp_path / "a.npz", rows)
    (tmp_path / "clips").mkdir()
    backend, settings = Precomputed(), ClipSettings(image_size=16, **options)
    status = prepare_clip(clip(tmp_path / "a.mp4"), settings, backend, WorkFolder(tmp_path))
    if rows == 5:
        assert status.problem is None and status.kept
    else:
        assert f"{rows} rows, the video 5 frames" in status.problem


@pytest.mark.parametrize("rows", [4, 5, 8])
def test_a_clip_is_scored_with_a_row_for_each_frame_that_is_shown_only(tmp_path, rows):
    write_video(tmp_path / "a.mp4", 5)
    write_landmarks(tmp_path / "a.npz", rows)
    of = clip(tmp_path / "a.mp4")
    finder = LandmarkFinder(["precomputed"], LandmarkSettings(), Fingerprints())
    found = read_features(of, "key", finder.choose(of), [], ScoreCache(tmp_path / "work"), crop=False)
    assert (found.landmarks is not None) == (rows == 5)
    assert rows == 5 or f"{rows} rows, the video 5 frames" in found.landmarks_remark


def test_a_missing_landmark_file_costs_its_clip(tmp_path):
    with pytest.raises(BrokenMediaError, match="no landmark file"):
        Precomputed().landmarks68(frames(0), clip(tmp_path / "a.mp4"))


def fake_face_alignment(monkeypatch, network):
    package = types.ModuleType("face_alignment")
    package.LandmarksType = types.SimpleNamespace(TWO_D=1)
    package.FaceAlignment = network
    monkeypatch.setitem(sys.modules, "face_alignment", package)


def test_face_alignment_takes_the_largest_face(monkeypatch):
    class Network:
        def __init__(self, kind, *, device, flip_input, compile=True):
            assert (kind, device, flip_input, compile) == (1, "cpu", True, False)
            self.face_detector = self

        def detect_from_image(self, image):
            return [] if image[-1, -1, 2] == picture(1)[-1, -1, 2] else [(0, 0, 5, 5, 0.9), (0, 0, 9, 9, 0.8)]

        def get_landmarks_from_image(self, image, detected_faces):
            assert detected_faces == [(0, 0, 9, 9, 0.8)]
            return [face_points()]

    fake_face_alignment(monkeypatch, Network)
    no_picture = Frame(2, 2, 0.0, None)
    points = FaceAlignment(device="cpu").landmarks68([*frames(0, 1), no_picture], clip(Path("a.mp4")))
    np.testing.assert_array_equal(points[0], face_points())
    assert np.isnan(points[1:]).all()


def test_absent_weights_are_named_with_their_place(monkeypatch, tmp_path):
    def unreachable(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "s3fd-619a316812.pth").touch()
    fake_face_alignment(monkeypatch, unreachable)
    with pytest.raises(InputError) as caught:
        make_backend(LandmarkSettings())
    message = str(caught.value)
    assert f"goes to {tmp_path / 'hub' / 'checkpoints' / '2DFAN4-11f355bf06.pth.tar'}" in message
    assert "s3fd" not in message  # that one is there
    assert "no network" in message


def test_an_absent_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(InputError, match="pip install --no-deps face-alignment"):
        make_backend(LandmarkSettings())


FAKE_MEDIAPIPE = '''
"""Finds a face in every picture that is bright in its corner; counts the trackers made."""
import types

class FaceMesh:
    made = 0

    def __init__(self, max_num_faces, static_image_mode):
        FaceMesh.made += 1

    def process(self, image):
        print("chatter that must not reach the answers")
        if image[0, 0, 0] < 200:
            return types.SimpleNamespace(multi_face_landmarks=None)
        points = [types.SimpleNamespace(x=v / 500, y=FaceMesh.made / 10) for v in range(468)]
        return types.SimpleNamespace(multi_face_landmarks=[types.SimpleNamespace(landmark=points)])

    def close(self):
        pass

solutions = types.SimpleNamespace(face_mesh=types.SimpleNamespace(FaceMesh=FaceMesh))
'''


@pytest.fixture
def mediapipe_python(tmp_path):
    """An interpreter that finds a stand-in for MediaPipe."""
    (tmp_path / "mediapipe.py").write_text(FAKE_MEDIAPIPE)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def test_mediapipe_next_door_answers_frame_by_frame(mediapipe_python):
    backend = make_backend(LandmarkSettings(backend="mediapipe", mediapipe_python=mediapipe_python))
    dark = Frame(1, 1, 0.0, np.zeros((40, 48, 3), np.uint8))
    bright = [Frame(0, 0, 0.0, np.full((40, 48, 3), 255, np.uint8)), *frames(0)]
    points = backend.landmarks68([bright[0], dark, bright[1], Frame(3, 3, 0.0, None)], clip(Path("a.mp4")))
    mesh = np.array(mediapipe_worker.MESH_POINTS)
    np.testing.assert_allclose(points[0, :, 0], mesh / 500 * 48 - 0.5, rtol=1e-5)
    np.testing.assert_allclose(points[2, :, 0], mesh / 500 * 64 - 0.5, rtol=1e-5)
    assert np.isnan(points[[1, 3]]).all()
    other = backend.landmarks68(frames(0), clip(Path("b.mp4"), clip_id="A/sad/2"))
    np.testing.assert_allclose(other[0, :, 1] - points[2, :, 1], 6.4, rtol=1e-5)  # another tracker for another clip
    backend.close()


def test_mediapipe_that_dies_costs_the_clip_and_is_started_again(mediapipe_python):
    backend = MediaPipe(mediapipe_python)
    backend.landmarks68(frames(0), clip(Path("a.mp4")))
    backend._process.kill()
    backend._process.wait()
    with pytest.raises(BrokenMediaError, match="MediaPipe process ended"):
        backend.landmarks68(frames(0, 1), clip(Path("a.mp4")))
    assert np.isfinite(backend.landmarks68(frames(0), clip(Path("b.mp4")))).all()
    backend.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LandmarkSettings(backend="mediapipe"), "needs --mediapipe-python"),
        (LandmarkSettings(backend="mediapipe", mediapipe_python=Path("/nowhere/python")), "make an environment for it"),
        (LandmarkSettings(backend="precomputed", directory=Path("/nowhere")), "no such folder"),
        (LandmarkSettings(backend="dlib"), "expected one of face-alignment, precomputed, mediapipe"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make_backend(settings)


def test_the_mesh_table_has_each_of_the_68_points_once():
    assert len(mediapipe_worker.MESH_POINTS) == len(set(mediapipe_worker.MESH_POINTS)) == 68
    assert max(mediapipe_worker.MESH_POINTS) < 468
