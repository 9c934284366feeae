"""What a person looks at: small films of source and manipulated clip side by side, frames, courses of mouths."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.data.schema import EMOTIONS
from data_prep.evaluate.lip_landmarks import mouth_opening
from data_prep.evaluate.matching import from_first_picture
from data_prep.evaluate.scored_clips import Scored
from data_prep.evaluate.video_metrics import ShownClip
from data_prep.media.decode import SAMPLE_RATE, BrokenMediaError, read_frames, read_sound

__all__ = ["shown_clips"]

MOST = 6
"""Clips shown."""

_FRAMES = 8
_SIDE = 240
_BAND = 22
_LONGEST_S = 10.0
_TICK = Fraction(1, 90000)
_MARK = "synthetic media: made by asccl, manipulated facial expression"

Picture = UInt8[np.ndarray, "h w 3"]


def shown_clips(scored: Sequence[Scored], *, most: int = MOST) -> tuple[ShownClip, ...]:
    """Returns clips to look at, of every emotion some."""
    return tuple(_shown(one) for one in _chosen(scored, most))


def _chosen(scored: Sequence[Scored], most: int) -> list[Scored]:
    """In turn one of each emotion, so that all of them are there before any comes twice."""
    piles = [[one for one in scored if one.scores.emotion == emotion] for emotion in EMOTIONS]
    piles = [pile for pile in piles if pile]
    # Starting each emotion elsewhere shows more than the first speaker.
    piles = [pile[turn % len(pile) :] + pile[: turn % len(pile)] for turn, pile in enumerate(piles)]
    turns = [pile[place] for place in range(max(map(len, piles))) for pile in piles if place < len(pile)]
    chosen = {id(one) for one in turns[:most]}
    return [one for pile in piles for one in pile if id(one) in chosen]


def _shown(one: Scored) -> ShownClip:
    videos = _videos(one)
    times = one.features.times_s
    rows = np.arange(len(times)) if one.pairs is None else one.pairs.rows
    numbers = tuple(evenly_spaced(rows.tolist(), _FRAMES))
    kept: dict[str, list[Picture]] = {name: [] for name in videos}
    filmed = rows[times[rows] - times[rows[0]] < _LONGEST_S]
    film, poster = _Film(one.features.clock.rate_fps), b""
    for number, pictures in zip(rows.tolist(), _together(one, videos, times[rows]), strict=False):
        if number in numbers:
            for name, picture in zip(videos, pictures, strict=True):
                kept[name].append(_scaled(picture))
        if number <= filmed[-1]:
            together = _side_by_side(list(videos), pictures)
            film.add(together, float(times[number] - times[rows[0]]))
            if number == filmed[len(filmed) // 2]:
                poster = _jpeg(together)
        elif number >= numbers[-1]:
            break
    heard = _sound(one)
    if heard is not None:
        heard = heard[round(times[rows[0]] * SAMPLE_RATE) :]
    film.speak(heard, float(times[filmed[-1]] - times[rows[0]]) + one.features.clock.period_s)
    # Pictures of a clip that was rendered smaller are shown as large as its source's.
    height = max(picture.shape[0] for pictures in kept.values() for picture in pictures)
    strips = tuple((name, tuple(_scaled(picture, height) for picture in pictures)) for name, pictures in kept.items())
    return ShownClip(one.scores.clip, strips, numbers, _openings(one), film.finished(), poster)


def _videos(one: Scored) -> dict[str, Path]:
    videos = {}
    if one.source is not None and one.matched.source is not None:
        videos["source"] = one.matched.source.video
    videos[one.scores.emotion if one.scores.emotion != "source" else "manipulated"] = one.matched.fake.clip.video
    if one.truth is not None and one.truth != one.matched.source:
        videos["truth"] = one.truth.video
    return videos


def _openings(one: Scored) -> dict[str, tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]]:
    """Times and openings; what is heard at one moment of the source's time is heard at it in both."""
    found = {}
    shift_s = 0.0 if one.pairs is None else one.pairs.shift_s
    for name, features, late_s in (("source", one.source, 0.0), ("manipulated", one.features, shift_s)):
        if features is not None and features.landmarks is not None:
            found[name] = (features.times_s - late_s, mouth_opening(features.landmarks))
    return found


