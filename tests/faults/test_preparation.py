"""A preparation that is killed once at a random moment; `launch/soak.sh` does it again and again, to others too."""

import random

import pytest

from tests.faults.harness import Harness
from tests.faults.preparation import PreparationFault


@pytest.mark.slow
def test_the_files_are_those_of_an_undisturbed_run_after(tmp_path, monkeypatch):
    monkeypatch.setattr(PreparationFault, "kills", 1)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with Harness(tmp_path, seed=seed, steps=1) as harness:
        assert harness.try_once("prepare-killed").fault == "prepare-killed"
