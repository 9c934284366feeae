"""Frames and sound out of files, whole and broken."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep.decode import (
    SAMPLE_RATE,
    BrokenMediaError,
    Frame,
    NoAudioError,
    extension_remark,
    read_frames,
    read_sound,
    resample_frames,
)
from tests.data_prep.tiny_media import picture, turn_upright, voice, write_sound, write_video


def frames_of(path, **options):
    return list(read_frames(path, **options))


def test_frames_come_in_order_with_their_times_and_pictures(tmp_path):
    frames = frames_of(write_video(tmp_path / "a.mp4", 9, fps=25))
    assert [frame.index for frame in frames] == list(range(9))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(9) / 25, atol=1e-6)
    for number, frame in enumerate(frames):
        # 4:2:0 chroma and quantisation cost a few grey levels; neighbouring pictures differ by 23 in blue.
        assert np.abs(frame.image[20:, 20:].astype(int) - picture(number)[20:, 20:]).mean() < 5


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 1, 2, 5, 6, 12]
    frames = frames_of(write_video(tmp_path / "a.mp4", 6, times=times))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times) / 30, atol=1e-6)


_LEAVING_HALF_WAY = """
import itertools, sys, threading
from pathlib import Path
from data_prep.decode import read_frames

def leave_half_way():
    for count in range(20):
        frames = read_frames(Path(sys.argv[1]))
        list(itertools.islice(frames, 1 + count % 7))
        frames.close()

threads = [threading.Thread(target=leave_half_way) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_leave_videos_half_read(tmp_path):
    # Large enough for the decoder to be at work when it is closed. A hanging close holds the interpreter: a process of
    # its own, then, for which 60 times of what it takes are allowed.
    path = write_video(tmp_path / "a.mp4", 60, size=320)
    subprocess.run([sys.executable, "-c", _LEAVING_HALF_WAY, str(path)], timeout=60, check=True)


@pytest.mark.parametrize("turns", [1, 2])
def test_rotation_metadata_is_applied(tmp_path, turns):
    path = write_video(tmp_path / "a.mp4", 3)
    plain = frames_of(path)[0].image
    turn_upright(path, turns)
    np.testing.assert_array_equal(frames_of(path)[0].image, np.rot90(plain, -turns))


def test_resampling_takes_the_nearest_frame_in_time():
    times_s = [0.0, 0.1, 0.2, 0.5, 0.6]
    frames = [Frame(i, i, time_s, None) for i, time_s in enumerate(times_s)]
    for fps in (4.0, 10.0, 25.0):
        taken = list(resample_frames(iter(frames), fps))
        targets = np.arange(int(0.6 * fps + 1e-9) + 1) / fps
        nearest = [int(np.abs(np.array(times_s) - target).argmin()) for target in targets]
        assert [frame.source_index for frame in taken] == nearest
        assert [frame.index for frame in taken] == list(range(len(targets)))


@pytest.mark.parametrize(("folder", "first"), [("img", 1), ("align_img", 0)])
def test_image_folders_number_their_frames_as_the_pair_list_does(tmp_path, folder, first):
    clip = tmp_path / "M003" / folder / "sad" / "001"
    clip.mkdir(parents=True)
    for index in (0, 1, 3):
        Image.fromarray(picture(index)).save(clip / f"{index + first:06d}.png")
    (clip / f"{4 + first:06d}.png").write_bytes(b"no picture")
    frames = frames_of(clip, image_fps=25)
    assert [frame.index for frame in frames] == [0, 1, 3, 4]
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array([0, 1, 3, 4]) / 25)
    np.testing.assert_array_equal(frames[2].image, picture(3))
    assert frames[3].image is None


def test_sound_comes_as_mono_at_the_common_rate(tmp_path):
    samples, _ = voice(1)
    for path in (write_sound(tmp_path / "a.wav", samples), write_sound(tmp_path / "a.m4a", samples)):
        sound = read_sound(path)
        assert sound.start_s == 0
        assert abs(len(sound.samples) - len(samples)) <= 2048
        lag = np.correlate(sound.samples[:8000], samples[:8000], "full").argmax() - 7999
        assert abs(lag) <= 0.002 * SAMPLE_RATE  # AAC's padding is taken out again


def test_the_sound_of_a_video_starts_with_its_picture(tmp_path):
    samples, moments = voice(1)
    sound = read_sound(write_video(tmp_path / "a.mp4", len(moments), samples=samples))
    assert abs(sound.start_s) < 0.07  # at most one AAC frame
    first = int(-sound.start_s * SAMPLE_RATE) if sound.start_s < 0 else 0
    lag = np.correlate(sound.samples[first : first + 8000], samples[:8000], "full").argmax() - 7999
    assert abs(lag + sound.start_s * SAMPLE_RATE * (sound.start_s > 0)) <= 0.002 * SAMPLE_RATE


def broken(tmp_path, name):
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "text.mp4":
        path.write_text("not a video at all\n" * 50)
    elif name == "picture.mp4":
        Image.fromarray(picture(0)).save(path, format="png")
    elif name == "no_index.mp4":  # the index lies at the end and is cut off
        whole = write_video(tmp_path / "whole.mp4", 30).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "half.mp4":  # the index lies in front, half of the pictures are gone
        whole = write_video(tmp_path / "whole.mp4", 40, options={"movflags": "faststart"}).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "sound.mp4":
        write_sound(path, voice(1)[0])
    elif name == "folder":
        path.mkdir()
        (path / "notes.txt").touch()
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.mp4", "cannot be opened"),
        ("empty.mp4", "an empty file"),
        ("text.mp4", "not a video, or truncated"),
        ("picture.mp4", "a still image"),
        ("no_index.mp4", "not a video, or truncated"),
        ("half.mp4", "truncated"),
        ("sound.mp4", "no video track"),
        ("folder", "no numbered image"),
    ],
)
def test_a_broken_video_says_why(tmp_path, name, reason):
    with pytest.raises(BrokenMediaError, match=reason):
        frames_of(broken(tmp_path, name))


def test_missing_sound_is_told_apart_from_broken_files(tmp_path):
    with pytest.raises(NoAudioError, match="no audio track"):
        read_sound(write_video(tmp_path / "a.mp4", 3))
    with pytest.raises(BrokenMediaError, match="not a video"):
        read_sound(broken(tmp_path, "text.mp4"))


def test_a_wrong_extension_is_remarked_on(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    assert extension_remark(path) is None
    renamed = path.rename(tmp_path / "a.avi")
    assert len(frames_of(renamed)) == 3
    assert extension_remark(renamed).startswith("wrong extension '.avi': the file is mov,mp4")
