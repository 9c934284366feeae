"""Video files: what probing tells, times and sound kept exactly, the mark, and no half-written output."""

import itertools
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from asccl_jax.errors import InputError, WriteError
from data_prep.media.decode import read_sound
from data_prep.media.encode import YuvPicture
from data_prep.media.video_files import MarkedVideoWriter, open_video, probe_video
from tests.data_prep.tiny_media import remux, turn_upright, write_pcm, write_samples
from tests.data_prep.video.composing_clip import (
    CLOCK,
    SIZE,
    TIMES,
    pictures,
    psnr_db,
    scene,
    sound_packets,
    times_s,
    write_scene,
)

STEADY = tuple(512 * number for number in range(6))


def copy(source, output, **settings):
    with (
        open_video(source) as video,
        MarkedVideoWriter(
            output, clock=video.clock, rate=video.rate, sound_of=source, origin_s=video.origin_s, **settings
        ) as writer,
    ):
        for timed in video.pictures():
            writer.write(timed.picture, pts=timed.pts, duration=timed.duration)
    return output


def test_a_probe_tells_what_is_there(tmp_path):
    facts = probe_video(write_scene(tmp_path / "a.mp4", times=STEADY))
    assert (facts.frames, facts.height, facts.width) == (6, *SIZE)
    assert (facts.fps, facts.variable_rate, facts.rotation, facts.codec) == (25.0, False, 0, "h264")
    assert facts.duration_s == pytest.approx(6 / 25)
    assert (facts.has_audio, facts.audio_codecs) == (True, ("aac",))


def test_a_probe_sees_a_variable_rate_a_rotation_and_silence(tmp_path):
    path = write_scene(tmp_path / "a.mp4", sound=None)
    turn_upright(path, 1)
    facts = probe_video(path)
    assert (facts.height, facts.width) == SIZE[::-1]
    assert facts.variable_rate
    assert facts.fps == pytest.approx((len(TIMES) - 1) / (TIMES[-1] / 12800), abs=1e-3)
    assert not facts.has_audio
    assert abs(facts.rotation) == 90


def test_milliseconds_of_a_steady_video_are_no_variable_rate(tmp_path):
    path = write_scene(tmp_path / "a.mkv", times=tuple(round(12800 * n / 30) for n in range(20)), sound=None)
    facts = probe_video(path)
    assert facts.fps == pytest.approx(30, rel=2e-3)
    assert not facts.variable_rate


@pytest.mark.parametrize("kind", ["absent", "empty", "text", "sound", "folder"])
def test_what_is_no_video_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "a.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video " * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    for read in (probe_video, lambda path: open_video(path).__enter__()):
        with pytest.raises(InputError, match=r"a\.mp4: ") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_damaged_video_is_named(tmp_path):
    path = write_scene(tmp_path / "a.mkv", times=tuple(512 * number for number in range(40)), sound=None)
    content = path.read_bytes()
    path.write_bytes(content[:200])
    with pytest.raises(InputError, match=r"a\.mkv"), open_video(path) as video:
        list(video.pictures())


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("late", [0, 77])
def test_times_and_sound_packets_are_the_sources_to_the_bit(tmp_path, suffix, late):
    source = write_scene(tmp_path / "a.mp4", times=tuple(ticks + late for ticks in TIMES))
    output = copy(source, tmp_path / f"out{suffix}")
    assert times_s(output) == times_s(source) == [(ticks + late) * CLOCK for ticks in TIMES]
    assert len(sound_packets(source)) > 5
    assert sound_packets(output) == sound_packets(source)
    for number, image in enumerate(pictures(output)):
        assert psnr_db(image, scene(number)) > 35


def test_matroska_keeps_times_to_the_millisecond_and_picture_and_sound_together(tmp_path):
    source = write_scene(tmp_path / "a.mp4")
    output = copy(source, tmp_path / "out.mkv")
    # The sound's lead-in begins before 0, which Matroska does not have, and is not heard: it is left out.
    heard = [(time, packet) for time, packet in sound_packets(source) if time >= 0]
    assert len(heard) == len(sound_packets(source)) - 1
    assert [packet for _, packet in sound_packets(output)] == [packet for _, packet in heard]
    pairs = [*zip(times_s(output), times_s(source), strict=True)]
    pairs += [(new[0], old[0]) for new, old in zip(sound_packets(output), heard, strict=True)]
    assert max(abs(new - old) for new, old in pairs) <= Fraction(11, 20000)


