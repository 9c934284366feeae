"""The command line: overrides arrive, every mistake is one line that names it."""

from pathlib import Path

import pytest

from asccl_jax.errors import InputError
from asccl_jax.train.command_line import help_text, parse
from asccl_jax.train.run.profile import ProfiledSteps

# ml_collections loads recipes the old way; its affair.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

RECIPE = str(Path(__file__).parents[2] / "configs/asccl.py")


def test_variant_overrides_and_flags_arrive():
    command = parse(
        [
            f"--config={RECIPE}:smoke",
            "--config.model.stage_blocks=(1,2,1,1)",
            "--config.model.border=wrap",
            "--config.data.dir=elsewhere",
            "--config.learning_rate=1",
            *("--workdir", "here", "--multihost", "--coordinator=a:1", "--num_processes=2", "--process_id=1"),
            "--profile=3:4",
        ]
    )
    config = command.config
    assert (config.model.stage_blocks, config.model.border) == ((1, 2, 1, 1), "wrap")
    assert (config.data.dir, config.learning_rate, config.model.image_size) == ("elsewhere", 1.0, 64)
    assert command.workdir == Path("here")
    assert (command.multihost, command.coordinator, command.num_processes, command.process_id) == (True, "a:1", 2, 1)
    assert command.profile == ProfiledSteps(count=2, first=3)


def test_epochs_that_are_asked_for_take_the_place_of_the_steps_of_a_variant():
    for words, expected in (
        ((), (50, 8)),
        (("--config.epochs=2",), (2, 0)),
        (("--config.epochs=2", "--config.steps=5"), (2, 5)),
    ):
        config = parse([f"--config={RECIPE}:smoke", *words]).config
        assert (config.epochs, config.steps) == expected


def test_the_home_folder_stands_for_a_tilde_in_every_entry_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    recipe = tmp_path / "own.py"
    recipe.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'init_from': '~/start', 'data': {'dir': '~/records', 'n': 4}})\n"
    )
    command = parse([f"--config={recipe}", "--workdir=~/run"])
    assert (command.config.init_from, command.config.data.dir) == ("/home/anna/start", "/home/anna/records")
    assert command.workdir == Path("/home/anna/run")
    assert parse([f"--config={recipe}", "--config.init_from=~/other"]).config.init_from == "/home/anna/other"


def test_the_recipe_may_stand_apart_from_its_flag():
    assert parse(["--config", f"{RECIPE}:smoke", "--config.steps=3"]).config.steps == 3


def test_without_flags_there_are_a_workdir_and_one_process():
    command = parse(["--config", RECIPE])
    assert (command.workdir, command.multihost, command.profile) == (Path("runs/asccl"), False, None)


def test_limits_of_waiting_and_restarts_may_be_spelled_with_dashes():
    command = parse([f"--config={RECIPE}", "--max-restarts=3", "--stall-timeout=0", "--heartbeat_timeout", "20"])
    assert (command.max_restarts, command.stall_timeout) == (3, 0)
    assert (command.heartbeat_timeout, command.join_timeout) == (20, 300)
    default = parse([f"--config={RECIPE}"])
    assert (default.max_restarts, default.stall_timeout, default.heartbeat_timeout) == (0, 600, 100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([f"--config={RECIPE}", "--max_restarts=-1"], "max_restarts"),
        ([f"--config={RECIPE}", "--heartbeat_timeout=1"], "heartbeat_timeout"),
        ([], "no recipe: give --config"),
        (["--config=nowhere.py"], "cannot read the recipe.*nowhere.py"),
        ([f"--config={RECIPE}:huge"], "unknown variant 'huge': expected demo, smoke"),
        ([f"--config={RECIPE}", "--config.step=3"], "unknown config key config.step in .*did you mean config.steps?"),
        ([f"--config={RECIPE}", "--config.model.qqq=3"], "unknown config key config.model.qqq"),
        ([f"--config={RECIPE}", "--config.modle.depth=3"], r"config.modle.depth .*did you mean config.model.depth\?"),
        ([f"--config={RECIPE}", "--config.steps=abc"], "--config.steps=abc: invalid literal"),
        ([f"--config={RECIPE}", "--wrokdir=x"], "Unknown command line flag 'wrokdir'"),
        (["--config.steps=3", f"--config={RECIPE}"], "--config.steps=3 in argv before"),
        ([f"--config={RECIPE}", "x"], "unexpected argument 'x'"),
        ([f"--config={RECIPE}", "--coordinator=a:1"], "need --multihost"),
        ([f"--config={RECIPE}", "--profile=some"], "--profile some: expected a number of steps"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(words)
    assert "\n" not in str(caught.value)


def test_help_names_every_flag_and_the_exit_statuses():
    text = help_text()
    for word in ("--config", "--workdir", "--multihost", "--coordinator", "--num_processes", "--process_id", "143"):
        assert word in text
    for word in ("--max_restarts", "--stall_timeout", "--heartbeat_timeout", "--join_timeout", "75", "70"):
        assert word in text
    assert "--profile" in text
