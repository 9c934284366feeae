"""`asccl video render`: a PNG file a frame, its own number on it, whole clips only, clear words for bad input."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from asccl_jax.data.aligned_frames import open_clips
from asccl_jax.infer import rendering
from asccl_jax.infer.render_command import main
from asccl_jax.infer.rendering import render_frames, with_edit
from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import load_renderer, save_renderer
from tests.data.painted_clips import picture, png, write_records, write_subject
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer

CLIP = "A/neutral/1"
FRAMES = [0, 1, 2, 5, 6]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Records of a clip with a gap, a subject's folder, an edit, a renderer."""
    path = tmp_path_factory.mktemp("render")
    write_records(path / "records", {CLIP: {frame: {} for frame in FRAMES}, "A/happy/1": {0: {}}})
    write_subject(path / "subject", {"": [3, 4]})
    for kind, level in (("nmfc", 30), ("shape", 90), ("eyes", 150)):
        (path / "edit" / kind).mkdir(parents=True)
        for number in FRAMES:
            (path / "edit" / kind / f"{number:06d}.png").write_bytes(png(picture(level + number)))
    save_renderer(path / "renderer", Renderer(drawn_renderer(TINY_RENDERER), TINY_RENDERER))
    return path


def run(place, output, *more, source="records"):
    words = [str(place / source), "--checkpoint", str(place / "renderer"), "--split", "train", "--output", str(output)]
    return main([*words, *more])


def pictures(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_every_frame_is_written_under_its_own_number_and_runs_start_afresh(place, tmp_path):
    assert run(place, tmp_path / "out") == 0
    found = pictures(tmp_path / "out" / CLIP)
    assert list(found) == [f"{number:06d}.png" for number in FRAMES]
    assert list(pictures(tmp_path / "out" / "A/happy/1")) == ["000000.png"]
    clips, renderer = open_clips(place / "records", image_size=32), load_renderer(place / "renderer")
    expected = [
        image
        for numbers in ((0, 1, 2), (5, 6))
        for image in render_frames(renderer, [clips.read(CLIP, number) for number in numbers])
    ]
    np.testing.assert_array_equal(list(found.values()), expected)


def test_an_edit_takes_the_place_of_the_clips_own_conditioning(place, tmp_path):
    assert run(place, tmp_path / "own", "--clip", CLIP) == 0
    assert run(place, tmp_path / "edited", "--clip", CLIP, "--conditioning", str(place / "edit")) == 0
    own, edited = (pictures(tmp_path / name / CLIP) for name in ("own", "edited"))
    assert list(own) == list(edited) and any((own[name] != edited[name]).any() for name in own)
    clips = open_clips(place / "records", image_size=32)
    frame = with_edit(clips.read(CLIP, 5), place / "edit", 5)
    assert (frame.nmfc_image[..., 0] == 35).all() and (frame.shape_image[..., 0] == 95).all()
    assert (frame.eyes_image[..., 0] == 155).all() and frame.mask is clips.read(CLIP, 5).mask


def test_published_folders_are_rendered_too(place, tmp_path):
    assert run(place, tmp_path / "out", source="subject") == 0
    assert [path.name for path in sorted((tmp_path / "out").rglob("*.png"))] == ["000003.png", "000004.png"]


def killed_after(count, monkeypatch, run_it):
    """Lets a run be interrupted while it draws a frame, and returns which frames were drawn."""
    drawn, generate = [], rendering.generate_frames

    def dies(renderer, frames, **options):
        for image in generate(renderer, frames, **options):
            if len(drawn) == count:
                raise KeyboardInterrupt
            drawn.append(image)
            yield image

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "generate_frames", dies)
        if count is None:
            assert run_it() == 0
        else:
            with pytest.raises(KeyboardInterrupt):
                run_it()
    return len(drawn)


