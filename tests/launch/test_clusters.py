"""Launchers of clusters, against stand-ins of the clusters' tools: what is asked for, logs, restarts, status."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from tests.launch.scripts import PATIENCE_S, checkout, launch, start, tools, wait_for

# Runs a batch script as a node would; tasks of srun are told their place as by Slurm.
SBATCH = """
while [[ "$1" == -* ]]; do shift; done
echo "Submitted batch job 7"
SLURM_JOB_ID=7 SLURM_RESTART_COUNT="${RESTARTED:-0}" bash "$1"
echo "job ended with $?" >"$RECORD/ended"
"""
SRUN = """
printf '%s\\n' "$@" >"$RECORD/srun"
while [[ "$1" == -* ]]; do case "$1" in --output=*) logs="${1#*=}" ;; esac; shift; done
status=0
for node in 0 1; do SLURM_PROCID="$node" "$@" >>"${logs//%n/$node}" 2>&1 || status=$?; done
exit "$status"
"""
SCONTROL = 'echo "$*" >"$RECORD/scontrol"'

# Two workers, each a folder; ssh runs the command there, scp copies.
GCLOUD = """
printf '%s ' "$@" >>"$RECORD/gcloud"; echo >>"$RECORD/gcloud"
command="" output="" words=()
while [ $# -gt 0 ]; do
  case "$1" in
    --command) command="$2"; shift ;;
    --output-directory=*) output="${1#*=}" ;;
    *) words+=("$1") ;;
  esac
  shift
done
case "${words[*]:2:2}" in
  "queued-resources describe") cat "$RECORD/state" 2>/dev/null || exit 1; exit ;;
  "queued-resources create") echo "${STATE:-ACTIVE}" >"$RECORD/state"; exit ;;
esac
status=0 pids=()
for worker in 0 1; do
  home="$RECORD/worker$worker"
  mkdir -p "$home"
  if [ "${words[3]}" = scp ]; then cp "${words[4]}" "$home/" && continue; fi
  log=/dev/stderr
  [ -z "$output" ] || log="$output/$worker.log"
  (cd "$home" && exec bash -c "$command") >>"$log" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
"""

KUBECTL = """
printf '%s ' "$@" >>"$RECORD/kubectl"; echo >>"$RECORD/kubectl"
case "$1" in
  apply) cat >"$RECORD/manifest.yaml" ;;
  logs) [[ "$*" == *index=0* ]] && echo "log of host 0" || echo "log of another host" ;;
  get) echo "${STATE:-Completed}" ;;
