import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import coefficients_of
from asccl_jax.infer.manipulate_command import main
from asccl_jax.infer.manipulation import (
    draw_latent,
    label_styles,
    manipulate_coefficients,
    reference_style,
    with_intensity,
)
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.weights import save_manipulator
from asccl_jax.work import sole_writer
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator

SETTINGS = dataclasses.replace(TINY_MANIPULATOR, coefficients=51)


@pytest.fixture(scope="module")
def manipulator() -> Manipulator:
    return Manipulator(drawn_manipulator(SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, manipulator: Manipulator) -> Path:
    path = tmp_path_factory.mktemp("run")
    save_manipulator(path / "best", manipulator)
    return path


def drawn_codes(frames: int, seed: int = 0, expressions: int = 50) -> CodeDict:
    random = np.random.default_rng(seed)
    sizes = {"shape": 100, "exp": expressions, "pose": 6, "cam": 3}
    drawn = {name: random.normal(size=(frames, size)).astype(np.float32) for name, size in sizes.items()}
    return CodeDict(frame_index=np.arange(frames), **drawn)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    drawn_codes(11).save(tmp_path / "clip.npz")
    return tmp_path / "clip.npz"


def test_labels_edit_jaw_and_expression_and_nothing_else(run: Path, clip: Path, manipulator: Manipulator):
    output = clip.parent / "deeper" / "edited.npz"
    words = [str(clip), "--checkpoint", str(run), "--emotion", "happy", "sad", "--seed", "5", "--output", str(output)]
    assert main(words) == 0
    source, edited = CodeDict.load(clip), CodeDict.load(output)
    z = draw_latent(manipulator, jax.random.key(5))
    styles = label_styles(manipulator, [EMOTIONS.index("happy"), EMOTIONS.index("sad")], z)
    expected = manipulate_coefficients(manipulator, coefficients_of(source), styles)
    np.testing.assert_allclose(coefficients_of(edited), expected, rtol=0, atol=1e-6)
    for name in ("frame_index", "shape", "cam"):
        np.testing.assert_array_equal(getattr(edited, name), getattr(source, name))
    np.testing.assert_array_equal(np.delete(edited.pose, 3, axis=1), np.delete(source.pose, 3, axis=1))


def test_references_and_intensity_start_from_the_sources_own_style(run: Path, clip: Path, manipulator: Manipulator):
    references = [clip.parent / f"reference{number}.npz" for number in range(2)]
    for number, path in enumerate(references):
        drawn_codes(6 + number, seed=number + 1).save(path)
    source = coefficients_of(CodeDict.load(clip))
    styles = np.stack([reference_style(manipulator, coefficients_of(CodeDict.load(path))) for path in references])
    wanted = with_intensity(styles, reference_style(manipulator, source), 0.5)
    expected = manipulate_coefficients(manipulator, source, wanted, transition="linear")
    words = ["--reference", *map(str, references), "--intensity", "0.5", "--transition", "linear"]
    output = clip.parent / "edited.npz"
    assert main([str(clip), "--checkpoint", str(run), *words, "--output", str(output)]) == 0
    np.testing.assert_allclose(coefficients_of(CodeDict.load(output)), expected, rtol=0, atol=1e-5)


def test_intensity_zero_of_any_label_is_the_neutral_label(run: Path, clip: Path):
    found = []
    for emotion, intensity in (("angry", "0"), ("neutral", "1")):
        output = clip.parent / f"{emotion}.npz"
        words = [str(clip), "--checkpoint", str(run), "--emotion", emotion, "--intensity", intensity]
        assert main([*words, "--output", str(output)]) == 0
        found.append(coefficients_of(CodeDict.load(output)))
    np.testing.assert_array_equal(*found)


def test_a_folder_in_which_another_run_writes_is_left_alone(run: Path, clip: Path, tmp_path: Path, capsys):
    words = [str(clip.parent), "--checkpoint", str(run), "--emotion", "sad", "--output", str(tmp_path / "edited")]
    with sole_writer(tmp_path / "edited", "--output"):
        assert main(words) == 2
        assert not list((tmp_path / "edited").iterdir())
    assert "another run works there" in capsys.readouterr().err


def test_a_folder_is_resumed_and_a_bad_clip_does_not_stop_the_others(run: Path, tmp_path: Path, capsys):
    (tmp_path / "made" / "codes").mkdir(parents=True)
    for number in range(3):
        drawn_codes(5, seed=number).save(tmp_path / "made" / "codes" / f"clip{number}.npz")
    drawn_codes(5, expressions=7).save(tmp_path / "made" / "codes" / "clip1.npz")
    output = tmp_path / "edited"
    words = [str(tmp_path / "made"), "--checkpoint", str(run), "--output", str(output), "--emotion"]
    assert main([*words, "fear"]) == 2
    captured = capsys.readouterr()
    assert "2 clips written, 0 already there" in captured.out
    assert "1 of 3 clips left out" in captured.err and "clip1.npz: 7 expression coefficients" in captured.err
    drawn_codes(5, seed=1).save(tmp_path / "made" / "codes" / "clip1.npz")
    before = (output / "clip0.npz").stat().st_mtime_ns
    assert main([*words, "fear"]) == 0
    assert "1 clips written, 2 already there" in capsys.readouterr().out
    assert (output / "clip0.npz").stat().st_mtime_ns == before
    assert main([*words, "sad"]) == 2
    assert "other settings" in capsys.readouterr().err
    fearful = CodeDict.load(output / "clip0.npz").exp
    assert main([*words, "sad", "--overwrite"]) == 0
    assert np.abs(CodeDict.load(output / "clip0.npz").exp - fearful).max() > 1e-3


def test_a_clip_whose_source_has_changed_is_edited_again_and_no_other(run: Path, tmp_path: Path, capsys):
    (tmp_path / "made").mkdir()
    for number in range(2):
        drawn_codes(20, seed=number).save(tmp_path / "made" / f"clip{number}.npz")
    output = tmp_path / "edited"
    words = [str(tmp_path / "made"), "--checkpoint", str(run), "--output", str(output), "--emotion", "happy"]

    def frames() -> list[int]:
        assert main(words) == 0
        return [len(CodeDict.load(output / f"clip{number}.npz")) for number in range(2)]

    assert frames() == [20, 20]
    drawn_codes(35).save(tmp_path / "made" / "clip0.npz")
    assert frames() == [35, 20]
    assert "1 clips written, 1 already there" in capsys.readouterr().out
    (output / ".clip1.npz.made").unlink()  # as an older program left it, which noted nothing
    assert frames() == [35, 20]
    assert "1 clips written, 1 already there" in capsys.readouterr().out


def test_a_folder_made_after_another_reference_is_not_taken_up(run: Path, tmp_path: Path, capsys):
    (tmp_path / "made").mkdir()
    drawn_codes(5).save(tmp_path / "made" / "clip.npz")
    words = [str(tmp_path / "made"), "--checkpoint", str(run), "--output", str(tmp_path / "edited")]
    words += ["--reference", str(tmp_path / "reference.npz")]
    drawn_codes(6, seed=1).save(tmp_path / "reference.npz")
    assert main(words) == 0
    drawn_codes(6, seed=2).save(tmp_path / "reference.npz")
    assert main(words) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": "absent.npz"}, "absent.npz: no such file"),
        ({"codes": "."}, "is a file; a folder of clips needs a folder"),
        ({"--checkpoint": "nowhere"}, "nowhere"),
        ({"--output": "edited"}, "expected the name of a .npz file"),
        ({"--intensity": "2"}, "--intensity 2: expected 0"),
        ({"--reference": "missing.npz"}, "missing.npz: no such file"),
        ({"--compat": "released", "--transition": "linear"}, "--transition linear"),
    ],
)
def test_bad_input_is_one_clear_line(change, message, run, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.npz").write_bytes(b"")
    options = {"codes": str(clip), "--checkpoint": str(run), "--output": "out.npz", **change}
    if "--reference" not in change:
        options["--emotion"] = "happy"
    words = [options.pop("codes"), *(word for pair in options.items() for word in pair)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert (tmp_path / "out.npz").read_bytes() == b""


def test_codes_without_frames_are_refused(run: Path, tmp_path: Path, capsys):
    drawn_codes(0).save(tmp_path / "empty.npz")
    words = [str(tmp_path / "empty.npz"), "--checkpoint", str(run), "--emotion", "happy"]
    assert main([*words, "--output", str(tmp_path / "out.npz")]) == 2
    assert "empty.npz: a code dict of 0 frames" in capsys.readouterr().err
