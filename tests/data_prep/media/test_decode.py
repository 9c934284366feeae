"""Frames and sound out of files, whole and broken."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from data_prep.media.decode import (
    SAMPLE_RATE,
    BrokenMediaError,
    Frame,
    NoAudioError,
    extension_remark,
    read_frames,
    read_sound,
    resample_frames,
)
from tests.data_prep.tiny_media import (
    ball,
    picture,
    remux,
    set_matrix,
    voice,
    write_fields,
    write_pcm,
    write_samples,
    write_sound,
    write_video,
)


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
from data_prep.media.decode import read_frames

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


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: image[::-1, ::-1].swapaxes(0, 1)),
        ((2, 0.01, -0.01, 2), lambda image: image),
        ((0, 0, 0, 0), lambda image: image),
    ],
)
def test_pictures_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix, seen):
    path = write_video(tmp_path / "a.mp4", 2)
    plain = frames_of(path)[0].image
    set_matrix(path, matrix)
    np.testing.assert_array_equal(frames_of(path)[0].image, seen(plain))


def test_a_picture_at_an_angle_is_refused(tmp_path):
    path = set_matrix(write_video(tmp_path / "a.mp4", 2), (0.7, 0.7, -0.7, 0.7))
    with pytest.raises(BrokenMediaError, match="45 degrees"):
        frames_of(path)


def test_what_an_edit_list_hides_is_no_frame_and_no_sound(tmp_path):
    samples, moments = voice(1)
    whole = write_video(tmp_path / "whole.mp4", len(moments), samples=samples)
    cut = remux(whole, tmp_path / "cut.mp4", shift_s=-0.5)
    before, after = frames_of(whole)[15:], frames_of(cut)
    assert len(after) == len(before)
    np.testing.assert_allclose([frame.time_s for frame in after], np.arange(len(after)) / 30, atol=1e-6)
    for frame, source in zip(after, before, strict=True):
        np.testing.assert_array_equal(frame.image, source.image)
    sound, heard = read_sound(whole).samples[SAMPLE_RATE // 2 :], read_sound(cut)
    assert abs(heard.start_s) < 1e-3
    np.testing.assert_allclose(heard.samples[:8000], sound[:8000], atol=1e-3)


@pytest.mark.parametrize("times", [None, list(range(0, 24, 2)), [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14]])
@pytest.mark.parametrize("coder", [{"bf": "0"}, {"preset": "medium", "bf": "3", "b-pyramid": "normal"}])
def test_frames_of_an_avi_follow_one_another_and_empty_chunks_take_their_time(tmp_path, times, coder):
    frames = frames_of(write_video(tmp_path / "a.avi", times=times, coder=coder))
    expected = np.array(times or range(12)) / 30
    if coder["bf"] == "0" or times is None or times[1] == 2:
        np.testing.assert_allclose([frame.time_s for frame in frames], expected, atol=1e-6)
    else:  # where between the frames a chunk is missing is told in order of decoding only
        steps = np.diff([frame.time_s for frame in frames])
        assert (steps > 0).all() and len(frames) == 12 and sum(steps) == pytest.approx(expected[-1])
    for number, frame in enumerate(frames):
        assert np.abs(frame.image[20:, 20:].astype(int) - picture(number)[20:, 20:]).mean() < 5


def test_a_stream_without_any_times_is_steady(tmp_path):
    for name in ("a.h264", "a.m4v"):
        frames = frames_of(write_video(tmp_path / name, coder={"preset": "medium", "bf": "2"}))
        steps = np.diff([frame.time_s for frame in frames])
        assert len(frames) == 12
        np.testing.assert_allclose(steps, steps[0], atol=1e-6)


def test_recordings_joined_byte_by_byte_are_refused(tmp_path):
    part = write_video(tmp_path / "a.ts", 30).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    with pytest.raises(BrokenMediaError, match=r"after frame 29 its clock jumps .* concat"):
        frames_of(tmp_path / "joined.ts")


@pytest.mark.parametrize("options", ["tff=1", "fake-interlaced=0"])
def test_fields_become_pictures_of_one_instant_flagged_or_not(tmp_path, options):
    frames = frames_of(write_fields(tmp_path / "a.mp4", options=options))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(9) / 25, atol=1e-6)
    for number, frame in enumerate(frames):
        rows = frame.image[..., 1].astype(int)
        combs = (np.minimum(rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]) > 12).mean()
        assert combs < 0.002
        assert np.abs(rows - ball(4 * number)[..., 1]).mean() < 3


def test_progressive_pictures_stay_what_they_are_flagged_or_not(tmp_path):
    plain = frames_of(write_fields(tmp_path / "a.mp4", woven=False, options="fake-interlaced=0"))
    for number, frame in enumerate(plain):
        assert np.abs(frame.image.astype(int) - ball(4 * number)).mean() < 1.5
    flagged = tmp_path / "b.mp4"
    with av.open(str(write_fields(flagged, woven=False, options="tff=1"))) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, image in zip(frames_of(flagged), stored, strict=True):
        np.testing.assert_array_equal(frame.image, image)


def write_two_tracks(path, chosen, disposition):
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for number, track in enumerate(tracks):
            track.width = track.height = 64 if number == chosen else 96
            track.pix_fmt = "yuv420p"
            track.disposition = disposition if number == chosen else 0
        for track in tracks:
            for number in range(3):
                container.mux(track.encode(av.VideoFrame.from_ndarray(picture(number, track.width), format="rgb24")))
            container.mux(track.encode(None))
    return path


@pytest.mark.parametrize("chosen", [0, 1])
def test_of_several_tracks_the_default_one_is_shown(tmp_path, chosen):
    frames = frames_of(write_two_tracks(tmp_path / "a.mkv", chosen, Disposition.default))
    assert [frame.image.shape[0] for frame in frames] == [64] * 3


def test_a_cover_is_no_video(tmp_path):
    samples, _ = voice(1)
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(cover.encode(None))
        write_samples(container, sound, samples)
    with pytest.raises(BrokenMediaError, match="no video track"):
        frames_of(path)
    assert read_sound(path).start_s == 0


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), 1), ((720, 1280), 1), ((720, 576), 5)])
def test_colours_that_no_tag_explains_are_those_of_their_size(tmp_path, size, matrix):
    image = np.full((size[1], size[0], 3), (200, 40, 30), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        track = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        track.width, track.height = size
        frame.colorspace = 2
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    read = frames_of(tmp_path / "a.mp4")[0].image
    assert np.abs(read[::16, ::16].astype(int) - image[::16, ::16]).max() <= 4


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
    elif name == "half.mkv":
        whole = write_video(tmp_path / "whole.mkv", 120).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "half.avi":
        whole = write_video(tmp_path / "whole.avi", 60).read_bytes()
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
        ("half.mkv", "truncated"),
        ("half.avi", "truncated"),
        ("sound.mp4", "no video track"),
        ("folder", "no numbered image"),
    ],
)
def test_a_broken_video_says_why(tmp_path, name, reason):
    with pytest.raises(BrokenMediaError, match=reason):
        frames_of(broken(tmp_path, name))


BLOCKS = [0.1, 0.2, 0.3, 0.4]


def heard(sound, time_s):
    """What is heard in the middle of the 50 ms that begin then."""
    place = round((time_s + 0.025 - sound.start_s) * SAMPLE_RATE)
    return sound.samples[place] if 0 <= place < len(sound.samples) else None


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((0, 0.05, 0.1, 0.15), {0: 0.1, 0.05: 0.2, 0.1: 0.3, 0.15: 0.4}),
        ((0, 0.05, 0.5, 0.55), {0.05: 0.2, 0.1: 0, 0.45: 0, 0.5: 0.3, 0.55: 0.4}),
        ((0, 0.05, 0.075, 0.125), {0.05: 0.2, 0.085: 0.3, 0.125: 0.4}),
        ((0.2, 0.25, 0.3, 0.35), {0: None, 0.2: 0.1, 0.35: 0.4}),
        ((0, 0.051, 0.099, 0.151), {0: 0.1, 0.05: 0.2, 0.1: 0.3, 0.15: 0.4}),
    ],
)
@pytest.mark.parametrize(("rate", "layout"), [(16000, "mono"), (44100, "stereo"), (8000, "5.1"), (96000, "3.0")])
def test_sound_lies_where_its_packets_times_say(tmp_path, times, expected, rate, layout):
    path = write_pcm(tmp_path / "a.mkv", list(zip(times, BLOCKS, strict=True)), rate=rate, layout=layout, pictures=8)
    sound = read_sound(path)
    loud = heard(sound, times[0]) / 0.1  # mixing may weaken
    for time_s, value in expected.items():
        found = heard(sound, time_s)
        assert found is None if value is None else found == pytest.approx(value * loud, abs=0.02)


def test_a_damaged_packet_of_sound_is_silence_and_many_are_refused(tmp_path):
    samples, _ = voice(1)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        write_samples(container, container.add_stream("ac3", rate=48000, layout="mono"), np.repeat(samples, 3), 48000)
    whole, content = read_sound(path), path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    for damaged in (packets[20:21], packets[20:]):
        for packet in damaged:
            content = content.replace(packet, bytes(len(packet)))
        path.write_bytes(content)
        if len(damaged) > 1:
            with pytest.raises(BrokenMediaError, match="damaged audio: "):
                read_sound(path)
            continue
        sound = read_sound(path)
        assert abs(len(sound.samples) - len(whole.samples)) < 512
        gap = slice(20 * 512 + 150, 21 * 512 - 150)
        assert np.abs(whole.samples[gap]).max() > 0.05 > np.abs(sound.samples[gap]).max()
        # Matroska rounds to milliseconds: within one of them, what follows lies where it lay.
        after = whole.samples[24 * 512 : 40 * 512]
        moved = (sound.samples[24 * 512 + lag : 40 * 512 + lag] for lag in range(-16, 17))
        assert min(np.abs(samples - after).max() for samples in moved) < 0.15


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


@pytest.mark.parametrize("name", ["10:30:05.mp4", os.fsdecode(b"caf\xe9.mp4"), "-a%03d.mp4", "pipe:1.mp4"], ids=ascii)
def test_a_video_is_read_whatever_its_name_and_the_bytes_of_its_tags(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mkv", 3)
    content = (tmp_path / "plain.mkv").read_bytes().replace(b"Lavf", b"L\xe9vf")
    Path(name).write_bytes(content)
    assert len(list(read_frames(Path(name)))) == 3
