#!/usr/bin/env bash
# A talking face in six emotions, made with the networks of the quickstart and laid side by side. Without VIDEO the face is
# the synthetic actor's, of whom the true performances are known.
# Usage: bash launch/demo_video.sh [DIRECTORY [VIDEO]] [-- OPTIONS]
#   DIRECTORY  default runs/demo_video; what is already there is not made again
#   VIDEO      one scene of one person, for whom a renderer is trained; results go to DIRECTORY/NAME-OF-THE-VIDEO
#   OPTIONS    of VIDEO, for asccl video train-renderer and asccl manipulate, as:
#              --landmarks mediapipe --mediapipe-python FILE
# The networks are those of runs/quickstart; what is missing of them is trained first (launch/quickstart.sh --all).
# ASCCL_SIZE=smoke makes all of it tiny, networks included, with two emotions: minutes that show no more than that it runs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" prep
source launch/steps.sh

words=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  words+=("$1")
  shift
done
[ $# -eq 0 ] || shift
options=("$@")
directory="${words[0]:-runs/demo_video}"
video="${words[1]:-}"

networks="runs/quickstart"
renderer_recipe="configs/renderer.py:video"
renderer_options=()
emotions=(happy sad angry surprised fear disgusted)
if [ "$size" = "smoke" ]; then
  networks="$directory/networks"
  renderer_recipe="configs/renderer.py:smoke"
  renderer_options=(--config.report_groups=0)
  emotions=(happy sad)
fi

say "1/3 The networks -> $networks"
bash launch/quickstart.sh --all "$networks"
steps="$(cat "$networks"/.done/*)"

if [ -n "$video" ]; then
  name="$(basename "${video%.*}")"
  place="$directory/$name"
  renderer="$place/person/renderer"
  say "A renderer for $video (ten minutes on two cores) -> $renderer"
  once "$directory" "renderer-$name" asccl video train-renderer "$video" --workdir "$place/person" \
    --config "$renderer_recipe" "${renderer_options[@]}" "${options[@]}"
  speaker="$name" sentence="clip"
else
  place="$directory"
  renderer="$networks/renderer"
  actors="$(cd "$networks/actors" && pwd)"
  IFS=, read -r clip speaker _ sentence _ < <(grep ',neutral,[^,]*,validation' "$actors/clips.csv")
  video="$networks/actors/$clip"
  options=(--landmarks precomputed --landmark-table synthetic --speaker "$speaker" --shown-emotion neutral)
fi
source_path="$(cd "$(dirname "$video")" && pwd)/$(basename "$video")"

say "2/3 $video in six emotions -> $place/fake"
mkdir -p "$place/fake" "$place/source" "$place/real"
shown=("source=$video")
for emotion in "${emotions[@]}"; do
  result="$place/fake/$emotion.mp4"
  shown+=("$emotion=$result")
  [ -e "$result" ] || rm -f "$place/.done/$emotion"
  once "$place" "$emotion" asccl manipulate "$video" --emotion "$emotion" --manipulator "$networks/manipulator" \
    --renderer "$renderer" --work "$place/work" --output "$result" --overwrite "${options[@]}"
done

say "3/3 Side by side -> $place/side_by_side.mp4, $place/side_by_side.png"
asccl video side-by-side "${shown[@]}" --output "$place/side_by_side.mp4" \
  --sheet "$place/side_by_side.png"

if [ "$place" = "$directory" ]; then
  compared=("source=$video")
  for emotion in "${emotions[@]}"; do
    compared+=("$emotion=$place/fake/$emotion.mp4" "truth of $emotion=$actors/${clip/_neutral_/_${emotion}_}")
  done
  asccl video side-by-side "${compared[@]}" --output "$place/beside_truth.mp4" \
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
    grep ",$sentence,validation" "$actors/clips.csv" | sed "s|^|$actors/|; s|,validation\$|,|"
  } >"$place/real/clips.csv"
else
  cp "$place/source/clips.csv" "$place/real/clips.csv"
fi

# Where the landmarks of a video do not lie beside it, the evaluation has to be told as well.
landmarks="precomputed probe"
for ((i = 0; i + 1 < ${#options[@]}; i++)); do
  [ "${options[i]}" != "--landmarks-dir" ] || landmarks="$landmarks --landmarks-dir ${options[i + 1]}"
done
say "Watch $place/side_by_side.mp4; for figures:"
echo "asccl evaluate --real $place/real --fake $place/fake --source $place/source \\
  --report $place/report --landmarks $landmarks"
