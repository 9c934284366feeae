"""One evaluation: several renderers and a copy of the source, scored on the same held-out clips."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip
from asccl_jax.data.frames import difference_image
from asccl_jax.data.manifest import Twin, evenly_spaced, find_twins
from asccl_jax.errors import InputError
from asccl_jax.evals.landmark_probe import BATCH, LandmarkProbe, load_probe, save_probe, train_probe
from asccl_jax.evals.renderer_scores import ALIGNED_SIDE, DrivenScore, DrivenScorer, OwnScore, OwnScorer, RenderRecords
from asccl_jax.infer.rendering import check_edit, render_frames, with_edit
from asccl_jax.models.renderer import Renderer

__all__ = ["COPY", "Candidate", "Evaluation", "Pictures", "Row", "evaluate", "fitted_probe", "probe_error"]

COPY = "copy of source"

_PROBE_FRAMES = 2000
_ERROR_FRAMES = 400
_SHOWN_FRAMES = 6


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A renderer to score: heading of its rows, the networks, and where they come from."""

    name: str
    renderer: Renderer
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures of a way to make frames.

    Attributes:
      name: Heading.
      source: Where it comes from.
      own: Of clips drawn from their own conditioning; none for the copy of the source.
      driven: Of clips drawn with another expression.
    """

    name: str
    source: str
    own: tuple[OwnScore, ...]
    driven: tuple[DrivenScore, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Frames to look at: a title, and for each row its heading and pictures."""

    title: str
    rows: tuple[tuple[str, tuple[UInt8[np.ndarray, "h w 3"], ...]], ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation leaves behind.

    Attributes:
      rows: The candidates in their order, the copy of the source last.
      own_pictures: Of clips drawn from their own conditioning.
      driven_pictures: Of clips drawn with another expression.
      probe_error: Mean error of the landmark probe on held-out true frames, in pixels of the 256-pixel picture; None
        where nothing was driven.
      image_size: Side of the frames compared.
    """

    rows: tuple[Row, ...]
    own_pictures: tuple[Pictures, ...]
    driven_pictures: tuple[Pictures, ...]
    probe_error: float | None
    image_size: int


def evaluate(
    candidates: Sequence[Candidate],
    clips: AlignedClips,
    *,
    records: RenderRecords | None = None,
    edits: Path | None = None,
    probe: LandmarkProbe | None = None,
    split: str = "validation",
    held_out: Sequence[RenderedClip] | None = None,
    limit: int | None = None,
    pictured: int = 2,
    advance: Callable[[int], object] = lambda clips: None,
) -> Evaluation:
    """Returns the figures of renderers on held-out clips and, where there are edits, on manipulated ones.

    Args:
      candidates: Renderers of one image size, each with a name of its own.
      clips: Source of the clips, at that size.
      records: The same clips' records, for driven clips.
      edits: Folder of conditioning as `edit --twins` draws it; None leaves out driven clips.
      probe: Reads mouths, for driven clips.
      split: Split of the clips.
      held_out: Clips, or parts of them, to draw from their own conditioning; None takes those of the split.
      limit: Most clips drawn from their own conditioning, evenly spaced; None takes all.
      pictured: Most such clips to show, evenly spaced.
      advance: Told of each clip that every candidate has drawn.

    Raises:
      InputError: Names or sizes that do not fit, no clip, or no edit.
    """
    _check(candidates, clips)
    if held_out is None:
        held_out = [clip for clip in clips.clips.values() if clip.split == split]
    held_out = evenly_spaced(held_out, limit)
    if not held_out:
        raise InputError(f"split {split!r}: no clip with usable frames")
    placed = [dataclasses.replace(one, renderer=jax.device_put(one.renderer)) for one in candidates]
    own: dict[str, list[OwnScore]] = {candidate.name: [] for candidate in placed}
    own_pictures, shown = [], evenly_spaced(range(len(held_out)), pictured)
    for number, clip in enumerate(held_out):
        scores, pictures = _score_own(placed, clips, clip)
        for name, score in scores.items():
            own[name].append(score)
        if number in shown:
            own_pictures.append(pictures)
        advance(1)
    driven: dict[str, list[DrivenScore]] = {name: [] for name in (*own, COPY)}
    driven_pictures = []
    if edits is not None:
        assert records is not None and probe is not None
        for twin in _usable_twins(records, clips, edits, split):
            driven_scores, pictures = _score_driven(placed, clips, records, twin, edits / twin.folder, probe)
            for name, driven_score in driven_scores.items():
                driven[name].append(driven_score)
            driven_pictures.append(pictures)
            advance(1)
    rows = [Row(one.name, one.source, tuple(own[one.name]), tuple(driven[one.name])) for one in candidates]
    rows.append(Row(COPY, "the source's own frames", (), tuple(driven[COPY])))
    error = None if edits is None or records is None or probe is None else probe_error(probe, clips, records, split)
    return Evaluation(tuple(rows), tuple(own_pictures), tuple(driven_pictures), error, clips.image_size)


def fitted_probe(folder: Path, clips: AlignedClips, records: RenderRecords, *, seed: int = 0) -> LandmarkProbe:
    """Returns the probe of a data set at the size of its clips: the one kept in a folder, or else a newly trained one.

    Args:
      folder: Where it is kept, made if need be.
      clips: Frames; those for training are learned from.
      records: Their landmarks.
      seed: Of its training.
    """
    data = zlib.crc32(records.manifest.to_json().encode(errors="backslashreplace"))
    path = folder / f"landmark_probe-{data:08x}-{clips.image_size}-{seed}.npz"
    if path.is_file():
        return load_probe(path)
    probe = train_probe(*_known_mouths(clips, records, "train", _PROBE_FRAMES), seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_probe(path, probe)
    return probe


def probe_error(probe: LandmarkProbe, clips: AlignedClips, records: RenderRecords, split: str) -> float:
    """Returns the mean error of a probe on true frames of a split, in pixels of the 256-pixel picture."""
    images, masks, mouths = _known_mouths(clips, records, split, _ERROR_FRAMES)
    found = probe.locate(np.where(masks > 0, images, np.uint8(0)))
    return ALIGNED_SIDE / clips.image_size * float(np.linalg.norm(found - mouths, axis=-1).mean())


def _check(candidates: Sequence[Candidate], clips: AlignedClips) -> None:
    names = [*(candidate.name for candidate in candidates), COPY]
    if len(set(names)) < len(names):
        raise InputError(f"rows {', '.join(names)}: each needs another name; change --name or --also NAME=DIR")
    for candidate in candidates:
        size = candidate.renderer.settings.image_size
        if size != clips.image_size:
            raise InputError(
                f"renderer {candidate.source}: frames of {size} pixels, expected {clips.image_size} as of the first"
            )


def _score_own(
    candidates: Sequence[Candidate], clips: AlignedClips, clip: RenderedClip
) -> tuple[dict[str, OwnScore], Pictures]:
    # A run without a gap is a video of its own; the longest one is scored.
    first, last = max(clip.runs, key=lambda run: run[1] - run[0])
    numbers = range(first, last + 1)
    names = {"clip": clip.clip, "speaker": clip.speaker, "emotion": clip.emotion}
    # The very first frame is among those shown: it has no history.
    shown = evenly_spaced(numbers, _SHOWN_FRAMES)
    rows: dict[str, list[UInt8[np.ndarray, "h w 3"]]] = {}
    scorers = {candidate.name: OwnScorer() for candidate in candidates}
    drawn = [render_frames(one.renderer, (clips.read(clip.clip, number) for number in numbers)) for one in candidates]
    # All candidates at the same frame: memory holds the few frames that each of them reads ahead, not the clip.
    for number, *outputs in zip(numbers, *drawn, strict=True):
        frame = clips.read(clip.clip, number)
        mask, mouth = _mask(frame), frame.mouth_centre.astype(np.float64)
        if number in shown:
            rows.setdefault("truth", []).append(_visible(frame.image, mask))
        for name, output in zip(scorers, outputs, strict=True):
            scorers[name].add(output, frame.image, mask, mouth)
            if number in shown:
                rows.setdefault(name, []).append(output)
    scores = {name: scorer.score(**names) for name, scorer in scorers.items()}
    listed = ", ".join(map(str, shown))
    return scores, Pictures(f"{clip.clip}, frames {listed}", _with_differences(rows))


def _score_driven(
    candidates: Sequence[Candidate],
    clips: AlignedClips,
    records: RenderRecords,
    twin: Twin,
    edit: Path,
    probe: LandmarkProbe,
) -> tuple[dict[str, DrivenScore], Pictures]:
    numbers = _shared_run(clips, twin)
    shown = _widest_mouths(records, twin, numbers)
    rows: dict[str, list[UInt8[np.ndarray, "h w 3"]]] = {"source": [], "truth": []}
    scorers = {name: DrivenScorer() for name in (*(candidate.name for candidate in candidates), COPY)}
    drawn = [_drawn(one, clips, twin.source, numbers, edit) for one in candidates]
    together = zip(numbers, *drawn, strict=True)
    while some := list(itertools.islice(together, BATCH)):
        frames = [clips.read(twin.source, number) for number, *_ in some]
        true_frames = [records.true_frame(twin, number, clips.image_size) for number, *_ in some]
        masks = [_mask(frame) for frame in frames]
        truth = [_visible(true.image, mask) for true, mask in zip(true_frames, masks, strict=True)]
        copy = [_visible(frame.image, mask) for frame, mask in zip(frames, masks, strict=True)]
        pictures = dict(zip(scorers, [*map(list, zip(*(one[1:] for one in some), strict=True)), copy], strict=True))
        in_truth = probe.locate(np.stack(truth))
        for name, outputs in pictures.items():
            found = probe.locate(np.stack(outputs))
            for place, (true, mask) in enumerate(zip(true_frames, masks, strict=True)):
                scorers[name].add(
                    outputs[place], true.image, mask & true.face, true.mouth, found[place], in_truth[place]
                )
        for place, (number, *_) in enumerate(some):
            if number in shown:
                for name, images in {"source": copy, "truth": truth, **pictures}.items():
                    rows.setdefault(name, []).append(images[place])
    names = {"source": twin.source, "clip": twin.target, "speaker": twin.speaker, "emotion": twin.emotion}
    scores = {name: scorer.score(**names) for name, scorer in scorers.items()}
    del rows[COPY]  # is the source
    listed = ", ".join(map(str, shown))
    return scores, Pictures(f"{twin.source} as {twin.emotion}, frames {listed}", _with_differences(rows))


def _with_differences(
    rows: Mapping[str, Sequence[UInt8[np.ndarray, "h w 3"]]],
) -> tuple[tuple[str, tuple[UInt8[np.ndarray, "h w 3"], ...]], ...]:
    """Rows of frames to look at, below each candidate's their difference from the truth."""
    found = []
    for name, images in rows.items():
        found.append((name, tuple(images)))
        if name not in ("source", "truth"):
            found.append(("difference", tuple(map(difference_image, images, rows["truth"]))))
    return tuple(found)


def _drawn(
    candidate: Candidate, clips: AlignedClips, source: str, numbers: Sequence[int], edit: Path
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    edited = (with_edit(clips.read(source, number), edit, number) for number in numbers)
    return render_frames(candidate.renderer, edited)


def _usable_twins(records: RenderRecords, clips: AlignedClips, edits: Path, split: str) -> list[Twin]:
    found = [
        twin
        for twin in find_twins(records.manifest, split)
        if twin.source in clips.clips and twin.target in clips.clips and (edits / twin.folder).is_dir()
    ]
    if not found:
        raise InputError(
            f"{edits}: no edit of a held-out neutral clip; draw them with `asccl data edit-conditioning RECORDS"
            f" --twins --output {edits}`"
        )
    for twin in found:
        check_edit(edits / twin.folder)
    return found


def _shared_run(clips: AlignedClips, twin: Twin) -> range:
    """The longest stretch of frames that can be used of both clips."""
    shared = np.intersect1d(clips.entry(twin.source).frames, clips.entry(twin.target).frames)
    if not len(shared):
        raise InputError(f"{twin.source} and {twin.target}: no frame that can be used of both")
    pieces = np.split(shared, np.flatnonzero(np.diff(shared) != 1) + 1)
    longest = max(pieces, key=len)
    return range(int(longest[0]), int(longest[-1]) + 1)


def _widest_mouths(records: RenderRecords, twin: Twin, numbers: Sequence[int]) -> list[int]:
    """In each part of the clip the frame whose true mouth is most open: nothing picked by outcome."""
    mouths = [records.true_mouth(twin, number) for number in numbers]
    heights = np.array([np.ptp(mouth[:, 1]) for mouth in mouths])
    parts = np.array_split(np.arange(len(numbers)), min(_SHOWN_FRAMES, len(numbers)))
    return [numbers[int(part[heights[part].argmax()])] for part in parts]


def _mask(frame: AlignedFrame) -> Bool[np.ndarray, "h w"]:
    return frame.mask[..., 0] >= 128


def _visible(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.where(mask[..., None], image, np.uint8(0))


def _known_mouths(
    clips: AlignedClips, records: RenderRecords, split: str, limit: int
) -> tuple[UInt8[np.ndarray, "n s s 3"], UInt8[np.ndarray, "n s s 1"], Float[np.ndarray, "n 20 2"]]:
    """Frames of a split, evenly spaced, their masks, and the exact landmarks of their mouths."""
    chosen = evenly_spaced(list(_frames_of(clips, split)), limit)
    if not chosen:
        raise InputError(f"split {split!r}: no frames, so no landmark probe")
    frames = [clips.read(clip, number) for clip, number in chosen]
    mouths = np.stack([records.mouth(clip, number, clips.image_size) for clip, number in chosen])
    return np.stack([frame.image for frame in frames]), np.stack([frame.mask for frame in frames]), mouths


def _frames_of(clips: AlignedClips, split: str) -> Iterator[tuple[str, int]]:
    for clip in clips.clips.values():
        if clip.split == split:
            yield from ((clip.clip, number) for number in clip.frames.tolist())
