"""`asccl manipulate`: what is wrong is said before any work; a run gives as many frames, at the same times, no lag."""

import dataclasses
import json
import os
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from asccl_jax.data.dataset import begin_dataset
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import save_manipulator, save_renderer
from data_prep.media.decode import read_frames
from data_prep.reconstruct.drawing import warped
from data_prep.video.input_checks import person_remark
from data_prep.video.manipulate import main
from tests.data.painted_clips import write_records
from tests.data_prep.tiny_media import write_landmarks, write_video
from tests.data_prep.video.talking_clip import FACELESS, write_talking_clip
from tests.models import tiny_manipulator, tiny_renderer

MANIPULATOR = dataclasses.replace(tiny_manipulator.TINY_MANIPULATOR, coefficients=51)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    path = tmp_path_factory.mktemp("networks")
    save_manipulator(path / "manipulator", Manipulator(tiny_manipulator.drawn_manipulator(MANIPULATOR), MANIPULATOR))
    save_renderer(
        path / "renderer",
        Renderer(tiny_renderer.drawn_renderer(tiny_renderer.TINY_RENDERER), tiny_renderer.TINY_RENDERER),
    )
    return path


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    return write_talking_clip(tmp_path_factory.mktemp("talk"))


def run(networks, video, output, *more, landmarks=("--landmarks", "precomputed", "--landmark-table", "synthetic")):
    words = [str(video), "-o", str(output), "--manipulator", str(networks / "manipulator")]
    words += ["--renderer", str(networks / "renderer"), *landmarks, "--device", "cpu", "--workers", "1"]
    return main([*words, *more])


def path_without_torch(folder):
    """Search path of stages that find no PyTorch: landmarks and synthetic heads need none."""
    folder.mkdir()
    (folder / "torch.py").write_text('raise ImportError("PyTorch is blocked")\n')
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def facts(path):
    """Times of the pictures, and the bytes of the sound's packets."""
    with av.open(str(path)) as container:
        times = sorted(packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size)
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        sound = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    return [time - times[0] for time in times], rate, sound


