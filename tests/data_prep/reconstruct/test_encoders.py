"""The `deca` encoder on untrained networks: its rules for crops, gaps and frozen shapes need no checkpoint."""

import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from data_prep.head_fit.clip_fit import SpeakerShape
from data_prep.reconstruct.drawing import TEMPLATE, warped
from data_prep.reconstruct.encoders import FLAG_UNREADABLE, make_encoder
from data_prep.reconstruct.reconstruct_settings import EncoderSettings
from data_prep.reconstruct.sources import SourceFrame
from data_prep.reconstruct.track_step import Track
from DECA_torch_bridge.deca_encoder import DecaEncoder
from DECA_torch_bridge.deca_model import DecaWeights, DetailDecoder, coarse_encoder, detail_encoder, split_coarse

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights() -> DecaWeights:
    torch.manual_seed(0)
    return DecaWeights(coarse_encoder().state_dict(), detail_encoder().state_dict(), DetailDecoder().state_dict())


@pytest.fixture(scope="module")
def clip() -> tuple[Track, list[SourceFrame]]:
    """Four frames; the third has no face, the fourth cannot be read."""
    landmarks = np.stack([TEMPLATE + shift for shift in range(4)]).astype(np.float32)
    landmarks[2:] = np.nan
    images = [*RNG.integers(0, 256, (3, 256, 256, 3)).astype(np.uint8), None]
    frames = [SourceFrame(index, index / 30, image) for index, image in enumerate(images)]
    readable = np.array([True, True, True, False])
    return Track(np.arange(4), np.arange(4) / 30, landmarks, readable, (256, 256)), frames


def test_crops_go_through_both_networks_as_published(weights, clip):
    track, frames = clip
    found = DecaEncoder(weights, batch=3).encode(track, frames, None, neutral=False)
    crop = warped(frames[0].image, None, found.codes.tform[0, :2], 224)
    network = coarse_encoder().eval()
    network.load_state_dict(weights.E_flame)
    with torch.no_grad():
        expected = split_coarse(network(torch.from_numpy(crop[None]).float() / 255))
    for name, value in expected._asdict().items():
        # The same network on batches of another size: float32 sums in another order.
        np.testing.assert_allclose(getattr(found.codes, name)[0], value[0].numpy(), atol=1e-4, rtol=1e-4)
    assert found.codes.detail.shape == (4, 128)


def test_frames_without_a_face_hold_their_neighbours_codes_and_are_flagged(weights, clip):
    track, frames = clip
    found = DecaEncoder(weights).encode(track, frames, None, neutral=False)
    assert len(found.codes) == 4
    np.testing.assert_array_equal(found.codes.exp[2], found.codes.exp[1])
    np.testing.assert_array_equal(found.flags, [0, 0, 1, 1 | FLAG_UNREADABLE])


def test_a_speakers_shape_is_frozen(weights, clip):
    track, frames = clip
    shape = SpeakerShape(np.arange(100.0), neutral=True, frames=2)
    found = DecaEncoder(weights).encode(track, frames, shape, neutral=False)
    np.testing.assert_array_equal(found.codes.shape, np.tile(np.arange(100, dtype=np.float32), (4, 1)))


def test_a_folder_without_the_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"deca_model\.tar"):
        make_encoder(EncoderSettings(encoder="deca", assets=tmp_path))
