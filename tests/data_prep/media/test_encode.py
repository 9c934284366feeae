"""Pictures of videos: what is not changed keeps its bits, upright, even, in whatever form they are stored."""

import av
import numpy as np
import pytest

from data_prep.media.decode import read_frames
from data_prep.media.encode import YuvPicture
from data_prep.media.video_files import open_video
from tests.data_prep.tiny_media import set_matrix, write_fields
from tests.data_prep.video.composing_clip import SIZE, scene, write_scene


def test_reading_equals_that_of_the_rest_of_the_project(tmp_path):
    path = write_scene(tmp_path / "a.mp4", sound=None)
    with open_video(path) as video:
        for timed, frame in zip(video.pictures(), read_frames(path), strict=True):
            assert timed.index == frame.index
            assert timed.time_s == pytest.approx(frame.time_s)
            np.testing.assert_array_equal(timed.picture.rgb(), frame.image)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_turned_and_mirrored_videos_are_read_upright(tmp_path, turned, signs):
    path = write_scene(tmp_path / "a.mp4", sound=None)
    set_matrix(path, (0, *signs, 0) if turned else (signs[0], 0, 0, signs[1]))
    with open_video(path) as video:
        picture = next(video.pictures()).picture
    expected = next(read_frames(path)).image
    assert picture.size == expected.shape[:2] == (SIZE[::-1] if turned else SIZE)
    # Chroma is enlarged after the turn in one and before it in the other.
    assert np.abs(picture.rgb().astype(int) - expected).mean() < 1


def test_fields_are_read_as_the_rest_of_the_project_does(tmp_path, caplog):
    path = write_fields(tmp_path / "a.mp4")
    with open_video(path) as video:
        for timed, frame in zip(video.pictures(), read_frames(path), strict=True):
            np.testing.assert_array_equal(timed.picture.rgb(), frame.image)
    assert "a.mp4: interlaced" in caplog.text


def test_a_change_is_seen_and_only_there():
    picture = YuvPicture.of_rgb(scene(0))
    before = [plane.copy() for plane in picture.planes]
    box = (40, 20, 80, 60)
    old = picture.rgb(box)
    picture.change(box, old, old)
    for plane, kept in zip(picture.planes, before, strict=True):
        np.testing.assert_array_equal(plane, kept)
    wanted = np.clip(old.astype(int) + np.array([30, -20, 10]), 0, 255).astype(np.uint8)
    picture.change(box, old, wanted)
    assert np.abs(picture.rgb(box).astype(int) - wanted).mean() < 2  # rounded to luma and chroma and back
    for plane, kept, step in zip(picture.planes, before, (1, 2, 2), strict=True):
        outside = np.ones(plane.shape, bool)
        outside[20 // step : 60 // step, 40 // step : 80 // step] = False
        np.testing.assert_array_equal(plane[outside], kept[outside])


def test_a_box_beyond_the_picture_repeats_its_border_and_is_cut_off_when_written():
    picture = YuvPicture.of_rgb(scene(0))
    height, width = picture.size
    box = (-20, -10, 30, 40)
    old = picture.rgb(box)
    np.testing.assert_array_equal(old[10:, :20], np.repeat(old[10:, 20:21], 20, axis=1))
    picture.change(box, old, np.zeros_like(old))
    assert picture.rgb((0, 0, 30, 40)).max() < 6
    far = (width + 20, height, width + 60, height + 40)
    picture.change(far, picture.rgb(far), np.zeros((40, 40, 3), np.uint8))


@pytest.mark.parametrize("name", ["yuv444p", "yuv422p", "yuv420p10le", "nv12", "gbrp", "rgb24", "yuvj420p"])
@pytest.mark.parametrize("matrix", [1, 5])
def test_other_forms_keep_their_colours(name, matrix):
    image = scene(1)
    stored = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=name, dst_colorspace=matrix)
    picture = YuvPicture.of_frame(stored)
    # Rounding and halved chroma of a smooth picture; the wrong matrix would add some 8 levels.
    assert np.abs(picture.rgb().astype(int) - stored.to_ndarray(format="rgb24")).mean() < 2.5


@pytest.mark.parametrize("size", [(143, 176), (144, 175), (143, 175)])
def test_odd_sides_grow_by_a_repeated_pixel(size):
    stored = av.VideoFrame.from_ndarray(scene(1, size), format="rgb24").reformat(format="yuv444p")
    picture = YuvPicture.of_frame(stored)
    assert picture.size == (144, 176)
    assert np.abs(picture.rgb()[: size[0], : size[1]].astype(int) - scene(1, size)).mean() < 2.5
