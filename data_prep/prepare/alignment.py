"""Which frame of one clip says what a frame of another says: dynamic time warping of their sound.

Classic DTW at the frame rate lets one frame stand for seconds of the other clip wherever one of them is silent. Here
silences are cut short first, the path may neither leave a band around the diagonal nor dwell, and it is found in
thirds of frames; paired are then the frames that are each other's nearest along it, so that no frame comes twice.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from asccl_jax.errors import InputError
from data_prep.media.audio import SUBFRAMES, SpeechFeatures

__all__ = ["Alignment", "AlignmentSettings", "UnalignableError", "align_speech", "cosine_costs", "shortest_path"]


class UnalignableError(ValueError):
    """Two clips that cannot be aligned; the message is the reason, as the report words it."""


@dataclasses.dataclass(frozen=True)
class AlignmentSettings:
    """What a path may do.

    Attributes:
      band: Greatest distance of the path from the diagonal, as a fraction of the longer clip's speech.
      least_band: The same in frames, for short clips.
      max_hold: Most steps in a row that stay in one place of a clip, so that speech is stretched at most
        max_hold + 1 times.
      gap_penalty: Cost of a step that stays, on top of the features' own (cosine costs reach from 0 to 2).
      pause: Frames that are left of a longer silence between words, and of those before and after speech.
    """

    band: float = 0.25
    least_band: int = 12
    max_hold: int = 2
    gap_penalty: float = 0.05
    pause: int = 4

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if not 0 <= self.band <= 1:
            raise InputError(f"--band {self.band}: expected 0 to 1")
        if self.max_hold < 1:
            raise InputError(f"--max-hold {self.max_hold}: expected at least 1")


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Frames of two clips that say the same.

    Attributes:
      query: Frame numbers in the first clip, rising.
      key: Frame numbers in the second clip, rising.
      cost: Mean cost along the path; low if both say the same words.
    """

    query: Int[np.ndarray, " n"]
    key: Int[np.ndarray, " n"]
    cost: float


def align_speech(
    query: SpeechFeatures, key: SpeechFeatures, settings: AlignmentSettings = AlignmentSettings()
) -> Alignment:
    """Returns the frames of two clips that say the same where their sound agrees best.

    A frame is in at most one pair: in none if it lies within a long silence, or if the other clip is faster there and
    has a nearer partner for its frame.

    Raises:
      UnalignableError: A clip is silent, or one would have to be stretched beyond the limit.
    """
    kept_query, kept_key = _kept_places(query.silent, key.silent, settings.pause * SUBFRAMES)
    lengths = sorted((len(kept_query), len(kept_key)))
    if lengths[1] - 1 > (settings.max_hold + 1) * (lengths[0] - 1):
        found = f"{len(kept_query) // SUBFRAMES} and {len(kept_key) // SUBFRAMES}"
        raise UnalignableError(f"speech of {found} frames: too unlike in length")
    costs = cosine_costs(query.features[kept_query], key.features[kept_key])
    silent_query, silent_key = query.silent[kept_query, None], key.silent[None, kept_key]
    # The spectrum of silence is noise: it matches silence, and no speech.
    costs = np.where(silent_query & silent_key, 0.0, np.where(silent_query ^ silent_key, 1.0, costs))
    band = max(settings.least_band * SUBFRAMES, settings.band * lengths[1])
    path, cost = shortest_path(costs, band=band, max_hold=settings.max_hold, gap_penalty=settings.gap_penalty)
    frames = _nearest_frames(
        kept_query[path[:, 0]], kept_key[path[:, 1]], len(query.silent) // SUBFRAMES, len(key.silent) // SUBFRAMES
    )
    if not len(frames):
        raise UnalignableError("no frame of speech to pair")
    return Alignment(query=frames[:, 0], key=frames[:, 1], cost=cost / len(path))


def cosine_costs(query: Float[np.ndarray, "n f"], key: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "n m"]:
    """Returns one minus the cosine between each feature of one clip and each of the other."""
    unit_query, unit_key = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9) for x in (query, key))
    return np.maximum(1 - unit_query @ unit_key.T, 0).astype(np.float64)


