"""Some faults of training, each tried once at a random moment; `launch/soak.sh` tries all of them, again and again."""

import random

import pytest

from tests.faults.harness import Harness

# Saving and data under the smoke metric; the others under the toy, which starts in half the time.
NAMES = (
    "disk-full-in-save",
    "corrupt-record",
    "kill-in-save",
    "disk-full-in-log",
    "clock-off",
    "kill-one-of-two",
    "hang-one-of-two",
)


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
