"""Runs a module with a clock that is wrong: `python -m tests.faults.skewed_clock SECONDS MODULE WORDS`.

What Python's `time.time` and `time.time_ns` say is so many seconds off, in each of several processes but the first. The
monotonic clock and the system's own stamps of files are right.
"""

import runpy
import sys
import time


def skew(seconds):
    """Sets the clock of this process off."""
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + seconds
    time.time_ns = lambda: true_ns() + seconds * 10**9


def main():
    _, seconds, module, *words = sys.argv
    if "--process_id=0" not in words:
        skew(int(seconds))
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
