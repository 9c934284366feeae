# What the scripts for one machine have in common: titles, and steps that are not done twice. Sourced, never started.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

# once FOLDER NAME COMMAND...: runs a command whose success is remembered in FOLDER under a name.
once() {
  local mark="$1/.done/$2"
  shift 2
  [ -e "$mark" ] && return
  "$@"
  mkdir -p "$(dirname "$mark")"
  touch "$mark"
}

# ASCCL_SIZE=smoke makes all of it tiny, to see that it runs.
size="${ASCCL_SIZE:-demo}"
if [ "$size" != "demo" ] && [ "$size" != "smoke" ]; then
  echo "error: ASCCL_SIZE=$size: expected demo or smoke" >&2
  exit 2
fi
