#!/usr/bin/env bash
# From a bare machine to a trained metric and its report; with --all, to small networks that change a face's emotion, too.
# Usage: bash launch/quickstart.sh [--all] [DIRECTORY]   (default runs/quickstart; what is already there is not made again)
# A picture of the synthetic people is there after two minutes, the metric and its report after ten on two cores. With
# --all, a manipulator follows after another ten, and after ten more a renderer of one synthetic actor.
# ASCCL_SIZE=smoke makes all of it tiny: minutes that show no more than that it runs.
set -euo pipefail

stages=3
if [ "${1:-}" = "--all" ]; then
  stages=5
  shift
fi
case "${1:-}" in
  -*)
    echo "error: $1: expected --all, or a folder" >&2
    exit 2
    ;;
esac
directory="${1:-runs/quickstart}"

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" prep
source launch/steps.sh

groups=120
metric_options=()
tracks_options=()
actors_options=(--sentences 4 --held-out-sentences 3)
renderer_recipe="configs/renderer.py:video"
generator_options=()
if [ "$size" = "smoke" ]; then
  groups=4
  metric_options=(--config.report_groups=2)
  tracks_options=(--speakers 2 --validation-speakers 1 --sentences 1 --validation-sentences 1)
  actors_options=(--size 96 --sentences 1 --held-out-sentences 1 --emotions-per-sentence 1 --syllables 2 2)
  renderer_recipe="configs/renderer.py:smoke"
  generator_options=(--config.report_groups=0)
fi

once "$directory" people asccl data synthesise contact-sheet --people 3 --output "$directory/people.png"
say "Open $directory/people.png: three of the synthetic people, in their emotions and mouth shapes"

say "1/$stages Synthetic talking heads -> $directory/videos"
once "$directory" videos asccl data synthesise --preset "$size" --output "$directory/videos"

say "2/$stages Videos -> records in $directory/records"
once "$directory" records asccl prepare "$directory/videos/clips.csv" --layout list --landmarks precomputed \
  --image-size 112 --output "$directory/records"
once "$directory" comparisons asccl data synthesise comparisons --groups "$groups" --records "$directory/records"

say "3/$stages Training the metric (five to seven minutes on two cores) -> $directory/metric"
once "$directory" metric python -m asccl_jax.main --config "configs/asccl.py:$size" \
  --config.data.dir "$directory/records" --workdir "$directory/metric" "${metric_options[@]}"
say "Open $directory/metric/report/report.html"
if [ "$stages" = 3 ]; then
  say "bash launch/quickstart.sh --all $directory goes on with generators (twenty minutes)"
  exit 0
fi

say "4/5 A manipulator, supervised by the metric (eight minutes on two cores) -> $directory/manipulator"
once "$directory" tracks asccl data synthesise tracks "${tracks_options[@]}" --output "$directory/tracks"
once "$directory" head asccl head export --output "$directory/tracks/head.npz"
once "$directory" manipulator python -m asccl_jax.main --config "configs/manipulator.py:$size" \
  --config.data.dir "$directory/tracks" --config.mesh.metric "$directory/metric" \
  --workdir "$directory/manipulator" "${generator_options[@]}"

say "5/5 A synthetic actor and a renderer of that face (ten minutes on two cores) -> $directory/renderer"
once "$directory" actors asccl data synthesise actors --seed 1 --actors 1 "${actors_options[@]}" \
  --output "$directory/actors"
once "$directory" actor_records asccl data reconstruct "$directory/actors/clips.csv" --layout list --landmarks precomputed \
  --landmark-table synthetic --output "$directory/actor_records"
# Without the metric: what it does to a small renderer is not worth the time (docs/renderer.md).
once "$directory" renderer python -m asccl_jax.main --config "$renderer_recipe" \
  --config.data.dir "$directory/actor_records" --workdir "$directory/renderer" "${generator_options[@]}"

say "Open $directory/metric/report/report.html; bash launch/demo_video.sh makes a video with the other two"
