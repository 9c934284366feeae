"""The clock: every second belongs to one phase, compiling to its own, whoever met it."""

import contextlib
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.train.run.clock import Phase, RunClock, StepTimes

ROUNDING = 1e-6
"""Seconds that sums and differences of readings may be off by."""


@pytest.fixture
def clock():
    with contextlib.closing(RunClock()) as made:
        yield made


def new_program():
    """A function that JAX has not compiled yet; tracing it traces others."""

    @jax.jit
    def inner(x):
        return jnp.tanh(x) * 2

    return jax.jit(lambda x: inner(x) + inner(x + 1))


def test_an_inner_phase_takes_its_seconds_from_the_outer_one_and_all_add_up():
    before = time.perf_counter()
    with contextlib.closing(RunClock()) as clock:
        begin = time.perf_counter()
        clock.turn_to(Phase.TRAINING)
        with clock.phase(Phase.EVALUATING):
            time.sleep(0.02)
            with clock.phase(Phase.SAVING):
                time.sleep(0.05)
        time.sleep(0.03)
        settled = time.perf_counter()
        clock.settle()
        end = time.perf_counter()
    assert clock.seconds[Phase.SAVING] >= 0.05
    assert clock.seconds[Phase.EVALUATING] >= 0.02
    assert clock.seconds[Phase.TRAINING] >= 0.03
    # Between two readings and the next two the system may take the processor away for as long as it likes.
    assert settled - begin - ROUNDING <= sum(clock.seconds.values()) <= end - before + ROUNDING


def test_a_phase_ends_with_an_exception_too(clock):
    before = time.perf_counter()
    with pytest.raises(KeyError), clock.phase(Phase.SAVING):
        raise KeyError
    ended = time.perf_counter()
    time.sleep(0.02)
    clock.settle()
    assert clock.seconds[Phase.STARTING] >= 0.02
    assert clock.seconds[Phase.SAVING] <= ended - before + ROUNDING


def test_compiling_is_counted_once_and_taken_from_the_phase_that_met_it(clock):
    program = new_program()
    before = time.perf_counter()
    with clock.phase(Phase.EVALUATING):
        begin = time.perf_counter()
        program(jnp.ones(3)).block_until_ready()
        elapsed = time.perf_counter() - begin
    longest = time.perf_counter() - before
    compiling, evaluating = clock.seconds[Phase.COMPILING], clock.seconds[Phase.EVALUATING]
    # Were the tracing of the inner function counted twice, the phases would still add up, so compare with the clock.
    assert 0 < compiling < elapsed
    assert elapsed - ROUNDING <= compiling + evaluating <= longest + ROUNDING
    with clock.phase(Phase.EVALUATING):
        program(jnp.ones(3)).block_until_ready()
    assert clock.seconds[Phase.COMPILING] == compiling


def test_spans_within_a_span_are_counted_once(clock):
    # As JAX tells of a function that traces two others: the inner ones first.
    name = "/jax/core/compile/jaxpr_trace_duration"
    for start, end in ((1.0, 2.0), (3.0, 4.0), (0.5, 5.0), (6.0, 7.0)):
        jax.monitoring.record_event_time_span(name, start, end)
    assert clock.seconds[Phase.COMPILING] == 5.5


def test_other_threads_and_a_closed_clock_count_no_compilation():
    with contextlib.closing(RunClock()) as clock:
        thread = threading.Thread(target=lambda: new_program()(jnp.ones(4)))
        thread.start()
        thread.join()
        assert clock.seconds[Phase.COMPILING] == 0
    new_program()(jnp.ones(5))
    assert clock.seconds[Phase.COMPILING] == 0


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
