import cv2
import numpy as np

from asccl_jax.image.warping import moved
from data_prep.reconstruct.drawing import TEMPLATE, alignment_matrices, encode_png, warped


def test_the_template_has_the_published_size_and_mean():
    assert TEMPLATE.shape == (68, 2)
    np.testing.assert_allclose(TEMPLATE.mean(axis=0), [126, 145.985], atol=5e-4)  # as printed in the source
    np.testing.assert_array_equal([TEMPLATE.min(axis=0), TEMPLATE.max(axis=0)], [[57, 85], [186, 220]])


def test_aligned_landmarks_lie_on_the_template():
    landmarks = np.stack([TEMPLATE * 0.5 + 20, TEMPLATE * 2 - 4])
    aligned = moved(landmarks, alignment_matrices(landmarks))
    np.testing.assert_allclose(aligned, np.stack([TEMPLATE, TEMPLATE]), atol=1e-9)


RNG = np.random.default_rng(1)
SHIFT = np.array([[1.0, 0, 2], [0, 1, 3]])


def test_one_bright_pixel_lands_where_the_matrix_sends_it():
    image = np.zeros((16, 16, 3), np.uint8)
    image[4, 5] = 255
    moved = warped(image, None, SHIFT, 16)
    assert moved[7, 7].min() == 255 and moved.sum() == image.sum()


def test_a_stored_cut_out_gives_what_the_whole_frame_gives():
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (40, 40, 3)).astype(np.uint8), (0, 0), 2)
    cut, placement = frame[8:32, 10:34], np.array([[1.0, 0, -10], [0, 1, -8]])
    matrix = np.array([[1.5, 0, -20.0], [0, 1.5, -18.0]])
    whole, part = warped(frame, None, matrix, 20), warped(cut, placement, matrix, 20)
    np.testing.assert_array_equal(whole, part)


def test_shrinking_averages():
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8)
    small = warped(image, None, np.array([[0.25, 0, -0.375], [0, 0.25, -0.375]]), 16)
    assert abs(small[2:-2, 2:-2].astype(int) - 127.5).max() <= 1


def test_png_files_hold_the_very_pixels():
    image = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    decoded = cv2.imdecode(np.frombuffer(encode_png(image), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded[..., ::-1], image)
    mask = RNG.random((5, 7)) > 0.5
    decoded = cv2.imdecode(np.frombuffer(encode_png(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, mask * 255)
