"""The networks that judge faces, as parts of the passes over videos; of one without its file, the remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from asccl_jax.errors import InputError
from asccl_jax.evals import network_features
from asccl_jax.evals.lip_landmarks import inter_ocular
from asccl_jax.infer.claimed_folder import fingerprint
from asccl_jax.saved_face_network import FACE_NETWORK_FILES, FaceNetwork, load_face_network, missing_face_network
from data_prep.evaluate.score_cache import digest
from data_prep.evaluate.video_features import FeaturePart

__all__ = ["FaceNetworks", "SyncNetwork", "load_networks"]


@dataclasses.dataclass(frozen=True)
class SyncNetwork:
    """SyncNet: embeds windows of lips and of sound."""

    key: str
    lips: Callable[[np.ndarray], np.ndarray]
    sound: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class FaceNetworks:
    """What can judge faces here.

    Attributes:
      parts: Those that look at single frames.
      sync: The one that compares lips and sound, or None.
      hashes: SHA-256 of the published file behind each, by name.
      missing: Of the others: which file to get from where, by name.
    """

    parts: tuple[FeaturePart, ...]
    sync: SyncNetwork | None
    hashes: Mapping[str, str]
    missing: Mapping[str, str]


def load_networks(directories: Mapping[str, Path | None]) -> FaceNetworks:
    """Returns the networks of the given folders.

    Args:
      directories: Folder of each network by name; None where none was given.

    Raises:
      InputError: A given folder does not hold the network.
    """
    found: dict[str, FaceNetwork] = {}
    for name, directory in directories.items():
        if directory is None:
            continue
        if not directory.is_dir():
            raise InputError(f"--{name} {directory}: no such folder; {missing_face_network(name)}")
        found[name] = load_face_network(directory, name)
    missing = {name: missing_face_network(name) for name in FACE_NETWORK_FILES if name not in found}
    parts = tuple(_part(found[name]) for name in _PARTS if name in found)
    hashes = {name: network.file_hash for name, network in found.items()}
    return FaceNetworks(parts, _sync(found["syncnet"]) if "syncnet" in found else None, hashes, missing)


def _part(network: FaceNetwork) -> FeaturePart:
    needs_landmarks, rows = _PARTS[network.name]
    return FeaturePart(network.name, _key(network), needs_landmarks, lambda images, marks: rows(network, images, marks))


def _key(network: FaceNetwork) -> str:
    return digest(
        network.name, network.file_hash, fingerprint(network.variables), str(sorted(network.settings.items()))
    )


def _sync(network: FaceNetwork) -> SyncNetwork:
    return SyncNetwork(
        _key(network),
        lambda windows: network_features.syncnet_lip_features(network, windows),
        lambda windows: network_features.syncnet_audio_features(network, windows),
    )


def _resnet_face(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    del landmarks
    return {"features": network_features.resnet_face_features(network, images)}


def _efficient_face(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    del landmarks
    features, probabilities = network_features.efficient_face_outputs(network, images)
    return {"features": features, "probabilities": probabilities}


def _arcface(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    assert landmarks is not None
    known = np.isfinite(landmarks).all(axis=(1, 2)) & (inter_ocular(landmarks) > 1)
    features: np.ndarray | None = None
    if known.any():
        seen = network_features.arcface_features(network, images[known], landmarks[known])
        features = np.full((len(images), seen.shape[1]), np.nan, np.float32)
        features[known] = seen
    return {"features": np.full((len(images), 512), np.nan, np.float32) if features is None else features}


_PARTS = {"resnet-face": (False, _resnet_face), "efficient-face": (False, _efficient_face), "arcface": (True, _arcface)}
"""By name: whether it needs landmarks, and what it makes of images and landmarks."""
