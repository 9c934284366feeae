"""Training from the command line: every way it ends, and that it goes on exactly."""

import functools
import json
import logging
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.head.head_model import HEAD_NAME
from asccl_jax.main import main
from asccl_jax.metrics_file import read_summary
from asccl_jax.settings import MetricSettings
from asccl_jax.train import recipes
from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.train.command_line import parse
from asccl_jax.train.recipes import plain_config
from asccl_jax.types import TrainState
from asccl_jax.weights import FrozenMetric, load_metric, save_metric
from asccl_jax.work import sole_writer
from data_prep.head_fit.head_assets import builtin_assets, export_head
from data_prep.synthetic.tracks import TrackSetSettings, write_track_set
from tests.faults.checkpoints import differing_arrays, newest_step
from tests.launched import ROOT, cut_off, finish, losses
from tests.tasks.drawn import drawn_variables
from tests.train import toy
from tests.train.tiny_records import write_tiny_records

# ml_collections loads recipes the old way; its affair.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.usefixtures("leave_nothing_running"),
]

RECIPE = str(ROOT / "configs/asccl.py")
MANIPULATOR_RECIPE = str(ROOT / "configs/manipulator.py")
KEPT = ("--config.keep_checkpoints=4",)
"""All that a smoke run saves."""


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


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A finished run of the metric, which keeps all its checkpoints, and what it wrote to stdout and stderr."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    status, output, errors = finish(train(workdir, *KEPT, "--config.report_groups=2"))
    assert status == 0, errors
    return workdir, output, errors


@pytest.fixture(scope="module")
def under_the_metric(train_manipulator, start):
    """Starts training of the manipulator with the metric in one of its updates, which is the less to compile."""
    words = (f"--config.mesh.metric={start}", "--config.mesh.frames_per_step=2", "--config.mesh.modes=('latent',)")
    return lambda workdir, *more: train_manipulator(workdir, *KEPT, *words, *more)


@pytest.fixture(scope="module")
def trained_manipulator(under_the_metric, tmp_path_factory):
    """A finished run of the manipulator, likewise."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    status, output, errors = finish(under_the_metric(workdir, "--config.report_groups=1"))
    assert status == 0, errors
    return workdir, output, errors


@pytest.mark.slow
def test_smoke_trains_and_reports(trained):
    workdir, output, errors = trained
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
    assert np.isfinite(load_metric(workdir / "last").variables["params"]["trunk"]["stem"]["conv"]["kernel"]).all()


@pytest.mark.slow
def test_a_manipulator_trains_under_a_metric_and_reports_what_it_does_to_the_truth(trained_manipulator):
    workdir, output, errors = trained_manipulator
    assert "trained to step 8" in output
    assert "Traceback" not in errors
    for name in ("report/report.html", "report/scores.json", "best/manipulator.json", "last", "initial"):
        assert (workdir / name).exists(), name
    logged = [line for line in losses(workdir) if "manipulator/loss" in line]
    assert len(logged) == 8
    assert all(line["manipulator/mesh"] > 0 for line in logged)
    scores = json.loads((workdir / "report/scores.json").read_text())
    assert scores["clips"] == 1
    assert scores["rows"][0]["figures"]["mouth_error_mm"]["value"] > 0


def test_the_metric_joins_the_manipulator_once_the_steps_before_are_done(tracks, start):
    words = (f"--config.data.dir={tracks}", f"--config.mesh.metric={start}", "--config.mesh.first_step=3")
    built = recipes.build_experiment(parse([f"--config={MANIPULATOR_RECIPE}:smoke", *words]).config)
    built.batches.close()
    assert [built.task_at(step).mesh_loss is not None for step in (0, 2, 3, 8)] == [False, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(("run", "again"), [("trained", "train"), ("trained_manipulator", "under_the_metric")])
def test_a_run_that_was_cut_off_goes_on_exactly(request, run, again, tmp_path):
    """That it is so wherever real processes are killed is for tests/faults, on a task that compiles in a second."""
    (undisturbed, *_), workdir = request.getfixturevalue(run), tmp_path / "run"
    cut_off(undisturbed, workdir, step=4)
    status, output, errors = finish(request.getfixturevalue(again)(workdir, *KEPT))
    assert status == 0, errors
    assert "going on from checkpoint 4 in" in errors
    assert "trained to step 8" in output
    assert losses(workdir) == losses(undisturbed)  # bit for bit: one program, one order of data, one stream of keys
    assert differing_arrays(workdir / "checkpoints/8", undisturbed / "checkpoints/8") == []


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


def test_a_diverging_continuation_ends_with_status_1_and_leaves_the_run_intact(run_here, tmp_path, monkeypatch):
    runs = iter([toy.experiment(steps=4), toy.experiment(steps=20, learning_rate=1e38)])
    monkeypatch.setattr(recipes, "build_experiment", lambda config: next(runs))
    words = ("--config.report_groups=0",)
    assert run_here(*words) == (0, [])
    lines, last = losses(tmp_path / "run"), (tmp_path / "run/last/w.json").read_text()
    status, (error,) = run_here(*words)
    assert status == 1
    assert re.search(
        r"error: training stopped: toy/.* is (nan|inf) at step [56]; checkpoint 4 and last/ are good", error
    )
    assert newest_step(tmp_path / "run/checkpoints") == 4
    assert losses(tmp_path / "run")[: len(lines)] == lines
    assert (tmp_path / "run/last/w.json").read_text() == last


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
