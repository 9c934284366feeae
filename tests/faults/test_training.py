"""Some faults of training, each tried once at a random moment; `launch/soak.sh` tries all of them, again and again.

That a run of real processes goes on bit for bit after `kill -9` at any moment is shown here, on the toy; that each
task's state, data and keys do so is shown without a kill (tests/test_main.py, tests/train/test_renderer_run.py).
"""

import random

import pytest

from tests.faults.harness import Harness

NAMES = ("disk-full-in-save", "kill-in-save", "disk-full-in-log", "clock-off", "kill-one-of-two", "sigterm-one-of-two")


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with Harness(tmp_path_factory.mktemp("faults"), seed=seed, steps=80, toy=True) as harness:
        yield harness


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_to_the_same_numbers_after(harness, name):
    trial = harness.try_once(name)
    assert trial.fault == name
    assert trial.recovered_s > 0
    # Checkpoints are 3 steps apart; a step may be logged while the one before is being saved.
    assert 0 <= trial.lost <= 8


@pytest.mark.slow
def test_all_disturbed_runs_end_as_undisturbed_ones(harness):
    assert harness.complete() >= 1  # of each kind that was disturbed above
