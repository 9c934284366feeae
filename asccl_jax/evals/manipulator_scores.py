"""How well coefficients were edited, against the exact truth: emotion reached, speech kept, mouth right."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float, Key

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TrueDelivery
from asccl_jax.errors import InputError
from asccl_jax.evals.statistics import Interval, Units, choose_units, mean
from asccl_jax.head.face_points import MouthPoints, mouth_points
from asccl_jax.head.head_model import HeadModel
from asccl_jax.infer.manipulation import draw_latent, label_styles, manipulate_coefficients, reference_style
from asccl_jax.models.manipulator import Manipulator

__all__ = [
    "COPY",
    "MEASURES",
    "REQUESTED",
    "Candidate",
    "ClipScore",
    "Edit",
    "Evaluation",
    "Measure",
    "Row",
    "by_label",
    "by_reference",
    "confusion",
    "copy_source",
    "difference",
    "evaluate",
    "score_clips",
    "summary",
]

REQUESTED = EMOTIONS[1:]
"""Emotions that are asked for; every source is neutral."""

Edit = Callable[[TrueDelivery], Mapping[str, Float[np.ndarray, "n c"]]]
"""A neutral delivery -> its coefficients in each requested emotion."""

_MILLIMETRES = 1000


@dataclasses.dataclass(frozen=True)
class ClipScore:
    """Figures of one clip in one emotion; those of the mouth are None where no head was given.

    Attributes:
      clip: Id of the neutral clip.
      speaker: Who speaks.
      emotion: What was asked for.
      nearest: Share of frames to which each emotion of `EMOTIONS` is the nearest of the truth, in that order.
      hits: Share of frames to which the requested one is.
      hits_standardised: The same, with each coefficient divided by its deviation between emotions and frames.
      jaw_correlation: Pearson correlation of the jaw's opening with that of the source.
      jaw_true_correlation: The same with that of the truth.
      expression_error: Root mean square difference of the expression coefficients from the truth.
      mouth_error_mm: Mean distance of the lips' landmarks from the truth.
      mouth_motion_error_mm: The same once the clip's mean offset of each landmark is taken out: speech, not the rest
        position of the lips.
      jitter: Root mean square second difference of the coefficients over that of the truth; 1 is as smooth.
    """

    clip: str
    speaker: str
    emotion: str
    nearest: tuple[float, ...]
    hits: float
    hits_standardised: float
    jaw_correlation: float
    jaw_true_correlation: float
    expression_error: float
    mouth_error_mm: float | None
    mouth_motion_error_mm: float | None
    jitter: float


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of the table.

    Attributes:
      name: Field of `ClipScore`.
      title: Heading.
      higher_is_better: Direction; None where neither is.
      digits: After the point.
    """

    name: str
    title: str
    higher_is_better: bool | None
    digits: int


MEASURES = (
    Measure("hits", "emotion reached", True, 3),
    Measure("hits_standardised", "emotion reached, standardised", True, 3),
    Measure("jaw_correlation", "jaw correlation with source", True, 3),
    Measure("jaw_true_correlation", "jaw correlation with truth", True, 3),
    Measure("mouth_error_mm", "mouth error, mm", False, 3),
    Measure("mouth_motion_error_mm", "mouth motion error, mm", False, 3),
    Measure("expression_error", "expression error", False, 3),
    Measure("jitter", "jitter over truth's", None, 2),
)


def copy_source(delivery: TrueDelivery) -> dict[str, Float[np.ndarray, "n c"]]:
    """Returns the source for every emotion: speech is kept, no emotion reached."""
    return dict.fromkeys(REQUESTED, delivery.source)


def by_label(manipulator: Manipulator, key: Key[jax.Array, ""]) -> Edit:
    """Returns the edit of a manipulator that is told emotions by label; every speaker gets noise of their own."""

    def edit(delivery: TrueDelivery) -> dict[str, Float[np.ndarray, "n c"]]:
        # Of the clip's name, so that neither order nor number of clips changes what it gets.
        z = draw_latent(manipulator, jax.random.fold_in(key, zlib.crc32(delivery.clip.encode())))
        styles = label_styles(manipulator, [EMOTIONS.index(emotion) for emotion in REQUESTED], z)
        return _in_styles(manipulator, delivery, dict(zip(REQUESTED, styles, strict=True)))

    return edit


