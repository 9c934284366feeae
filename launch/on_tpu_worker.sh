#!/usr/bin/env bash
# What launch/tpu_vm.sh has done on each worker of a TPU; not for starting by hand.
# Usage: bash launch/on_tpu_worker.sh setup            makes the environment, once per change of what it needs
#        bash launch/on_tpu_worker.sh train -- FLAGS   starts training, or follows it where it runs already
#        bash launch/on_tpu_worker.sh stop             asks it to save and end, and waits until it has
# Training has a session of its own, so that it outlives a connection that breaks. Its log is runs/.launch/log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"
place=runs/.launch

is_running() {
  [ -s "$place/pid" ] && [ ! -e "$place/status" ] && kill -0 "$(cat "$place/pid")" 2>/dev/null
}

# Prints a Python that is new enough and can make environments; installs one where there is none (Ubuntu 22.04's is 3.10).
find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate" && return
    fi
  done
  say "installing Python 3.11"
  # A fresh machine is often still busy with updates of its own.
  sudo apt-get -o DPkg::Lock::Timeout=600 update -qq >&2
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3.11 python3.11-venv >&2
  echo python3.11
}

set_up() {
  if [ -z "${ASCCL_TRAIN_PROGRAM:-}" ] && [ ! -x .venv/bin/python ]; then
    PYTHON="$(find_python)"
    export PYTHON
  fi
  prepare_environment tpu
  say "$(hostname): ready"
}

train() {
  local command status
  command="$(quoted "${program[@]}" "${flags[@]}")"
  mkdir -p "$place"
  if is_running; then
    [ "$(cat "$place/command")" = "$command" ] ||
      fail "$(hostname) trains something else: $(cat "$place/command"); end it first with --stop"
    say "$(hostname): already training, following it"
  else
    prepare_environment tpu
    rm -f "$place/pid" "$place/status"
    echo "$command" >"$place/command"
    [ ! -e "$place/log" ] || mv "$place/log" "$place/log.before"
    start_log "$place/log" "${program[@]}" "${flags[@]}"
    # shellcheck disable=SC2016 # the inner shell's variables
    setsid bash -c '"$@" >>"$0/log" 2>&1 & echo $! >"$0/pid"; wait $!; echo $? >"$0/status"' \
      "$place" "${program[@]}" "${flags[@]}" </dev/null >/dev/null 2>&1 &
    until [ -s "$place/pid" ]; do sleep 0.1; done
  fi
  tail -n +1 --follow --sleep-interval=0.5 --pid="$(cat "$place/pid")" "$place/log"
  for _ in {1..50}; do
    if [ -s "$place/status" ]; then
      status="$(cat "$place/status")"
      exit "$status"
    fi
    sleep 0.1
  done
  fail "$(hostname): training is gone and left no status; its last words are in $PWD/$place/log"
}

stop() {
  if ! is_running; then
    say "$(hostname): nothing is running"
    return
  fi
  say "$(hostname): asking training to save and end"
  kill -TERM "$(cat "$place/pid")"
  for _ in {1..600}; do
    is_running || { say "$(hostname): ended" && return; }
    sleep 0.5
  done
  fail "$(hostname): training still runs five minutes after SIGTERM; kill -9 $(cat "$place/pid") there if you must"
}

split_words "$@"
case "${options[*]}" in
  setup) set_up ;;
  train) train ;;
  stop) stop ;;
  --help | -h) show_help ;;
  *) fail "expected setup, train or stop; see --help" ;;
esac
