"""The summary of a run in words: where the time went, and what to do where it went into waiting."""

from pathlib import Path

import pytest

from asccl_jax.evals.report import conclusion, input_advice, run_grids

WORKDIR = Path("runs/here")


def process(index, *, share=0.0, device=None):
    return {
        "process": index,
        "host": f"host{index}",
        "step_s": 0.5,
        "step_p95_s": 0.625,
        "input_wait_s": 0.5 * share,
        "placing_s": 0.0,
        "device_wait_s": 0.25,
        "host_peak_bytes": 3 * 2**30,
        "device_peak_bytes": device,
        "input_share": share,
    }


def summary(*processes, **entries):
    seconds = {"starting": 1.0, "compiling": 9.0, "waiting_for_input": 2.0, "training": 80.0, "saving": 3.0}
    return {
        "step": 120,
        "first_step": 20,
        "steps_per_s": 2.0,
        "examples_per_s": 16.0,
        "unit": "pair",
        "best_step": 100,
        "best_score": 3.25,
        "checkpoints": 1,
        "input_threads": 4,
        "seconds": {**seconds, "reporting": 5.0},
        "processes": list(processes or [process(0)]),
        **entries,
    }


def test_the_first_line_says_how_far_and_the_last_ones_where_everything_is():
    lines = conclusion(summary(), WORKDIR, "a page").splitlines()
    assert lines[0] == "trained to step 120 in 1 min 35 s at 2 steps/s"
    assert lines[-3:] == [
        "report: a page",
        "best:   runs/here/best (step 100, held-out score 3.250)",
        "last:   runs/here/last",
    ]


def test_phases_are_listed_with_seconds_and_shares_that_add_up():
    grid, _ = run_grids(summary())
    assert grid.note == "100 steps of this start at 16.0 pairs/s; 1 checkpoint written."
    again, _ = run_grids(summary(attempt=3))
    assert again.note.startswith("100 steps of attempt 3 at")
    assert ("waiting for input", "2.0", "2 %") in grid.rows
    assert ("training", "80.0", "80 %") in grid.rows
    assert grid.rows[-1] == ("all", "100.0", "")


def test_every_process_has_a_row_and_memory_of_devices_only_where_it_is_known():
    _, grid = run_grids(summary(process(0), process(1, share=0.125, device=2**31)))
    assert grid.rows == (
        ("0", "host0", "0.500 s", "0.625 s", "0 %", "3.00 GiB", "-"),
        ("1", "host1", "0.500 s", "0.625 s", "12 %", "3.00 GiB", "2.00 GiB"),
    )


@pytest.mark.parametrize(("share", "said"), [(0.2, False), (0.34, True)])
def test_waiting_for_input_is_worth_a_line_from_a_fifth_of_the_time_on(share, said):
    text = conclusion(summary(process(0, share=share)), WORKDIR, "none")
    line = "Training waits for its input for 34 % of its time: raise --config.data.threads (now 4) if cores are idle"
    assert (line in text) == said
    assert ("waits for its input" in text) == said


def test_the_process_that_waits_most_is_named_and_a_task_without_threads_gets_no_flag_to_raise():
    advice = input_advice(summary(process(0), process(1, share=0.5), input_threads=None))
    assert advice.startswith("Training waits for its input for 50 % of its time (process 1, host1):")
    assert "threads" not in advice


def test_a_start_that_found_nothing_to_do_prints_no_tables():
    text = conclusion(summary(step=20, steps_per_s=0.0, best_step=None, best_score=None), WORKDIR, "none")
    assert text == ("trained to step 20 in 1 min 35 s\nreport: none\nbest:   runs/here/best\nlast:   runs/here/last\n")
