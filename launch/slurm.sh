#!/usr/bin/env bash
# Trains on nodes of a Slurm cluster: writes a batch script and submits it. One process drives one GPU, as JAX expects
# of Slurm; it finds coordinator, number and index of the processes by itself. The repository has to be on storage that
# the nodes share; the environment is made here, before submission, as nodes often have no internet.
# Usage: bash launch/slurm.sh [OPTIONS] [-- FLAGS]     FLAGS as of python -m asccl_jax.main
#   --nodes N            how many (default 1)
#   --gpus-per-node G    processes and GPUs of a node (default 8); 0: one process a node, on CPUs
#   --cpus-per-task C    cores of each process (default 8)
#   --time LIMIT         Slurm's time limit of one attempt (default 24:00:00)
#   --restarts R         times the job goes back into the queue after its time limit or a polite stop (default 20)
#   --sbatch OPTION      one more option of sbatch, as --sbatch --partition=gpu; may be repeated
#   --name NAME          of the job (default asccl)
#   --log-dir DIR        where host-0.log and so on go (default $LOGDIR, or runs/logs/NAME)
#   --dry-run            print the batch script and how it would be submitted
# Two minutes before the time limit Slurm sends SIGTERM: everything is saved, and the job goes back into the queue and
# on from there. scancel ends it for good, scancel --signal=TERM saves first (and counts as a restart).
# Exit status: that of sbatch. The job's own status is the training's.
# Example: bash launch/slurm.sh --nodes 2 --sbatch --partition=gpu -- --config configs/asccl.py --config.batch_size=128
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

nodes=1 gpus=8 cores=8 limit=24:00:00 restarts=20 name=asccl logs="${LOGDIR:-}" more=()
# sbatch's own options have dashes and equals signs: taken out before the line is sorted.
words=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  if [ "$1" = "--sbatch" ]; then
    [[ "${2:-}" == -?* && "${2:-}" != "--" && "$2" != *$'\n'* ]] ||
      fail "--sbatch ${2:-}: expected an option of sbatch, as --sbatch --partition=gpu"
    more+=("$2") && shift 2 && continue
  fi
  words+=("$1") && shift
done
split_words "${words[@]}" "$@"
set -- "${options[@]}"
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help && exit ;;
    --dry-run) dry_run=yes && shift && continue ;;
    --nodes | --gpus-per-node | --cpus-per-task | --time | --restarts | --name | --log-dir) need_value "$@" ;;&
    --nodes | --cpus-per-task) need_count "$1" "$2" ;;&
    --gpus-per-node | --restarts) [ "$2" = 0 ] || need_count "$1" "$2" ;;&
    --nodes) nodes="$2" ;;
    --gpus-per-node) gpus="$2" ;;
    --cpus-per-task) cores="$2" ;;
    --restarts) restarts="$2" ;;
    --time)
      [[ "$2" =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || fail "--time $2: expected Slurm's form, as 24:00:00 or 2-00:00:00"
      limit="$2"
      ;;
    --name)
      need_name "$1" "$2"
      name="$2"
      ;;
    --log-dir) logs="$2" ;;
    *) unknown_option "$1" ;;
  esac
  shift 2
done
logs="${logs:-runs/logs/$name}"
case "$logs" in
  *[[:space:]%]*) fail "--log-dir $logs: Slurm's patterns allow no spaces and no % there" ;;
  /*) ;;
  *) logs="$PWD/$logs" ;;
esac

tasks="$gpus" extras=cuda
if [ "$gpus" -eq 0 ]; then tasks=1 extras=prep; fi

batch_script() {
  cat <<END
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$tasks
#SBATCH --cpus-per-task=$cores
#SBATCH --time=$limit
#SBATCH --output=$logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
END
  [ "$gpus" -eq 0 ] || echo "#SBATCH --gpus-per-node=$gpus"
  [ "${#more[@]}" -eq 0 ] || printf '#SBATCH %s\n' "${more[@]}"
  cat <<END
set -uo pipefail
cd $(quoted "$PWD")
export PATH=$(quoted "$PWD/.venv/bin"):\$PATH
END
  if [ "$gpus" -eq 0 ]; then echo "export JAX_PLATFORMS=cpu"; else echo "unset JAX_PLATFORMS"; fi
  cat <<END
# All tasks of a node see all its GPUs, and each takes the one of its local index: no --gpus-per-task here.
# When one task ends the others have two minutes, as they may be saving.
srun --cpus-per-task=$cores --kill-on-bad-exit=0 --wait=120 --open-mode=append --output=$logs/host-%n.log \\
  $(quoted "${program[@]}" "${flags[@]}" --multihost)
status=\$?
if [ "\$status" -eq 143 ] && [ "\${SLURM_RESTART_COUNT:-0}" -lt $restarts ]; then
  echo "stopped with everything saved: back into the queue"
  scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$status"
END
}

if [ -n "$dry_run" ]; then
  prepare_environment "$extras"
  echo "mkdir -p $(quoted "$logs")"
  echo "sbatch $(quoted "$logs/$name.sbatch")    # which is:"
  batch_script
  exit
fi
need_tool sbatch "run this on a login node of the cluster (on one machine: launch/multi_gpu.sh)"
prepare_environment "$extras"
mkdir -p "$logs"
batch_script >"$logs/$name.sbatch"
sbatch "$logs/$name.sbatch"
say "logs: $logs/host-N.log by node, $logs/job-ID.log of the job"
