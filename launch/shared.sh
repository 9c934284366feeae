# What the launchers have in common: errors, help, --dry-run, words before and after `--`. Sourced, never started.
# shellcheck shell=bash

if [ "${BASH_VERSINFO[0]}" -lt 4 ] || { [ "${BASH_VERSINFO[0]}" -eq 4 ] && [ "${BASH_VERSINFO[1]}" -lt 4 ]; }; then
  echo "error: this is bash $BASH_VERSION, expected 4.4 or newer (on macOS: brew install bash)" >&2
  exit 2
fi
# Paths in the flags are relative to the repository, wherever the launcher is started from.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# ASCCL_TRAIN_PROGRAM starts something else in place of training, in whatever environment there is: for tests.
# shellcheck disable=SC2034 # of the launchers, as are options and flags below
read -r -a program <<<"${ASCCL_TRAIN_PROGRAM:-python -m asccl_jax.main}"
dry_run=""

# Words may be lost where nobody listens any more; what is to be done is done.
say() { printf '== %s\n' "$*" >&2 || true; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Prints the comment at the head of the script, which is its help.
show_help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# Sorts words into `options`, up to the first --, with --name=value as two words; and `flags`, after it, for training.
# shellcheck disable=SC2034
split_words() {
  options=() flags=()
  while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    case "$1" in
      --*=*) options+=("${1%%=*}" "${1#*=}") ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  [ $# -eq 0 ] || shift
  flags=("$@")
}

# Refuses an option at the end of the line, or followed by another: need_value "$@" with the option first.
need_value() {
  if [ $# -lt 2 ] || [[ "$2" == --* ]]; then fail "$1 needs a value; see --help"; fi
}

need_count() {
  [[ "$2" =~ ^[1-9][0-9]*$ ]] || fail "$1 $2: expected a whole number above 0"
}

# Names become part of host names, labels and paths.
need_name() {
  [[ "$2" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    fail "$1 $2: expected at most 40 lower-case letters, digits and dashes, a letter first"
}

unknown_option() { fail "unknown option $1; see --help (flags of the training go after --)"; }

need_tool() {
  command -v "$1" >/dev/null || fail "$1 is not installed or not in PATH: $2"
}

# Returns a command as one line that any shell would take.
quoted() {
  local line="" word
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  printf '%s' "${line# }"
}

# Runs a command, or prints it where nothing is to be done.
run() {
  if [ -n "$dry_run" ]; then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}

# Makes the environment with some extras, or says how; not where another program stands in.
prepare_environment() {
  if [ -n "$dry_run" ]; then
    echo "source launch/environment.sh $1"
  elif [ -z "${ASCCL_TRAIN_PROGRAM:-}" ]; then
    # shellcheck source=launch/environment.sh
    source launch/environment.sh "$1"
  fi
}

# Writes a line that divides the attempts in a log.
start_log() {
  printf '== %s %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" "$(quoted "${@:2}")" >>"$1"
}
