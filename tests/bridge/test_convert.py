"""`asccl convert metric`: there and back on disk, with defaults said aloud and mistakes named in one line."""

import jax
import numpy as np
import pytest

from asccl_jax.convert.metric_entries import flax_from_state_dict
from asccl_jax.models.correlation import FrozenMetric
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import load_metric, save_metric

torch = pytest.importorskip("torch")

from DECA_torch_bridge.convert import main  # noqa: E402
from DECA_torch_bridge.state_dict import read_state_dict, write_state_dict  # noqa: E402
from tests.bridge.networks import NETWORK, arrays_of, random_twin  # noqa: E402
from tests.twins.metric_twin import CorrelationMetricTwin  # noqa: E402

NETWORK_OPTIONS = ["--stage-blocks", "1,1,1,1", "--stage-widths", "8,12,16,20", "--image-size", "48"]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "metric.pth"
    write_state_dict(path, arrays_of(random_twin(MetricSettings(**NETWORK), seed=1)))
    return path


def test_released_checkpoint_to_flax_and_back(tmp_path, checkpoint, capsys):
    assert main(["metric", str(checkpoint), str(tmp_path / "metric"), "--compat", "released", *NETWORK_OPTIONS]) == 0
    assert "trained on BGR images (assumed, --channel-order changes it)" in capsys.readouterr().out
    metric = load_metric(tmp_path / "metric")
    assert metric.settings == MetricSettings.from_compat("released", channel_order="bgr", **NETWORK)

    assert main(["metric", str(tmp_path / "metric"), str(tmp_path / "back.pth")]) == 0
    assert "must feed it BGR images" in capsys.readouterr().out
    before, after = read_state_dict(checkpoint), read_state_dict(tmp_path / "back.pth")
    assert list(after) == list(before)
    for key, array in before.items():
        if not key.startswith("resnet50.bn2."):
            np.testing.assert_array_equal(after[key], array, strict=True)


def test_written_file_loads_strictly_into_pytorch_from_a_working_directory(tmp_path):
    settings = MetricSettings(**NETWORK)
    variables = flax_from_state_dict(arrays_of(random_twin(settings, seed=2)), settings)
    save_metric(tmp_path / "run" / "best", FrozenMetric(variables=variables, settings=settings))
    assert main(["metric", str(tmp_path / "run"), str(tmp_path / "out.pth")]) == 0
    twin = CorrelationMetricTwin(settings)
    twin.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    np.testing.assert_array_equal(
        twin.mlp[9].weight.detach().numpy().T, variables["params"]["heads"]["stage4"]["hidden"]["kernel"]
    )


def test_paper_form_and_bgr_are_the_defaults_for_a_full_checkpoint(tmp_path, checkpoint):
    assert main(["metric", str(checkpoint), str(tmp_path / "metric"), *NETWORK_OPTIONS]) == 0
    assert load_metric(tmp_path / "metric").settings == MetricSettings(channel_order="bgr", **NETWORK)


def test_arcface_backbone_is_rgb_and_says_what_is_unused_and_drawn(tmp_path, capsys):
    trunk = {
        key.removeprefix("resnet50."): array
        for key, array in arrays_of(random_twin(MetricSettings(**NETWORK), seed=3)).items()
        if not key.startswith("mlp.")
    }
    write_state_dict(tmp_path / "backbone.pth", trunk | {"fc.weight": np.ones((4, 4), np.float32)})
    arguments = ["metric", str(tmp_path / "backbone.pth"), str(tmp_path / "start"), "--seed", "7", *NETWORK_OPTIONS]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "an ArcFace backbone" in said
    assert "not used: fc.weight" in said
    assert "drawn anew with seed 7, to be trained: heads/stage1/hidden/kernel" in said
    metric = load_metric(tmp_path / "start")
    assert metric.settings.channel_order == "rgb"
    assert jax.tree.all(jax.tree.map(lambda leaf: np.isfinite(leaf).all(), metric.variables))


def test_another_network_is_one_line_with_every_difference(tmp_path, checkpoint, capsys):
    arrays = read_state_dict(checkpoint)
    del arrays["mlp.0.bias"]
    arrays["extra"] = np.ones(1, np.float32)
    write_state_dict(checkpoint, arrays)
    assert main(["metric", str(checkpoint), str(tmp_path / "metric"), *NETWORK_OPTIONS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"error: {checkpoint}: metric checkpoint does not fit" in said
    assert "mlp.0.bias is missing; extra is unexpected" in said
    assert not (tmp_path / "metric").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "b"], "exactly one of the two must be a PyTorch file"),
        (["a.pth", "b.pt"], "exactly one of the two must be a PyTorch file"),
        (["gone.pth", "new"], "gone.pth: no such file"),
        (["gone", "new.pth"], "no such directory"),
        (["gone", "new.pth", "--compat", "paper", "--seed", "0"], "--compat, --seed: only for reading a .pth"),
        (["metric.pth", "new"], "(1, 1, 1, 1) residual blocks in layer1 to layer4, which is no IResNet of known depth"),
        (["metric.pth", "."], "exists already; choose another name or add --overwrite"),
        (["metric.pth", ".", "--overwrite"], "a directory that is no metric is never replaced"),
    ],
)
def test_mistakes_are_one_line_and_status_two(tmp_path, checkpoint, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["metric", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metric.pth"]


def test_overwrite_replaces_a_metric(tmp_path, checkpoint):
    arguments = ["metric", str(checkpoint), str(tmp_path / "metric"), *NETWORK_OPTIONS]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite", "--channel-order", "rgb"]) == 0
    assert load_metric(tmp_path / "metric").settings.channel_order == "rgb"


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["metric", "--help"])
    assert ended.value.code == 0
    assert "asccl convert metric backbone.pth" in capsys.readouterr().out