@pytest.mark.slow
def test_a_run_keeps_frames_times_and_sound_has_no_lag_and_goes_on(networks, talk, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("PYTHONPATH", path_without_torch(tmp_path / "blocked"))
    output = tmp_path / "out" / "happy.mp4"
    assert run(networks, talk, output, "--emotion", "happy", "--keep") == 0
    said = capfd.readouterr()
    assert "2 of" in said.err and "they stay as they are" in said.err
    assert [line.split()[0] for line in said.out.splitlines()[1:6]] == [
        *("reconstruct", "edit", "conditioning", "render", "compose")
    ]
    assert facts(output) == facts(talk)
    work = output.with_suffix(".work")
    noted = json.loads((output.parent / "happy.work.json").read_text())
    assert all(stage["seconds"] > 0 and stage["peak_mb"] > 50 for stage in noted["stages"])
    check_pictures(talk, output, work)

    # Another emotion: the video is not reconstructed again. Nothing asked for: nothing is done.
    before = output.read_bytes()
    assert run(networks, talk, output, "--emotion", "sad", "happy", "--keep") == 0
    assert "reconstruct: done before" in (words := capfd.readouterr().err) and "edit: done before" not in words
    assert output.read_bytes() != before and facts(output) == facts(talk)
    changed = output.stat().st_mtime_ns
    assert run(networks, talk, output, "--emotion", "sad", "happy") == 0
    assert "compose: done before" in capfd.readouterr().err
    assert output.stat().st_mtime_ns == changed and not work.exists()


def check_pictures(talk, output, work):
    """Frame t shows the face that was drawn for it in its own surroundings; those without a face are the source's."""
    source, made = ([frame.image.astype(int) for frame in read_frames(path)] for path in (talk, output))
    (track,) = (work / "records" / "tracks").glob("*.npz")
    with np.load(track) as archive:
        align = archive["align_transforms"]
    (folder,) = {path.parent for path in (work / "faces").rglob("*.png")}
    faces = {int(path.stem): np.array(Image.open(path).resize((256, 256))) for path in folder.glob("*.png")}
    assert sorted(faces) == [number for number in range(len(source)) if number not in FACELESS]
    for number in FACELESS:
        assert np.abs(made[number] - source[number]).mean() < 2
    rows = slice(120, 150), slice(100, 156)  # nose and cheeks
    lags = {lag: [] for lag in (-2, -1, 0, 1, 2)}
    for number in range(10, len(source) - 2):
        shown = warped(made[number].astype(np.uint8), None, align[number], 256)[rows].astype(int)
        for lag, errors in lags.items():
            errors.append(np.abs(shown - faces[number + lag][rows].astype(int)).mean())
        assert np.abs(made[number] - source[number]).mean() > 4  # the face did change
        assert np.abs(made[number] - source[number])[:10].mean() < 2  # what is around it did not
    assert min(lags, key=lambda lag: np.mean(lags[lag])) == 0


@pytest.mark.slow
def test_a_reference_is_reconstructed_and_until_and_from_choose_stages(networks, talk, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    other = tmp_path / "actor.mp4"
    shutil.copy(talk, other)
    shutil.copy(talk.with_suffix(".npz"), tmp_path / "actor.npz")
    wanted = ("--reference", str(other), "--work", str(tmp_path / "work"))
    assert run(networks, talk, tmp_path / "out.mp4", *wanted, "--until", "edit") == 0
    assert "stopped after edit" in capfd.readouterr().out and not (tmp_path / "out.mp4").exists()
    assert (tmp_path / "work" / "edited.npz").is_file() and (tmp_path / "work" / "reference" / "codes").is_dir()
    assert run(networks, talk, tmp_path / "out.mp4", *wanted, "--from", "render") == 2
    assert "--from render: conditioning not done" in capfd.readouterr().err
    # A stage that fails is one line, with its log.
    (tmp_path / "work" / "edited.npz").write_bytes(b"damaged")
    assert run(networks, talk, tmp_path / "out.mp4", *wanted) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: stage conditioning: ") and last.endswith("logs/conditioning.log")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain")
    write_video(path / "talk.mp4", 3)
    write_landmarks(path / "talk.npz", 3)
    (path / "empty.mp4").touch()
    (path / "longer").mkdir()
    write_landmarks(path / "longer" / "talk.npz", 5)
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"video": "none.mp4"}, "VIDEO {plain}/none.mp4: no such file"),
        ({"video": "empty.mp4"}, "no file {plain}/empty.npz"),
        ({"video": "empty.mp4", "landmarks": ("--landmarks", "mediapipe")}, "--mediapipe-python"),
        ({"video": "empty.mp4", "landmarks": ()}, "VIDEO {plain}/empty.mp4: an empty file"),
        ({"landmarks": ("--landmarks", "precomputed")}, "--landmark-table: precomputed landmarks do not say"),
        ({"output": "out.gif"}, "-o {plain}/out.gif: expected the name of a video"),
        ({"output": "talk.mp4", "more": ("--emotion", "sad", "--overwrite")}, "is an input"),
        ({"output": "empty.mp4"}, "is there already; give another name, or --overwrite"),
        ({"more": ("--emotion", "sad", "--intensity", "2")}, "--intensity 2"),
        ({"more": ("--emotion", "sad", "--from", "reference")}, "--from reference: there is no such stage"),
        ({"more": ("--emotion", "sad", "--from", "render", "--until", "edit")}, "the stages are reconstruct, edit"),
        ({"more": ("--reference", "{plain}/none.mp4")}, "--reference {plain}/none.mp4: no such file"),
        ({"more": ("--emotion", "sad", "--renderer", "{plain}")}, "asccl video train-renderer VIDEO"),
        ({"more": ("--emotion", "sad", "--manipulator", "{plain}")}, "bash launch/quickstart.sh"),
        ({"more": ("--emotion", "sad", "--segmenter", "{plain}/none.pth")}, "--segmenter"),
        ({"more": ("--emotion", "sad", "--work", "{plain}")}, "--work {plain}: holds other files"),
        ({"more": ("--emotion", "sad", "--encoder", "deca")}, "--encoder deca: needs --assets"),
        (
            {"more": ("--emotion", "sad", "--landmarks-dir", "{plain}/longer")},
            "talk.npz: landmark file has 5 rows, the",
        ),
    ],
)
def test_bad_input_is_named_before_any_work(networks, plain, capsys, changed, said):
    more = [word.format(plain=plain) for word in changed.get("more", ("--emotion", "sad"))]
    landmarks = {} if "landmarks" not in changed else {"landmarks": changed["landmarks"]}
    status = run(
        networks, plain / changed.get("video", "talk.mp4"), plain / changed.get("output", "out.mp4"), *more, **landmarks
    )
    error = capsys.readouterr().err
    assert status == 2 and said.format(plain=plain) in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert not (plain / "out.work").exists() and not (plain / "out.mp4").exists()


def test_a_renderer_of_other_people_is_remarked_on(tmp_path):
    write_records(tmp_path / "records", {"A/neutral/1": {0: {}}})
    run_folder = tmp_path / "run"
    (run_folder / "best").mkdir(parents=True)
    config = {"data": {"dir": str(tmp_path / "records"), "speakers": []}}
    (run_folder / "config.json").write_text(json.dumps(config))
    for place in (run_folder, run_folder / "best"):
        assert person_remark(place, "A", tmp_path / "talk.mp4") == ""
        assert "has learnt A, not Bob" in person_remark(place, "Bob", tmp_path / "talk.mp4")
    config["data"]["speakers"] = ["Eve"]
    (run_folder / "config.json").write_text(json.dumps(config))
    assert "has learnt Eve, not A" in person_remark(run_folder, "A", tmp_path / "talk.mp4")
    begin_dataset(tmp_path / "elsewhere")
    assert person_remark(tmp_path / "elsewhere", "A", tmp_path / "talk.mp4") == ""
