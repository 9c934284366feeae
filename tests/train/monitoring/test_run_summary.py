"""The summary of a run: its seconds add up, it knows what was waited for, and it stays with an idle start."""

import time

import numpy as np

from asccl_jax.evals.run_tables import input_advice
from asccl_jax.metrics_file import read_summary
from asccl_jax.train.loop import fit
from asccl_jax.train.monitoring.run_summary import summarise, write_summary
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
