#!/usr/bin/env bash
# Makes the environment and passes all tests. Arguments go to pytest: `bash launch/test.sh -m "not slow"`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
python -m pytest "$@"
