"""Names of files are bytes: what is written, printed, hashed and made of them."""

import io
import json
import os
import sys

import numpy as np
import pytest

from asccl_jax.data.tracks import clip_file_name
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.paths import id_part, is_litter, readable
from asccl_jax.work import temporary_name, write_atomically

FOREIGN = os.fsdecode(b"caf\xe9")
LONG = "とても長い動画のタイトル" * 4
NAMES = ["talk", FOREIGN, LONG, "😀" * 60, "10:30:05", "-talk", "a\nb", "100% #1?[x]*'\"", "..", "Où", "talk."]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_of_any_bytes_becomes_an_id_a_file_and_a_line(name, tmp_path):
    part = id_part(name)
    clip = f"{part}/unlabelled/{part}"
    assert (tmp_path / clip).resolve().is_relative_to(tmp_path)
    (tmp_path / clip).mkdir(parents=True)
    for suffix in (".frames.tfrecord.index", ".started", ".npz"):
        write_atomically(tmp_path / f"{clip_file_name(clip)}{suffix}", "x")
    assert len(clip.encode().splitlines()) == 1
    assert clip_file_name(f"{name}/sad/{name}") != clip_file_name(f"{name}x/sad/{name}")


def test_usual_names_keep_the_files_that_they_had():
    assert id_part("M003") == "M003"
    assert clip_file_name("Ann/sad/039") == "Ann_sad_039-e389b14e55a5"
    assert clip_file_name("é" * 95) == "é" * 80 + "-" + clip_file_name("é" * 95)[-12:]


def test_names_that_differ_in_case_or_in_the_form_of_an_accent_have_files_of_their_own():
    names = ["Anna", "anna", "\u00e9", "e\u0301"]
    assert len({clip_file_name(name).casefold() for name in names}) == 4


def test_the_longest_name_is_written_and_bytes_in_json_come_back(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    assert len(os.fsencode(temporary_name(path).name)) <= 255
    write_atomically(path, json.dumps({"video": FOREIGN}, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == {"video": FOREIGN}


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", b"caf\xe9 \xe5\x8b\x95"), ("ascii", b"caf\\udce9 \\u52d5")]
)
def test_what_is_printed_of_a_path_is_printed(monkeypatch, encoding, expected):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert exit_on_input_error(lambda: sys.stdout.write(f"{FOREIGN} 動") and 0)() == 0
    assert stream.buffer.getvalue() == expected


def test_an_error_is_one_line_whatever_is_in_a_name(capsys):
    def fail() -> int:
        raise InputError("two\nlines: no such file")

    assert exit_on_input_error(fail)() == 2
    assert capsys.readouterr().err == "error: two\\x0alines: no such file\n"


def test_a_disk_that_cannot_be_written_is_one_line(capsys):
    def fail() -> int:
        raise OSError(28, "No space left on device", f"out/{FOREIGN}")

    assert exit_on_input_error(fail)() == 1
    assert capsys.readouterr().err == "error: out/caf\\xe9: No space left on device\n"


def test_what_systems_leave_in_folders_is_litter():
    assert all(map(is_litter, ("._x.mp4", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")))
    assert not any(map(is_litter, ("x.mp4", "thumbs.mp4", "_x.mp4")))
    assert readable(np.str_("x")) == "x"