def test_a_transport_streams_clock_is_taken_off_both(tmp_path):
    source = write_scene(tmp_path / "a.ts", times=STEADY, start_s=1.5)
    output = copy(source, tmp_path / "out.mp4")
    shifts = [old - new for old, new in zip(times_s(source), times_s(output), strict=True)]
    assert min(shifts) > 1
    assert max(shifts) - min(shifts) == 0
    sound = [old[0] - new[0] for old, new in zip(sound_packets(source), sound_packets(output), strict=True)]
    assert abs(sound[0] - shifts[0]) < Fraction(1, 10000)
    for (_, new), (_, old) in zip(sound_packets(output), sound_packets(source), strict=True):
        assert old[7:] == new  # AAC's header before every packet, which mp4 has once, goes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_was_trimmed_away_does_not_come_back(tmp_path, suffix):
    whole = write_scene(tmp_path / "a.mp4", times=tuple(512 * number for number in range(10)))
    cut = remux(whole, tmp_path / "cut.mp4", shift_s=-0.2)
    output = copy(cut, tmp_path / f"out{suffix}")
    shown = times_s(output)
    assert len(shown) == 5
    assert shown[0] < 0.064  # a packet of sound that is heard in part begins before
    assert [round(float(time - shown[0]), 2) for time in shown] == [0, 0.04, 0.08, 0.12, 0.16]
    heard = [packet for time, packet in sound_packets(cut) if time > -0.064]
    copied = [packet for _, packet in sound_packets(output)]
    assert copied[-len(heard) :] == heard
    assert len(copied) - len(heard) <= (2 if suffix == ".mp4" else 0)  # hidden there, as decoders need them
    source, made = read_sound(cut), read_sound(output)
    assert made.start_s == pytest.approx(source.start_s if suffix == ".mp4" else -float(shown[0]), abs=0.002)
    lead = round((source.start_s - made.start_s) * 16000) + 1024  # what a decoder makes of its first packet differs
    np.testing.assert_allclose(made.samples[lead : lead + 1000], source.samples[1024:2024], atol=2e-3)


@pytest.mark.parametrize("start_s", [100, 3600 * 26])
def test_a_clock_that_does_not_begin_at_0_is_set_to_it(tmp_path, start_s):
    source = write_scene(tmp_path / "a.mkv", times=STEADY, start_s=start_s, sound="pcm_s16le")
    for suffix in (".mp4", ".mkv"):
        output = copy(source, tmp_path / f"out{suffix}")
        assert [round(float(time), 3) for time in times_s(output)] == [0, 0.04, 0.08, 0.12, 0.16, 0.2]
        assert abs(sound_packets(output)[0][0]) < 0.001


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_does_not_say_its_channels_is_copied(tmp_path, suffix):
    source = write_pcm(tmp_path / "a.mkv", [(0.05 * n, 0.1 * n) for n in range(4)], layout="stereo", pictures=4)
    output = copy(source, tmp_path / f"out{suffix}")
    assert b"".join(packet for _, packet in sound_packets(output)) == b"".join(
        packet for _, packet in sound_packets(source)
    )


