"""Settings of a metric: named behaviours, strict fields, JSON round trip."""

import dataclasses
import json
import subprocess
import sys

import pytest

from asccl_jax.errors import InputError
from asccl_jax.settings import MetricSettings


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
