"""The watchdog: who is silent, who is behind, who has ended, what hangs here; with a clock and a store of the test."""

import contextlib
import logging
import time

import pytest

from asccl_jax.errors import DivergedError, InputError, WriteError
from asccl_jax.train.faults.heartbeat import Beat, Heartbeat, Limits, Peers, is_lost_peer

LIMITS = Limits(stall_s=600.0, lost_s=100.0, warning_s=30.0, beat_s=2.0)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class SharedStore:
    def __init__(self):
        self.values = {}
        self.broken = False

    def put(self, process, text):
        if self.broken:
            raise RuntimeError("UNAVAILABLE: gone")
        self.values[process] = text

    def all(self):
        return dict(self.values)


class Run:
    """Processes that share a store; each with a clock of its own, that all go on together."""

    def __init__(self, processes=3, limits=LIMITS, saved=40):
        self.store, self.ends, self.offsets = SharedStore(), {}, {}
        self.clock = Clock()
        self.hosts = [f"h{index}" for index in range(processes)]
        self.stopped = set()
        self.heartbeats = [
            Heartbeat(
                limits,
                process=index,
                host=self.hosts[index],
                processes=processes,
                store=self.store,
                newest=lambda: saved,
                clock=lambda skew=1e6 * index: self.clock.now + skew,
                end=lambda status, index=index: self.ends.setdefault(index, status),
            )
            for index in range(processes)
        ]

    def pass_time(self, seconds):
        """Lets all that are not stopped beat and judge, every two seconds."""
        for _ in range(int(seconds / 2)):
            self.clock.now += 2
            for work in ("exchange", "judge"):
                for index, heartbeat in enumerate(self.heartbeats):
                    if index not in self.stopped and index not in self.ends:
                        getattr(heartbeat, work)()


