"""The summary of a run: its seconds add up, it knows what was waited for, and it stays with an idle start."""

import json
import math
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from asccl_jax.data.records import RecordSource
from asccl_jax.evals.report import input_advice
from asccl_jax.metrics_file import read_metrics, read_summary
from asccl_jax.train.loop import fit
from asccl_jax.train.run.writer import (
    NonFiniteError,
    ScalarQueue,
    ScalarWriter,
    check_finite,
    summarise,
    trim_metrics,
    write_summary,
)
from tests.train.toy import experiment


def test_seconds_add_up_and_waiting_for_input_is_seen(tmp_path):
    begin = time.perf_counter()
    # The first batch is waited for too; that is starting.
    late = {batch: (lambda: time.sleep(0.05)) for batch in range(1, 13)}
    result = fit(experiment(steps=12, evaluate_every=6, checkpoint_every=4, at_batch=late), tmp_path)
    elapsed = time.perf_counter() - begin
    summary = summarise(result, input_threads=4)
    seconds = summary["seconds"]
    assert set(seconds) == {"starting", "compiling", "waiting_for_input", "training", "evaluating", "saving"}
    assert min(seconds.values()) > 0
    # All but what lies around the loop, which is the closing of checkpoints.
    assert 12 * 0.05 < sum(seconds.values()) < elapsed
    np.testing.assert_allclose(sum(seconds.values()), result.seconds, rtol=1e-9)
    assert seconds["waiting_for_input"] >= 11 * 0.05
    assert seconds["starting"] >= 0.05

    (figures,) = summary["processes"]
    assert figures["input_wait_s"] >= 0.05
    assert figures["step_s"] >= figures["input_wait_s"] + figures["placing_s"] + figures["device_wait_s"]
    assert figures["step_p95_s"] >= 0.05
    assert figures["host_peak_bytes"] > 50e6
    assert "--config.data.threads (now 4)" in input_advice(summary)
    assert (summary["step"], summary["first_step"], summary["checkpoints"]) == (12, 0, 3)
    np.testing.assert_allclose(summary["examples_per_s"], 8 * result.steps_per_s, rtol=1e-9)
    np.testing.assert_allclose(figures["step_s"], 1 / result.steps_per_s, rtol=1e-9)


def test_input_that_is_there_in_time_is_no_matter(tmp_path):
    summary = summarise(fit(experiment(steps=6), tmp_path), input_threads=4)
    assert summary["processes"][0]["input_wait_s"] < 0.05


def test_a_start_that_found_nothing_to_do_keeps_the_summary_of_the_one_before(tmp_path):
    assert read_summary(tmp_path) is None
    first = summarise(fit(experiment(steps=4), tmp_path), input_threads=None)
    write_summary(tmp_path, first)
    assert read_summary(tmp_path) == first
    idle = summarise(fit(experiment(steps=4), tmp_path), input_threads=None, attempt=2)
    assert (idle["step"], idle["first_step"], idle["checkpoints"], idle["attempt"]) == (4, 4, 0, 2)
    write_summary(tmp_path, idle)
    assert read_summary(tmp_path) == first


def test_scalars_come_out_in_order_and_depth_steps_late():
    queue = ScalarQueue(depth=2)
    seen = [[step for step, _ in queue.push(step, {"a": jnp.asarray(step)})] for step in range(1, 6)]
    assert seen == [[], [], [1], [2], [3]]
    assert list(queue.drain()) == [(4, {"a": 4.0}), (5, {"a": 5.0})]
    assert list(queue.drain()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_with_its_step(value):
    queue = ScalarQueue(depth=0)
    with pytest.raises(NonFiniteError, match=f"b is {value} at step 7"):
        list(queue.push(7, {"a": jnp.asarray(1.0), "b": jnp.asarray(value)}))
    with pytest.raises(NonFiniteError) as caught:
        check_finite(3, {"a": 0.0, "c": value})
    assert (caught.value.name, caught.value.step) == ("c", 3)


def test_every_line_is_json_with_its_step_and_full_precision(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write(1, {"metric/loss": 0.1 + 0.2})
        writer.write(2, {"metric/loss": 1e-30})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "metric/loss": 0.1 + 0.2}, {"step": 2, "metric/loss": 1e-30}]


def test_lines_beyond_the_restored_step_go_and_the_others_stay_as_they_are(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        for step in range(1, 6):
            writer.write(step, {"metric/loss": step / 3})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with ScalarWriter(tmp_path, last_step=3) as writer:
        writer.write(4, {"metric/loss": 9.0})
    after = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert after[:3] == before[:3]
    assert json.loads(after[3]) == {"step": 4, "metric/loss": 9.0}
    assert len(after) == 4


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    assert read_metrics(path) == [{"step": 1, "a": 2.0}]
    trim_metrics(path, 5)
    assert path.read_text() == '{"step": 1, "a": 2.0}\n'


def test_an_absent_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_gets_the_same_scalars(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write(7, {"metric/loss": 0.5, "eval/nce": 3.0})
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(data) for data in RecordSource([file])]  # event files are TFRecords too
    found = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert found == {(7, "metric/loss"): 0.5, (7, "eval/nce"): 3.0}


def test_pictures_become_files_and_events(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write_pictures(12, {"frames": picture})
    with Image.open(tmp_path / "pictures" / "frames-000012.png") as file:
        np.testing.assert_array_equal(np.asarray(file), picture)
    (events,) = (tmp_path / "tensorboard").iterdir()
    found = [
        (event.step, value.tag, value.image.height, value.image.width)
        for data in RecordSource([events])
        for event in [Event.FromString(data)]
        for value in event.summary.value
    ]
    assert found == [(12, "frames", 6, 9)]


def test_torch_is_not_imported_though_it_is_installed():
    program = (
        "import importlib.util, sys; import asccl_jax.train.run.writer\n"
        "assert 'torch' not in sys.modules and importlib.util.find_spec('tensorboardX')\n"
        "sys.modules['torch'] = torch = type(sys)('torch')\n"
        "import importlib; importlib.reload(asccl_jax.train.run.writer)\n"
        "assert sys.modules['torch'] is torch\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