def by_reference(manipulator: Manipulator, deliveries: Sequence[TrueDelivery]) -> Edit:
    """Returns the edit of a manipulator that is shown emotions by clips of another speaker.

    Args:
      manipulator: Trained networks.
      deliveries: Whose truth serves as references: for each clip, the next one of another speaker.

    Raises:
      InputError: There is only one speaker.
    """
    if len({delivery.speaker for delivery in deliveries}) < 2:
        raise InputError("reference-driven evaluation: expected clips of two speakers or more, found one")
    places = {delivery.clip: place for place, delivery in enumerate(deliveries)}

    def edit(delivery: TrueDelivery) -> dict[str, Float[np.ndarray, "n c"]]:
        place = places[delivery.clip]
        others = [*deliveries[place:], *deliveries[:place]]
        reference = next(other for other in others if other.speaker != delivery.speaker)
        styles = {emotion: reference_style(manipulator, reference.truth[emotion]) for emotion in REQUESTED}
        return _in_styles(manipulator, delivery, styles)

    return edit


def score_clips(
    deliveries: Sequence[TrueDelivery],
    edit: Edit,
    *,
    mouth: MouthPoints | None = None,
    advance: Callable[[int], object] = lambda clips: None,
) -> tuple[ClipScore, ...]:
    """Returns figures of every clip in every requested emotion.

    Which emotion a frame shows is decided by its expression coefficients (the jaw speaks): that of the true deliveries
    of the same moment of the same speech whose coefficients are nearest, in plain Euclidean distance. FLAME's
    coefficients are in standard deviations of faces already; the standardised figure divides each by its deviation over
    these deliveries all the same.

    Args:
      deliveries: Neutral clips with their truth.
      edit: What is scored.
      mouth: Gives the points of the mouth; None leaves its figures out.
      advance: Told of each clip that is done.
    """
    scales = _deviations(deliveries)
    scores = []
    for delivery in deliveries:
        edited = edit(delivery)
        scores += [_score(delivery, emotion, edited[emotion], scales, mouth) for emotion in REQUESTED]
        advance(1)
    return tuple(scores)


def summary(scores: Sequence[ClipScore], measure: str) -> Interval | None:
    """Returns the mean of a measure over clips and emotions with its interval; None if it was not taken."""
    values = _by_clip(scores, measure)
    return None if values is None else mean(values, _units(scores))


def difference(scores: Sequence[ClipScore], others: Sequence[ClipScore], measure: str) -> Interval | None:
    """Returns the mean of a measure minus that of others on the same clips, with its interval."""
    values, other_values = _by_clip(scores, measure), _by_clip(others, measure)
    return None if values is None or other_values is None else mean(values - other_values, _units(scores))


def confusion(scores: Sequence[ClipScore]) -> Float[np.ndarray, "requested found"]:
    """Returns, a row a requested emotion, the share of frames that is nearest to each of `EMOTIONS`."""
    return np.array(
        [np.mean([score.nearest for score in scores if score.emotion == emotion], axis=0) for emotion in REQUESTED]
    )


def _by_clip(scores: Sequence[ClipScore], measure: str) -> Float[np.ndarray, " n"] | None:
    """A clip's value is the mean over its emotions: they share speech and speaker, and are no independent samples."""
    clips: dict[str, list[float]] = {}
    for score in scores:
        value = getattr(score, measure)
        if value is None:
            return None
        clips.setdefault(score.clip, []).append(value)
    return np.array([np.mean(values) for values in clips.values()])


def _units(scores: Sequence[ClipScore]) -> Units:
    """Speakers, or where there are few of them clips."""
    speakers = {score.clip: score.speaker for score in scores}
    return choose_units(("speaker", list(speakers.values())), ("clip", list(speakers)))


def _in_styles(
    manipulator: Manipulator, delivery: TrueDelivery, styles: Mapping[str, Float[np.ndarray, " s"]]
) -> dict[str, Float[np.ndarray, "n c"]]:
    frame_index = delivery.codes.frame_index
    return {
        emotion: manipulate_coefficients(manipulator, delivery.source, style[None], frame_index=frame_index)
        for emotion, style in styles.items()
    }


def _score(
    delivery: TrueDelivery,
    emotion: str,
    edited: Float[np.ndarray, "n c"],
    scales: Float[np.ndarray, " e"],
    mouth: MouthPoints | None,
) -> ClipScore:
    truth = delivery.truth[emotion]
    nearest = _nearest(delivery, edited, np.ones_like(scales))
    wanted = EMOTIONS.index(emotion)
    shares = np.bincount(nearest, minlength=len(EMOTIONS)) / len(nearest)
    offset = None
    if mouth is not None:
        offset = _MILLIMETRES * (mouth(edited, delivery.codes) - mouth(truth, delivery.codes))
    return ClipScore(
        clip=delivery.clip,
        speaker=delivery.speaker,
        emotion=emotion,
        nearest=tuple(shares.tolist()),
        hits=float(shares[wanted]),
        hits_standardised=float(np.mean(_nearest(delivery, edited, scales) == wanted)),
        jaw_correlation=_correlation(edited[:, 0], delivery.source[:, 0]),
        jaw_true_correlation=_correlation(edited[:, 0], truth[:, 0]),
        expression_error=float(np.sqrt(np.mean((edited[:, 1:] - truth[:, 1:]) ** 2))),
        mouth_error_mm=None if offset is None else _length(offset),
        mouth_motion_error_mm=None if offset is None else _length(offset - offset.mean(axis=0)),
        jitter=_roughness(edited) / max(_roughness(truth), 1e-12),
    )


