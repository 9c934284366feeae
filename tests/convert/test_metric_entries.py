"""Converters of the metric: lossless both ways, and strict about everything that does not fit."""

import numpy as np
import pytest

from asccl_jax.convert.metric_entries import (
    flax_from_arcface,
    flax_from_state_dict,
    recognise,
    settings_from_state_dict,
    state_dict_from_flax,
)
from asccl_jax.errors import InputError
from asccl_jax.settings import STAGE_BLOCKS, MetricSettings

TINY = MetricSettings(stage_blocks=(2, 1, 1, 1), stage_widths=(8, 12, 16, 20), image_size=48)
NORM = ("weight", "bias", "running_mean", "running_var")


def state_dict_of(settings: MetricSettings, seed: int) -> dict[str, np.ndarray]:
    """A checkpoint with the published keys, spelt out here independently of the converter's table."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(key: str, width: int) -> None:
        shapes.update({f"{key}.{name}": (width,) for name in NORM})
        shapes[f"{key}.num_batches_tracked"] = ()

    inputs = settings.stage_widths[0]
    shapes["resnet50.conv1.weight"] = (inputs, 3, 3, 3)
    norm("resnet50.bn1", inputs)
    shapes["resnet50.prelu.weight"] = (inputs,)
    for stage in range(4):
        width = settings.stage_widths[stage]
        for block in range(settings.blocks[stage]):
            key = f"resnet50.layer{stage + 1}.{block}"
            norm(f"{key}.bn1", inputs)
            shapes[f"{key}.conv1.weight"] = (width, inputs, 3, 3)
            norm(f"{key}.bn2", width)
            shapes[f"{key}.prelu.weight"] = (width,)
            shapes[f"{key}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{key}.bn3", width)
            if block == 0:
                shapes[f"{key}.downsample.0.weight"] = (width, inputs, 1, 1)
                norm(f"{key}.downsample.1", width)
            inputs = width
    norm("resnet50.bn2", inputs)
    for stage, width in enumerate(settings.stage_widths):
        shapes |= {f"mlp.{3 * stage}.weight": (width, width), f"mlp.{3 * stage}.bias": (width,)}
        shapes |= {f"mlp.{3 * stage + 2}.weight": (width // 4, width), f"mlp.{3 * stage + 2}.bias": (width // 4,)}
    random = np.random.default_rng(seed)
    return {
        key: np.zeros((), np.int64) if key.endswith("tracked") else random.standard_normal(shape, dtype=np.float32)
        for key, shape in shapes.items()
    }


def arcface_of(state_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    trunk = {key.removeprefix("resnet50."): array for key, array in state_dict.items() if "mlp" not in key}
    return trunk | {"fc.weight": np.ones((4, 9)), "fc.bias": np.ones(4), "features.weight": np.ones(4)}


def assert_equal_trees(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_equal_trees(actual[name], value)
        else:
            np.testing.assert_array_equal(actual[name], value, strict=True)


@pytest.mark.parametrize("settings", [TINY, MetricSettings(depth=18)], ids=["tiny", "depth 18"])
def test_there_and_back_is_bit_equal_in_value_order_and_type(settings):
    state_dict = state_dict_of(settings, seed=3)
    back = state_dict_from_flax(flax_from_state_dict(state_dict, settings), settings)
    assert list(back) == list(state_dict)
    for key, array in state_dict.items():
        if not key.startswith("resnet50.bn2."):
            np.testing.assert_array_equal(back[key], array, strict=True)


def test_unused_final_norm_comes_back_as_the_identity():
    back = state_dict_from_flax(flax_from_state_dict(state_dict_of(TINY, seed=3), TINY), TINY)
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        np.testing.assert_array_equal(back[f"resnet50.bn2.{name}"], np.full(20, value, np.float32), strict=True)


def test_layouts_follow_the_two_frameworks():
    state_dict = state_dict_of(TINY, seed=4)
    variables = flax_from_state_dict(state_dict, TINY)
    stage2 = variables["params"]["trunk"]["stage2"]["block0"]
    assert stage2["conv1"]["kernel"].shape == (3, 3, 8, 12)
    assert stage2["conv1"]["kernel"][2, 0, 5, 7] == state_dict["resnet50.layer2.0.conv1.weight"][7, 5, 2, 0]
    head = variables["params"]["heads"]["stage3"]["output"]
    assert head["kernel"].shape == (16, 4)
    assert head["kernel"][9, 2] == state_dict["mlp.8.weight"][2, 9]
    statistics = variables["batch_stats"]["trunk"]["stage1"]["block0"]["shortcut_norm"]
    np.testing.assert_array_equal(statistics["var"], state_dict["resnet50.layer1.0.downsample.1.running_var"])


def test_counters_may_be_absent():
    state_dict = state_dict_of(TINY, seed=5)
    without = {key: array for key, array in state_dict.items() if not key.endswith("num_batches_tracked")}
    assert len(without) < len(state_dict)
    assert_equal_trees(flax_from_state_dict(without, TINY), flax_from_state_dict(state_dict, TINY))


def test_all_that_does_not_fit_is_listed_in_one_error():
    state_dict = state_dict_of(TINY, seed=6)
    del state_dict["mlp.2.weight"], state_dict["resnet50.layer1.1.bn3.running_var"]
    state_dict["resnet50.layer1.7.conv1.weight"] = np.zeros((8, 8, 3, 3), np.float32)
    state_dict["resnet50.layer2.0.conv1.weight"] = np.zeros((12, 8, 3, 5), np.float32)
    state_dict["resnet50.prelu.weight"] = np.full(8, np.nan, np.float32)
    state_dict["resnet50.bn1.bias"] = np.zeros(8, np.int64)
    with pytest.raises(InputError) as caught:
        flax_from_state_dict(state_dict, TINY)
    message = str(caught.value)
    assert "\n" not in message
    for problem in (
        "mlp.2.weight is missing",
        "resnet50.layer1.1.bn3.running_var is missing",
        "resnet50.layer1.7.conv1.weight is unexpected",
        "resnet50.layer2.0.conv1.weight has shape (12, 8, 3, 5), expected (12, 8, 3, 3)",
        "resnet50.prelu.weight holds values that are not finite",
        "resnet50.bn1.bias holds int64, expected real numbers",
    ):
        assert problem in message
    assert message.count(";") == 5


def test_a_counter_of_no_norm_is_unexpected():
    state_dict = state_dict_of(TINY, seed=6) | {"mlp.0.num_batches_tracked": np.zeros((), np.int64)}
    with pytest.raises(InputError, match=r"mlp\.0\.num_batches_tracked is unexpected"):
        flax_from_state_dict(state_dict, TINY)


def test_all_that_does_not_fit_a_flax_tree_is_listed_in_one_error():
    variables = flax_from_state_dict(state_dict_of(TINY, seed=7), TINY)
    variables["params"]["heads"]["stage1"].pop("hidden")
    variables["params"]["heads"]["stage9"] = {"kernel": np.zeros(3, np.float32)}
    variables["batch_stats"]["trunk"]["stem"]["norm"]["mean"] = np.zeros(9, np.float32)
    with pytest.raises(InputError) as caught:
        state_dict_from_flax(variables, TINY)
    message = str(caught.value)
    assert "params/heads/stage1/hidden/bias is missing; params/heads/stage1/hidden/kernel is missing" in message
    assert "params/heads/stage9/kernel is unexpected" in message
    assert "batch_stats/trunk/stem/norm/mean has shape (9,), expected (8,)" in message


def test_arcface_backbone_gives_the_trunk_and_names_what_is_unused_and_drawn():
    state_dict = state_dict_of(TINY, seed=8)
    converted = flax_from_arcface(arcface_of(state_dict), TINY, seed=1)
    whole = flax_from_state_dict(state_dict, TINY)
    assert_equal_trees(converted.variables["params"]["trunk"], whole["params"]["trunk"])
    assert_equal_trees(converted.variables["batch_stats"], whole["batch_stats"])
    assert converted.unused == ("fc.bias", "fc.weight", "features.weight")
    assert len(converted.drawn) == 16
    assert "heads/stage1/hidden/kernel" in converted.drawn


def test_arcface_heads_follow_the_seed_and_pytorchs_range():
    backbone = arcface_of(state_dict_of(TINY, seed=8))
    heads = [flax_from_arcface(backbone, TINY, seed=seed).variables["params"]["heads"] for seed in (1, 1, 2)]
    assert_equal_trees(heads[0], heads[1])
    kernels = [head["stage4"]["hidden"]["kernel"] for head in heads]
    assert not np.array_equal(kernels[0], kernels[2])
    assert 0.9 / np.sqrt(20) < np.abs(kernels[0]).max() <= 1 / np.sqrt(20)


def test_arcface_backbone_is_strict_about_its_trunk():
    backbone = arcface_of(state_dict_of(TINY, seed=8))
    del backbone["layer3.0.bn1.bias"]
    backbone["extra"] = np.zeros(1)
    with pytest.raises(InputError, match=r"layer3\.0\.bn1\.bias is missing; extra is unexpected"):
        flax_from_arcface(backbone, TINY, seed=1)


@pytest.mark.parametrize("depth", STAGE_BLOCKS)
@pytest.mark.parametrize("prefix", ["resnet50.", ""])
def test_depth_is_found_from_the_keys(depth, prefix):
    keys = {f"{prefix}conv1.weight": np.zeros(1)}
    for stage, blocks in enumerate(STAGE_BLOCKS[depth], start=1):
        keys |= {f"{prefix}layer{stage}.{block}.bn1.bias": np.zeros(1) for block in range(blocks)}
    assert settings_from_state_dict(keys, MetricSettings(temperature=0.1)) == MetricSettings(
        depth=depth, temperature=0.1
    )


def test_unknown_depth_is_named_unless_the_blocks_are_given():
    state_dict = state_dict_of(TINY, seed=9)
    with pytest.raises(InputError, match=r"has \(2, 1, 1, 1\) residual blocks.*50: \(3, 4, 14, 3\)"):
        settings_from_state_dict(state_dict, MetricSettings())
    assert settings_from_state_dict(state_dict, TINY) is TINY


def test_a_state_dict_of_something_else_is_named():
    state_dict = state_dict_of(TINY, seed=9)
    assert recognise(state_dict) == "metric"
    assert recognise(arcface_of(state_dict)) == "arcface"
    with pytest.raises(InputError, match=r"not a correlation metric.*found encoder\.0\.weight"):
        recognise({"encoder.0.weight": np.zeros(1)})
