"""Input checks: cuts are found and nothing else is taken for one, odd videos pass or are refused in one line."""

from pathlib import Path

import av
import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.media.decode import read_frames
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.person_renderer import Renderer
from data_prep.synthetic.speech import act, deliver, make_sentence
from data_prep.video import input_checks
from data_prep.video.input_checks import SceneCuts, check_disk, check_sound, check_video
from tests.data_prep.tiny_media import remux, turn_upright, write_pcm, write_video
from tests.data_prep.video.composing_clip import write_scene

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "clips" / "clips"
REAL = sorted(CLIPS.glob("*_src.mp4"))
needs_clips = pytest.mark.skipif(not REAL, reason="the real clips lie beside the checkout only where they were given")


def talking(person, count=24):
    renderer = Renderer(sample_person(person), size=64)
    delivery = deliver(make_sentence(0, seed=person, syllables=(2, 2)), "happy", seed=person, fps=30)
    performance = act(delivery, seed=person)
    frames = list(zip(performance.expression, performance.pose, strict=True))[:count]
    return [renderer.draw(*frame).image for frame in frames]


@pytest.fixture(scope="module")
def people():
    return [talking(person) for person in (0, 1)]


def noisy(images, seed=0):
    random = np.random.default_rng(seed)
    return [np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for image in images]


def test_cuts_between_people_are_found_where_they_are(people):
    first, second = (noisy(images) for images in people)
    assert SceneCuts.of(first + second) == [len(first)]
    assert SceneCuts.of(first + second[:12] + first) == [len(first), len(first) + 12]
    assert SceneCuts.of(first[:3] + second) == [3]


def test_speech_flashes_light_held_frames_and_quick_moves_are_no_cuts(people):
    images = noisy(people[0])
    assert SceneCuts.of(images) == []
    flash = [np.full_like(image, 255) if number in (10, 11) else image for number, image in enumerate(images)]
    assert SceneCuts.of(flash) == []
    dimmed = [(image * (1 - 0.02 * number)).astype(np.uint8) for number, image in enumerate(images)]
    assert SceneCuts.of(dimmed) == []
    dark = [(image * (0.7 if number > 10 else 1)).astype(np.uint8) for number, image in enumerate(images)]
    assert SceneCuts.of(dark) == []
    assert SceneCuts.of([image for image in images for _ in range(2)]) == []
    moving = [np.roll(people[0][0], 2 * number, axis=1) for number in range(20)]
    assert SceneCuts.of(moving) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_frames_have_no_cuts(people, count):
    assert SceneCuts.of(people[0][:count]) == []


def test_unreadable_frames_are_no_cuts(people):
    cuts = SceneCuts()
    for number, image in enumerate(people[0]):
        cuts.add(None if number in (0, 7) else image)
    assert cuts.found() in ([], [1])  # nothing is known before the first picture


@needs_clips
def test_real_clips_have_no_cuts_and_joined_ones_have():
    images = {path: [frame.image for frame in read_frames(path)] for path in REAL[:4]}
    for clip in images.values():
        assert SceneCuts.of(clip) == []
    first, second = (clip[:30] for clip in list(images.values())[:2])
    assert SceneCuts.of(first + second) == [30]


def test_scenes_are_refused_by_their_times_unless_wanted(tmp_path):
    video = tmp_path / "two.mp4"
    write_pictures(video, [np.full((64, 64, 3), 30, np.uint8)] * 15 + [stripes()] * 15)
    with pytest.raises(InputError, match=r"VIDEO .*two.mp4: 2 scenes, cut at 0.5 s; .*--keep-cuts"):
        check_video(video, "VIDEO")
    check = check_video(video, "VIDEO", keep_cuts=True)
    assert check.cuts_s == (0.5,)
    assert "scenes begin at 0.5 s" in check.remarks(video)[0]


def stripes():
    return np.where(np.arange(64)[None, :, None] % 16 < 8, 220, 20).astype(np.uint8).repeat(64, 0).repeat(3, 2)


