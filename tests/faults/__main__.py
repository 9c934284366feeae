"""Breaks training and preparation at random moments, again and again: `python -m tests.faults [--minutes M]`.

Each fault strikes a run that goes on afterwards by the same command and is compared with an undisturbed one: all that
was logged and every array of the next checkpoint, bit for bit; or every file of a preparation, byte for byte. Where
another number of processes goes on, what is logged agrees within the tolerance of tests/faults/tolerance.py.
DIR/soak.md and DIR/soak.json say what was lost, and how long it took.
"""

import argparse
import datetime
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from asccl_jax.errors import InputError, exit_on_input_error

STEPS = 90


@exit_on_input_error
def main(arguments=None):
    options = _parser().parse_args(arguments)
    # After the command line is understood: these import JAX.
    from tests.faults.harness import FAULTS, Harness

    names = options.only or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        raise InputError(f"--only {unknown[0]}: expected one of {', '.join(FAULTS)}")
    if options.minutes <= 0:
        raise InputError(f"--minutes {options.minutes:g}: expected more than 0")
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        Harness(Path(folder), seed=seed, steps=STEPS, toy=options.toy) as harness,
    ):
        soak = _soak(harness, names, seed=seed, minutes=options.minutes)
    soak.write(options.output)
    print(f"\n{soak.page()}\n{options.output / 'soak.md'}")
    return 1 if soak.failures else 0


def _soak(harness, names, *, seed, minutes):
    """Tries the faults in turn until the time is over, each once at least, and returns what came of it."""
    from tests.faults.report import Soak
    from tests.faults.trial import FaultError

    date, begin_s = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"), time.monotonic()
    trials, failures, completed = [], [], 0
    try:
        for number, name in enumerate(itertools.cycle(names)):
            if number >= len(names) and time.monotonic() - begin_s > 60 * minutes:
                break
            try:
                trial = harness.try_once(name)
            except FaultError as error:
                failures.append((name, str(error)))
                print(f"{name}: FAILED: {error}", flush=True)
            else:
                trials.append(trial)
                print(f"{name}: lost {trial.lost}, recovered in {trial.recovered_s:.1f} s ({trial.note})", flush=True)
        completed = harness.complete()
    except FaultError as error:
        failures.append(("the run to the last step", str(error)))
        print(f"the run to the last step: FAILED: {error}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: this is what was tried", flush=True)
    return Soak(seed, date, time.monotonic() - begin_s, trials, failures, completed)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=30, help="how long to go on; every fault is tried once at least (30)"
    )
    parser.add_argument("--seed", type=int, help="seed of the random moments (default: a new one, which is printed)")
    parser.add_argument("--only", metavar="NAME", action="append", help="try this fault alone; repeatable")
    parser.add_argument(
        "--toy", action="store_true", help="train a task of a few weights wherever it does: more tries a minute"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("runs/faults"), help="where the results go (runs/faults)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