def _together(one: Scored, videos: Mapping[str, Path], times_s: Float[np.ndarray, " n"]) -> Iterator[list[Picture]]:
    """Pictures of all videos at times of the clip."""
    wanted = dict.fromkeys(videos, times_s)
    if one.pairs is not None and one.source is not None:
        wanted["source"] = one.source.times_s[one.pairs.source_rows]
    return map(list, zip(*(_at_times(video, wanted[name]) for name, video in videos.items()), strict=False))


def _at_times(video: Path, times_s: Float[np.ndarray, " n"]) -> Iterator[Picture]:
    """Yields the picture that is nearest to each of some rising times."""
    place = 0
    shown: tuple[float, Picture] | None = None
    for frame in read_frames(video):
        if frame.image is None:
            continue
        while shown is not None and place < len(times_s) and times_s[place] <= (shown[0] + frame.time_s) / 2:
            yield shown[1]
            place += 1
        shown = frame.time_s, frame.image
    while shown is not None and place < len(times_s):
        yield shown[1]
        place += 1


def _sound(one: Scored) -> Float[np.ndarray, " n"] | None:
    for clip in (one.matched.fake.clip, one.matched.source):
        if clip is not None:
            path = clip.audio or clip.video
            if path.is_file():
                try:
                    sound = read_sound(path)
                except BrokenMediaError:
                    continue
                return from_first_picture(sound)
    return None


def _side_by_side(names: Sequence[str], pictures: Sequence[Picture]) -> Picture:
    scaled = [Image.fromarray(_scaled(picture)) for picture in pictures]
    height = max(picture.height for picture in scaled)
    wide = Image.new("RGB", (sum(picture.width for picture in scaled), height + _BAND), "#10161d")
    pen = ImageDraw.Draw(wide)
    left = 0
    for name, picture in zip(names, scaled, strict=True):
        wide.paste(picture, (left, _BAND))
        pen.text((left + 8, 5), name, fill="#e8ebef", font_size=12)
        left += picture.width
    return np.asarray(wide)


def _jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _scaled(picture: Picture, height: int = _SIDE) -> Picture:
    width = max(2, 2 * round(picture.shape[1] * height / picture.shape[0] / 2))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


class _Film:
    """A small H.264 film in memory, marked as synthetic.

    Args:
      rate: Frames a second.
    """

    def __init__(self, rate: float) -> None:
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._container.metadata["comment"] = _MARK
        self._video = self._container.add_stream(
            "libx264",
            rate=Fraction(rate).limit_denominator(1001),
            options={"crf": "24", "preset": "veryfast", "threads": "1"},
        )
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = _TICK
        self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        self._last: int | None = None

    def add(self, picture: Picture, time_s: float) -> None:
        """Adds a frame that is shown at a time, the first one's 0."""
        if self._last is None:
            self._video.height, self._video.width = picture.shape[:2]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        pts = round(time_s / _TICK)
        self._last = pts if self._last is None else max(pts, self._last + 1)
        frame.pts, frame.time_base = self._last, _TICK
        self._container.mux(self._video.encode(frame))

    def speak(self, samples: Float[np.ndarray, " n"] | None, seconds: float) -> None:
        """Adds the sound, as long as the pictures; silence if there is none."""
        count = round(seconds * SAMPLE_RATE)
        given = np.zeros(0, np.float32) if samples is None else samples[:count]
        padded = np.pad(given, (0, count - len(given)))
        for first in range(0, count, 1024):
            block = (np.clip(padded[None, first : first + 1024], -1, 1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, first
            self._container.mux(self._sound.encode(frame))

    def finished(self) -> bytes:
        """Returns the mp4 file."""
        self._container.mux(self._video.encode(None))
        self._container.mux(self._sound.encode(None))
        self._container.close()
        return self._buffer.getvalue()
