"""`asccl video compose`: as many frames as there were, at their times, with the sound; what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep.video.compose_command import main
from tests.data_prep.tiny_media import turn_upright
from tests.data_prep.video.composing_clip import (
    CLIP,
    TIMES,
    make_clip,
    pictures,
    psnr_db,
    sound_packets,
    times_s,
    write_scene,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"), flags={3: 1, 5: 4})


def run(clip, output, *more, faces=None, video=None):
    words = [clip.records, "--faces", faces or clip.faces, "--video", video or clip.video, "--output", output, *more]
    return main([str(word) for word in words])


def tinted(clip, folder, numbers, tint=60):
    """Faces of some frames, brighter."""
    folder.mkdir(parents=True)
    for number in numbers:
        face = np.array(Image.open(clip.faces / f"{number:06d}.png"))
        bright = np.where(face.any(axis=-1, keepdims=True), np.clip(face.astype(int) + tint, 1, 255), 0)
        Image.fromarray(bright.astype(np.uint8)).save(folder / f"{number:06d}.png")
    return folder


def test_its_own_faces_give_the_video_back_frame_by_frame_with_times_and_sound(clip, tmp_path, capsys):
    assert run(clip, tmp_path / "out.mp4", "--clip", CLIP, "--crf", "10") == 0
    # Frame 3, in which no face was found, is left as it is; frame 5, fitted poorly, is composed as it was rendered.
    assert "8 frames, 7 of them with a rendered face, 1 faces left out" in capsys.readouterr().out
    assert times_s(tmp_path / "out.mp4") == times_s(clip.video)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(clip.video)
    outputs, sources = pictures(tmp_path / "out.mp4"), pictures(clip.video)
    for number, image in enumerate(outputs):
        likeness = [psnr_db(image, source) for source in sources]
        assert likeness[number] > 36  # the encoder's own loss at this quality is 40 dB
        assert int(np.argmax(likeness)) == number


def test_only_frames_with_a_rendered_face_change_and_only_there(clip, tmp_path):
    faces = tinted(clip, tmp_path / "faces", (2, 3, 6))
    assert run(clip, tmp_path / "out.mp4", "--crf", "4", faces=faces) == 0
    for number, (image, source) in enumerate(zip(pictures(tmp_path / "out.mp4"), pictures(clip.video), strict=True)):
        change = (image.astype(int) - source).mean(axis=-1)
        x, y = np.rint(clip.landmarks[number][30]).astype(int)
        inner, corner = change[y - 5 : y + 5, x - 5 : x + 5].mean(), change[:20, :20]
        assert inner == pytest.approx(60 if number in (2, 6) else 0, abs=6)
        assert np.abs(corner).mean() < 1.5


@pytest.mark.parametrize("face_size", [64])
def test_the_renderers_output_folder_is_understood(tmp_path, face_size):
    clip = make_clip(tmp_path / "clip", face_size=face_size)
    folder = tmp_path / "frames" / CLIP
    folder.parent.mkdir(parents=True)
    shutil.copytree(clip.faces, folder)
    (tmp_path / "frames" / "render.json").write_text(json.dumps({}))
    assert run(clip, tmp_path / "out.mp4", faces=tmp_path / "frames") == 0
    assert len(pictures(tmp_path / "out.mp4")) == len(TIMES)


def test_faces_of_another_clip_are_refused(clip, tmp_path, capsys):
    folder = tmp_path / "frames" / "Ann" / "happy" / "s1"
    folder.parent.mkdir(parents=True)
    shutil.copytree(clip.faces, folder)
    (tmp_path / "frames" / "render.json").write_text("{}")
    assert run(clip, tmp_path / "out.mp4", faces=folder) == 2
    assert "faces of clip 'Ann/happy/s1', expected those of 'Ann/neutral/s1'" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(clip.faces, other)
    shutil.copy(clip.faces / "000000.png", other / "000099.png")
    assert run(clip, tmp_path / "out.mp4", faces=other) == 2
    assert "000099.png" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("kind", ["shorter", "longer", "other size", "other times"])
def test_another_video_is_refused_or_its_further_frames_stay(clip, tmp_path, capsys, kind):
    times = {"shorter": TIMES[:-2], "longer": (*TIMES, 4100), "other times": tuple(2 * tick for tick in TIMES)}
    size = {"size": (144, 160)} if kind == "other size" else {}
    video = write_scene(tmp_path / "video.mp4", times=times.get(kind, TIMES), **size)
    status = run(clip, tmp_path / "out.mp4", video=video)
    if kind == "longer":  # as after `reconstruct --max-frames`
        assert status == 0
        assert len(pictures(tmp_path / "out.mp4")) == len(TIMES) + 1
        return
    assert status == 2
    assert "not the video that was reconstructed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_outputs_that_cannot_be_are_refused(clip, tmp_path, capsys):
    (tmp_path / "there.mp4").write_text("earlier")
    cases = {
        clip.video: "is the source video itself",
        tmp_path / "there.mp4": "exists; give another name, or --overwrite",
        tmp_path / "out.avi": "expected a name that ends in .mp4",
        tmp_path / "there.mp4" / "out.mp4": "cannot be written",
    }
    for output, message in cases.items():
        assert run(clip, output) in (1, 2)
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert (tmp_path / "there.mp4").read_text() == "earlier"
    assert run(clip, tmp_path / "there.mp4", "--overwrite") == 0
    assert len(pictures(tmp_path / "there.mp4")) == len(TIMES)


def test_inputs_that_are_missing_are_named(clip, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    cases = [
        ({"faces": tmp_path / "absent"}, (), "no such folder"),
        ({"faces": tmp_path / "none"}, (), "no picture named as 000001.png"),
        ({"video": tmp_path / "absent.mp4"}, (), "no such file"),
        ({}, ("--clip", "Bob/neutral/s1"), "Ann/neutral/s1"),
        ({}, ("--crf", "99"), "--crf 99"),
        ({}, ("--segmenter", tmp_path / "absent.pth"), "no such file"),
    ]
    for inputs, more, message in cases:
        assert run(clip, tmp_path / "out.mp4", *more, **inputs) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_the_label_is_seen_in_every_frame_and_small(clip, tmp_path):
    for name, more in (("plain", ()), ("labelled", ("--label",))):
        assert run(clip, tmp_path / f"{name}.mp4", "--crf", "8", *more) == 0
    for plain, labelled in zip(pictures(tmp_path / "plain.mp4"), pictures(tmp_path / "labelled.mp4"), strict=True):
        change = np.abs(labelled.astype(int) - plain).mean(axis=-1) > 40
        y, x = np.nonzero(change)
        assert 50 < len(y) < 0.06 * change.size
        assert y.min() > 0.85 * change.shape[0]
        assert x.max() < 0.55 * change.shape[1]
        assert labelled[-16:, :80].max() > 220


def test_portrait_videos_come_out_upright_and_odd_ones_a_pixel_larger(tmp_path):
    portrait = write_scene(tmp_path / "portrait.mp4")
    turn_upright(portrait, 1)
    odd = write_scene(tmp_path / "odd.mkv", size=(143, 175), codec="ffv1", pix_fmt="yuv444p")
    for video, grows in ((portrait, 0), (odd, 1)):
        clip = make_clip(tmp_path / video.stem, video=video)
        assert run(clip, tmp_path / f"{video.stem}.out.mp4", "--crf", "10") == 0
        sources, outputs = pictures(video), pictures(tmp_path / f"{video.stem}.out.mp4")
        assert len(sources) == len(outputs)
        for source, output in zip(sources, outputs, strict=True):
            height, width = source.shape[:2]
            assert output.shape == (height + grows, width + grows, 3)
            assert psnr_db(output[:height, :width], source) > 33  # halved chroma, and the encoder