esac
"""


@pytest.fixture
def repository(tmp_path):
    return checkout(tmp_path / "repository")


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record"
    path.mkdir()
    return path


def batch_script(repository, *words):
    status, output, errors = launch(repository, "slurm", "--dry-run", *words)
    assert status == 0, errors
    script = output[output.index("#!/usr/bin/env bash") :]
    check = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    return script


def test_slurm_starts_one_process_a_gpu_each_of_which_sees_all(repository):
    script = batch_script(repository, "--nodes=4", "--gpus-per-node=2", "--sbatch", "--partition=gpu", "--", "--run")
    for line in ("--nodes=4", "--ntasks-per-node=2", "--gpus-per-node=2", "--partition=gpu", "--signal=TERM@120"):
        assert f"#SBATCH {line}\n" in script
    assert "--gpus-per-task=" not in script
    assert "unset JAX_PLATFORMS" in script
    # Slurm reads options up to the first command only.
    lines = [line for line in script.splitlines() if line]
    assert [line.startswith("#") for line in lines[:12]] == [True] * 12
    assert lines[12] == "set -uo pipefail"


def test_slurm_without_gpus_runs_one_process_a_node_on_cpus(repository):
    script = batch_script(repository, "--nodes=4", "--gpus-per-node=0")
    assert "#SBATCH --ntasks-per-node=1\n" in script
    assert "export JAX_PLATFORMS=cpu" in script
    assert "--gpus" not in script.replace("--gpus-per-task here", "")


@pytest.mark.parametrize(
    ("ended", "restarted", "again"), [(143, 0, True), (143, 20, False), (3, 0, False), (0, 0, False)]
)
def test_slurm_puts_back_what_stopped_politely_and_nothing_else(repository, record, tmp_path, ended, restarted, again):
    path = tools(tmp_path / "bin", sbatch=SBATCH, srun=SRUN, scontrol=SCONTROL)
    words = (f"--log-dir={tmp_path / 'logs'}", "--gpus-per-node=0", "--", f"--status={ended}", "a b")
    settings = {"RECORD": str(record), "RESTARTED": str(restarted), "path": path}
    status, output, errors = launch(repository, "slurm", *words, **settings)
    assert status == 0, errors
    assert "Submitted batch job 7" in output
    assert (record / "ended").read_text() == f"job ended with {ended}\n"
    assert (record / "scontrol").exists() == again
    if again:
        assert (record / "scontrol").read_text() == "requeue 7\n"
    for node in (0, 1):
        assert f"<--status={ended}> <a b> <--multihost>" in (tmp_path / f"logs/host-{node}.log").read_text()


def manifest(repository, *words):
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the manifest")
    status, output, errors = launch(repository, "kubernetes", "run", "--image=registry/image:1", "--dry-run", *words)
    assert status == 0, errors
    assert not re.search("@[A-Z_]+@", output.partition("args:")[0])
    return yaml.safe_load(output)


def pods(found):
    (job,) = found["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return job, job["template"]["spec"], container


def test_kubernetes_gives_each_pod_a_host_with_gpus_and_tells_it_its_place(repository):
    flags = ("--config=configs/asccl.py", "a 'b' \"c\" \\ & $(d)", "@NAME@ and\nline", "true")
    job, pod, container = pods(manifest(repository, "--hosts=2", "--gpus-per-host=4", "--", *flags))
    assert (job["completions"], job["parallelism"], job["completionMode"], job["backoffLimit"]) == (2, 2, "Indexed", 0)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert [word.replace("$$(", "$(") for word in container["args"]] == list(flags)  # Kubernetes reads $$( so
    assert "$$(d)" in container["args"][1]
    told = '--multihost --coordinator=run-train-0-0.run:55527 --num_processes=2 --process_id="$JOB_COMPLETION_INDEX"'
    assert told in container["command"][2]
    assert pod["restartPolicy"] == "Never"
    assert "nodeSelector" not in pod
    check = subprocess.run(["bash", "-n", "-c", container["command"][2]], capture_output=True, check=False)
    assert check.returncode == 0


def test_the_pods_command_logs_by_host_and_becomes_the_training(repository, tmp_path):
    _, _, container = pods(manifest(repository, "--hosts=2", "--", "--status=5", "a b"))
    settings = {"LOGDIR": str(tmp_path / "logs"), "JOB_COMPLETION_INDEX": "1"}
    result = subprocess.run(
        [*container["command"], *container["args"]],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 5
    assert "<--status=5> <a b> <--multihost>" in (tmp_path / "logs/host-1.log").read_text()
    assert "<--process_id=1>" in result.stdout


def test_kubernetes_asks_for_the_slice_of_a_tpu_and_lets_jax_find_its_hosts(repository):
    words = ("--tpu=tpu-v5p-slice", "--topology=4x4x8", "--spot", "--queue=team", "--restarts=3")
    found = manifest(repository, *words)
    job, pod, container = pods(found)
    assert job["completions"] == 4 * 4 * 8 / 4
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["args"] == []
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    assert found["spec"]["failurePolicy"] == {"maxRestarts": 3}
    assert container["command"][2].rstrip().endswith('"$@" --multihost')


@pytest.mark.parametrize(("state", "expected"), [("Completed", 0), ("StartupPolicyCompleted Failed", 1)])
def test_kubernetes_follows_all_hosts_to_the_end(repository, record, tmp_path, state, expected):
    sleep = f"exec {shutil.which('sleep')} 0.2"
    path = tools(tmp_path / "bin", kubectl=KUBECTL, sleep=sleep)
    words = ("run", "--image=i", "--hosts=2", f"--log-dir={tmp_path / 'logs'}")
    status, _, errors = launch(repository, "kubernetes", *words, path=path, RECORD=str(record), STATE=state)
    assert status == expected, errors
    assert "kind: JobSet" in (record / "manifest.yaml").read_text()
    assert "log of host 0" in (tmp_path / "logs/host-0.log").read_text()
    assert "log of another host" in (tmp_path / "logs/host-1.log").read_text()


@pytest.fixture
def gcloud(tmp_path, record):
    return {"path": tools(tmp_path / "bin", gcloud=GCLOUD), "RECORD": str(record)}


def test_a_tpu_is_made_once_its_workers_get_the_code_and_train(repository, record, gcloud, tmp_path):
    logs = tmp_path / "logs"
    words = ("pod", "--zone=z", "--create=v5litepod-16", "--spot", "--before=touch before", f"--log-dir={logs}")
    for attempt in (1, 2):
        status, output, errors = launch(repository, "tpu_vm", *words, "--", "--status=5", "it's", **gcloud)
        assert status == 5, errors
        assert "<--status=5> <it's> <--multihost>" in output  # worker 0 is shown
        for worker in (0, 1):
            assert (record / f"worker{worker}/asccl-jax/asccl_jax/module.py").is_file()
            assert "<--status=5> <it's> <--multihost>" in (logs / f"host-{worker}.log").read_text()
        asked = (record / "gcloud").read_text().splitlines()
        assert sum("queued-resources create" in line for line in asked) == 1
        assert attempt == sum("--output-directory" in line for line in asked)
    (made,) = [line for line in asked if "queued-resources create" in line]
    assert "--accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite --spot --zone z" in made


def test_a_tpu_that_was_taken_away_is_named_with_the_way_to_a_new_one(repository, gcloud):
    words = ("pod", "--zone=z", "--create=v5p-256")
    status, _, errors = launch(repository, "tpu_vm", *words, **gcloud, STATE="SUSPENDED")
    assert status == 2
    assert "pod is SUSPENDED" in errors
    assert "gcloud compute tpus queued-resources delete pod --force --zone z" in errors


def test_ctrl_c_stops_all_workers_politely(repository, record, gcloud, tmp_path):
    process = start(repository, "tpu_vm", "pod", "--zone=z", f"--log-dir={tmp_path / 'logs'}", "--", "--run", **gcloud)
    for worker in (0, 1):
        wait_for(tmp_path / f"logs/gcloud/{worker}.log", "ready")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143, errors
    for worker in (0, 1):
        assert "saved" in (tmp_path / f"logs/host-{worker}.log").read_text()


def test_training_on_a_worker_outlives_its_connection_is_found_again_and_stopped(repository):
    log = repository / "runs/.launch/log"
    first = start(repository, "on_tpu_worker", "train", "--", "--run")
    wait_for(log, "ready")
    os.killpg(first.pid, signal.SIGKILL)  # the connection breaks
    first.communicate()

    other = launch(repository, "on_tpu_worker", "train", "--", "--other")
    assert other[0] == 2
    assert "trains something else" in other[2]

    again = start(repository, "on_tpu_worker", "train", "--", "--run")
    assert launch(repository, "on_tpu_worker", "stop")[0] == 0
    output, errors = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 143
    assert "already training, following it" in errors
    assert output.count("told:") == 1
    assert "saved" in output
    assert "nothing is running" in launch(repository, "on_tpu_worker", "stop")[2]


def test_gpus_of_one_machine_are_driven_by_one_process_whose_status_is_the_launchers(repository, tmp_path):
    path = tools(tmp_path / "bin", **{"nvidia-smi": "echo 'GPU 0: stand-in'"})
    words = ("--gpus=0,1", f"--log-dir={tmp_path / 'logs'}", "--", "--status=5", "a b")
    status, output, _ = launch(repository, "multi_gpu", *words, path=path, JAX_PLATFORMS="cpu")
    assert status == 5
    assert "told: <--status=5> <a b>\n" in output
    assert "platform: none" in output
    assert "told: <--status=5> <a b>\n" in (tmp_path / "logs/host-0.log").read_text()

    broken = tools(tmp_path / "broken", **{"nvidia-smi": "echo 'no driver'; exit 9"})
    status, _, errors = launch(repository, "multi_gpu", path=broken)
    assert status == 2
    assert "nvidia-smi finds no GPU" in errors
