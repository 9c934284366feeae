#!/usr/bin/env bash
# Trains on all GPUs of this machine. One process drives them all: no --multihost, no coordinator.
# Usage: bash launch/multi_gpu.sh [OPTIONS] [-- FLAGS]     FLAGS as of python -m asccl_jax.main
#   --gpus LIST      which GPUs, as 0,1,2,3 (default: all)
#   --log-dir DIR    where host-0.log goes (default $LOGDIR, or runs/logs/multi_gpu)
#   --dry-run        print what would be done
# The batch is split over the GPUs, so their number has to divide config.batch_size; BatchNorm sees groups of
# config.model.bn_group_size images, so give each GPU a multiple of that, as --config.batch_size=64 on 8 GPUs.
# Ctrl-C and SIGTERM stop after the current step with everything saved; the same command goes on.
# Exit status: that of the training.
# Example: bash launch/multi_gpu.sh -- --config configs/asccl.py --config.data.dir records --config.batch_size=64
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

gpus="" logs="${LOGDIR:-runs/logs/multi_gpu}"
split_words "$@"
set -- "${options[@]}"
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help && exit ;;
    --dry-run) dry_run=yes && shift && continue ;;
    --gpus | --log-dir) need_value "$@" ;;&
    --gpus)
      [[ "$2" =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--gpus $2: expected numbers with commas, as 0,1,2,3"
      gpus="$2"
      ;;
    --log-dir) logs="$2" ;;
    *) unknown_option "$1" ;;
  esac
  shift 2
done

settings=()
[ -z "$gpus" ] || settings+=("CUDA_VISIBLE_DEVICES=$gpus")
# Set to cpu, it would hide the GPUs.
command=(env --unset=JAX_PLATFORMS "${settings[@]}" "${program[@]}" "${flags[@]}")
if [ -z "$dry_run" ]; then
  need_tool nvidia-smi "this machine shows no NVIDIA GPU (on CPUs: python -m asccl_jax.main, or launch/local_cluster.sh)"
  nvidia-smi --list-gpus >&2 || fail "nvidia-smi finds no GPU it can talk to; see its message above"
fi
prepare_environment cuda
if [ -n "$dry_run" ]; then
  echo "mkdir -p $(quoted "$logs")"
  echo "$(quoted "${command[@]}") 2>&1 | tee -a $(quoted "$logs/host-0.log")"
  exit
fi
mkdir -p "$logs"
start_log "$logs/host-0.log" "${command[@]}"
# The training takes this process's place, so signals and exit status are its own.
exec > >(trap '' INT TERM && exec tee -ap "$logs/host-0.log") 2>&1
exec "${command[@]}"
