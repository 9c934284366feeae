import importlib.util
import json
import subprocess
import sys

import pytest

from asccl_jax.data.dataset import extend_dataset
from tests.data.tiny_dataset import SIZE, comparison, frame_records, write_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    write_tiny_dataset(directory)
    clips = {"Zoë 李/neutral/cmp-0": [0], "Zoë 李/happy/cmp-0": [0]}
    extend_dataset(directory, "comparisons", frame_records(clips), [comparison(*((clip, 0) for clip in clips))])
    return directory


def test_metadata_say_where_the_records_are(dataset):
    info = json.loads((dataset / "dataset_info.json").read_text())
    size = sum(path.stat().st_size for path in dataset.glob("asccl_frames-train.tfrecord-?????-of-00002"))
    assert (info["name"], info["version"], info["fileFormat"]) == ("asccl_frames", "1.0.0", "tfrecord")
    assert info["splits"][1] == {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": str(size),
        "shardLengths": ["48", "48"],
    }
    assert [split["name"] for split in info["splits"]] == ["comparisons", "train", "validation"]


def test_features_are_described_as_tfds_describes_them(dataset):
    frames = json.loads((dataset / "features.json").read_text())["featuresDict"]["features"]
    assert sorted(frames) == [
        *("clip", "crop_box", "emotion", "frame", "image", "landmarks", "sentence", "speaker", "time_s")
    ]
    prefix = "tensorflow_datasets.core.features"
    assert frames["image"] == {
        "pythonClassName": f"{prefix}.image_feature.Image",
        "image": {
            "shape": {"dimensions": [str(SIZE), str(SIZE), "3"]},
            "dtype": "uint8",
            "encodingFormat": "jpeg",
        },
    }
    assert frames["landmarks"] == {
        "pythonClassName": f"{prefix}.tensor_feature.Tensor",
        "tensor": {"shape": {"dimensions": ["68", "2"]}, "dtype": "float32", "encoding": "none"},
    }
    pairs = json.loads((dataset / "pairs" / "features.json").read_text())["featuresDict"]["features"]
    assert pairs["query_frame"]["tensor"]["shape"] == {"dimensions": ["-1"]}


READ_WITH_TFDS = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from tests.data.tiny_dataset import SIZE, colour

directory = sys.argv[1]
builder = tfds.builder_from_directory(directory)
for split, count in (("train", 96), ("validation", 21), ("comparisons", 2)):
    assert builder.info.splits[split].num_examples == count, split
    found = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    assert len(found) == count, split
    for frame in found:
        clip, number = frame["clip"].decode(), int(frame["frame"])
        assert frame["image"].shape == (SIZE, SIZE, 3) and frame["image"].dtype == np.uint8
        assert np.abs(frame["image"].astype(int) - colour(clip, number)).max() <= 2
        assert clip.split("/")[:3] == [frame[name].decode() for name in ("speaker", "emotion", "sentence")]
        expected = np.arange(136, dtype=np.float32).reshape(68, 2) + number
        np.testing.assert_array_equal(frame["landmarks"], expected)
        assert frame["time_s"] == np.float32(number / 25)
pairs = list(tfds.as_numpy(tfds.builder_from_directory(directory + "/pairs").as_dataset(split="train")))
assert [pair["query_frame"].tolist() for pair in pairs] == [list(range(n)) for n in (12, 10, 9, 6)]
(compared,) = tfds.as_numpy(tfds.builder_from_directory(directory + "/comparisons").as_dataset(split="comparisons"))
assert compared["condition"] == b"matched" and compared["speech_distance"] == 0.25
print("read by TFDS", tfds.__version__)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorflow_datasets")),
    reason="opt-in: needs TensorFlow and TFDS, pip install -e '.[tfds]'",
)
def test_tfds_reads_all_records(dataset):
    # In a process of its own: TensorFlow's warnings and threads stay out of the session.
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_TFDS, str(dataset)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("read by TFDS")
