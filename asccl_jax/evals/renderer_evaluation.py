"""One evaluation: several renderers and a copy of the source, scored on the same held-out clips."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.data.strips import difference_image
from asccl_jax.data.twins import Twin, find_twins
from asccl_jax.errors import InputError
from asccl_jax.evals.landmark_probe import LandmarkProbe, load_probe, save_probe, train_probe
from asccl_jax.evals.renderer_scores import DrivenScore, OwnScore, score_driven_clip, score_own_clip
from asccl_jax.evals.renderer_truth import ALIGNED_SIDE, RenderRecords, TrueFrame
from asccl_jax.infer.edited_conditioning import check_edit, with_edit
from asccl_jax.infer.render import render_frames
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
    frames = [clips.read(clip.clip, number) for number in range(first, last + 1)]
    truth = np.stack([frame.image for frame in frames])
    masks = _masks(frames)
    mouths = np.stack([frame.mouth_centre for frame in frames]).astype(np.float64)
    names = {"clip": clip.clip, "speaker": clip.speaker, "emotion": clip.emotion}
    scores, rows = {}, []
    # The very first frame is among those shown: it has no history.
    shown = evenly_spaced(range(len(frames)), _SHOWN_FRAMES)
    visible = np.where(masks[..., None], truth, np.uint8(0))
    rows.append(("truth", tuple(visible[shown])))
    for candidate in candidates:
        output = np.stack(list(render_frames(candidate.renderer, frames)))
        scores[candidate.name] = score_own_clip(output, truth, masks, mouths, **names)
        rows.append((candidate.name, tuple(output[shown])))
        rows.append(("difference", tuple(map(difference_image, output[shown], visible[shown]))))
    numbers = ", ".join(str(first + place) for place in shown)
    return scores, Pictures(f"{clip.clip}, frames {numbers}", tuple(rows))


def _score_driven(
    candidates: Sequence[Candidate],
    clips: AlignedClips,
    records: RenderRecords,
    twin: Twin,
    edit: Path,
    probe: LandmarkProbe,
) -> tuple[dict[str, DrivenScore], Pictures]:
    numbers = _shared_run(clips, twin)
    frames = [clips.read(twin.source, number) for number in numbers]
    true_frames = [records.true_frame(twin, number, clips.image_size) for number in numbers]
    truth = np.stack([frame.image for frame in true_frames])
    masks = _masks(frames)
    visible = np.where(masks[..., None], truth, np.uint8(0))
    found_in_truth = probe.locate(visible)
    copy = np.where(masks[..., None], np.stack([frame.image for frame in frames]), np.uint8(0))
    outputs = {one.name: _drawn(one, frames, numbers, edit) for one in candidates} | {COPY: copy}
    names = {"source": twin.source, "clip": twin.target, "speaker": twin.speaker, "emotion": twin.emotion}
    scores = {
        name: score_driven_clip(
            output,
            truth,
            masks & np.stack([frame.face for frame in true_frames]),
            np.stack([frame.mouth for frame in true_frames]),
            probe.locate(output),
            found_in_truth,
            **names,
        )
        for name, output in outputs.items()
    }
    shown = _widest_mouths(true_frames)
    rows = [("source", tuple(copy[shown])), ("truth", tuple(visible[shown]))]
    for name in [candidate.name for candidate in candidates]:
        rows.append((name, tuple(outputs[name][shown])))
        rows.append(("difference", tuple(map(difference_image, outputs[name][shown], visible[shown]))))
    listed = ", ".join(str(numbers[place]) for place in shown)
    return scores, Pictures(f"{twin.source} as {twin.emotion}, frames {listed}", tuple(rows))


def _drawn(
    candidate: Candidate, frames: Sequence[AlignedFrame], numbers: Sequence[int], edit: Path
) -> UInt8[np.ndarray, "t h w 3"]:
    edited = (with_edit(frame, edit, number) for frame, number in zip(frames, numbers, strict=True))
    return np.stack(list(render_frames(candidate.renderer, edited)))


def _usable_twins(records: RenderRecords, clips: AlignedClips, edits: Path, split: str) -> list[Twin]:
    found = [
        twin
        for twin in find_twins(records.manifest, split)
        if twin.source in clips.clips and twin.target in clips.clips and (edits / twin.folder).is_dir()
    ]
    if not found:
        raise InputError(
            f"{edits}: no edit of a held-out neutral clip; draw them with `python -m DECA_torch_bridge edit RECORDS"
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


def _widest_mouths(frames: Sequence[TrueFrame]) -> list[int]:
    """In each part of the clip the frame whose true mouth is most open: nothing picked by outcome."""
    heights = np.array([np.ptp(frame.mouth[:, 1]) for frame in frames])
    parts = np.array_split(np.arange(len(frames)), min(_SHOWN_FRAMES, len(frames)))
    return [int(part[heights[part].argmax()]) for part in parts]


def _masks(frames: Iterable[AlignedFrame]) -> np.ndarray:
    return np.stack([frame.mask[..., 0] >= 128 for frame in frames])


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
