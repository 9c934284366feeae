"""Runs `asccl prepare` with every stage on Beam's workers, however little there is to do.

    python -m tests.faults.always_beam INPUT FLAGS

Small preparations are done by one process otherwise, sooner than Beam has started.
"""

import sys

from data_prep.__main__ import main
from data_prep.prepare import stage_workers


def send_all_to_workers():
    for limit in ("_FEW_VIDEO_BYTES", "_FEW_PAIRS", "_FEW_BYTES"):
        if not hasattr(stage_workers, limit):
            raise AttributeError(f"data_prep.prepare.stage_workers has no {limit} any more")
        setattr(stage_workers, limit, -1)


if __name__ == "__main__":
    send_all_to_workers()
    sys.exit(main())
