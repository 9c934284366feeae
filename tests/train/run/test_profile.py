"""Profiles: the steps asked for are traced and no others, and a run that ends within a trace keeps it."""

import gzip
import json
import logging
import os
import signal

import jax
import pytest

from asccl_jax.errors import DivergedError, InputError, WriteError
from asccl_jax.train.loop import fit
from asccl_jax.train.run.profile import ProfiledSteps, parse_profiled_steps
from tests.train.toy import experiment

# What the JAX profiler writes its Perfetto trace with.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def traced_steps(workdir):
    """The steps named in each trace of a run, read from what Perfetto opens."""
    steps = []
    for path in sorted((workdir / "profile").rglob("perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        steps.append(sorted({int(event["args"]["step_num"]) for event in events if event.get("name") == "train"}))
    return steps


@pytest.mark.parametrize(
    ("text", "steps"), [("5", ProfiledSteps(5)), ("100:104", ProfiledSteps(5, 100)), ("1:1", ProfiledSteps(1, 1))]
)
def test_a_number_or_a_range_of_steps_is_read(text, steps):
    assert parse_profiled_steps(text) == steps


@pytest.mark.parametrize("text", ["", "0", "-3", "x", "3:", ":3", "4:3", "0:3", "1:2:3", "2.5", "3:x"])
def test_anything_else_is_one_line_that_shows_what_is_expected(text):
    with pytest.raises(InputError, match=r"--profile .*: expected a number of steps, .* or FIRST:LAST") as error:
        parse_profiled_steps(text)
    assert "\n" not in str(error.value)


def test_by_default_the_trace_begins_after_the_first_steps_of_this_process(tmp_path, caplog):
    fit(experiment(steps=2), tmp_path)
    with caplog.at_level(logging.INFO, logger="asccl_jax.train.run.profile"):
        fit(experiment(steps=10), tmp_path, profile=ProfiledSteps(2))
    assert traced_steps(tmp_path) == [[6, 7]]
    assert f"profile of steps 6 to 7 in {tmp_path / 'profile'}" in caplog.text
    assert "https://ui.perfetto.dev" in caplog.text
    assert f"xprof --logdir {tmp_path / 'profile'}" in caplog.text
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_named_steps_are_traced_and_losses_stay_the_same(tmp_path):
    fit(experiment(steps=8), tmp_path / "plain")
    fit(experiment(steps=8), tmp_path / "profiled", profile=ProfiledSteps(count=3, first=3))
    assert traced_steps(tmp_path / "profiled") == [[3, 4, 5]]
    assert (tmp_path / "plain/last/w.json").read_text() == (tmp_path / "profiled/last/w.json").read_text()


def test_a_run_that_ends_is_stopped_or_diverges_within_the_trace_keeps_it_and_ends_as_without(tmp_path):
    fit(experiment(steps=5), tmp_path / "ends", profile=ProfiledSteps(100, first=4))
    assert traced_steps(tmp_path / "ends") == [[4, 5]]

    stopping = experiment(steps=9, at_batch={5: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    result = fit(stopping, tmp_path / "stopped", profile=ProfiledSteps(100, first=4))
    assert (result.stopped_by, result.step) == (signal.SIGTERM, 5)
    assert traced_steps(tmp_path / "stopped") == [[4, 5]]

    with pytest.raises(DivergedError):
        fit(experiment(steps=20, learning_rate=1e38), tmp_path / "diverged", profile=ProfiledSteps(100, first=1))
    assert len(traced_steps(tmp_path / "diverged")) == 1
    jax.profiler.start_trace(str(tmp_path / "free"))  # raises where one is under way
    jax.profiler.stop_trace()


def test_steps_that_are_done_already_are_not_traced_and_the_run_says_so(tmp_path, caplog):
    fit(experiment(steps=4), tmp_path)
    fit(experiment(steps=6), tmp_path, profile=ProfiledSteps(count=2, first=2))
    assert "--profile: step 3 is done, so there is nothing to trace" in caplog.text
    assert not (tmp_path / "profile").exists()
    fit(experiment(steps=8), tmp_path, profile=ProfiledSteps(count=4, first=5))
    assert traced_steps(tmp_path) == [[7, 8]]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "profile").write_text("")
    with pytest.raises(WriteError, match=f"cannot write {tmp_path / 'profile'}"):
        fit(experiment(steps=6), tmp_path, profile=ProfiledSteps(1))