def test_sound_that_the_output_cannot_hold_is_told_of_before_any_work(tmp_path):
    write_scene(tmp_path / "opus.mkv", sound="libopus")
    with pytest.raises(InputError, match=r"-o out\.mov: cannot hold the sound of .*opus.* ends in \.mkv"):
        check_sound(tmp_path / "opus.mkv", Path("out.mov"))
    check_sound(tmp_path / "opus.mkv", Path("out.mkv"))
    check_sound(write_video(tmp_path / "silent.mp4", 2), Path("out.mov"))


@pytest.mark.parametrize(
    ("layout", "output", "said"), [("3.0", "mp4", "unsupported channel layout"), ("3.0", "mkv", "")]
)
def test_what_ffmpeg_would_refuse_in_the_last_stage_is_told_of_in_its_words(tmp_path, layout, output, said):
    source = write_pcm(tmp_path / "a.mkv", [(0.05 * n, 0.1) for n in range(4)], layout=layout, pictures=4)
    if not said:
        check_sound(source, tmp_path / f"out.{output}")
    else:
        with pytest.raises(
            InputError, match=rf"-o .*a\.mkv as it is \(.*{said}.*\); name an output that ends in \.mkv"
        ):
            check_sound(source, tmp_path / f"out.{output}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_pictures_that_change_their_size_are_told_of(tmp_path):
    parts = [write_video(tmp_path / f"{size}.ts", 4, size=size) for size in (64, 96)]
    remux(parts[1], tmp_path / "late.ts", shift_s=4 / 30)
    (tmp_path / "both.ts").write_bytes(parts[0].read_bytes() + (tmp_path / "late.ts").read_bytes())
    with pytest.raises(InputError, match=r"both\.ts: frame 4 has another size"):
        check_video(tmp_path / "both.ts", "VIDEO")


def write_pictures(path, images):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def test_portrait_single_uneven_and_silent_videos_pass(tmp_path):
    one = check_video(write_video(tmp_path / "one.mp4", 1), "VIDEO")
    assert (one.frames, one.duration_s, one.steady) == (1, 0.0, True)
    uneven = check_video(write_video(tmp_path / "uneven.mp4", 4, times=[0, 1, 4, 5]), "VIDEO")
    assert (uneven.frames, uneven.steady, uneven.remarks(Path("v"))) == (4, False, [])
    write_video(tmp_path / "turned.mp4", 2)
    turn_upright(tmp_path / "turned.mp4", 1)
    assert check_video(tmp_path / "turned.mp4", "VIDEO").frames == 2
    write_pictures(tmp_path / "tall.mp4", [np.zeros((96, 64, 3), np.uint8)])
    tall = check_video(tmp_path / "tall.mp4", "VIDEO")
    assert (tall.height, tall.width) == (96, 64)
    assert tall.from_json(tall.to_json()) == tall


def test_what_is_no_video_is_refused_by_name(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all")
    for name, said in (("empty.mp4", "empty"), ("text.mp4", "not a video"), ("none.mp4", "no such file")):
        with pytest.raises(InputError, match=f"VIDEO .*{name}: .*{said}"):
            check_video(tmp_path / name, "VIDEO")
    with pytest.raises(InputError, match=r"--reference .*is a folder"):
        check_video(tmp_path, "--reference")


def test_faces_are_counted_in_few_frames_however_long_the_video(monkeypatch):
    asked = []
    monkeypatch.setattr(input_checks, "_faces", lambda image: asked.append(1) or 2)
    counts = input_checks._FaceCounts()
    for number in range(18_000):
        counts.see(number, np.zeros((8, 8, 3), np.uint8))
    assert counts.share_of_several == 1
    assert len(asked) < 80


@needs_clips
def test_one_real_face_is_one_and_two_are_several():
    images = [next(iter(read_frames(path))).image for path in REAL[:2]]
    assert [input_checks._faces(image) for image in images] == [1, 1]
    assert input_checks._faces(np.concatenate(images, axis=1)) == 2


def test_a_disk_without_room_is_named(tmp_path):
    check_disk(tmp_path / "not" / "there", 10, "--work")
    with pytest.raises(InputError, match=r"--work .* frames need about 350,000.0 GB"):
        check_disk(tmp_path, 1_000_000_000, "--work")
