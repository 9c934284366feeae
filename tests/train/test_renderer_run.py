"""Training of the renderer from the command line: what a run leaves, that it goes on exactly, what it refuses."""

import functools
import logging
import re
import socket

import jax
import numpy as np
import pytest
from PIL import Image

from asccl_jax.main import main
from asccl_jax.settings import MetricSettings
from asccl_jax.train.checkpoints.checkpoint_listing import read_arrays
from asccl_jax.train.command_line import parse
from asccl_jax.train.recipes import build_experiment
from asccl_jax.weights import FrozenMetric, load_renderer, save_metric
from tests.data.painted_clips import write_subject
from tests.evals.talking_records import write_talking_records
from tests.faults.checkpoints import differing_arrays
from tests.launched import ROOT, cut_off, finish, finish_all, losses
from tests.tasks.drawn import drawn_variables
from tests.train.tiny_records import write_tiny_records

# ml_collections loads recipes the old way; its affair.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.usefixtures("leave_nothing_running"),
]

RECIPE = str(ROOT / "configs/renderer.py")
CLIPS = {
    "train": {"A/neutral/1": range(12), "A/sad/1": range(12)},
    "validation": {"A/neutral/2": range(7), "A/happy/2": range(7)},
}
KEPT = ("--config.keep_checkpoints=4",)
"""All that a smoke run saves."""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_talking_records(tmp_path_factory.mktemp("data") / "records", CLIPS)


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(8, 8, 8, 8), image_size=48)
    directory = tmp_path_factory.mktemp("start") / "metric"
    save_metric(directory, FrozenMetric(variables=drawn_variables(settings), settings=settings))
    return directory


@pytest.fixture(scope="module")
def train(launch, records, metric):
    """Starts a smoke run; one compilation serves all."""
    return functools.partial(launch, RECIPE, **{"data.dir": records, "metric.path": metric})


def step_losses(workdir):
    return [line for line in losses(workdir) if "renderer/loss" in line]


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A finished run, which keeps all its checkpoints, and what it wrote to stdout and stderr."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    status, output, errors = finish(train(workdir, *KEPT, "--config.report_groups=1"))
    assert status == 0, errors
    return workdir, output, errors


@pytest.mark.slow
def test_a_renderer_trains_under_a_metric_draws_and_reports(trained):
    workdir, output, errors = trained
    assert "trained to step 8" in output
    assert "Traceback" not in errors and "what is trained on" not in errors
    for name in ("report/report.html", "report/drawn.png", "best/renderer.json", "last", "initial"):
        assert (workdir / name).exists(), name
    assert str(workdir / "report/report.html") in output
    terms = ("l1", "metric", "perceptual", "feature_matching", "discriminator", "adversarial", "mouth_real")
    logged = step_losses(workdir)
    assert [line["step"] for line in logged] == list(range(1, 9))
    assert all(line[f"renderer/{term}"] > 0 for line in logged for term in terms)
    assert [line["step"] for line in losses(workdir) if "eval/psnr" in line] == [0, 4, 8]
    # Two held-out sequences, of each the first and the last frame; true ones above drawn ones.
    names = sorted(path.name for path in (workdir / "pictures").iterdir())
    assert names == ["held_out-000004.png", "held_out-000008.png"]
    pictures = [np.asarray(Image.open(workdir / "pictures" / name)) for name in names]
    assert pictures[0].shape == (2 * 32 + 2, 4 * 32 + 3 * 2, 3)
    np.testing.assert_array_equal(pictures[0][:32], pictures[1][:32])
    assert (pictures[0][34:] != pictures[1][34:]).any()
    assert load_renderer(workdir).settings.image_size == 32


@pytest.mark.slow
def test_a_run_that_was_cut_off_within_a_sequence_goes_on_exactly(train, trained, tmp_path):
    # Sequences of two chunks from the second update on: the fifth takes second chunks, which go on from the frames
    # that the state keeps.
    (undisturbed, *_), workdir = trained, tmp_path / "run"
    cut_off(undisturbed, workdir, step=4)
    status, output, errors = finish(train(workdir, *KEPT))
    assert status == 0, errors
    assert "going on from checkpoint 4 in" in errors
    assert "trained to step 8" in output
    assert losses(workdir) == losses(undisturbed)  # bit for bit: one program, one order of data, one stream of keys
    assert differing_arrays(workdir / "checkpoints/8", undisturbed / "checkpoints/8") == []
    drawn = [{path.name: path.read_bytes() for path in (one / "pictures").iterdir()} for one in (workdir, undisturbed)]
    assert len(drawn[0]) == 2 and drawn[0] == drawn[1]


