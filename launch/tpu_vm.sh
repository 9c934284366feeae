#!/usr/bin/env bash
# Trains on a Cloud TPU: copies this repository to all workers, makes the environment there, starts training on all of
# them, and shows worker 0. What is already done is not done again: the same command after a broken connection follows
# the training that goes on without it, and after the end of it starts it again, from its last checkpoint.
# Usage: bash launch/tpu_vm.sh NAME --zone ZONE [OPTIONS] [-- FLAGS]     FLAGS as of python -m asccl_jax.main
#   NAME               of the TPU
#   --zone ZONE        where it is
#   --project PROJECT  default: that of gcloud's configuration
#   --create TYPE      make it if there is none, as a queued resource, and wait for it: v5litepod-16, v5p-256
#   --runtime VERSION  its software (default: v2-alpha-tpuv5-lite for v5litepod-*, v2-alpha-tpuv5 for v5p-*)
#   --spot             make it of spot capacity: cheaper, and taken away at any moment
#   --before COMMAND   run this on each worker first; it must bear repeating, as in
#                      --before 'mountpoint -q /data || sudo mount -t nfs SERVER:/share /data'
#   --stop             ask running training to save and end, and wait until it has
#   --log-dir DIR      where host-0.log and so on go (default $LOGDIR, or runs/logs/NAME)
#   --dry-run          print what would be done
# --config.data.dir and --workdir have to be on storage that all workers share: see launch/README.md.
# Ctrl-C asks the training to save and end; a broken connection does not touch it.
# Exit status: 0, or that of a worker that failed, 143 after a polite stop.
# Example: bash launch/tpu_vm.sh pod --zone us-west4-a --create v5litepod-16 --spot -- --config configs/asccl.py \
#   --config.batch_size=128 --config.data.dir /data/records --workdir /data/runs/asccl
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

name="" zone="" project="" create="" runtime="" spot="" before="" stop="" logs="${LOGDIR:-}"
split_words "$@"
set -- "${options[@]}"
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help && exit ;;
    --dry-run) dry_run=yes && shift && continue ;;
    --spot) spot=yes && shift && continue ;;
    --stop) stop=yes && shift && continue ;;
    --zone | --project | --create | --runtime | --before | --log-dir) need_value "$@" ;;&
    --zone) zone="$2" ;;
    --project) project="$2" ;;
    --create) create="$2" ;;
    --runtime) runtime="$2" ;;
    --before) before="$2" ;;
    --log-dir) logs="$2" ;;
    -*) unknown_option "$1" ;;
    *)
      [ -z "$name" ] || fail "unexpected word $1; see --help (flags of the training go after --)"
      need_name NAME "$1"
      name="$1" && shift && continue
      ;;
  esac
  shift 2
done
[ -n "$name" ] || fail "which TPU? bash launch/tpu_vm.sh NAME --zone ZONE -- FLAGS; see --help"
[ -n "$zone" ] || fail "--zone is missing, as in --zone us-west4-a"
case "$runtime,$create" in
  ,v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  ,v5p-*) runtime=v2-alpha-tpuv5 ;;
  ,?*) fail "--create $create: give --runtime VERSION too (the default is known for v5litepod-* and v5p-*)" ;;
esac
[ -n "$dry_run" ] || need_tool gcloud "it comes with the Google Cloud CLI, https://cloud.google.com/sdk/docs/install"

logs="${logs:-runs/logs/$name}"
where=(--zone "$zone" --quiet)
[ -z "$project" ] || where+=(--project "$project")
folder=asccl-jax
code=(asccl_jax configs data_prep DECA_torch_bridge launch LICENSE README.md pyproject.toml)

# Runs a command in the repository on all workers; further words go to gcloud.
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" --worker=all "${where[@]}" "${@:2}" --command "cd $folder && $1"
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>/dev/null || true
}

# Makes the TPU if there is none, and waits until it is there.
create_tpu() {
  local wanted=(--node-id "$name" --accelerator-type "$create" --runtime-version "$runtime") now="" last=""
  [ -z "$spot" ] || wanted+=(--spot)
  [ -n "$dry_run" ] || now="$(state)"
  if [ -z "$now" ]; then
    run gcloud compute tpus queued-resources create "$name" "${wanted[@]}" "${where[@]}"
  fi
  if [ -n "$dry_run" ]; then
    echo "gcloud compute tpus queued-resources describe $name $(quoted "${where[@]}")    # until it is ACTIVE"
    return
  fi
  while true; do
    now="$(state)"
    [ "$now" = "$last" ] || say "queued resource $name: ${now:-no answer}"
    last="$now"
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDED | SUSPENDING)
        fail "$name is $now (taken away, or never given). Delete it, then give the same command again:" \
          "gcloud compute tpus queued-resources delete $name --force $(quoted "${where[@]}")"
        ;;
    esac
    sleep 20
  done
}

# Copies the code to all workers, unless they train: running code stays as it is.
copy_code() {
  local unpack="[ -e $folder/runs/.launch/pid ] && [ ! -e $folder/runs/.launch/status ]"
  unpack+=" && kill -0 \$(cat $folder/runs/.launch/pid) 2>/dev/null && exit 0;"
  unpack+=" mkdir -p $folder && (cd $folder && rm -rf ${code[*]}) && tar -xzf $folder.tar.gz -C $folder"
  run tar -czf "$logs/$folder.tar.gz" --exclude=__pycache__ "${code[@]}"
  run gcloud compute tpus tpu-vm scp "$logs/$folder.tar.gz" "$name:$folder.tar.gz" --worker=all "${where[@]}"
  run gcloud compute tpus tpu-vm ssh "$name" --worker=all "${where[@]}" --command "$unpack"
}

stop_training() { on_workers "bash launch/on_tpu_worker.sh stop"; }

# gcloud names the logs by the worker's number.
name_logs() {
  local log
  for log in "$logs"/gcloud/*.log; do
    [ ! -e "$log" ] || ln -sf "gcloud/$(basename "$log")" "$logs/host-$(basename "$log")"
  done
}

# Starts training on all workers, or follows it; worker 0 is shown while it goes.
train() {
  local command status=0 follower="" shower="" stopping=""
  command="bash launch/on_tpu_worker.sh train -- $(quoted "${flags[@]}" --multihost)"
  if [ -n "$dry_run" ]; then
    on_workers "$command" "--output-directory=$logs/gcloud"
    echo "tail -f $(quoted "$logs/gcloud/0.log")    # and $logs/host-N.log -> gcloud/N.log"
    return
  fi
  mkdir -p "$logs/gcloud"
  rm -f "$logs"/gcloud/*.log "$logs"/host-*.log
  : >"$logs/gcloud/0.log"
  trap 'stopping=yes' INT TERM
  trap name_logs EXIT
  on_workers "$command" "--output-directory=$logs/gcloud" &
  follower=$!
  tail -n +1 -f "$logs/gcloud/0.log" &
  shower=$!
  while true; do
    status=0
    wait "$follower" || status=$?
    if [ -n "$stopping" ]; then
      stopping=""
      stop_training || true
    elif ! kill -0 "$follower" 2>/dev/null; then
      break
    fi
  done
  sleep 2 # for the last lines
  kill "$shower" 2>/dev/null || true
  say "ended with status $status; logs in $logs/host-*.log"
  exit "$status"
}

if [ -n "$stop" ]; then
  stop_training
  exit
fi
run mkdir -p "$logs"
[ -z "$create" ] || create_tpu
copy_code
[ -z "$before" ] || on_workers "$before"
on_workers "bash launch/on_tpu_worker.sh setup"
train
