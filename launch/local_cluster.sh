#!/usr/bin/env bash
# Trains with several processes on this machine, as the hosts of a cluster would: to try --multihost without a cluster,
# and to see what happens when a host dies. On CPU devices.
# Usage: bash launch/local_cluster.sh N [OPTIONS] [-- FLAGS]     FLAGS as of python -m asccl_jax.main
#   N                how many processes
#   --devices D      simulated devices of each process (default 1)
#   --port PORT      port of the coordinator (default: a free one)
#   --log-dir DIR    where host-0.log and so on go (default $LOGDIR, or runs/logs/local_cluster)
#   --grace SECONDS  once a process has failed the others are asked to end, and killed after this time (default 30)
#   --dry-run        print what would be done
# Ctrl-C and SIGTERM stop all processes at one step with everything saved; a second one kills them. The same command
# goes on, with any N that divides the batch. With --max_restarts R among the FLAGS processes that die start again by
# themselves and meet again; only one that is given up ends, and then the others are ended too.
# Exit status: 0, or that of the first process that failed: 143 after a polite stop, 128 + signal if it was killed.
# Example: bash launch/local_cluster.sh 2 -- --config configs/asccl.py:demo --config.data.dir records --workdir runs/two
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

count="" devices=1 port="" grace=30 logs="${LOGDIR:-runs/logs/local_cluster}"
split_words "$@"
set -- "${options[@]}"
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help && exit ;;
    --dry-run) dry_run=yes && shift && continue ;;
    --devices | --port | --grace | --log-dir) need_value "$@" ;;&
    --devices | --port | --grace) need_count "$1" "$2" ;;&
    --devices) devices="$2" ;;
    --port) port="$2" ;;
    --grace) grace="$2" ;;
    --log-dir) logs="$2" ;;
    -*) unknown_option "$1" ;;
    *)
      [ -z "$count" ] || fail "unexpected word $1; see --help (flags of the training go after --)"
      need_count N "$1"
      count="$1" && shift && continue
      ;;
  esac
  shift 2
done
[ -n "$count" ] || fail "how many processes? bash launch/local_cluster.sh 2 -- FLAGS; see --help"

# A port nobody listens at; another program may still take it before process 0 does, which then says so.
free_port() {
  local candidate
  while true; do
    candidate=$((20000 + RANDOM % 12000))
    if ! (: <>"/dev/tcp/localhost/$candidate") 2>/dev/null; then
      echo "$candidate" && return
    fi
  done
}

if [ -z "$port" ]; then
  if [ -n "$dry_run" ]; then port=PORT; else port="$(free_port)"; fi
fi
# Collectives between CPU processes need to be told of CPUs (asccl_jax/train/runtime.py).
settings=(JAX_PLATFORMS=cpu)
if [ "$devices" -gt 1 ]; then
  settings+=("XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices")
fi
common=("${flags[@]}" --multihost "--coordinator=localhost:$port" "--num_processes=$count")

prepare_environment prep
if [ -n "$dry_run" ]; then
  echo "mkdir -p $(quoted "$logs")"
  for ((i = 0; i < count; i++)); do
    echo "$(quoted env "${settings[@]}" "${program[@]}" "${common[@]}" "--process_id=$i") &>>$(quoted "$logs/host-$i.log") &"
  done
  exit
fi
mkdir -p "$logs"
say "$count processes, coordinator localhost:$port, logs in $logs (process 0 is shown)"

pids=() first_status=0 running="$count" signals=0 timer=""

# The multi-process runtime knows SIGTERM only; Ctrl-C becomes one.
# shellcheck disable=SC2317,SC2329 # called by the trap
pass_on() {
  signals=$((signals + 1))
  local name=TERM
  [ "$signals" -eq 1 ] || name=KILL
  kill "-$name" "${pids[@]}" 2>/dev/null || true
  say "passed SIG$name on to all processes"
}
# A reader that leaves must not end the launcher, and a terminal that closes not the processes unsaved.
trap '' PIPE
trap pass_on HUP INT TERM

# Becomes a command that does not hear of either.
# shellcheck disable=SC2317,SC2329 # called in the background
become() {
  trap '' HUP PIPE
  exec "$@"
}

for ((i = 0; i < count; i++)); do
  command=(env "${settings[@]}" "${program[@]}" "${common[@]}" "--process_id=$i")
  start_log "$logs/host-$i.log" "${command[@]}"
  if [ "$i" -eq 0 ]; then
    become "${command[@]}" > >(trap '' HUP INT TERM && exec tee -ap "$logs/host-0.log") 2>&1 &
  else
    become "${command[@]}" >>"$logs/host-$i.log" 2>&1 &
  fi
  pids[i]=$!
done

# Notes that process $1 ended with status $2; the first that failed ends the others.
note_end() {
  running=$((running - 1))
  if [ "$2" -eq 0 ] || [ "$first_status" -ne 0 ]; then return; fi
  first_status="$2"
  if [ "$running" -gt 0 ]; then
    # Of a polite stop all know, and some may still be saving.
    if [ "$2" -ne 143 ]; then
      say "process $1 ended with status $2 ($logs/host-$1.log): ending the others"
      kill -TERM "${pids[@]}" 2>/dev/null || true
    fi
    sleep "$grace" >/dev/null 2>&1 &
    timer=$!
  fi
}

while [ "$running" -gt 0 ]; do
  wait -n 2>/dev/null || true # a process ended, the time is up, or a signal came
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    status=0
    wait "${pids[i]}" || status=$?
    unset "pids[i]"
    note_end "$i" "$status"
  done
  if [ -n "$timer" ] && [ "$running" -gt 0 ] && ! kill -0 "$timer" 2>/dev/null; then
    say "still running after $grace s: killing processes ${!pids[*]}"
    kill -KILL "${pids[@]}" 2>/dev/null || true
    timer=""
  fi
done
[ -z "$timer" ] || kill "$timer" 2>/dev/null || true
exit "$first_status"
