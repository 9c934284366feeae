#!/usr/bin/env bash
# From a bare machine to a trained metric and its report: synthetic talking heads, records, training.
# Usage: bash launch/quickstart.sh [DIRECTORY]   (default runs/quickstart; what is already there is not made again)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" prep
directory="${1:-runs/quickstart}"

say() { printf '\n== %s\n' "$*"; }

say "1/3 Synthetic talking heads -> $directory/videos"
asccl synthesise --preset demo --output "$directory/videos"

say "2/3 Videos -> records in $directory/records"
if [ ! -e "$directory/records/manifest.json" ]; then
  asccl prepare "$directory/videos/clips.csv" --layout list --landmarks precomputed --image-size 112 \
    --output "$directory/records"
fi
asccl synthesise comparisons --groups 120 --records "$directory/records"

say "3/3 Training the metric (about five minutes on two cores) -> $directory/metric"
python -m asccl_jax.main --config configs/asccl.py:demo --config.data.dir "$directory/records" \
  --workdir "$directory/metric"

say "Open $directory/metric/report/report.html"
