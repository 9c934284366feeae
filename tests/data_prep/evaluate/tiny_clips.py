"""Tiny talking clips with landmarks whose mouth opens and shuts, and networks that see no more than brightness."""

import numpy as np

from data_prep.evaluate.video_features import FaceNetworks, FeaturePart, SyncNetwork
from tests.data_prep.tiny_media import voice, write_table, write_video

SIZE = 64
COLUMNS = ("path", "speaker", "emotion", "sentence", "source", "driver", "truth")


def face(opening, size=SIZE):
    """68 landmarks of a face whose inner lips are `opening` pixels apart."""
    points = np.zeros((68, 2), np.float32)
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([np.cos(angles) * 20, 12 + np.sin(angles) * 20], axis=1)
    points[17:27] = np.stack([np.linspace(-18, 18, 10), np.full(10, -14)], axis=1)
    points[27:36] = np.stack([np.linspace(-4, 4, 9), np.linspace(-8, 6, 9)], axis=1)
    for first, middle in ((36, -10), (42, 10)):
        turns = np.linspace(np.pi, -np.pi, 6, endpoint=False)
        points[first : first + 6] = np.stack([middle + 4 * np.cos(turns), -8 - 2 * np.sin(turns)], axis=1)
    for first, count, wide, gap in ((48, 12, 9, 4 + opening), (60, 8, 7, opening)):
        turns = np.linspace(np.pi, -np.pi, count, endpoint=False)
        points[first : first + count] = np.stack([wide * np.cos(turns), 16 - gap / 2 * np.sin(turns)], axis=1)
    return (points + size / 2).astype(np.float32)


def course(frames, shift=0):
    """A mouth's opening in pixels that repeats nowhere."""
    at = np.arange(frames) - shift
    return 4 + 3 * np.sin(0.9 * at + 0.02 * at**2)


def write_clip(folder, name, *, frames=16, shift=0, size=SIZE, landmarks=True, sound=True, first=0, fps=30, delay=0):
    """Writes NAME.mp4 and NAME.npz; the mouth is `shift` frames late, the sound `delay` samples."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.r_[np.zeros(delay, np.float32), voice(1)[0][: frames * 16000 // 30]] if sound else None
    write_video(folder / f"{name}.mp4", frames, samples=samples, size=size, first=first, fps=fps)
    if landmarks:
        points = np.stack([face(opening, size) for opening in course(frames, shift)])
        np.savez(folder / f"{name}.npz", landmarks68=points)
    return folder / f"{name}.mp4"


def write_list(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    return write_table(folder / "clips.csv", rows, COLUMNS)


def brightness_networks():
    """Features that a test can work out by hand, in the places of the real networks."""

    def features(images, landmarks):
        del landmarks
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        return {"features": np.concatenate([means, np.ones((len(means), 1))], axis=1).astype(np.float32)}

    def emotions(images, landmarks):
        probabilities = np.zeros((len(images), 7), np.float32)
        probabilities[:, 1] = 1  # happy, in AffectNet's order
        return features(images, landmarks) | {"probabilities": probabilities}

    parts = (
        FeaturePart("resnet-face", "a", False, features),
        FeaturePart("efficient-face", "b", False, emotions),
        FeaturePart("arcface", "c", True, features),
    )
    sync = SyncNetwork(
        "d",
        lambda windows: windows.reshape(len(windows), -1)[:, :8].astype(np.float32),
        lambda windows: windows.reshape(len(windows), -1)[:, :8].astype(np.float32),
    )
    names = ("resnet-face", "efficient-face", "arcface", "syncnet")
    return FaceNetworks(parts, sync, dict.fromkeys(names, "0" * 64), {})
