"""The probe finds drawn mouths it has not seen, follows known shifts, and takes no hint from the mask."""

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.landmark_probe import load_probe, save_probe, train_probe

pytestmark = pytest.mark.slow

SIZE = 48


def mouths(count: int, seed: int):
    """Dark ellipses on skin, each with a place and an opening of its own; landmarks go round the rim."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE))
    images, landmarks, masks = [], [], []
    for _ in range(count):
        x, y = 24 + random.uniform(-2, 2), 33 + random.uniform(-2, 2)
        wide, open_ = random.uniform(6, 9), random.uniform(1.5, 5)
        distance = np.hypot((columns - x) / wide, (rows - y) / open_)
        inside = np.clip((1 - distance) * 3 + 0.5, 0, 1)[..., None]
        skin = np.array([200, 150, 130]) + random.normal(0, 6, (SIZE, SIZE, 3))
        images.append(np.clip(skin * (1 - inside) + np.array([110, 30, 40]) * inside, 0, 255).astype(np.uint8))
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        landmarks.append(np.stack([x + wide * np.cos(angles), y + open_ * np.sin(angles)], axis=1))
        masks.append(np.where(rows[..., None] < y + 9 + open_, 255, 0).astype(np.uint8))
    return np.stack(images), np.stack(masks), np.stack(landmarks)


@pytest.fixture(scope="module")
def probe():
    return train_probe(*mouths(200, 0), steps=400)


def error(found, landmarks):
    return np.linalg.norm(found - landmarks, axis=-1).mean()


def test_unseen_mouths_are_found(probe):
    images, masks, landmarks = mouths(60, 1)
    masked = np.where(masks > 0, images, np.uint8(0))
    spread = error(landmarks.mean(axis=0)[None], landmarks)
    assert error(probe.locate(masked), landmarks) < 0.5 < spread / 3


def test_known_shifts_are_measured(probe):
    images, _, _ = mouths(40, 2)
    shifted = np.roll(images, (1, -2), axis=(1, 2))
    moved = (probe.locate(shifted) - probe.locate(images)).mean(axis=(0, 1))
    np.testing.assert_allclose(moved, [-2, 1], atol=0.15)


def test_another_mask_moves_nothing(probe):
    images, masks, _ = mouths(60, 3)
    own = probe.locate(np.where(masks > 0, images, np.uint8(0)))
    others = probe.locate(np.where(np.roll(masks, 1, axis=0) > 0, images, np.uint8(0)))
    assert np.linalg.norm(own - others, axis=-1).mean() < 0.3


def test_it_is_saved_and_read_back(probe, tmp_path):
    images = mouths(3, 4)[0]
    save_probe(tmp_path / "probe.npz", probe)
    np.testing.assert_array_equal(load_probe(tmp_path / "probe.npz").locate(images), probe.locate(images))
    (tmp_path / "other.npz").write_bytes(b"no probe")
    for name in ("other.npz", "none.npz"):
        with pytest.raises(InputError, match="no landmark probe"):
            load_probe(tmp_path / name)


def test_pictures_that_do_not_fit_are_refused(probe):
    with pytest.raises(InputError, match="expected side 48"):
        probe.locate(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="0 frames"):
        train_probe(*(values[:0] for values in mouths(1, 0)))
