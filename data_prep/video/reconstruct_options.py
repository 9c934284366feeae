"""What `asccl manipulate` and `asccl video train-renderer` pass on to `asccl data reconstruct`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.paths import as_argument, id_part
from asccl_jax.work import file_facts
from data_prep.media.decode import BrokenMediaError
from data_prep.media.landmarks import BACKENDS, check_file
from data_prep.video.stage_runs import python_words

__all__ = ["ReconstructOptions", "add_reconstruct_options", "reconstruct_options"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """How a video is reconstructed; the fields are the options of `asccl data reconstruct`.

    Attributes:
      speaker: Who the face is; empty takes the video's name.
      shown_emotion: What the video shows; empty leaves it open.
      landmarks: Back end of the landmarks.
      landmarks_dir: Folder of precomputed files, or None.
      landmark_table: Whose landmarks they are, or None.
      mediapipe_python: Interpreter with MediaPipe, or None.
      encoder: What makes the codes.
      assets: Folder of FLAME's and DECA's files, or None.
      device: PyTorch device.
      workers: Processes, or None.
    """

    speaker: str = ""
    shown_emotion: str = ""
    landmarks: str = "face-alignment"
    landmarks_dir: Path | None = None
    landmark_table: str | None = None
    mediapipe_python: Path | None = None
    encoder: str = "landmarks"
    assets: Path | None = None
    device: str = "auto"
    workers: int | None = None

    def check(self, video: Path) -> None:
        """Raises `InputError` for what would only be found out after the video has been read."""
        if "/" in self.speaker:
            raise InputError(f"--speaker {self.speaker}: must not contain '/'")
        if self.encoder == "deca" and self.assets is None:
            raise InputError("--encoder deca: needs --assets DIR with deca_model.tar; see `asccl head check DIR`")
        if self.assets is not None and not self.assets.is_dir():
            raise InputError(f"--assets {self.assets}: no such folder; `asccl head check DIR` says what goes into it")
        if self.landmarks == "mediapipe" and self.mediapipe_python is None:
            raise InputError("--landmarks mediapipe: needs --mediapipe-python, see README, Your data")
        if self.landmarks != "precomputed":
            return
        if not any(path.is_file() for path in self._landmark_files(video)):
            places = " or ".join(str(path) for path in self._landmark_files(video))
            raise InputError(f"--landmarks precomputed: no file {places}; make it, or name its folder: --landmarks-dir")
        if self.landmark_table is None and self.encoder == "landmarks":
            raise InputError(
                "--landmark-table: precomputed landmarks do not say which detector they come from; name it"
                " (face-alignment, mediapipe, dlib, or synthetic: those of the synthetic heads)"
            )

    def check_landmarks(self, video: Path, frames: int) -> None:
        """Raises `InputError` where precomputed landmarks are not of as many frames as a video shows."""
        path = next(filter(Path.is_file, self._landmark_files(video)), None)
        if self.landmarks != "precomputed" or path is None:
            return
        try:
            check_file(path, frames)
        except BrokenMediaError as error:
            raise InputError(f"--landmarks precomputed: {path}: {error}") from error

    def clip(self, video: Path) -> str:
        """Returns the clip's id in the records of a video."""
        speaker, name = id_part(self.speaker or video.stem), id_part(video.stem)
        return f"{speaker}/{self.shown_emotion or UNLABELLED}/{name}"

    def words(self, video: Path, output: Path) -> list[str]:
        """Returns the command line that reconstructs a video."""
        given = {
            "speaker": self.speaker,
            "emotion": self.shown_emotion,
            "landmarks": self.landmarks,
            "landmarks-dir": self.landmarks_dir,
            "landmark-table": self.landmark_table,
            "mediapipe-python": self.mediapipe_python,
            "encoder": self.encoder,
            "assets": self.assets,
            "device": self.device,
            "workers": self.workers,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value]
        # The file's name may end in anything: its layout is not to be guessed from it.
        command = python_words(
            "asccl_jax.cli", "data", "reconstruct", as_argument(video), "--layout=video", f"--output={output}"
        )
        return [*command, *options]

    def depends(self, video: Path) -> Any:
        """Returns what the records of a video depend on, see `stage_runs.Stage`."""
        settings = dataclasses.asdict(self)
        for place in ("device", "workers", "landmarks_dir", "mediapipe_python"):
            settings.pop(place)
        files = self._landmark_files(video) if self.landmarks == "precomputed" else []
        return [settings, file_facts(video, self.assets, *files)]

    def _landmark_files(self, video: Path) -> list[Path]:
        """Where precomputed landmarks of a video may lie; the first one counts (see `media.landmarks.Precomputed`)."""
        beside = video.with_name(f"{video.stem}.npz")
        if self.landmarks_dir is None:
            return [beside]
        return [self.landmarks_dir / f"{self.clip(video)}.npz", self.landmarks_dir / beside.name, beside]


def add_reconstruct_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options whose names are the fields of `ReconstructOptions`."""
    group = parser.add_argument_group("the video, its landmarks and its head (passed on to asccl data reconstruct)")
    add = group.add_argument
    add("--speaker", default="", metavar="NAME", help="who the face is (default: the video's name)")
    add(
        "--shown-emotion",
        default="",
        choices=("", *EMOTIONS),
        metavar="E",
        help="emotion that the video shows; a head is fitted best to a neutral one (default: not known)",
    )
    add("--landmarks", choices=BACKENDS, default="face-alignment", help="back end of the landmarks (face-alignment)")
    add("--landmarks-dir", type=Path, metavar="DIR", help="folder of precomputed npz files (default: beside the video)")
    add("--landmark-table", metavar="NAME", help="whose landmarks they are (default: the back end's)")
    add("--mediapipe-python", type=Path, metavar="FILE", help="Python of the environment that has MediaPipe 0.10.21")
    add("--encoder", choices=("landmarks", "deca"), default="landmarks", help="what makes the codes (landmarks)")
    add("--assets", type=Path, metavar="DIR", help="folder of FLAME's and DECA's files (default: the built-in head)")
    add("--device", default="auto", help="PyTorch device (auto: a GPU where there is one)")
    add("--workers", type=int, metavar="N", help="processes that reconstruct (all cores)")


def reconstruct_options(options: argparse.Namespace) -> ReconstructOptions:
    """Returns the options of a parsed command line."""
    names = [field.name for field in dataclasses.fields(ReconstructOptions)]
    return ReconstructOptions(**{name: getattr(options, name) for name in names})
