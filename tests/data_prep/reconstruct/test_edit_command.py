"""Edited conditioning: an edit that changes nothing gives back the source's pictures, another moves the mouth."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from asccl_jax.data.aligned_frames import RecordClips
from asccl_jax.data.codes import CodeDict
from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.records import RecordSource, RecordWriter
from asccl_jax.data.schema import RenderRecord
from asccl_jax.data.tracks import clip_file_name
from data_prep.reconstruct import edit_command
from DECA_torch_bridge.__main__ import main
from tests.data_prep.reconstruct.tiny_clips import write_clip, write_list

FRAMES = 4
CALM, GLAD = "Ann/neutral/s1", "Ann/happy/s1"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A calm clip and one that opens its mouth, both held out."""
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "calm", frames=FRAMES, open_mouth=False)
    write_clip(root / "glad", frames=FRAMES, open_mouth=True)
    rows = [("calm", "Ann", "neutral", "s1"), ("glad", "Ann", "happy", "s1")]
    table = write_list(root / "clips.csv", rows)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},split", *(f"{line},validation" for line in lines[1:])]) + "\n")
    output = root / "records"
    common = ("--landmarks", "precomputed", "--landmark-table", "synthetic", "--workers", "1", "--quiet")
    assert main(["precompute", str(table), "--output", str(output), "--device", "cpu", *common]) == 0
    return output


def edit(records, output, *more):
    return main(["edit", str(records), "--output", str(output), *more])


def pictures(folder, kind):
    paths = sorted((folder / kind).glob("*.png"))
    assert [path.name for path in paths] == [f"{number:06d}.png" for number in range(FRAMES)]
    return np.stack([np.array(Image.open(path)) for path in paths])


def test_an_edit_that_changes_nothing_gives_back_the_sources_conditioning(records, tmp_path):
    assert edit(records, tmp_path / "same", "--clip", CALM, "--expression-of", CALM) == 0
    clips = RecordClips(records, untrusted=0)
    frames = [clips.read(CALM, number) for number in range(FRAMES)]
    for kind, field in (("nmfc", "nmfc_image"), ("shape", "shape_image"), ("eyes", "eyes_image")):
        stored = np.stack([getattr(frame, field) for frame in frames])
        np.testing.assert_array_equal(pictures(tmp_path / "same", kind), stored)


def test_another_clips_expression_opens_the_mouth_and_leaves_the_forehead(records, tmp_path):
    assert edit(records, tmp_path / "same", "--clip", CALM, "--expression-of", CALM) == 0
    assert edit(records, tmp_path / "glad", "--clip", CALM, "--expression-of", GLAD) == 0
    change = np.abs(
        pictures(tmp_path / "glad", "nmfc").astype(int) - pictures(tmp_path / "same", "nmfc").astype(int)
    ).mean(axis=-1)[-1]
    assert change[180:215, 100:155].mean() > 5 * change[60:100, 100:155].mean()
    assert change[180:215, 100:155].mean() > 2


def test_twins_are_found_drawn_once_and_equal_those_asked_for_by_name(records, tmp_path):
    assert edit(records, tmp_path / "all", "--twins") == 0
    assert edit(records, tmp_path / "one", "--clip", CALM, "--expression-of", GLAD) == 0
    folder = tmp_path / "all" / "Ann" / "happy" / "s1"
    for kind in ("nmfc", "shape", "eyes"):
        np.testing.assert_array_equal(pictures(folder, kind), pictures(tmp_path / "one", kind))
    before = (folder / "nmfc" / "000000.png").stat().st_mtime_ns
    assert edit(records, tmp_path / "all", "--twins") == 0
    assert (folder / "nmfc" / "000000.png").stat().st_mtime_ns == before


def _other_codes(records):
    path = records / "codes" / f"{clip_file_name(GLAD)}.npz"
    codes = CodeDict.load(path)
    codes.edited(codes.exp * 0.5, codes.pose[:, 3]).save(path)


def _other_track(records):
    path = records / "tracks" / f"{clip_file_name(CALM)}.npz"
    with np.load(path) as archive:
        fields = dict(archive)
    fields["align_transforms"] = fields["align_transforms"] + np.eye(2, 3)
    np.savez(path, **fields)