@pytest.fixture
def quick(monkeypatch):
    """No real waiting where a process tells the others that it ends."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    begin = iter(range(10**9))
    monkeypatch.setattr("asccl_jax.train.faults.heartbeat.time.monotonic", lambda: float(next(begin)))


def at(heartbeat, step, phase):
    heartbeat.step(step)
    heartbeat.phase(phase)


def test_a_silent_process_is_named_after_the_warning_time_and_once(caplog, quick):
    run = Run()
    at(run.heartbeats[1], 120, "training")
    run.pass_time(10)
    run.stopped.add(1)
    with caplog.at_level(logging.WARNING):
        run.pass_time(28)
        assert not caplog.records
        run.pass_time(30)
    messages = [record.getMessage() for record in caplog.records]
    expected = "process 1 (host h1) has not been heard of for 30 s; last at step 120 (training)"
    assert messages == [expected] * 2  # from each of the two others
    assert not run.ends
    run.stopped.clear()
    with caplog.at_level(logging.WARNING):
        run.pass_time(4)
    assert caplog.records[-1].getMessage() == "process 1 (host h1) is heard of again, at step 120 (training)"


def test_a_process_silent_for_too_long_is_lost_and_the_others_end_with_75(capsys, quick):
    run = Run()
    at(run.heartbeats[1], 120, "waiting_for_input")
    run.pass_time(10)
    run.stopped.add(1)
    run.pass_time(104)
    assert run.ends == {0: 75, 2: 75}
    assert (
        "error: training stopped: lost process 1 (host h1), last at step 120 (waiting for input): not heard of for"
        " 100 s (--heartbeat_timeout); checkpoint 40 is whole; the same command goes on from there\n"
    ) in capsys.readouterr().err


def test_where_the_store_does_not_answer_its_keeper_is_the_silent_one(capsys, quick):
    run = Run()
    at(run.heartbeats[0], 7, "saving")
    run.pass_time(10)
    run.stopped.add(0)
    run.store.broken = True  # it lives in process 0
    run.pass_time(104)
    assert run.ends == {1: 75, 2: 75}
    error = capsys.readouterr().err
    assert "lost process 0 (host h0), last at step 7 (saving)" in error
    assert "process 2 (host" not in error
    assert "process 1 (host" not in error


def test_a_run_that_gets_on_is_left_alone_whatever_it_is_at(capsys, caplog, quick):
    run = Run()
    for step in range(0, 30, 3):
        for heartbeat in run.heartbeats:
            at(heartbeat, step, "training")
        run.pass_time(400)
        for heartbeat in run.heartbeats:
            heartbeat.phase("evaluating")
        run.pass_time(400)
        for heartbeat in run.heartbeats:
            list(heartbeat.over([1, 2]))
        run.pass_time(400)
    for heartbeat in run.heartbeats:
        heartbeat.phase("reporting", watched=False)
    run.pass_time(5000)
    assert (run.ends, capsys.readouterr().err, caplog.records) == ({}, "", [])


@pytest.mark.parametrize(
    ("places", "said"),
    [
        # One is a step behind.
        (
            [(121, "waiting_for_device"), (120, "evaluating"), (121, "waiting_for_device")],
            "waiting for process 1 (host h1), at step 120 (evaluating); the others are at step 121 (waiting for"
            " device)",
        ),
        # All at one step, but one has not got its input.
        (
            [(120, "training"), (120, "training"), (120, "waiting_for_input")],
            "waiting for process 2 (host h2), at step 120 (waiting for input); the others are at step 120 (training)",
        ),
        ([(120, "training")] * 3, "all processes are at step 120 (training)"),
    ],
)
def test_when_nothing_moves_those_behind_are_named_and_all_end_with_75(capsys, quick, places, said):
    run = Run()
    for heartbeat, place in zip(run.heartbeats, places, strict=True):
        at(heartbeat, *place)
    run.pass_time(596)
    assert not run.ends
    run.pass_time(12)
    assert run.ends == {0: 75, 1: 75, 2: 75}
    error = capsys.readouterr().err
    assert f"nothing moved for 600 s: {said}; if it was only slow, give a longer --stall_timeout" in error
    assert "checkpoint 40 is whole" in error


def test_what_ends_one_process_is_told_by_the_others_with_its_status(capsys, quick):
    run = Run()
    run.pass_time(10)
    with pytest.raises(InputError), run.heartbeats[2]:
        raise InputError("records/a.tfrecord: record 7 is damaged")
    run.stopped.add(2)
    run.pass_time(8)
    assert run.ends == {0: 2, 1: 2}
    assert "process 2 (host h2) has ended: records/a.tfrecord: record 7 is damaged" in capsys.readouterr().err


def test_a_process_that_is_done_is_not_missed(caplog, quick):
    run = Run()
    run.pass_time(10)
    with run.heartbeats[2]:
        pass
    run.stopped.add(2)
    run.pass_time(500)
    assert not run.ends
    assert not caplog.records


def test_time_in_which_this_process_was_stopped_itself_is_nobodys_silence(caplog, quick):
    run = Run(processes=2)
    run.pass_time(10)
    run.clock.now += 5000  # Ctrl-Z, fg
    run.pass_time(20)
    assert not run.ends
    assert not caplog.records


def test_alone_a_hang_names_the_phase_and_there_is_no_limit_of_zero(capsys):
    clock, ended = Clock(), []
    for stall_s in (600.0, 0.0):
        heartbeat = Heartbeat(Limits(stall_s=stall_s), clock=clock, end=ended.append, newest=lambda: None)
        at(heartbeat, 12, "waiting_for_input")
        for _ in range(400):
            clock.now += 2
            heartbeat.judge()
            if ended and stall_s:
                break
    assert ended == [75]
    assert capsys.readouterr().err == (
        "error: training stopped: nothing moved for 600 s: this process is still at step 12 (waiting for input); if it"
        " was only slow, give a longer --stall_timeout; there is no checkpoint yet; the same command goes on from"
        " there\n"
    )


def test_an_error_of_a_collective_ends_with_75_naming_who_is_silent(capsys):
    store, ended = SharedStore(), []
    limits = Limits(lost_s=100.0, beat_s=0.02)
    one = Heartbeat(limits, process=0, host="a", processes=2, store=store, newest=lambda: 8, end=ended.append)
    store.put(1, Beat(host="b", step=9, phase="training", count=1).to_text())
    gloo = "UNKNOWN: Gloo all-reduce failed: Read error [10.0.0.2]:15282: Connection reset by peer\nmore"
    with pytest.raises(ValueError, match="Gloo"), one:
        one.step(9)
        raise ValueError(gloo)
    assert ended == [75]
    error = capsys.readouterr().err
    assert "lost process 1 (host b), at step 9 (starting): UNKNOWN: Gloo all-reduce failed" in error
    assert error.count("\n") == 1
    assert "checkpoint 8 is whole; the same command goes on" in error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (WriteError("cannot write run: No space left on device"), 1, "cannot write run: No space left on device"),
        (InputError("a.tfrecord: record 7 is damaged"), 2, "a.tfrecord: record 7 is damaged"),
        (KeyError("mouth"), 70, "KeyError: 'mouth'"),
    ],
)
def test_an_error_that_others_do_not_share_ends_the_process_before_anything_is_closed(capsys, error, status, line):
    store, order = SharedStore(), []
    limits = Limits(beat_s=0.02)
    one = Heartbeat(limits, process=1, host="a", processes=2, store=store, newest=lambda: 8, end=order.append)
    with pytest.raises(type(error)), contextlib.ExitStack() as stack:
        stack.callback(order.append, "closed")
        stack.push(one.end_if_others_wait)
        raise error
    assert order == [status, "closed"]  # `os._exit` does not come back, what the test gives it does
    told = capsys.readouterr().err
    cured = "" if status == 70 else "once that is mended, "
    last = f"error: training stopped: {line}; checkpoint 8 is whole; {cured}the same command goes on from there\n"
    assert told.endswith(last)
    assert ("Traceback" in told) == (status == 70)
    beat = Beat.from_text(store.all()[1])
    assert (beat.ended, beat.reason) == (status, line)


def test_who_is_lost_or_has_ended_is_not_waited_for():
    peers = Peers(3, 0, 0.0)
    peers.note({1: Beat(count=1).to_text(), 2: Beat(count=1, ended=2, reason="bad record").to_text()}, 1.0)
    assert peers.is_anyone_left(5.0, 100.0)
    peers.note({0: Beat(count=1).to_text()}, 199.0)
    assert peers.silent(200.0, 100.0) == [1]
    assert not peers.is_anyone_left(200.0, 100.0)
    assert peers.only_other() is None
    assert Peers(2, 1, 0.0).only_other() == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_what_all_share_and_what_one_alone_meets_unwinds(processes):
    store = SharedStore() if processes == 2 else None
    error = DivergedError("loss is nan") if processes == 2 else WriteError("cannot write run")
    one = Heartbeat(processes=processes, store=store, end=lambda status: pytest.fail("ended"))
    with pytest.raises(type(error)), contextlib.ExitStack() as stack:
        stack.push(one.end_if_others_wait)
        raise error


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: [pair.cc:538] Read error: Connection reset by peer"), True),
        (RuntimeError("INTERNAL: NCCL operation ncclAllReduce failed: unhandled system error"), True),
        (RuntimeError("INTERNAL: Barrier failed because: task is set to ERROR"), True),
        (RuntimeError("UNAVAILABLE: Failed to send RPC to coordination service."), True),
        (ValueError("operands could not be broadcast together"), False),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate 4 bytes"), False),
        (InputError("records: Connection refused"), False),
        (KeyError("Gloo all-reduce failed"), False),
        (None, False),
    ],
)
def test_errors_of_lost_processes_are_told_from_others(error, lost):
    assert is_lost_peer(error) == lost


def test_a_lost_process_is_found_behind_the_error_it_caused():
    outer = RuntimeError("could not save")
    outer.__cause__ = ValueError("DEADLINE_EXCEEDED: Barrier timed out")
    assert is_lost_peer(outer)
