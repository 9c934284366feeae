#!/usr/bin/env bash
# Makes the environment and passes all tests, in two processes (a test process can grow to 6 GB, so not one a core).
# Arguments go to pytest: `bash launch/test.sh -m "not slow"`, `bash launch/test.sh -n 0 -x tests/models`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
# A file stays in one process: its tests share compiled programs and launched runs.
python -m pytest -n 2 --dist loadfile "$@"