def _nearest(delivery: TrueDelivery, edited: Float[np.ndarray, "n c"], scales: Float[np.ndarray, " e"]) -> np.ndarray:
    """The position in `EMOTIONS` of the true expression that each frame is nearest to."""
    truths = np.stack([delivery.truth[emotion][:, 1:] for emotion in EMOTIONS])
    return np.sum(((edited[None, :, 1:] - truths) / scales) ** 2, axis=2).argmin(axis=0)


def _deviations(deliveries: Sequence[TrueDelivery]) -> Float[np.ndarray, " e"]:
    """Deviation of each expression coefficient over all true frames; those that never move count as they are."""
    frames = np.concatenate([truth[:, 1:] for delivery in deliveries for truth in delivery.truth.values()])
    found = frames.std(axis=0)
    return np.where(found > 1e-6 * found.max(initial=0), found, 1).astype(np.float64)


def _correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Pearson correlation; 0 where one of the two is constant, as it tells nothing of the other."""
    first, second = (track.astype(np.float64) - track.mean(dtype=np.float64) for track in (first, second))
    power = np.sqrt(np.sum(first**2) * np.sum(second**2))
    return float(np.sum(first * second) / power) if power > 1e-12 else 0.0


def _length(offset: Float[np.ndarray, "n k 3"]) -> float:
    return float(np.linalg.norm(offset.astype(np.float64), axis=2).mean())


def _roughness(coefficients: Float[np.ndarray, "n c"]) -> float:
    if len(coefficients) < 3:
        return 0.0
    return float(np.sqrt(np.mean(np.diff(coefficients.astype(np.float64), n=2, axis=0) ** 2)))


# One evaluation: several manipulators and a copy of the source, scored on the same deliveries.

COPY = "copy of source"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A manipulator to score.

    Attributes:
      name: Heading of its rows.
      manipulator: The networks.
      source: Where they come from.
    """

    name: str
    manipulator: Manipulator
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A way to edit clips, and its figures.

    Attributes:
      name: Heading.
      edit: The way.
      scores: Figures of every clip and emotion.
      source: Where it comes from.
    """

    name: str
    edit: Edit
    scores: tuple[ClipScore, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation leaves behind.

    Attributes:
      deliveries: What was edited.
      rows: The first candidate, told by label, first; the copy of the source last.
      head: The head the mouth was measured on, and faces are drawn with; None if there was none.
    """

    deliveries: tuple[TrueDelivery, ...]
    rows: tuple[Row, ...]
    head: HeadModel | None


def evaluate(
    candidates: Sequence[Candidate],
    deliveries: Sequence[TrueDelivery],
    *,
    head: HeadModel | None = None,
    seed: int = 0,
    references: bool = True,
    advance: Callable[[int], object] = lambda clips: None,
) -> Evaluation:
    """Returns the figures of manipulators, each told emotions by label and, if asked for, shown them by references.

    Args:
      candidates: Manipulators, each with a name of its own.
      deliveries: Held-out neutral clips with their truth.
      head: Measures the mouth; None leaves it out.
      seed: Of the noise that styles of labels are made from, the same for all candidates.
      references: Also score reference-driven edits, if there are two speakers.
      advance: Told how many clips were done; `len(deliveries)` a row.

    Raises:
      InputError: Two candidates have the same name.
    """
    names = [*(candidate.name for candidate in candidates), COPY]
    if len(set(names)) < len(names):
        raise InputError(f"rows {', '.join(names)}: each needs another name; change --name or --also NAME=DIR")
    mouth = None if head is None else mouth_points(head)
    several = len({delivery.speaker for delivery in deliveries}) > 1
    edits: list[tuple[str, Edit, str]] = []
    for candidate in candidates:
        manipulator = jax.device_put(candidate.manipulator)
        edits.append((candidate.name, by_label(manipulator, jax.random.key(seed)), candidate.source))
    if references and several:
        for candidate in candidates:
            name = f"{candidate.name}, by reference"
            edits.append((name, by_reference(jax.device_put(candidate.manipulator), deliveries), candidate.source))
    edits.append((COPY, copy_source, "the source's own coefficients"))
    rows = [
        Row(name, edit, score_clips(deliveries, edit, mouth=mouth, advance=advance), source)
        for name, edit, source in edits
    ]
    return Evaluation(tuple(deliveries), tuple(rows), head)
