#!/usr/bin/env bash
# A dress rehearsal of the paper's scale on this machine: 7,560 tiny videos in MEAD's layout are prepared, opened,
# shuffled and trained on, killed and gone on with; records with renders are opened. CPU only.
# Usage: bash launch/rehearsal.sh [--clips N] [--frames N] [--workers N] [--output DIR]
#   --clips N     about how many clips (default 7560)
#   --frames N    frames of a clip (default 16)
#   --workers N   processes of the preparation (default all cores)
#   --output DIR  where all of it lies, with rehearsal.md and rehearsal.json (default runs/rehearsal); what was done there
#                 is not done again
# Exit status: 0, or 2 if a stage failed or for bad arguments.
# Example: bash launch/rehearsal.sh --clips 210
set -euo pipefail

case "${1:-}" in
  --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit ;;
esac
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
exec python -m tests.rehearsal "$@"
