"""Preparations that are killed once at a random moment; `launch/soak.sh` does it again and again."""

import random

import pytest

from tests.faults.harness import Harness
from tests.faults.preparation import PreparationFault


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prepare-killed", "reconstruct-killed"])
def test_the_files_are_those_of_an_undisturbed_run_after(tmp_path, name, monkeypatch):
    monkeypatch.setattr(PreparationFault, "kills", 1)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with Harness(tmp_path, seed=seed, steps=1) as harness:
        assert harness.try_once(name).fault == name
