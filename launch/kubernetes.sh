#!/usr/bin/env bash
# Trains on a Kubernetes cluster, GKE or any other: fills in launch/kubernetes.yaml, applies it, and follows the logs of
# all hosts. The cluster needs JobSet (https://jobset.sigs.k8s.io) and a volume that all pods can write.
# Usage: bash launch/kubernetes.sh NAME --image IMAGE [OPTIONS] [-- FLAGS]     FLAGS as of python -m asccl_jax.main
#   NAME                of the JobSet
#   --image IMAGE       built with launch/Dockerfile and pushed where the cluster finds it
#   --hosts N           pods (default 1), each of a whole host with GPUs
#   --gpus-per-host G   GPUs of a host (default 8); one process drives them all
#   --tpu KIND          TPUs in place of GPUs, as GKE calls them: tpu-v5-lite-podslice, tpu-v5p-slice
#   --topology AxB[xC]  of the TPU slice: 4x4 for v5e-16, 4x4x8 for 128 chips of v5p; gives the number of hosts
#   --chips-per-host C  TPU chips of a host (default 4)
#   --volume CLAIM      persistent volume claim, mounted at /data (default asccl-data, of access mode ReadWriteMany)
#   --namespace SPACE   default: default
#   --queue QUEUE       Kueue's local queue, where the cluster has one
#   --spot              on GKE's spot nodes
#   --restarts R        starts after the first, whatever the last one ended of (default 20)
#   --log-dir DIR       where host-0.log and so on go on this machine (default $LOGDIR, or runs/logs/NAME); on the volume
#                       they are in /data/logs/NAME
#   --detach            do not wait and follow the logs
#   --stop              delete the JobSet: its pods get SIGTERM, save and end
#   --dry-run           print the manifest, and what would be done
# Paths in the flags are those of the pods: --config.data.dir /data/records --workdir /data/runs/asccl.
# Exit status: 0 once all is trained, 1 if the JobSet failed for good. Ctrl-C ends the following only.
# Example: bash launch/kubernetes.sh asccl --image REGISTRY/asccl-jax:tpu --tpu tpu-v5-lite-podslice --topology 4x4 -- \
#   --config configs/asccl.py --config.batch_size=128 --config.data.dir /data/records --workdir /data/runs/asccl
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

