"""Neutral clips on the golden's small head, and an exact truth: a fixed shift of the expression for each emotion."""

import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import (
    TrackEntry,
    TrackList,
    TrueDelivery,
    codes_path,
    coefficients_of,
    truth_path,
    write_track_list,
)
from tests.head.heads import golden_template

__all__ = ["make_delivery", "shift_of", "write_truth"]


def shift_of(emotion):
    """Change of the 50 expression coefficients: nothing for neutral, other ones for each emotion."""
    place = EMOTIONS.index(emotion)
    shift = np.zeros(50, np.float32)
    if place:
        shift[place : place + 2] = 1
    return shift


def make_delivery(clip, *, frames=24, seed=0):
    random = np.random.default_rng([seed, len(clip)])
    time = np.arange(frames)[:, None]
    template = golden_template()
    exp = 0.1 * np.sin(time / 3 + random.uniform(0, 6, 50)).astype(np.float32)
    opening = (0.15 + 0.1 * np.sin(time[:, 0] / 2 + random.uniform(0, 6))).astype(np.float32)
    rows = {name: np.repeat(getattr(template, name), frames, axis=0) for name in ("shape", "pose", "cam")}
    codes = CodeDict(frame_index=np.arange(frames), exp=np.zeros_like(exp), **rows).edited(exp, opening)
    source = coefficients_of(codes)
    truth = {emotion: source + np.concatenate([[0], shift_of(emotion)]).astype(np.float32) for emotion in EMOTIONS}
    return TrueDelivery(clip, clip.split("/")[0], codes, source, truth)


def write_truth(directory, deliveries):
    """Writes deliveries as `asccl data synthesise tracks` does."""
    clips = {}
    for delivery in deliveries:
        paths = {codes_path(directory, delivery.clip): delivery.source}
        paths |= {truth_path(directory, delivery.clip, name): delivery.truth[name] for name in EMOTIONS[1:]}
        for path, coefficients in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            delivery.codes.edited(coefficients[:, 1:], coefficients[:, 0]).save(path)
        clips[delivery.clip] = TrackEntry(delivery.speaker, "neutral", "s", "validation", len(delivery.source))
    write_track_list(directory, TrackList("tiny", clips))
