#!/usr/bin/env bash
# A talking face in six emotions: trains a small manipulator and a small renderer, manipulates a video with them, and
# lays the results side by side. Without VIDEO the face is a synthetic actor's, of whom the true performances are known.
# Usage: bash launch/demo_video.sh [DIRECTORY [VIDEO]] [-- OPTIONS]
#   DIRECTORY  default runs/demo_video; what is already there is not made again
#   VIDEO      one scene of one person, for whom a renderer is trained; results go to DIRECTORY/NAME-OF-THE-VIDEO
#   OPTIONS    of VIDEO, for asccl train-renderer and asccl manipulate, as: --landmarks mediapipe --mediapipe-python FILE
# ASCCL_DEMO_SIZE=smoke makes all of it tiny, with two emotions: two minutes that show no more than that it runs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "bridge,prep"

words=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  words+=("$1")
  shift
done
[ $# -eq 0 ] || shift
options=("$@")
directory="${words[0]:-runs/demo_video}"
video="${words[1]:-}"
size="${ASCCL_DEMO_SIZE:-demo}"
emotions=(happy sad angry surprised fear disgusted)

recipe_options=()
renderer_recipe="configs/renderer.py:video"
tracks_options=()
actors_options=(--sentences 4 --held-out-sentences 3)
if [ "$size" = "smoke" ]; then
  emotions=(happy sad)
  recipe_options=(--config.report_groups=0)
  renderer_recipe="configs/renderer.py:smoke"
  tracks_options=(--speakers 2 --validation-speakers 1 --sentences 1 --validation-sentences 1)
  actors_options=(--size 96 --sentences 1 --held-out-sentences 1 --emotions-per-sentence 1 --syllables 2 2)
elif [ "$size" != "demo" ]; then
  echo "error: ASCCL_DEMO_SIZE=$size: expected demo or smoke" >&2
  exit 2
fi

say() { printf '\n== %s\n' "$*"; }

# Runs a command whose success is remembered under a name.
once() {
  local mark="$directory/.done/$1"
  shift
  [ -e "$mark" ] && return
  "$@"
  mkdir -p "$directory/.done"
  touch "$mark"
}

# Of the manipulator alone: what the metric does to a small renderer is not worth the time (README, Render the face).
metric=""
if [ "$size" = "demo" ] && [ -e runs/quickstart/metric/best ]; then
  metric="runs/quickstart/metric"
elif [ "$size" = "demo" ]; then
  say "No metric in runs/quickstart/metric (bash launch/quickstart.sh trains it): going on without its supervision"
fi

say "1/4 The manipulator (three minutes on two cores, eight with the metric) -> $directory/manipulator"
once tracks asccl synthesise tracks "${tracks_options[@]}" --output "$directory/tracks"
once head asccl assets export --output "$directory/tracks/head.npz"
once manipulator python -m asccl_jax.main --config "configs/manipulator.py:$size" --config.data.dir "$directory/tracks" \
  --config.mesh.metric "$metric" --workdir "$directory/manipulator" "${recipe_options[@]}"

if [ -n "$video" ]; then
  name="$(basename "${video%.*}")"
  place="$directory/$name"
  renderer="$place/person/renderer"
  say "2/4 A renderer for $video (ten minutes on two cores) -> $renderer"
  once "renderer-$name" asccl train-renderer "$video" --workdir "$place/person" --config "$renderer_recipe" \
    "${recipe_options[@]}" "${options[@]}"
  speaker="$name" sentence="clip"
  source_path="$(cd "$(dirname "$video")" && pwd)/$(basename "$video")"
else
  place="$directory"
  renderer="$directory/renderer"
  say "2/4 A synthetic actor and a renderer of that face (ten minutes on two cores) -> $renderer"
  once actors asccl synthesise actors --seed 1 --actors 1 "${actors_options[@]}" --output "$directory/actors"
  once records asccl reconstruct "$directory/actors/clips.csv" --layout list --landmarks precomputed \
    --landmark-table synthetic --output "$directory/records"
  once renderer python -m asccl_jax.main --config "$renderer_recipe" --config.data.dir "$directory/records" \
    --workdir "$renderer" "${recipe_options[@]}"
  IFS=, read -r clip speaker _ sentence _ < <(grep ',neutral,[^,]*,validation' "$directory/actors/clips.csv")
  video="$directory/actors/$clip"
  source_path="../actors/$clip"
  options=(--landmarks precomputed --landmark-table synthetic --speaker "$speaker" --shown-emotion neutral)
fi

say "3/4 $video in six emotions -> $place/fake"
mkdir -p "$place/fake" "$place/source" "$place/real"
shown=("source=$video")
for emotion in "${emotions[@]}"; do
  result="$place/fake/$emotion.mp4"
  shown+=("$emotion=$result")
  if [ ! -e "$result" ]; then
    asccl manipulate "$video" --emotion "$emotion" --manipulator "$directory/manipulator" --renderer "$renderer" \
      --work "$place/work" --output "$result" "${options[@]}"
  fi
done

say "4/4 Side by side -> $place/side_by_side.mp4, $place/side_by_side.png"
python -m DECA_torch_bridge.video.side_by_side "${shown[@]}" --output "$place/side_by_side.mp4" \
  --sheet "$place/side_by_side.png"

if [ "$place" = "$directory" ]; then
  compared=("source=$video")
  for emotion in "${emotions[@]}"; do
    compared+=("$emotion=$place/fake/$emotion.mp4" "truth of $emotion=$directory/actors/${clip/_neutral_/_${emotion}_}")
  done
  python -m DECA_torch_bridge.video.side_by_side "${compared[@]}" --output "$place/beside_truth.mp4" \
    --sheet "$place/beside_truth.png" --columns 5
fi

# What asccl evaluate reads: the results, the clip they were made from, and real clips to compare with.
{
  echo "path,speaker,emotion,sentence,source"
  for emotion in "${emotions[@]}"; do
    echo "$emotion.mp4,$speaker,$emotion,$sentence,$speaker/neutral/$sentence"
  done
} >"$place/fake/clips.csv"
{
  echo "path,speaker,emotion,sentence,source"
  echo "$source_path,$speaker,neutral,$sentence,"
} >"$place/source/clips.csv"
if [ "$place" = "$directory" ]; then
  {
    echo "path,speaker,emotion,sentence,source"
    grep ",$sentence,validation" "$directory/actors/clips.csv" | sed 's|^|../actors/|; s|,validation$|,|'
  } >"$place/real/clips.csv"
else
  cp "$place/source/clips.csv" "$place/real/clips.csv"
fi

say "Watch $place/side_by_side.mp4; for figures:"
echo "asccl evaluate --real $place/real --fake $place/fake --source $place/source \\
  --report $place/report --landmarks precomputed probe"
