"""Settings of a metric: named behaviours, strict fields, JSON round trip."""

import dataclasses
import json
import subprocess
import sys

import pytest

from asccl_jax.errors import InputError
from asccl_jax.settings import MetricSettings, RendererSettings


def test_paper_and_released_differ_in_exactly_the_documented_switches():
    paper, released = MetricSettings.from_compat("paper"), MetricSettings.from_compat("released")
    differences = {
        field.name: (getattr(paper, field.name), getattr(released, field.name))
        for field in dataclasses.fields(MetricSettings)
        if getattr(paper, field.name) != getattr(released, field.name)
    }
    assert differences == {
        "weighting": ("per_location", "global"),
        "weight_gradient": ("stopped", "flows"),
        "border": ("inside", "wrap"),
        "frozen_statistics": ("running", "batch"),
        "channel_order": ("rgb", "bgr"),
        "similarity_axis": ("channels", "pairs"),
        "resizing": ("antialiased", "sampled"),
    }


def test_overrides_win_over_the_named_behaviour():
    assert MetricSettings.from_compat("released", channel_order="rgb").channel_order == "rgb"


def test_json_round_trip_is_exact():
    settings = MetricSettings.from_compat("released", stage_blocks=(1, 2, 1, 1), bn_group_size=None)
    assert MetricSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"depth": 51}, "depth=51"),
        ({"colour": "rgb"}, "colour"),
        ({"image_size": 32}, "image_size=32"),
        ({"stage_widths": (8, 8, 8, 6)}, "stage_widths"),
        ({"temperature": 0.0}, "temperature"),
        ({"bn_group_size": 0}, "bn_group_size=0"),
    ],
)
def test_a_bad_setting_is_named(fields: dict, named: str):
    with pytest.raises(InputError, match=named):
        MetricSettings.from_compat("paper", **fields)


def test_an_unknown_compat_is_named():
    with pytest.raises(InputError, match="compat='upstream'"):
        MetricSettings.from_compat("upstream")


@pytest.mark.parametrize(("name", "value"), [("border", "clamp"), ("centre_counts", (1, 2, 3))])
def test_a_value_of_the_wrong_type_is_named_without_run_time_type_checks(name: str, value: object):
    # The session's run-time type checks would catch these first; users run without them.
    program = f"from asccl_jax.settings import MetricSettings; MetricSettings({name}={value!r})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"InputError: metric setting {name}={value!r}: expected" in result.stderr


def test_a_mapping_gives_the_same_settings_back():
    settings = RendererSettings(generator_width=8, eyes=True, roi_size=40)
    assert RendererSettings.from_dict(settings.to_dict()) == settings
    assert hash(RendererSettings()) == hash(RendererSettings.from_dict({}))


@pytest.mark.parametrize(("blocks", "before", "after"), [(9, 5, 4), (4, 2, 2), (1, 1, 0)])
def test_blocks_are_split_as_published(blocks, before, after):
    settings = RendererSettings(residual_blocks=blocks)
    assert (settings.encoder_blocks, settings.decoder_blocks) == (before, after)


def test_the_discriminators_are_those_that_are_switched_on():
    assert RendererSettings().discriminators == ("discriminator", "mouth_discriminator")
    assert RendererSettings(mouth=False).discriminators == ("discriminator",)
    assert RendererSettings(eyes=True).discriminators[-1] == "eyes_discriminator"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generator_width": 0}, "generator_width=0: expected a positive integer"),
        ({"residual_blocks": -1}, "residual_blocks=-1: expected a positive integer"),
        ({"image_size": 100}, "image_size=100: with 3 downsamplings expected a multiple of 8, at least 16"),
        ({"image_size": 8, "roi_size": 4}, "image_size=8: with 3 downsamplings"),
        ({"roi_size": 71}, "roi_size=71: expected an even number up to image_size=256"),
        ({"image_size": 64}, "roi_size=72: expected an even number up to image_size=64"),
    ],
)
def test_what_does_not_fit_is_named(changed, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RendererSettings(), **changed)
    with pytest.raises(InputError, match=r"unknown renderer settings width; known: .*image_size"):
        RendererSettings.from_dict({"width": 3})