@pytest.mark.slow
def test_two_processes_compute_the_numbers_and_the_gradients_of_one(train, tmp_path):
    # Two sequences a batch, one a process. The third update takes their second chunks, which go on from the frames that
    # the state keeps of both. Two halves of a batch are summed in another order than a whole, and Adam moves a weight
    # whose gradient is within rounding of zero by the whole rate, in either direction: at the published rate a last bit
    # of the weights puts losses 1e-6, 9e-5 and 3e-3 apart in the first three updates of PyTorch's twins, and 2e-6 in
    # all three in float64. So the rate is too small to move a weight, and gradients are compared besides: Adam's first
    # moments are sums of them.
    words = ["--config.steps=3", "--config.evaluate_every=3", "--config.learning_rate=1e-12"]
    words += ["--config.model.residual_blocks=1", "--config.model.downsamplings=1"]  # a third of the time to compile
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = (*words, "--multihost", f"--coordinator={address}", "--num_processes=2")
    processes = [train(tmp_path / "two", *joined, f"--process_id={index}") for index in (0, 1)]
    ends = finish_all(processes)
    assert [status for status, *_ in ends] == [0, 0], ends
    status, _, errors = finish(train(tmp_path / "one", *words))
    assert status == 0, errors
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line["step"] for line in two] == [line["step"] for line in one] == [0, 1, 2, 3, 3]
    for expected, found in zip(one, two, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            where = f"{name} of step {expected['step']}"
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=where)
    one, two = (read_arrays(tmp_path / run / "checkpoints/3/state", ("opt_state",)) for run in ("one", "two"))
    moments = [name for name in one if ".mu." in name]
    assert len(moments) > 40
    for name in moments:
        apart, length = np.linalg.norm(two[name] - one[name]), np.linalg.norm(one[name])
        # A rectifier within rounding of zero may fall on either side; of a bias that a norm removes all is rounding.
        assert apart <= 0.01 * length + 1e-5, f"{name}: {apart} apart on {length}"


def test_a_published_folder_trains_without_a_metric_and_says_so(tmp_path, caplog):
    subject = write_subject(tmp_path / "subject", {"000001": range(12), "000002": range(12)})
    with caplog.at_level("WARNING", "asccl_jax"):
        built = build_experiment(parse([f"--config={RECIPE}:smoke", f"--config.data.dir={subject}"]).config)
    assert "no metric (config.metric.path)" in caplog.text
    batch = next(built.batches)
    built.batches.close()
    state = jax.eval_shape(built.task.init, jax.random.key(0))
    _, scalars = jax.eval_shape(built.task.update, state, batch)
    assert "renderer/adversarial" in scalars
    assert not {"renderer/metric", "renderer/perceptual"} & scalars.keys()


@pytest.fixture
def run_here(records, tmp_path, capsys):
    """Calls `main` in this process: bad input ends before anything is compiled."""
    logger = logging.getLogger("asccl_jax")
    before = (list(logger.handlers), logger.level, logger.propagate)

    def run(*words, data=records):
        given = (f"--config={RECIPE}:smoke", f"--workdir={tmp_path / 'run'}", f"--config.data.dir={data}")
        status = main([*given, "--config.compilation_cache_dir=", *words])
        return status, [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]

    yield run
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--config.data.dir=nowhere",), "nowhere does not exist"),
        (("--config.data.region=neck",), "config.data.region='neck'"),
        (("--config.data.speakers=('B',)",), "no clip of B: there are clips of A"),
        (("--config.data.noise=loud",), "noise 'loud'"),
        (("--config.data.length=40", "--config.data.longest=48"), "no sequence of 42 consecutive frames"),
        (("--config.data.fresh_start_share=2",), "fresh_start_share=2"),
        (("--config.model.image_size=36",), "image_size=36: with 3 downsamplings expected a multiple of 8"),
        (("--config.model.roi_size=17",), "roi_size=17"),
        (("--config.metric.path=nowhere",), "metric .*nowhere"),
        (("--config.perceptual.vgg=nowhere",), "nowhere"),
        (("--config.init_from=nowhere",), "renderer .*nowhere"),
        (("--config.adversarial.mode=wgan",), "config.adversarial.mode='wgan'"),
        (("--config.compat=papre",), "compat='papre'"),
        (("--config.backpropagate_frames=3",), "backpropagate_frames=3"),
        (("--config.learning_rate_schedule=stars",), "stars"),
        (("--config.steps=-1",), "config.steps=-1"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(run_here, words, message):
    status, errors = run_here(*words)
    assert status == 2
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]


def test_records_that_nobody_reconstructed_are_refused(run_here, tmp_path):
    status, errors = run_here(data=write_tiny_records(tmp_path / "records"))
    assert status == 2
    assert len(errors) == 1 and "asccl data reconstruct" in errors[0], errors


def test_records_with_no_clip_to_train_on_are_refused(run_here, tmp_path):
    records = write_talking_records(tmp_path / "records", {"validation": CLIPS["validation"]})
    status, errors = run_here(data=records)
    assert status == 2
    assert len(errors) == 1 and "no clip to train on: all 2 of all speakers are marked validation" in errors[0], errors
