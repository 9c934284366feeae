"""Times of steps: means since the last line, without compilation, and which process waits longest for input."""

import numpy as np

from asccl_jax.train.monitoring.run_clock import Phase, RunClock
from asccl_jax.train.monitoring.step_times import StepTimes


class Clock(RunClock):
    """A clock that a test sets, and nothing else."""

    def __init__(self):
        self.seconds = dict.fromkeys(Phase, 0.0)

    def settle(self):
        pass


def alone(row):
    return row[None]


def take_step(times, clock, *, compiled=False, fetched=1, **spent):
    times.begin()
    for name, seconds in spent.items():
        clock.seconds[Phase[name]] += seconds
    times.end(compiled=compiled, fetched=fetched)


def test_scalars_are_means_over_the_steps_since_the_last_call():
    clock = Clock()
    times = StepTimes(clock, gather=alone)
    assert times.scalars() == {}
    take_step(times, clock, INPUT=1.0, DEVICE=1.0)
    take_step(times, clock, INPUT=3.0, TRAINING=1.0, PLACING=2.0)
    assert times.scalars() == {"speed/step_s": 4.0, "speed/input_wait_s": 2.0}
    assert times.scalars() == {}
    take_step(times, clock, INPUT=0.5, DEVICE=0.5)
    assert times.scalars() == {"speed/step_s": 1.0, "speed/input_wait_s": 0.5}
    assert times.steps_per_s == 3 / 9
    assert times.means_s()[Phase.INPUT] == 1.5


def test_steps_that_compile_and_what_lies_between_steps_do_not_count():
    clock = Clock()
    times = StepTimes(clock, gather=alone)
    take_step(times, clock, INPUT=50.0, DEVICE=9.0, compiled=True)
    assert (times.scalars(), times.steps_per_s) == ({}, 0.0)
    clock.seconds[Phase.TRAINING] += 100.0
    take_step(times, clock, DEVICE=2.0, COMPILING=30.0, EVALUATING=40.0)
    assert times.scalars() == {"speed/step_s": 2.0, "speed/input_wait_s": 0.0}


def test_the_percentile_leaves_out_steps_that_waited_for_others_or_for_none():
    clock = Clock()
    times = StepTimes(clock, gather=alone)
    for seconds, fetched in ((0.1, 0), (0.1, 0), *((1.0, 1),) * 20, (30.0, 3)):
        take_step(times, clock, DEVICE=seconds, fetched=fetched)
    assert times.p95_s() == 1.0
    np.testing.assert_allclose(sum(times.means_s().values()), (0.2 + 20 + 30) / 23, rtol=1e-12)


def test_the_percentile_is_the_mean_where_every_step_waited_for_all():
    clock = Clock()
    times = StepTimes(clock, gather=alone)
    assert times.p95_s() == 0.0
    for seconds in (1.0, 3.0):
        take_step(times, clock, DEVICE=seconds, fetched=2)
    assert times.p95_s() == 2.0


def test_the_process_that_waits_longest_for_input_is_named_and_all_are_asked_even_before_a_step():
    asked = []

    def three_processes(row):
        asked.append(row.tolist())
        return np.array([[6.0], [9.0], row])

    clock = Clock()
    times = StepTimes(clock, gather=three_processes)
    assert times.scalars() == {}
    for _ in range(3):
        take_step(times, clock, INPUT=1.0, DEVICE=4.0)
    assert times.scalars() == {
        "speed/step_s": 5.0,
        "speed/input_wait_s": 1.0,
        "speed/slowest_step_input_wait_s": 3.0,
        "speed/slowest_process": 1.0,
    }
    assert asked == [[0.0], [3.0]]
