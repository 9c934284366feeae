"""TFDS metadata beside the shards: `tfds.builder_from_directory(DIR)` then reads them where TensorFlow is installed.

Two files of plain JSON in the format TFDS has kept since version 4.3; TFDS itself is not needed to write them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.manifest import Shard, kind_directory
from asccl_jax.data.schema import SCHEMA_VERSION, Feature, Kind, Record

__all__ = ["write_tfds_metadata"]

_FEATURES = "tensorflow_datasets.core.features"
_DESCRIPTIONS: Mapping[Kind, str] = {
    "frames": "Cropped faces of people speaking in seven emotions.",
    "renders": "Code dicts of the frames, and pictures of the reconstructed head in the crop and aligned.",
    "pairs": "Pairs of clips of one sentence in two emotions, aligned frame by frame.",
    "comparisons": "Pairs of frames that differ in a known way, for evaluation.",
}


def write_tfds_metadata(
    directory: Path,
    kind: Kind,
    record: type[Record],
    image_size: int,
    splits: Mapping[str, Sequence[Shard]],
    *,
    absent: Collection[str] = (),
) -> None:
    """Writes `features.json` and `dataset_info.json` for the shards of one kind.

    Args:
      directory: The data set's directory.
      kind: Which shards.
      record: What they hold.
      image_size: Side in pixels of the images.
      splits: Shards by split; all must be on the disk.
      absent: Fields that are empty in every record; TFDS is not told of them.
    """
    folder = kind_directory(directory, kind)
    features = {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                name: _feature(feature, image_size) for name, feature in record.features().items() if name not in absent
            }
        },
    }
    info = {
        "description": _DESCRIPTIONS[kind],
        "fileFormat": "tfrecord",
        "moduleName": "asccl_jax.data",
        "name": f"asccl_{kind}",
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                "numBytes": str(sum((folder / shard.name).stat().st_size for shard in shards)),
                "shardLengths": [str(shard.records) for shard in shards],
            }
            for name, shards in sorted(splits.items())
        ],
        "version": f"{SCHEMA_VERSION}.0.0",
    }
    for name, content in (("features.json", features), ("dataset_info.json", info)):
        write_atomically(folder / name, json.dumps(content, indent=4, sort_keys=True) + "\n")


def _feature(feature: Feature, image_size: int) -> dict[str, Any]:
    if feature.kind in ("image", "png"):
        shape = {"dimensions": [str(size) for size in feature.shape or (image_size, image_size, 3)]}
        encoding = "jpeg" if feature.kind == "image" else "png"
        content = {"shape": shape, "dtype": "uint8", "encodingFormat": encoding}
        return {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": content}
    if feature.kind == "text":
        return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
    dtype = {"float": "float32", "int": "int64"}[feature.kind]
    # TFDS writes an axis of unknown length as -1.
    dimensions = {"dimensions": ["-1" if size is None else str(size) for size in feature.shape]}
    if not feature.shape:
        tensor = {"shape": {}, "dtype": dtype, "encoding": "none"}
        return {"pythonClassName": f"{_FEATURES}.scalar.Scalar", "tensor": tensor}
    tensor = {"shape": dimensions, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": tensor}