def shortest_path(
    costs: Float[np.ndarray, "n m"],
    *,
    band: float | None = None,
    max_hold: int | None = None,
    gap_penalty: float = 0.0,
) -> tuple[Int[np.ndarray, "steps 2"], float]:
    """Returns the cheapest monotone path from corner to corner, and its cost.

    Steps are (1, 1), (1, 0) and (0, 1); where several cost the same, the first of these is taken. The cost is the sum
    over the cells of the path plus `gap_penalty` for each step of the last two kinds. Cells are worked off one
    anti-diagonal after the other, all of one at once.

    Args:
      costs: Cost of each pair of places.
      band: Greatest distance of a cell from the straight line between the corners, along the longer axis, or None.
      max_hold: Most steps (1, 0) in a row, and most steps (0, 1), or None.
      gap_penalty: See above.

    Raises:
      UnalignableError: No path obeys the limits.
    """
    rows, columns = costs.shape
    runs = 1 if max_hold is None else max_hold
    if band is not None:
        costs = np.where(_inside_band(rows, columns, band), costs, np.inf)
    # State 0 came by (1, 1), 1..runs by as many (1, 0) in a row, the next `runs` states by (0, 1).
    down, right = np.arange(1, runs + 1), np.arange(runs + 1, 2 * runs + 1)
    into_down = np.concatenate([[0], right, down[:0] if max_hold is not None else down])
    into_right = np.concatenate([[0], down, right[:0] if max_hold is not None else right])
    total = np.full((2 * runs + 1, rows, columns), np.inf)
    origin = np.zeros((2 * runs + 1, rows, columns), np.int8)  # state of the cell before
    total[0, 0, 0] = costs[0, 0]
    for diagonal in range(1, rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        cell = costs[i, j]
        both = (i > 0) & (j > 0)
        _enter(total, origin, 0, np.arange(2 * runs + 1), (i[both], j[both]), (1, 1), cell[both])
        for states, others, step, free in ((down, into_down, (1, 0), i > 0), (right, into_right, (0, 1), j > 0)):
            place, price = (i[free], j[free]), cell[free] + gap_penalty
            if runs:
                _enter(total, origin, states[0], others, place, step, price)
            for longer in states[1:]:
                _enter(total, origin, longer, np.array([longer - 1]), place, step, price)
    return _trace_back(total, origin, runs)


def _enter(
    total: Float[np.ndarray, "s n m"],
    origin: Int[np.ndarray, "s n m"],
    state: int,
    origins: Int[np.ndarray, " o"],
    place: tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"]],
    step: tuple[int, int],
    price: Float[np.ndarray, " c"],
) -> None:
    """Fills one state of some cells from the best of the states that may precede it."""
    before = total[origins[:, None], place[0] - step[0], place[1] - step[1]]
    best = before.argmin(axis=0)
    total[state][place] = before[best, np.arange(len(best))] + price
    origin[state][place] = origins[best]


def _trace_back(
    total: Float[np.ndarray, "s n m"], origin: Int[np.ndarray, "s n m"], runs: int
) -> tuple[Int[np.ndarray, "steps 2"], float]:
    i, j = total.shape[1] - 1, total.shape[2] - 1
    state = int(total[:, i, j].argmin())
    cost = float(total[state, i, j])
    if not np.isfinite(cost):
        raise UnalignableError("no path obeys the band and the limit on held frames")
    path = [(i, j)]
    while i or j:
        before = int(origin[state, i, j])
        i, j = i - (state <= runs), j - (state == 0 or state > runs)
        path.append((i, j))
        state = before
    return np.array(path[::-1]), cost


def _inside_band(rows: int, columns: int, band: float) -> Bool[np.ndarray, "n m"]:
    longer = max(rows, columns) - 1
    i = np.arange(rows)[:, None] * (longer / max(rows - 1, 1))
    j = np.arange(columns)[None, :] * (longer / max(columns - 1, 1))
    return np.abs(i - j) <= band


def _nearest_frames(
    query: Int[np.ndarray, " steps"], key: Int[np.ndarray, " steps"], query_frames: int, key_frames: int
) -> Int[np.ndarray, "n 2"]:
    """Pairs of frames each of which is the other's nearest where the path passes its middle."""
    partner = _partners(query, key, query_frames)
    back = _partners(key, query, key_frames)
    first = np.flatnonzero(np.isfinite(partner))
    second = np.clip(np.rint(partner[first]).astype(np.int64), 0, key_frames - 1)
    mutual = np.rint(np.where(np.isfinite(back), back, -1)).astype(np.int64)[second] == first
    return np.stack([first[mutual], second[mutual]], axis=1)


def _partners(
    own: Int[np.ndarray, " steps"], other: Int[np.ndarray, " steps"], frames: int
) -> Float[np.ndarray, " frames"]:
    """Where in the other clip, in frames, the path passes the middle of each own frame; NaN where it does not."""
    places = frames * SUBFRAMES
    visits = np.bincount(own, minlength=places)
    mean = np.bincount(own, weights=other, minlength=places) / np.where(visits, visits, np.nan)
    middle = SUBFRAMES // 2
    return (mean[middle::SUBFRAMES] - middle) / SUBFRAMES


def _kept_places(
    silent_query: Bool[np.ndarray, " n"], silent_key: Bool[np.ndarray, " m"], pause: int
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Places left of each clip once long silences are cut; those at the ends to the same length in both."""
    if silent_query.all() or silent_key.all():
        raise UnalignableError("a silent sound track")
    ends = []
    for silent in (silent_query, silent_key):
        spoken = np.flatnonzero(~silent)
        ends.append((spoken[0], spoken[-1]))
    before = min(pause, ends[0][0], ends[1][0])
    after = min(pause, len(silent_query) - 1 - ends[0][1], len(silent_key) - 1 - ends[1][1])
    kept = []
    for silent, (first, last) in zip((silent_query, silent_key), ends, strict=True):
        keep = _short_pauses(silent, pause)
        keep[first - before : first], keep[last + 1 : last + 1 + after] = True, True
        keep[: first - before], keep[last + 1 + after :] = False, False
        kept.append(np.flatnonzero(keep))
    return kept[0], kept[1]


def _short_pauses(silent: Bool[np.ndarray, " t"], pause: int) -> Bool[np.ndarray, " t"]:
    """Places that stay once the middle of each silence longer than `pause` is taken out."""
    keep = np.ones(len(silent), bool)
    edges = np.flatnonzero(np.diff(silent.astype(np.int8), prepend=0, append=0))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        keep[first + pause // 2 : max(end - (pause - pause // 2), first + pause // 2)] = False
    return keep
