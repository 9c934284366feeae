"""Composing a face into a frame: what is its own comes back, nothing else moves, no seam, wherever the face is."""

import numpy as np
import pytest

from asccl_jax.image.blending import blend_pyramids, inner_mask
from asccl_jax.image.polygon import face_outline
from asccl_jax.image.warping import inverse_affine, moved
from data_prep.media.encode import YuvPicture
from data_prep.reconstruct.drawing import alignment_matrices
from data_prep.video.compose import RenderedFace, aligned_at, blending_box, compose, mixed_change
from tests.data_prep.video.composing_clip import aligned_face, face_landmarks, psnr_db, scene

SIZE = (240, 300)


def frame_and_face(*, face_size=256, tint=(0, 0, 0), size=SIZE, **face):
    """A frame, its own face (perhaps of another colour), and where the face's outline is in the frame."""
    image = scene(3, size)
    landmarks = face_landmarks(1, size=size, **face)[0]
    align = alignment_matrices(landmarks[None])[0]
    picture = YuvPicture.of_rgb(image)
    own = aligned_face(picture.rgb(), landmarks, align, face_size)
    drawn = own.any(axis=-1, keepdims=True)
    rendered = np.where(drawn, np.clip(own + np.array(tint), 1, 255), 0).astype(np.uint8)
    mask = face_outline(moved(landmarks, align), (256, 256)).astype(np.float32)
    return picture, RenderedFace(rendered, align, mask), landmarks


def distance_px(landmarks, size=SIZE):
    """Distance of every pixel from the middle of the face over the size of the face."""
    middle, reach = landmarks.mean(axis=0), np.ptp(landmarks, axis=0).max()
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(x - middle[0], y - middle[1]) / reach


@pytest.mark.parametrize("blend", ["pyramid", "copy"])
@pytest.mark.parametrize(("scale", "turn"), [(0.45, 0.0), (0.8, 0.3)])
def test_a_frames_own_face_comes_back_and_pixels_away_from_it_keep_their_bits(blend, scale, turn):
    picture, face, landmarks = frame_and_face(scale=scale, turn=turn)
    before = [plane.copy() for plane in picture.planes]
    image = picture.rgb()
    compose(picture, face, blend=blend)
    # Lanczos there and back costs less than a level or two of a smooth texture: 40 dB is an rms of 2.5 levels.
    assert psnr_db(picture.rgb(), image) > 40
    far = distance_px(landmarks) > 1.0
    assert far.mean() > 0.2
    np.testing.assert_array_equal(picture.planes[0][far], before[0][far])
    for plane, old in zip(picture.planes[1:], before[1:], strict=True):
        np.testing.assert_array_equal(plane[far[::2, ::2]], old[far[::2, ::2]])


def test_copying_changes_luma_inside_the_mask_only():
    picture, face, _ = frame_and_face(tint=(50, 50, 50))
    before = picture.planes[0].copy()
    compose(picture, face, blend="copy")
    changed = picture.planes[0] != before
    y, x = np.nonzero(changed)
    places = np.rint(moved(np.stack([x, y], axis=1).astype(np.float64), face.align)).astype(int)
    near = np.pad(face.mask > 0, 2)
    # A pixel of the frame is two of the mask: one of those around its middle belongs to the face.
    around = [near[places[:, 1] + 2 + dy, places[:, 0] + 2 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert np.any(around, axis=0).all()
    assert changed.sum() > 0.9 * (face.mask > 0).sum() * 0.25


def test_pyramids_leave_no_seam_and_the_whole_change_in_the_middle():
    jumps = {}
    for blend in ("pyramid", "copy"):
        picture, face, landmarks = frame_and_face(tint=(40, 40, 40), scale=0.8)
        before = picture.rgb().astype(int)
        compose(picture, face, blend=blend)
        change = (picture.rgb() - before).mean(axis=-1)
        x, y = np.rint(landmarks[30]).astype(int)
        assert change[y, x] == pytest.approx(40, abs=4)
        jumps[blend] = np.abs(np.diff(change[y])).max()
    assert jumps["copy"] > 25
    assert jumps["pyramid"] < 0.35 * jumps["copy"]


@pytest.mark.parametrize("shape", [(96, 96), (90, 75)])
def test_a_mixed_change_is_that_of_the_published_pyramids(shape):
    rng = np.random.default_rng(0)
    background, face = rng.random((2, *shape, 3), dtype=np.float32)
    mask = np.zeros(shape, np.float32)
    mask[20:70, 15:60] = 1
    expected = blend_pyramids(background, face, mask, levels=3)
    mixed = background + mixed_change(face - background, inner_mask(mask), 3)
    np.testing.assert_allclose(mixed, expected, atol=2e-6)  # float32 sums in another order


def test_a_smaller_rendered_face_lands_on_the_same_place():
    # A smooth scene: of a quarter of the pixels it loses nothing but what a shift would add. Half an aligned pixel of
    # 64 is 1 px here, which changes the scene by 5 levels on average.
    differences = []
    for face_size in (256, 64):
        picture, face, landmarks = frame_and_face(face_size=face_size, scale=0.5)
        before = picture.rgb().astype(int)
        compose(picture, face)
        differences.append(np.abs(picture.rgb() - before)[distance_px(landmarks) < 0.35].mean())
    assert differences[0] < 1
    assert differences[1] < 2


@pytest.mark.parametrize("shift", [(-150, 0), (150, 0), (0, 120), (0, -110), (150, 120), (2000, 0)])
def test_a_face_partly_or_all_outside_the_frame_works_up_to_the_border(shift):
    picture, face, landmarks = frame_and_face(tint=(40, 40, 40), shift=shift, scale=0.8, turn=0.0)
    before = picture.rgb().astype(int)
    compose(picture, face)
    change = (picture.rgb() - before).mean(axis=-1)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    middle = moved(np.array([[127.5, 140.0]]), inverse_affine(face.align))[0]
    inside = np.hypot(x - middle[0], y - middle[1]) < 0.25 * np.ptp(landmarks[:, 0])
    if abs(shift[0]) == 2000:
        assert not change.any()
    else:
        assert inside.any()
        # The frame's border inside the face is no edge of the mask.
        np.testing.assert_allclose(change[inside], 40, atol=8)


def test_the_box_is_as_large_as_the_aligned_picture_and_starts_on_even_pixels():
    align = alignment_matrices(face_landmarks(1, scale=0.7, turn=0.4))[0]
    left, top, right, bottom = blending_box(align)
    assert {left % 2, top % 2, right % 2, bottom % 2} == {0}
    assert right - left == bottom - top == pytest.approx(0.7 * 256, abs=2)
    middle = moved(np.array([[127.5, 127.5]]), inverse_affine(align))[0] + 0.5
    np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], middle, atol=1)


def test_an_aligned_pictures_corners_stay_its_corners_at_another_size():
    align = alignment_matrices(face_landmarks(1))[0]
    corners = moved(np.array([[-0.5, -0.5], [255.5, 255.5]]), inverse_affine(align))
    np.testing.assert_allclose(moved(corners, aligned_at(align, 64)), [[-0.5, -0.5], [63.5, 63.5]], atol=1e-9)
