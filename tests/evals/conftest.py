"""A data set and a metric small enough for every test of the evaluation."""

import json
from pathlib import Path

import jax
import pytest

from asccl_jax.evals.metric_scores import untrained_metric
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import FrozenMetric, save_metric
from tests.evals.toy_records import SIZE, write_records

SETTINGS = MetricSettings(
    stage_blocks=(1, 1, 1, 1), stage_widths=(8, 8, 16, 16), image_size=SIZE, centre_counts=(6, 4, 4, 2)
)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("toy") / "records")


@pytest.fixture(scope="session")
def untrained(records: Path) -> FrozenMetric:
    return untrained_metric(SETTINGS, records, split="validation", seed=3)


@pytest.fixture(scope="session")
def metric(untrained: FrozenMetric) -> FrozenMetric:
    """A metric that is not the untrained one."""
    heads = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, untrained.variables["params"]["heads"])
    params = {**untrained.variables["params"], "heads": heads}
    return FrozenMetric({**untrained.variables, "params": params}, SETTINGS)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory, metric: FrozenMetric, untrained: FrozenMetric) -> Path:
    """What a finished training run leaves behind."""
    path = tmp_path_factory.mktemp("run")
    save_metric(path / "best", metric)
    save_metric(path / "initial", untrained)
    config = {"batch_size": 8, "seed": 0, "data": {"pairing": "aligned"}, "compat": "paper", "init_from": None}
    (path / "config.json").write_text(json.dumps(config))
    stages = {f"eval/{name}_stage{n}": 0.5 for name in ("top1", "gap") for n in range(1, 5)}
    lines = [{"step": 0, "eval/nce": 12.0, **stages}]
    lines += [{"step": step, "metric/nce": 12.0 - step, "speed/pairs_per_s": 3.0} for step in range(1, 9)]
    lines += [{"step": 8, "eval/nce": 6.0, **stages}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "metr')
    return path
