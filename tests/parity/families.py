"""The kinds of goldens that can be replayed: which files, from which manifests, by which code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tests.parity import (
    deca_encoders,
    flame_deca,
    flame_jax,
    manipulator,
    manipulator_inference,
    metric,
    postprocess,
    renderer_default_256,
    renderer_parts,
    renderer_train,
)
from tests.parity.metric import Replayed

__all__ = ["FAMILIES", "Family", "families_of"]

Manifests = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of golden.

    Attributes:
      names: Pattern of the files' names, without `.npz`.
      manifests: Manifests of the networks' weights.
      inputs: Pattern of arrays that are read and not compared.
      describe: What a golden's configuration says, for the report.
      run: Arrays of the file, manifests by name, whether to compute in float64; the replayed results.
      title: Which code replays it, where another family replays the same golden.
      whole: Whether all arrays must be replayed; if not, what `run` leaves out is another family's.
    """

    names: str
    manifests: tuple[str, ...]
    inputs: str
    describe: Callable[[np.ndarray], str]
    run: Callable[[Mapping[str, np.ndarray], Manifests, bool], Replayed]
    title: str = ""
    whole: bool = True


def _run_metric(golden: Mapping[str, np.ndarray], manifests: Manifests, exact: bool) -> Replayed:
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        return metric.replay(golden, manifests[metric.MANIFEST], dtype=np.float64 if exact else np.float32)


def _describe_head(cfg: np.ndarray) -> str:
    seed, rows, columns, size, batch = cfg
    return f"seed {seed}, {rows} x {columns} vertices, batch {batch}, size {size}"


FAMILIES = (
    Family(
        r"metric_.*",
        (metric.MANIFEST,),
        r"cfg|.*/centres\d(_step\d+)?|.*/perm\d(_step\d+)?",
        lambda cfg: "seed {}, batch {}, size {}".format(*cfg),
        _run_metric,
    ),
    Family(
        flame_deca.NAMES,
        flame_deca.MANIFESTS,
        flame_deca.INPUTS,
        _describe_head,
        lambda golden, manifests, exact: flame_deca.replay(golden, manifests, exact=exact),
        title="PyTorch bridge",
    ),
    Family(
        flame_deca.NAMES,
        (),
        flame_deca.INPUTS,
        _describe_head,
        lambda golden, _, exact: flame_jax.replay(golden, exact=exact),
        title="JAX geometry",
        whole=False,
    ),
    Family(
        deca_encoders.NAMES,
        deca_encoders.MANIFESTS,
        deca_encoders.INPUTS,
        lambda cfg: f"seed {cfg[0]}",
        lambda golden, manifests, exact: deca_encoders.replay(golden, manifests, exact=exact),
    ),
    Family(
        manipulator.NAMES,
        manipulator.MANIFESTS,
        manipulator.INPUTS,
        lambda cfg: "seed {}, batch {}, {} frames".format(*cfg),
        lambda golden, manifests, exact: manipulator.replay(golden, manifests, exact=exact),
    ),
    Family(
        manipulator_inference.NAMES,
        manipulator_inference.MANIFESTS,
        manipulator_inference.INPUTS,
        lambda cfg: "seed {}, {} frames, windows of {}".format(*cfg),
        lambda golden, manifests, exact: manipulator_inference.replay(golden, manifests, exact=exact),
    ),
    Family(
        renderer_parts.NAMES,
        renderer_parts.MANIFESTS,
        renderer_parts.INPUTS,
        lambda cfg: "seed {}, size {}, regions of {}, widths {} and {}".format(*cfg),
        lambda golden, manifests, exact: renderer_parts.replay(golden, manifests, exact=exact),
    ),
    Family(
        renderer_default_256.NAMES,
        renderer_default_256.MANIFESTS,
        renderer_default_256.INPUTS,
        lambda cfg: "seed {}, size {}".format(*cfg),
        lambda golden, manifests, exact: renderer_default_256.replay(golden, manifests, exact=exact),
    ),
    Family(
        renderer_train.NAMES,
        renderer_train.MANIFESTS,
        renderer_train.INPUTS,
        lambda cfg: "seed {}, size {}, regions of {}, widths {} and {}".format(*cfg),
        lambda golden, manifests, exact: renderer_train.replay(golden, manifests, exact=exact),
    ),
    Family(
        postprocess.NAMES,
        postprocess.MANIFESTS,
        postprocess.INPUTS,
        lambda cfg: "seed {}, {} x {} pixels".format(*cfg),
        lambda golden, manifests, exact: postprocess.replay(golden, manifests, exact=exact),
    ),
)


def families_of(name: str) -> tuple[Family, ...]:
    """Returns the families that replay a golden, by its name; none if it belongs to networks that are not here."""
    return tuple(family for family in FAMILIES if re.fullmatch(family.names, name))
