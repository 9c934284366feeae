"""Masks of rendered faces: where the renderer drew and the face is, with an edge that holds still."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.schema import RenderRecord
from asccl_jax.errors import InputError
from data_prep.video.face_masks import FaceMasks, drawn_area, outline_rule, read_face
from DECA_torch_bridge import segmenter
from tests.data.painted_clips import painted_render, png, write_records

CLIP = "Ann/neutral/s1"
FRAMES = 9


def square(edge: int) -> np.ndarray:
    mask = np.zeros((256, 256), bool)
    mask[60:200, edge:200] = True
    return mask


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("masks")
    records = write_records(root / "records", {CLIP: {number: {} for number in range(FRAMES)}})
    faces = {}
    for number in range(FRAMES):
        faces[number] = root / f"{number:06d}.png"
        Image.new("RGB", (64, 64), (90, 90, 90)).save(faces[number])
    return records, faces


def masks_of(clip, rule, over_frames, *, without=()):
    records, faces = clip
    faces = {number: path for number, path in faces.items() if number not in without}
    return FaceMasks(records, read_manifest(records), CLIP, faces, rule=rule, over_frames=over_frames)


def left_edge(mask: np.ndarray) -> int:
    return int(np.argmax(mask[128] >= 0.5))


def test_a_jittering_edge_holds_still_and_a_steady_one_stays(clip):
    jittering = masks_of(clip, lambda record: square(60 + 4 * (record.frame % 2)), 2.0)
    edges = [left_edge(jittering.mask(number)) for number in range(2, FRAMES - 2)]
    assert set(edges) <= {60, 61, 62, 63, 64}
    assert max(edges) - min(edges) <= 1
    alone = masks_of(clip, lambda record: square(60 + 4 * (record.frame % 2)), 0.0)
    assert {left_edge(alone.mask(number)) for number in range(FRAMES)} == {60, 64}
    steady = masks_of(clip, lambda record: square(70), 2.0)
    np.testing.assert_array_equal((steady.mask(4) >= 0.5)[80:180, 60:190], square(70)[80:180, 60:190])


def test_a_moving_edge_is_followed_without_lag(clip):
    moving = masks_of(clip, lambda record: square(50 + 2 * record.frame), 2.0)
    assert left_edge(moving.mask(4)) == pytest.approx(58, abs=1)


def test_frames_without_a_face_lend_their_neighbours_nothing(clip):
    wild = masks_of(clip, lambda record: square(150 if record.frame == 4 else 60), 2.0, without=(4,))
    assert left_edge(wild.mask(3)) == 60


def test_each_mask_is_made_once(clip):
    made = []

    def rule(record):
        made.append(record.frame)
        return square(60)

    masks = masks_of(clip, rule, 1.0)
    for number in range(FRAMES):
        masks.mask(number)
    assert sorted(made) == list(range(FRAMES))


def test_the_mask_ends_where_the_renderer_stopped(clip, tmp_path):
    records, _ = clip
    face = np.zeros((64, 64, 3), np.uint8)
    face[16:48, 16:48] = 80
    face[30:34, 30:34] = 0  # a black pupil is no hole
    Image.fromarray(face).save(tmp_path / "face.png")
    masks = FaceMasks(
        records,
        read_manifest(records),
        CLIP,
        {0: tmp_path / "face.png"},
        rule=lambda record: np.ones((256, 256), bool),
    )
    mask = masks.mask(0) >= 0.5
    assert mask[128, 128]
    assert mask[128, 66:190].all()
    assert not mask[128, :62].any()
    assert drawn_area(face, 64).sum() == 32 * 32


def test_the_outline_is_that_of_the_renderers_training(clip):
    record = painted_render(CLIP, 0)
    mask = outline_rule(record)
    assert mask[128, 128]
    assert not mask[20, 128]
    assert not mask[240, 128]
    narrow = np.zeros((256, 256), np.uint8)
    narrow[:, :120] = 255
    assert not outline_rule(painted_render(CLIP, 0, aligned_alpha_image=png(narrow)))[:, 120:].any()


def test_a_segmentation_is_eroded_and_its_largest_piece(tmp_path, monkeypatch):
    small = functools.partial(segmenter.Segmenter, reduction=32)
    torch.manual_seed(0)
    network = small()
    # Two squares that are red, of which the network sees exactly that.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "unet.pth")
    monkeypatch.setattr(segmenter, "Segmenter", small)
    seen = np.zeros((256, 256), bool)
    seen[60:200, 60:200] = True
    seen[10:40, 10:40] = True
    monkeypatch.setattr(segmenter, "face_mask", lambda scores: torch.from_numpy(seen)[None])
    record: RenderRecord = painted_render(CLIP, 0)
    mask = segmenter.segmentation_rule(tmp_path / "unet.pth")(record)
    assert mask[130, 130]
    assert not mask[:50].any()
    assert not mask[60, 60:200].any()
    assert mask[70:190, 130].all()


def test_another_networks_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "Segmenter", functools.partial(segmenter.Segmenter, reduction=32))
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: not the face segmentation UNet.*conv\.weight"):
        segmenter.segmentation_rule(tmp_path / "other.pth")


def test_a_picture_that_is_no_aligned_face_is_named(tmp_path):
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: 64 x 32 pixels, expected a square"):
        read_face(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b\.png: no readable picture"):
        read_face(tmp_path / "b.png")