name="" image="" hosts="" gpus="" tpu="" topology="" chips=4 volume=asccl-data space=default queue="" spot="" restarts=20
logs="${LOGDIR:-}" detach="" stop=""
split_words "$@"
set -- "${options[@]}"
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help && exit ;;
    --dry-run) dry_run=yes && shift && continue ;;
    --spot) spot=yes && shift && continue ;;
    --detach) detach=yes && shift && continue ;;
    --stop) stop=yes && shift && continue ;;
    --image | --hosts | --gpus-per-host | --tpu | --topology | --chips-per-host | --volume | --namespace | --queue | \
      --restarts | --log-dir) need_value "$@" ;;&
    --hosts | --gpus-per-host | --chips-per-host) need_count "$1" "$2" ;;&
    --tpu | --volume | --namespace | --queue) need_name "$1" "$2" ;;&
    --image)
      [[ "$2" =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || fail "--image $2: expected the name of an image"
      image="$2"
      ;;
    --hosts) hosts="$2" ;;
    --gpus-per-host) gpus="$2" ;;
    --tpu) tpu="$2" ;;
    --topology)
      [[ "$2" =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology $2: expected AxB or AxBxC, as 4x4"
      topology="$2"
      ;;
    --chips-per-host) chips="$2" ;;
    --volume) volume="$2" ;;
    --namespace) space="$2" ;;
    --queue) queue="$2" ;;
    --restarts)
      [ "$2" = 0 ] || need_count "$1" "$2"
      restarts="$2"
      ;;
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
[ -n "$name" ] || fail "what to call it? bash launch/kubernetes.sh NAME --image IMAGE -- FLAGS; see --help"
[ -n "$image$stop" ] || fail "--image is missing: build one with launch/Dockerfile"
if [ -n "$tpu" ]; then
  [ -n "$topology" ] || fail "--tpu $tpu needs --topology, as --topology 4x4"
  [ -z "$hosts$gpus" ] || fail "--hosts and --gpus-per-host are of GPUs; a TPU's hosts follow from --topology"
  all_chips=$((${topology//x/*}))
  [ $((all_chips % chips)) -eq 0 ] || fail "--topology $topology has $all_chips chips: not a multiple of $chips a host"
  hosts=$((all_chips / chips))
elif [ -n "$topology" ]; then
  fail "--topology is of TPUs: give --tpu KIND too"
fi
hosts="${hosts:-1}" gpus="${gpus:-8}" logs="${logs:-runs/logs/$name}"
[ -n "$dry_run" ] || need_tool kubectl "see https://kubernetes.io/docs/tasks/tools; log in to the cluster with it first"

# Writes a word as YAML takes it, and as Kubernetes leaves it: "$(" would be a variable there.
yaml_word() {
  local word="$1"
  word="${word//\\/\\\\}"
  word="${word//\"/\\\"}"
  word="${word//$'\n'/\\n}"
  printf '"%s"' "${word//\$(/\$\$(}"
}

manifest() {
  local text labels="" annotations="" selector="" resource start="" arguments="" word
  # Within words that are put in place, & means itself.
  shopt -u patsub_replacement 2>/dev/null || true
  text="$(tail -n +3 launch/kubernetes.yaml)"
  # shellcheck disable=SC2016 # a variable of the pod
  start="$(quoted "${program[@]}")"' "$@" --multihost'
  if [ -n "$tpu" ]; then
    # JAX finds the hosts of a TPU by itself.
    annotations+="    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"$'\n'
    selector+="                cloud.google.com/gke-tpu-accelerator: $tpu"$'\n'
    selector+="                cloud.google.com/gke-tpu-topology: $topology"$'\n'
    resource="google.com/tpu: $chips"
  else
    # Told to it, JAX needs neither the kubernetes package nor the right to read pods.
    start+=" --coordinator=$name-train-0-0.$name:55527 --num_processes=$hosts"
    # shellcheck disable=SC2016
    start+=' --process_id="$JOB_COMPLETION_INDEX"'
    resource="nvidia.com/gpu: $gpus"
  fi
  [ -z "$queue" ] || labels+="    kueue.x-k8s.io/queue-name: $queue"$'\n'
  [ -z "$spot" ] || selector+="                cloud.google.com/gke-spot: \"true\""$'\n'
  for word in "${flags[@]}"; do
    arguments+="                    - $(yaml_word "$word")"$'\n'
  done
  labels="${labels:+  labels:$'\n'$labels}"
  annotations="${annotations:+  annotations:$'\n'$annotations}"
  selector="${selector:+              nodeSelector:$'\n'$selector}"
  text="${text//@NAME@/$name}"
  text="${text//@NAMESPACE@/$space}"
  text="${text//@LABELS@$'\n'/$labels}"
  text="${text//@ANNOTATIONS@$'\n'/$annotations}"
  text="${text//@NODE_SELECTOR@$'\n'/$selector}"
  text="${text//@RESTARTS@/$restarts}"
  text="${text//@HOSTS@/$hosts}"
  text="${text//@IMAGE@/$image}"
  text="${text//@LOGDIR@//data/logs/$name}"
  text="${text//@PROGRAM@/$start}"
  text="${text//@RESOURCE@/$resource}"
  text="${text//@VOLUME@/$volume}"
  # The user's words come last: nothing in them is taken for a place.
  [ -n "$arguments" ] || text="${text/args:/args: []}"
  printf '%s\n' "${text/@ARGUMENTS@$'\n'/$arguments}"
}

of_jobset=(--namespace "$space" --selector "jobset.sigs.k8s.io/jobset-name=$name")
# Prints Completed or Failed once the JobSet is either, and its other conditions.
conditions() {
  kubectl get jobset "$name" --namespace "$space" --output 'jsonpath={.status.conditions[?(@.status=="True")].type}'
}

# Follows the log of one host from attempt to attempt, until the JobSet has ended.
follow_host() {
  local since=() child=""
  trap 'kill "$child" 2>/dev/null; exit' TERM
  while true; do
    kubectl logs --follow --tail=-1 "${since[@]}" --namespace "$space" --selector \
      "jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=$1" >>"$logs/host-$1.log" &
    child=$!
    wait "$child" || true
    since=("--since-time=$(date -u +%Y-%m-%dT%H:%M:%SZ)")
    sleep 5 &
    child=$!
    wait "$child"
  done
}

follow() {
  local state="" index
  followers=() # not local: the trap outlives this function
  mkdir -p "$logs"
  for ((index = 0; index < hosts; index++)); do
    follow_host "$index" >/dev/null 2>&1 &
    followers+=($!)
  done
  trap 'kill "${followers[@]}" 2>/dev/null || true' EXIT
  say "following $hosts hosts: $logs/host-N.log (kubectl get pods $(quoted "${of_jobset[@]}"))"
  until [[ " $state " =~ " Completed "|" Failed " ]]; do
    sleep 10
    state="$(conditions)" || fail "the JobSet $name is gone, or the cluster does not answer; see above"
  done
  sleep 10 # for the last lines
  say "$name: $state; logs in $logs and in /data/logs/$name"
  [[ " $state " == *" Completed "* ]]
}

if [ -n "$stop" ]; then
  run kubectl delete jobset "$name" --namespace "$space" --ignore-not-found
  exit
fi
if [ -n "$dry_run" ]; then
  manifest
  echo "# kubectl apply --filename -    (of all above)"
  echo "# kubectl logs --follow $(quoted "${of_jobset[@]}")    -> $logs/host-N.log"
  exit
fi
manifest | kubectl apply --filename -
[ -n "$detach" ] || follow
