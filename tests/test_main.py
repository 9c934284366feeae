"""Training from the command line: every way it ends, and that it goes on exactly wherever it was cut off."""

import functools
import json
import logging
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.data.sole_writer import sole_writer
from asccl_jax.frozen_metric import FrozenMetric, load_metric, save_metric
from asccl_jax.geometry.head_model import HEAD_NAME
from asccl_jax.main import main
from asccl_jax.metrics_file import read_metrics, read_summary
from asccl_jax.settings import MetricSettings
from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.train.recipes.command_line import parse
from asccl_jax.train.recipes.config_entries import plain_config
from asccl_jax.types import TrainState
from data_prep.synthetic.tracks import TrackSetSettings, write_track_set
from DECA_torch_bridge.head_assets import builtin_assets
from DECA_torch_bridge.head_export import export_head
from tests.launched import ROOT, finish, finish_all, last_step, losses, wait_for_step
from tests.tasks.drawn import drawn_variables
from tests.train.tiny_records import write_tiny_records

# ml_collections loads recipes the old way; its affair.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.usefixtures("leave_nothing_running"),
]

RECIPE = str(ROOT / "configs/asccl.py")
MANIPULATOR_RECIPE = str(ROOT / "configs/manipulator.py")
FIRST_STEPS = 4
"""After which rounding has grown beyond what a test can tell from an error, for most of what is logged."""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_tiny_records(tmp_path_factory.mktemp("data") / "records")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A metric of the smoke network to start from, which spares every run the compilation of random draws."""
    settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(8, 16, 24, 32), image_size=64)
    directory = tmp_path_factory.mktemp("start") / "metric"
    save_metric(directory, FrozenMetric(variables=drawn_variables(settings), settings=settings))
    return directory


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """Tracks of synthetic speakers with their truth, and the head beside them."""
    directory = tmp_path_factory.mktemp("data") / "tracks"
    people = {"speakers": 2, "validation_speakers": 2, "sentences": 1, "validation_sentences": 1}
    list(write_track_set(TrackSetSettings(**people, syllables=(1, 2)), directory))
    export_head(builtin_assets(), directory / HEAD_NAME)
    return directory


@pytest.fixture(scope="module")
def train(launch, records, start):
    """Starts training of the metric."""
    return functools.partial(launch, RECIPE, **{"data.dir": records, "init_from": start})


@pytest.fixture(scope="module")
def train_manipulator(launch, tracks):
    """Starts training of the manipulator."""
    return functools.partial(launch, MANIPULATOR_RECIPE, **{"data.dir": tracks})


@pytest.fixture(scope="module", params=["train", "train_manipulator"])
def train_any(request):
    """Starts training of each task in turn."""
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_smoke_trains_reports_and_a_diverging_continuation_leaves_it_intact(train, tmp_path):
    workdir = tmp_path / "run"
    status, output, errors = finish(train(workdir, "--config.report_groups=2"))
    assert status == 0, errors
    assert "trained to step 8" in output
    for name in ("report/report.html", "best/metric.json", "last/metric.json", "initial/metric.json", "tensorboard"):
        assert (workdir / name).exists(), name
    assert str(workdir / "report/report.html") in output
    assert "SLOW" not in errors
    assert "Traceback" not in errors
    assert json.loads((workdir / "config.json").read_text())["model"]["stage_widths"] == [8, 16, 24, 32]
    assert output.startswith("trained to step 8 in ")
    assert "Where the time went" in output
    assert "Where the time went" in (workdir / "report/report.html").read_text()
    seconds = read_summary(workdir)["seconds"]
    assert all(seconds[phase] > 0 for phase in ("compiling", "training", "evaluating", "saving", "reporting"))

    lines = losses(workdir)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    held_out = {line["step"]: line["eval/nce"] for line in lines if "eval/nce" in line}
    assert sorted(held_out) == [0, 4, 8]
    assert load_metric(workdir).settings.image_size == 64

    status, _, errors = finish(train(workdir, "--config.steps=40", "--config.learning_rate=1e38"))
    assert status == 1
    assert "is not finite" in errors or " is nan at step" in errors or " is inf at step" in errors
    assert "Traceback" not in errors
    assert (workdir / "checkpoints/8").is_dir()
    assert losses(workdir)[: len(lines)] == lines
    assert np.isfinite(load_metric(workdir / "last").variables["params"]["trunk"]["stem"]["conv"]["kernel"]).all()


@pytest.mark.slow
def test_losses_go_on_exactly_after_kill_9_and_sigterm_at_any_moment(train_any, tmp_path):
    words = ("--config.steps=60", "--config.checkpoint_every=7", "--config.evaluate_every=25")
    undisturbed = tmp_path / "undisturbed"
    status, _, errors = finish(train_any(undisturbed, *words))
    assert status == 0, errors

    workdir, moments = tmp_path / "disturbed", random.Random()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = train_any(workdir, *words)
        begun = last_step(workdir)
        wait_for_step(process, workdir, begun + moments.randint(3, 12))
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(number)
        status, _, errors = finish(process)
        if number == signal.SIGTERM:
            assert status == 128 + signal.SIGTERM, errors
            assert "stopped by SIGTERM after step" in errors
            assert "Traceback" not in errors
        else:
            assert status == -signal.SIGKILL
    status, output, errors = finish(train_any(workdir, *words))
    assert status == 0, errors
    assert "trained to step 60" in output
    assert losses(workdir) == losses(undisturbed)  # bit for bit: one program, one order of data, one stream of keys


def assert_two_processes_told_of_themselves(workdir):
    """Each has a row in the summary and a profile, and lines of scalars name the one that waits longest for input."""
    figures = read_summary(workdir)["processes"]
    assert [row["process"] for row in figures] == [0, 1]
    assert {row["host"] for row in figures} == {socket.gethostname()}
    assert all(row["step_s"] > row["input_wait_s"] > 0 for row in figures)
    # The first line comes before any step without compilation has ended.
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "speed/step_s" in line]
    assert [line["step"] for line in lines] == list(range(lines[0]["step"], last_step(workdir) + 1))
    for line in lines:
        assert line["speed/slowest_process"] in (0, 1)
        # The slowest is gathered in single precision.
        assert line["speed/slowest_step_input_wait_s"] > 0.999 * line["speed/input_wait_s"]
    for index in (0, 1):
        assert list((workdir / f"profile/process{index}").rglob("*.xplane.pb")), index


@pytest.mark.slow
def test_two_processes_train_to_the_numbers_of_one_and_stop_together_on_sigterm(train_any, tmp_path):
    words = ("--config.evaluate_every=3", "--config.checkpoint_every=1000")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = (*words, "--config.steps=1000", "--multihost", f"--coordinator={address}", "--num_processes=2")
    common = (*common, "--profile=1")
    processes = [train_any(tmp_path / "two", *common, f"--process_id={index}") for index in (0, 1)]
    wait_for_step(processes[0], tmp_path / "two", FIRST_STEPS)
    processes[1].send_signal(signal.SIGTERM)
    ends = finish_all(processes)
    assert [status for status, *_ in ends] == [128 + signal.SIGTERM] * 2, ends
    assert_two_processes_told_of_themselves(tmp_path / "two")
    # One process goes on from where two stopped: neither the state nor the order of data depends on their number.
    steps = last_step(tmp_path / "two") + 2
    for workdir in (tmp_path / "two", tmp_path / "one"):
        status, _, errors = finish(train_any(workdir, *words, f"--config.steps={steps}"))
        assert status == 0, errors

    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line["step"] for line in two] == [line["step"] for line in one]
    assert all(found.keys() == expected.keys() for expected, found in zip(one, two, strict=True))
    # Two halves of a batch are summed in another order. Training scalars differ by some 1e-5 at first and grow apart
    # from step to step (a gradient's norm by 4 % at the eleventh), so how late the signal came decides how far.
    for expected, found in zip(one, two, strict=True):
        for name, value in expected.items():
            if expected["step"] <= FIRST_STEPS:
                # Scores under the running statistics of a few steps amplify, a share of hits moves by whole hits.
                tolerance = 0.02 if "top1" in name else 5e-3 if name.startswith("eval/") else 1e-3
            elif name.endswith("/loss"):
                tolerance = 0.02
            else:
                continue
            where = f"{name} of step {expected['step']}"
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=where)


@pytest.mark.slow
def test_a_manipulator_trains_under_a_metric_and_reports_what_it_does_to_the_truth(train_manipulator, start, tmp_path):
    workdir = tmp_path / "run"
    words = (f"--config.mesh.metric={start}", "--config.mesh.frames_per_step=2", "--config.report_groups=1")
    words += ("--config.mesh.first_step=3",)
    status, output, errors = finish(train_manipulator(workdir, *words))
    assert status == 0, errors
    assert "trained to step 8" in output
    assert "Traceback" not in errors
    for name in ("report/report.html", "report/scores.json", "best/manipulator.json", "last", "initial"):
        assert (workdir / name).exists(), name
    logged = [line for line in losses(workdir) if "manipulator/loss" in line]
    assert len(logged) == 8
    assert [line["step"] for line in logged if "manipulator/mesh" in line] == [4, 5, 6, 7, 8]
    assert all(line["manipulator/mesh"] > 0 for line in logged[3:])
    scores = json.loads((workdir / "report/scores.json").read_text())
    assert scores["clips"] == 1
    assert scores["rows"][0]["figures"]["mouth_error_mm"]["value"] > 0


@pytest.fixture
def run_here(records, start, tracks, tmp_path, capsys):
    """Calls `main` in this process: bad input ends before anything is compiled."""
    logger = logging.getLogger("asccl_jax")
    before = (list(logger.handlers), logger.level, logger.propagate)

    def run(*words, recipe=RECIPE, data=records):
        settings = {"data.dir": data, "init_from": start, "compilation_cache_dir": ""}
        if recipe == MANIPULATOR_RECIPE:
            settings = {"data.dir": tracks, "compilation_cache_dir": ""}
        status = main(
            [f"--config={recipe}:smoke", f"--workdir={tmp_path / 'run'}"]
            + [f"--config.{name}={value}" for name, value in settings.items()]
            + [*words]
        )
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return status, errors

    yield run
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--config.data.dir=nowhere",), "data directory nowhere does not exist"),
        (("--config.stepz=3",), "unknown config key config.stepz"),
        (("--config.model.image_size=20",), "image_size=20"),
        (("--config.compat=papre",), "compat='papre'"),
        (("--config.task=stcll",), "config.task='stcll': expected one of metric"),
        (("--config.dtype=float8",), "config.dtype='float8'"),
        (("--config.data.max_hold=-1",), "max_hold=-1"),
        (("--config.learning_rate=0",), "config.learning_rate=0"),
        (("--config.steps=-1",), "config.steps=-1: expected at least 1"),
        (("--config.steps=0", "--config.batch_size=4000"), "are no batch of 4000: give more epochs or a smaller batch"),
        (("--config.batch_size=12",), "config.batch_size=12 does not divide"),
        (("--config.init_from=nowhere",), "metric nowhere|metric /.*nowhere"),
        (("--config.model.stage_widths=(8,16,24,36)",), r"heads/stage4/hidden/kernel has shape \(32, 32\)"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(run_here, words, message):
    status, errors = run_here(*words)
    assert status == 2
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--config.data.dir=nowhere",), "nowhere"),
        (("--config.data.hop=0",), "hop=0"),
        (("--config.model.window=500",), "no window of 500 consecutive"),
        (("--config.model.lstm_biases=3",), "lstm_biases=3"),
        (("--config.compat=papre",), "compat='papre'"),
        (("--config.learning_rate_schedule=stars",), "stars"),
        (("--config.steps=0", "--config.batch_size=4000"), "config.batch_size=4000"),
        (("--config.init_from=nowhere",), "manipulator .*nowhere"),
        (("--config.mesh.metric=nowhere",), "metric .*nowhere"),
        (("--config.mesh.metric=nowhere", "--config.compat=released"), "config.mesh.metric is set"),
        (("--config.mesh.modes=('label',)",), "expected some of latent, reference"),
        (("--config.mesh.weight=-1",), "weighs -1"),
        (("--config.mesh.first_step=-1",), "config.mesh.first_step=-1"),
        (("--config.mesh.region=ears",), "config.mesh.region='ears'"),
    ],
)
def test_bad_input_for_the_manipulator_is_one_clear_line_too(run_here, words, message):
    status, errors = run_here(*words, recipe=MANIPULATOR_RECIPE)
    assert status == 2
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]


def test_records_of_another_schema_version_end_with_status_2(run_here, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    status, errors = run_here(data=copy)
    assert status == 2
    assert "schema version 99" in errors[0]


def test_records_without_pairs_end_with_status_2(run_here, tmp_path):
    empty = write_tiny_records(tmp_path / "records", paired=False)
    status, errors = run_here(data=empty)
    assert status == 2
    assert "pairs" in errors[0]


def test_a_damaged_shard_ends_with_status_2_naming_file_and_record(run_here, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    (shard,) = copy.glob("asccl_frames-train.tfrecord-?????-of-?????")
    data = bytearray(shard.read_bytes())
    for position in range(200, len(data), 500):  # every record: whichever the first batch draws
        data[position] ^= 1
    shard.write_bytes(data)
    status, errors = run_here(data=copy)
    assert status == 2
    assert len(errors) == 1
    assert shard.name in errors[0]
    assert "record" in errors[0]


def test_a_checkpoint_of_another_network_ends_with_status_2_listing_differences(run_here, tmp_path):
    config = plain_config(parse([f"--config={RECIPE}:smoke", "--config.model.image_size=80"]).config)
    state = TrainState(jnp.zeros((), jnp.int32), {}, {}, (), jax.random.key(0))
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", keep=1)
    checkpoints.save(3, state, data={}, config={**config, "seed": 1}, progress={})
    checkpoints.close()
    status, errors = run_here()
    assert status == 2
    assert "config.model.image_size was 80, now 64" in errors[0]
    assert "config.seed was 1, now 42" in errors[0]


def test_a_workdir_that_is_a_file_ends_with_status_2(run_here, tmp_path):
    (tmp_path / "run").write_text("")
    status, errors = run_here()
    assert status == 2
    assert "--workdir" in errors[0]


def test_a_workdir_in_which_another_run_trains_ends_with_status_2_and_stays_as_it_is(run_here, tmp_path):
    (tmp_path / "run").mkdir()
    with sole_writer(tmp_path / "run", "--workdir"):
        status, errors = run_here()
    assert status == 2
    assert errors == [f"error: --workdir {tmp_path / 'run'}: another run works there; wait for it, or end it"]
    assert not list((tmp_path / "run").iterdir())


def test_help_explains_and_ends_with_status_0(capsys):
    assert main(["--help"]) == 0
    assert "--config configs/asccl.py" in capsys.readouterr().out


def test_flags_and_help_need_no_jax():
    program = (
        "import sys; from asccl_jax.main import main\n"
        "assert main(['--help']) == 0 and main(['--config=nowhere.py']) == 2\n"
        "assert 'jax' not in sys.modules and 'orbax' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
