"""Pictures of one evaluation: which faces, maps and picks to show, and what to write under them."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.figure import Figure

from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.evals.face_figures import Image, example_strip, pick_panels, weight_panels
from asccl_jax.evals.metric_evaluation import Candidate, Evaluation
from asccl_jax.evals.metric_maps import look_at_pairs

__all__ = ["attention_figures", "example_figure"]

SHOWN_CONDITIONS = ("matched", "small_speech_change", "other_speech", "other_identity_same_speech")
SHOWN_COLUMNS = 7
PICK_STAGE = 1
PICKS = 10
"""Local changes looked up at the second stage, whose sixteen centres fit a picture."""


def example_figure(evaluation: Evaluation, row_name: str) -> Figure:
    """Returns query faces above their key faces, each key with the loss that one row gives it."""
    lookup = evaluation.comparisons.lookup
    conditions = [name for name in SHOWN_CONDITIONS if name in lookup]
    groups = sorted(set.intersection(*(set(lookup[name]) for name in conditions)))
    losses = next(row for row in evaluation.rows if row.name == row_name).losses["face"]
    columns = []
    for group in evenly_spaced(groups, SHOWN_COLUMNS):
        records = {name: lookup[name][group] for name in conditions}
        matched = evaluation.comparisons.records[records["matched"]]
        faces = {"query": (_query(evaluation, matched), "neutral")}
        for name, position in records.items():
            record = evaluation.comparisons.records[position]
            faces[textwrap.fill(name.replace("_", " "), 14)] = (
                _key(evaluation, record),
                f"loss {losses[position]:.2f}",
            )
        columns.append((f"{matched.speaker}, {matched.emotion}", faces))
    return example_strip(columns)


def attention_figures(evaluation: Evaluation, before: Candidate | None, after: Candidate) -> dict[str, Figure]:
    """Returns "weights", the adaptive weights over a neutral face, and "picks", local changes found across emotions.

    Args:
      evaluation: Source of the faces: matched pairs a third and two thirds through the list.
      before: The untrained network; without it there are no picks.
      after: The trained one.
    """
    matched = [record for record in evaluation.comparisons.records if record.condition == "matched"]
    chosen = [matched[len(matched) * part // 3] for part in (1, 2)]
    queries, keys = (np.stack([side(evaluation, record) for record in chosen]) for side in (_query, _key))
    looks = {
        candidate.name: look_at_pairs(candidate.metric, queries, keys, stage=PICK_STAGE, count=PICKS)
        for candidate in (before, after)
        if candidate is not None
    }
    weights = {name: [stage[0] for stage in look.weights] for name, look in looks.items()}
    figures = {"weights": weight_panels(queries[0], weights)}
    if before is not None:
        picks = (looks[candidate.name].picks for candidate in (before, after))
        figures["picks"] = pick_panels(list(zip(queries, keys, *picks, strict=True)))
    return figures


def _query(evaluation: Evaluation, record: ComparisonRecord) -> Image:
    return evaluation.frames.image(record.query_clip, record.query_frame)


def _key(evaluation: Evaluation, record: ComparisonRecord) -> Image:
    return evaluation.frames.image(record.key_clip, record.key_frame)
