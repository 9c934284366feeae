"""Metrics on disk: one JSON a line, trimmed to the restored step, also after a kill in the middle of a line."""

import json
import subprocess
import sys

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from asccl_jax.data.records import RecordSource
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train.monitoring.writer import ScalarWriter, trim_metrics


def test_every_line_is_json_with_its_step_and_full_precision(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write(1, {"metric/loss": 0.1 + 0.2})
        writer.write(2, {"metric/loss": 1e-30})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "metric/loss": 0.1 + 0.2}, {"step": 2, "metric/loss": 1e-30}]


def test_lines_beyond_the_restored_step_go_and_the_others_stay_as_they_are(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        for step in range(1, 6):
            writer.write(step, {"metric/loss": step / 3})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with ScalarWriter(tmp_path, last_step=3) as writer:
        writer.write(4, {"metric/loss": 9.0})
    after = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert after[:3] == before[:3]
    assert json.loads(after[3]) == {"step": 4, "metric/loss": 9.0}
    assert len(after) == 4


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    assert read_metrics(path) == [{"step": 1, "a": 2.0}]
    trim_metrics(path, 5)
    assert path.read_text() == '{"step": 1, "a": 2.0}\n'


def test_an_absent_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_gets_the_same_scalars(tmp_path):
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write(7, {"metric/loss": 0.5, "eval/nce": 3.0})
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(data) for data in RecordSource([file])]  # event files are TFRecords too
    found = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert found == {(7, "metric/loss"): 0.5, (7, "eval/nce"): 3.0}


def test_pictures_become_files_and_events(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    with ScalarWriter(tmp_path, last_step=0) as writer:
        writer.write_pictures(12, {"frames": picture})
    with Image.open(tmp_path / "pictures" / "frames-000012.png") as file:
        np.testing.assert_array_equal(np.asarray(file), picture)
    (events,) = (tmp_path / "tensorboard").iterdir()
    found = [
        (event.step, value.tag, value.image.height, value.image.width)
        for data in RecordSource([events])
        for event in [Event.FromString(data)]
        for value in event.summary.value
    ]
    assert found == [(12, "frames", 6, 9)]


def test_torch_is_not_imported_though_it_is_installed():
    program = (
        "import importlib.util, sys; import asccl_jax.train.monitoring.writer\n"
        "assert 'torch' not in sys.modules and importlib.util.find_spec('tensorboardX')\n"
        "sys.modules['torch'] = torch = type(sys)('torch')\n"
        "import importlib; importlib.reload(asccl_jax.train.monitoring.writer)\n"
        "assert sys.modules['torch'] is torch\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
