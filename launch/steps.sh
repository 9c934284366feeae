# What the scripts for one machine have in common: titles, and steps that are not done twice. Sourced, never started.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

# Sum of the steps so far: what follows from other steps is other work.
steps=""

# once FOLDER NAME COMMAND...: runs a command whose success is remembered in FOLDER under a name, with its words, sums of
# the files that they name (a recipe is FILE:VARIANT; what follows --output is not read) and of the steps before. Anything
# else under that name is refused: what took long is never thrown away, nor taken for what it is not.
once() {
  local folder="$1" name="$2" mark="$1/.done/$2" word before=""
  shift 2
  steps="$(
    printf '%s\n' "$steps" "$@"
    for word in "$@"; do
      [ "$before" = --output ] || [ ! -f "${word%%:*}" ] || cksum <"${word%%:*}"
      before="$word"
    done
  )"
  steps="$(cksum <<<"$steps")"
  if [ -e "$mark" ]; then
    [ "$(cat "$mark")" != "$steps" ] || return 0
    echo "error: $folder: '$name' there was made with other words, of other files or after other steps than now asked" \
      "for; give another folder, or remove this one" >&2
    exit 2
  fi
  "$@"
  mkdir -p "$(dirname "$mark")"
  printf '%s\n' "$steps" >"$mark"
}

# ASCCL_SIZE=smoke makes all of it tiny, to see that it runs.
size="${ASCCL_SIZE:-demo}"
if [ "$size" != "demo" ] && [ "$size" != "smoke" ]; then
  echo "error: ASCCL_SIZE=$size: expected demo or smoke" >&2
  exit 2
fi