def test_parts_that_overlap_a_little_are_put_in_order_and_another_clock_is_refused(tmp_path):
    part = write_scene(tmp_path / "a.ts", times=tuple(512 * number for number in range(10)))
    after = remux(part, tmp_path / "b.ts", shift_s=0.36, options={"mpegts_copyts": "1"})
    (tmp_path / "joined.ts").write_bytes(part.read_bytes() + after.read_bytes())
    sound = sound_packets(tmp_path / "joined.ts")
    assert any(later[0] < earlier[0] for earlier, later in itertools.pairwise(sound))
    output = copy(tmp_path / "joined.ts", tmp_path / "out.mp4")
    assert len(times_s(output)) == 20
    assert [packet[7:] for _, packet in sound] == [packet for _, packet in sound_packets(output)]
    (tmp_path / "twice.ts").write_bytes(2 * part.read_bytes())
    with pytest.raises(InputError, match=r"twice\.ts: .*jumps"):
        copy(tmp_path / "twice.ts", tmp_path / "out.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_tracks_of_sound_keep_language_and_default_and_the_rest_is_told(tmp_path, caplog, suffix):
    source = write_tracks(tmp_path / "a.mkv")
    output = copy(source, tmp_path / f"out{suffix}")
    with av.open(str(output)) as container:
        tracks = container.streams.audio
        assert [track.language for track in tracks] == ["ger", "eng"]
        titles = [track.metadata.get("title") or track.metadata["handler_name"] for track in tracks]
        assert titles == ["Talk ger", "Talk eng"]
        assert [bool(track.disposition & Disposition.default) for track in tracks] == [False, True]
    assert "a.mkv: not in" in caplog.text and "10 bits a colour" in caplog.text and "1 picture track" in caplog.text


def write_tracks(path):
    with av.open(str(path), "w") as container:
        pictures = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for track in pictures:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p10le"
        pictures[1].disposition = 0
        pictures[0].disposition = Disposition.default
        sound = [container.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for track, language, disposition in zip(sound, ("ger", "eng"), (0, Disposition.default), strict=True):
            track.metadata.update(language=language, title=f"Talk {language}")
            track.disposition = disposition
        for track in pictures:
            for number in range(3):
                container.mux(track.encode(av.VideoFrame.from_ndarray(scene(number, (48, 64)), format="rgb24")))
            container.mux(track.encode(None))
        for track in sound:
            write_samples(container, track, np.zeros(3000))
    return path


def test_the_file_says_that_it_is_synthetic(tmp_path):
    source = write_scene(tmp_path / "a.mp4")
    for name in ("out.mp4", "out.mkv", "out.mov"):
        with av.open(str(copy(source, tmp_path / name, title="Ann"))) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["title"] == "Ann (synthetic)"
        assert tags["comment"].startswith("Synthetic media")
        assert "AlgorithmicMedia" in tags["comment"]


def test_one_frame_and_no_sound_work(tmp_path):
    source = write_scene(tmp_path / "a.mp4", times=(0,), sound=None)
    output = copy(source, tmp_path / "out.mp4")
    assert times_s(output) == [0]
    assert not sound_packets(output)
    assert probe_video(output).duration_s == pytest.approx(512 / 12800, abs=1e-3)


def test_sound_that_the_format_cannot_hold_is_refused_and_matroska_holds_it(tmp_path):
    source = write_scene(tmp_path / "a.mkv", sound="wavpack")
    with pytest.raises(InputError, match=r"its sound is wavpack, which \.mp4 cannot hold.*\.mkv"):
        copy(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    packets = [packet for _, packet in sound_packets(copy(source, tmp_path / "out.mkv"))]
    assert packets == [packet for _, packet in sound_packets(source)]


def test_an_error_leaves_what_was_there(tmp_path):
    output = tmp_path / "out.mp4"
    output.write_text("earlier")
    with (
        pytest.raises(ZeroDivisionError),
        MarkedVideoWriter(output, clock=CLOCK, rate=Fraction(25)) as writer,
    ):
        writer.write(YuvPicture.of_rgb(scene(0)), pts=0)
        raise ZeroDivisionError
    assert output.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [output]


_WRITING_FOREVER = """
import itertools, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from data_prep.media.decode import read_sound
from data_prep.media.video_files import MarkedVideoWriter
from data_prep.media.encode import YuvPicture
noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
with MarkedVideoWriter(Path(sys.argv[1]), clock=Fraction(1, 25), rate=Fraction(25), preset="ultrafast") as writer:
    for number in itertools.count():
        writer.write(YuvPicture.of_rgb(noise), pts=number)
        if number == 100:
            print("under way", flush=True)
"""


def test_a_killed_run_leaves_no_output(tmp_path):
    output = tmp_path / "out.mp4"
    program = [sys.executable, "-c", _WRITING_FOREVER, str(output)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        time.sleep(0.05)
        process.kill()
    assert not output.exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out.mp4"
    with pytest.raises(WriteError, match=r"cannot write .*out\.mp4"):
        MarkedVideoWriter(output, clock=CLOCK, rate=Fraction(25)).__enter__()


def test_other_endings_and_qualities_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"out\.avi.*\.mp4"):
        MarkedVideoWriter(tmp_path / "out.avi", clock=CLOCK, rate=Fraction(25))
    with pytest.raises(InputError, match="crf 60"):
        MarkedVideoWriter(tmp_path / "out.mp4", clock=CLOCK, rate=Fraction(25), crf=60)