def test_a_killed_run_leaves_no_part_of_a_clip_and_goes_on(place, tmp_path, monkeypatch):
    killed_after(3, monkeypatch, lambda: run(place, tmp_path / "out"))  # of the second clip two frames are drawn
    assert (tmp_path / "out" / "A/happy/1").is_dir() and not (tmp_path / "out" / CLIP).exists()
    assert run(place, tmp_path / "out") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert len(before) == 6
    assert run(place, tmp_path / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before


@pytest.mark.parametrize("killed_at", [5, 7])
def test_a_killed_run_goes_on_within_a_clip_and_ends_in_the_same_bits(place, tmp_path, monkeypatch, killed_at):
    # Two runs of frames: 0 to 4, and 6 to 9; the state is saved every two frames.
    write_records(tmp_path / "records", {CLIP: {frame: {} for frame in (0, 1, 2, 3, 4, 6, 7, 8, 9)}})
    monkeypatch.setattr(rendering, "_SAVED_EVERY", 2)
    words = [str(tmp_path / "records"), "--checkpoint", str(place / "renderer"), "--clip", CLIP, "--chunk", "2"]
    assert main([*words, "--output", str(tmp_path / "whole")]) == 0

    def again():
        return main([*words, "--output", str(tmp_path / "killed")])

    killed_after(killed_at, monkeypatch, again)
    saved = {5: 4, 7: 7}[killed_at]
    assert killed_after(None, monkeypatch, again) == 9 - saved
    whole, found = (
        {path.name: path.read_bytes() for path in (tmp_path / name / CLIP).iterdir()} for name in ("whole", "killed")
    )
    assert len(whole) == 9 and found == whole


def _again(path, **change):
    """Writes the records of two clips, with another first frame of the first one."""
    write_records(path, {CLIP: {0: change, 1: {}}, "A/happy/1": {0: {}}})


def _longer(path):
    write_records(path, {CLIP: {0: {}, 1: {}, 2: {}}, "A/happy/1": {0: {}}})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (_again, ()),  # the same once more
        (_longer, ("000000", "000001", "000002")),
        (lambda path: _again(path, flags=4), ("000001",)),
        (lambda path: _again(path, aligned_nmfc_image=png(picture(77))), ("000000", "000001")),
    ],
)
def test_a_clip_whose_source_has_changed_is_rendered_again_and_no_other(place, tmp_path, change, names):
    _again(tmp_path / "records")
    words = [str(tmp_path / "records"), "--checkpoint", str(place / "renderer"), "--split", "train"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    change(tmp_path / "records")
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    changed = tmp_path / "out" / CLIP
    drawn = [path.stem for path in sorted(changed.iterdir()) if before.get(path) != after[path]]
    assert drawn == list(names)
    if names:
        assert sorted(path.stem for path in changed.iterdir()) == list(names)
    assert after[tmp_path / "out" / "A/happy/1/000000.png"] == before[tmp_path / "out" / "A/happy/1/000000.png"]


def test_an_edit_that_was_drawn_again_in_place_is_rendered_again(place, tmp_path):
    shutil.copytree(place / "edit", tmp_path / "edit")
    words = ("--clip", CLIP, "--conditioning", str(tmp_path / "edit"))
    assert run(place, tmp_path / "out", *words) == 0
    before = pictures(tmp_path / "out" / CLIP)
    for number in FRAMES:
        (tmp_path / "edit" / "nmfc" / f"{number:06d}.png").write_bytes(png(picture(220 - 20 * number)))
    assert run(place, tmp_path / "out", *words) == 0
    after = pictures(tmp_path / "out" / CLIP)
    assert any((before[name] != after[name]).any() for name in before)


def test_results_of_other_weights_are_not_mixed(place, tmp_path, capsys):
    assert run(place, tmp_path / "out", "--clip", CLIP) == 0
    save_renderer(tmp_path / "other", Renderer(drawn_renderer(TINY_RENDERER, seed=1), TINY_RENDERER))
    again = ("--clip", CLIP, "--checkpoint", str(tmp_path / "other"))
    assert run(place, tmp_path / "out", *again) == 2
    assert "other settings" in capsys.readouterr().err
    assert run(place, tmp_path / "out", *again, "--overwrite") == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--clip", "B/neutral/1"), "no clip 'B/neutral/1'"),
        (("--split", "test"), "--split test"),
        (("--chunk", "0"), "--chunk 0"),
        (("--conditioning", "{place}/edit"), "say which with --clip"),
        (("--clip", CLIP, "--conditioning", "{place}/records"), "no folder nmfc, shape, eyes"),
        (("--clip", "A/happy/1", "--conditioning", "{place}/holes"), "no readable picture"),
        (("--checkpoint", "{place}/records"), "renderer"),
    ],
)
def test_bad_input_is_named(place, tmp_path, capsys, more, said):
    for kind in ("nmfc", "shape", "eyes"):
        (place / "holes" / kind).mkdir(parents=True, exist_ok=True)
    assert run(place, tmp_path / "out", *(word.format(place=place) for word in more)) == 2
    assert said in capsys.readouterr().err


def test_sizes_of_the_renderer_are_those_of_the_frames(place, tmp_path):
    larger = dataclasses.replace(TINY_RENDERER, image_size=40)
    save_renderer(tmp_path / "larger", Renderer(drawn_renderer(larger), larger))
    assert run(place, tmp_path / "out", "--clip", "A/happy/1", "--checkpoint", str(tmp_path / "larger")) == 0
    (image,) = pictures(tmp_path / "out" / "A/happy/1").values()
    assert image.shape == (40, 40, 3)
