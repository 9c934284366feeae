#!/usr/bin/env bash
# Breaks training and preparation at random moments, again and again, and compares what they come to with undisturbed
# runs: kills, a full disk, damaged and lost data, clocks that differ, and so on (tests/faults). CPU only.
# Usage: bash launch/soak.sh [--minutes M] [--seed S] [--only NAME] [--toy] [--output DIR]
#   --minutes M   how long (default 30); every fault is tried once at least
#   --seed S      seed of the random moments (default: a new one, which is printed)
#   --only NAME   try this fault alone; repeatable. An unknown name lists them
#   --toy         train a task of a few weights wherever it does: more tries a minute
#   --output DIR  where soak.md and soak.json go (default runs/faults)
# Exit status: 0, or 1 if a fault was not made up for, 2 for bad arguments.
# Example: bash launch/soak.sh --minutes 10 --only kill --only corrupt-record
set -euo pipefail

case "${1:-}" in
  --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit ;;
esac
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
# In a name space of its own the small disks that are filled vanish with this program, and anybody may make them.
apart=()
for flags in "--mount" "--mount --user --map-root-user"; do
  read -ra words <<<"$flags"
  if [ "${#apart[@]}" -eq 0 ] && unshare "${words[@]}" true 2>/dev/null; then apart=(unshare "${words[@]}"); fi
done
exec "${apart[@]}" python -m tests.faults "$@"
