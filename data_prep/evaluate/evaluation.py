"""Scores all clips: reads every video once, matches manipulated clips with source and truth, fills the pools."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.errors import InputError
from data_prep.evaluate.evaluation_run import EvaluationSettings, Run
from data_prep.evaluate.feature_distances import PooledClip, expression_pools, frechet_pools
from data_prep.evaluate.inputs import ClipSet
from data_prep.evaluate.landmark_sources import PROBE, KnownClip, LandmarkFinder, MouthProbe, fitted_probe, hash_of
from data_prep.evaluate.matching import Matched, match_clips, one_spelling_of_speakers
from data_prep.evaluate.score_cache import Fingerprints, ScoreCache, digest
from data_prep.evaluate.scored_clips import Scored, Seen, known, score_fake, score_real
from data_prep.evaluate.video_features import FaceNetworks, VideoFeatures
from data_prep.evaluate.video_metrics import (
    ClipScores,
    PoolScore,
    ProbeError,
    Refusal,
    VideoEvaluation,
    emotions_of,
    speakers_of,
)
from data_prep.evaluate.video_references import DrivenClip, MapCheck, Setting, SourceClip, caveats, check_map, map_pairs
from data_prep.media.clips import Clip

__all__ = ["evaluate"]


def evaluate(
    fake: ClipSet,
    real: ClipSet,
    sources: ClipSet | None,
    networks: FaceNetworks,
    finder: LandmarkFinder,
    *,
    work: Path,
    settings: EvaluationSettings,
    advance: Callable[[], object] = lambda: None,
    begin: Callable[[int], object] = lambda count: None,
) -> tuple[VideoEvaluation, list[Scored]]:
    """Returns the scores of all clips, and the scored clips themselves for pictures of them.

    Args:
      fake: Manipulated clips.
      real: Real clips of the same speakers.
      sources: What the manipulated clips were made from; None for what their list names.
      networks: What judges faces.
      finder: Where landmarks come from.
      work: Folder where results are kept between runs.
      settings: What is asked for.
      advance: Called after each clip.
      begin: Called with the number of clips to come.

    Raises:
      InputError: Not one manipulated clip can be scored, or none of the sources is in the map asked for.
    """
    fake, real, sources = one_spelling_of_speakers(fake, real, sources)
    run = Run(networks, finder, ScoreCache(work), Fingerprints(), settings, advance)
    for one in (fake, real, sources):
        if one is not None:
            run.refused += [Refusal(one.option.strip("-"), entry.subject, entry.reason) for entry in one.problems]
    matched = _matched(run, fake, sources, real)
    check = _checked(settings.setting, matched, sources)
    reals = _chosen_real(real, matched, settings.limit)
    originals = {m.source.video: m.source for m in matched if m.source is not None}
    begin(len({*originals, *(clip.video for clip in reals)}) + 2 * len(matched) + len(reals))
    seen = _read_originals(run, reals, originals)
    probe = _probe(run, seen, work)
    fakes = run.each(lambda one: run.features(one.fake.clip, probe, known(seen, one.source)), matched)
    pairs = list(zip(matched, fakes, strict=True))
    scored = [one for one in run.each(lambda pair: score_fake(run, *pair, seen), pairs) if one is not None]
    if not scored:
        raise InputError(f"not one manipulated clip could be scored: {_first_reasons(run.refused)}")
    by_themselves = [one for one in run.each(functools.partial(score_real, run, seen), reals) if one is not None]
    pools = _pools(scored, [(clip, seen[clip.video]) for clip in reals if clip.video in seen])
    return _evaluation(run, scored, by_themselves, pools, check, probe), scored


def _evaluation(
    run: Run,
    scored: Sequence[Scored],
    real: Sequence[ClipScores],
    pools: Sequence[PoolScore],
    check: MapCheck | None,
    probe: MouthProbe | None,
) -> VideoEvaluation:
    clips = tuple(one.scores for one in scored)
    whole = [one.features for one in scored if one.features.square is None]
    used = probe is not None and any(one.features.landmarks_from == PROBE for one in scored)
    return VideoEvaluation(
        clips=clips,
        real=tuple(real),
        pools=tuple(pools),
        refused=tuple(sorted(run.refused, key=lambda one: (one.side, one.clip, one.reason))),
        networks=dict(run.networks.hashes),
        missing=dict(run.networks.missing),
        silent=0 if run.networks.sync is None else sum(not one.sound for one in clips),
        check=check,
        probe=ProbeError(probe.error, probe.frames) if probe is not None and used else None,
        caveats=caveats(
            speakers_of(clips),
            emotions_of(clips),
            covered=None if check is None else check.complete,
            networks=list(run.networks.hashes),
            mixed_sizes=any((one.width, one.height) != (256, 256) for one in whole),
        ),
        shown=(),
    )


def _matched(run: Run, fake: ClipSet, sources: ClipSet | None, real: ClipSet) -> list[Matched]:
    prefer: Literal["neutral", "same"] = "same" if run.settings.setting == "intra" else "neutral"
    matched, problems = match_clips(fake, sources, real, prefer=prefer)
    run.refused += [Refusal("fake", entry.subject, entry.reason) for entry in problems]
    if not matched:
        raise InputError(f"--fake {fake.path}: not one clip could be matched: {_first_reasons(run.refused)}")
    return evenly_spaced(matched, run.settings.limit)


def _checked(setting: Setting | None, matched: Sequence[Matched], sources: ClipSet | None) -> MapCheck | None:
    if setting is None:
        return None
    if sources is None:
        raise InputError(f"--map {setting}: needs --source, the clips that the map starts from")
    pairs = map_pairs(
        [SourceClip(one.clip.clip_id, one.clip.speaker, one.clip.emotion) for one in sources.clips], setting
    )
    driven = [
        DrivenClip(
            m.fake.clip.clip_id,
            m.fake.clip.speaker,
            m.fake.clip.emotion,
            "" if m.source is None else m.source.clip_id,
            m.fake.driver.split("/")[0],  # a speaker, or the first part of a clip's id
        )
        for m in matched
    ]
    return check_map(pairs, driven, setting)


def _chosen_real(real: ClipSet, matched: Sequence[Matched], limit: int | None) -> list[Clip]:
    """Real clips of the manipulated speakers, and truths, each video once."""
    speakers = {m.fake.clip.speaker for m in matched}
    own = evenly_spaced([one.clip for one in real.clips if one.clip.speaker in speakers], limit)
    truths = [m.truth for m in matched if m.truth is not None]
    return list({clip.video: clip for clip in (*own, *truths)}.values())


def _read_originals(run: Run, reals: Sequence[Clip], originals: Mapping[Path, Clip]) -> dict[Path, VideoFeatures]:
    clips = list({**originals, **{clip.video: clip for clip in reals}}.values())
    seen = {}
    for clip, found in zip(clips, run.each(run.features, clips), strict=True):
        if isinstance(found, str):
            run.refused.append(Refusal("source" if clip.video in originals else "real", clip.clip_id, found))
        else:
            seen[clip.video] = found
    return seen


def _probe(run: Run, seen: Seen, work: Path) -> MouthProbe | None:
    if not run.finder.wants_probe:
        return None
    clips = [
        KnownClip(video, found.landmarks, f"{found.key} {hash_of(found.landmarks)}")
        for video, found in seen.items()
        if found.landmarks is not None
    ]
    # By content, so that a folder's name decides nothing.
    clips = list({clip.key: clip for clip in sorted(clips, key=lambda clip: clip.key)}.values())
    return fitted_probe(clips, work / f"probe-{digest(*(clip.key for clip in clips))}.npz")


def _pools(scored: Sequence[Scored], real: Sequence[tuple[Clip, VideoFeatures]]) -> list[PoolScore]:
    found: list[PoolScore] = []
    fakes = [(one.matched.fake.clip, one.features) for one in scored]
    for name, network, pools in (
        ("fad_resnetface18", "resnet-face", frechet_pools),
        ("fad_arcface", "arcface", frechet_pools),
        ("expression_csim", "efficient-face", expression_pools),
    ):
        sides = [
            [_pooled(clip, features, network) for clip, features in side if network in features.stored]
            for side in (real, fakes)
        ]
        found += pools(name, *sides)
    return found


def _pooled(clip: Clip, features: VideoFeatures, network: str) -> PooledClip:
    def read() -> np.ndarray:
        arrays = features.network(network)
        if arrays is None:
            raise InputError(f"{clip.clip_id}: its features were removed while they were needed; run again")
        return arrays["features"]

    return PooledClip(clip.clip_id, clip.speaker, clip.emotion, features.frames, read)


def _first_reasons(refused: Sequence[Refusal]) -> str:
    return "; ".join(f"{one.clip}: {one.reason}" for one in refused[:3]) or "there are none"