def _other_renders(records):
    index = next((records / "renders").glob("*.index"))
    shard = index.with_suffix("")
    stored = [RenderRecord.decode(data) for data in RecordSource([shard])]
    with RecordWriter(shard) as writer:
        for render in stored:
            writer.write(dataclasses.replace(render, aligned_landmarks=render.aligned_landmarks + 2).encode())


@pytest.mark.parametrize("change", [_other_codes, _other_track, _other_renders])
def test_a_twin_is_drawn_again_where_anything_that_it_follows_from_has_changed(records, tmp_path, change):
    shutil.copytree(records, tmp_path / "records")
    assert edit(tmp_path / "records", tmp_path / "all", "--twins") == 0
    picture = tmp_path / "all" / "Ann" / "happy" / "s1" / "eyes" / "000000.png"
    before = picture.stat().st_mtime_ns
    change(tmp_path / "records")
    assert edit(tmp_path / "records", tmp_path / "all", "--twins") == 0
    assert picture.stat().st_mtime_ns != before


def test_an_edited_code_dict_does_as_the_clip_it_was_taken_from(records, tmp_path):
    codes, other = (CodeDict.load(records / "codes" / f"{clip_file_name(clip)}.npz") for clip in (CALM, GLAD))
    codes.edited(other.exp, other.pose[:, 3]).save(tmp_path / "edited.npz")
    assert edit(records, tmp_path / "file", "--clip", CALM, "--codes", str(tmp_path / "edited.npz")) == 0
    assert edit(records, tmp_path / "clip", "--clip", CALM, "--expression-of", GLAD) == 0
    np.testing.assert_array_equal(pictures(tmp_path / "file", "nmfc"), pictures(tmp_path / "clip", "nmfc"))
    codes[:2].save(tmp_path / "short.npz")
    assert edit(records, tmp_path / "short", "--clip", CALM, "--codes", str(tmp_path / "short.npz")) == 2
    assert not (tmp_path / "short").exists()


def test_what_a_kill_has_left_is_gone_on_with_and_ends_in_the_same_pictures(records, tmp_path, monkeypatch):
    asked = ("--clip", CALM, "--expression-of", GLAD, "--batch", "1")
    assert edit(records, tmp_path / "whole", *asked) == 0
    encoded, drawn = [], edit_command.encode_png

    def dies(picture):
        encoded.append(picture)
        if len(encoded) > 3 * 2 + 1:
            raise KeyboardInterrupt
        return drawn(picture)

    with monkeypatch.context() as patch:
        patch.setattr(edit_command, "encode_png", dies)
        with pytest.raises(KeyboardInterrupt):
            edit(records, tmp_path / "killed", *asked)
    assert not (tmp_path / "killed").exists()
    # Of two whole frames the second might have been cut short: it is drawn again. So is all of another edit.
    for output, more, pictures_drawn in (("killed", asked, 3 * 3), ("killed", (*asked, "--compat", "released"), 3 * 4)):
        encoded.clear()
        monkeypatch.setattr(edit_command, "encode_png", lambda picture: encoded.append(picture) or drawn(picture))
        assert edit(records, tmp_path / output, *more) == 0
        assert len(encoded) == pictures_drawn
        if more == asked:
            files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*"))
            assert files == sorted(path.relative_to(tmp_path / output) for path in (tmp_path / output).rglob("*"))
            for kind in ("nmfc", "shape", "eyes"):
                np.testing.assert_array_equal(pictures(tmp_path / output, kind), pictures(tmp_path / "whole", kind))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--codes", "none.npz"), "--clip: missing"),
        (("--clip", "Bob/neutral/s1", "--expression-of", GLAD), "--clip Bob"),
        (("--clip", CALM, "--expression-of", "Bob/happy/s1"), "no such file"),
        (("--clip", CALM, "--codes", "none.npz"), "none.npz"),
    ],
)
def test_bad_input_is_named(records, tmp_path, capsys, more, said):
    assert read_manifest(records).clips.keys() == {CALM, GLAD}
    assert edit(records, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
