"""The stages of `asccl manipulate`, from a video to the same video with another expression."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asccl_jax.data.tracks import clip_file_name, codes_path
from asccl_jax.work import file_facts
from DECA_torch_bridge.video.child_process import python_words
from DECA_torch_bridge.video.reconstruct_options import ReconstructOptions
from DECA_torch_bridge.video.stage_runs import Stage
from DECA_torch_bridge.video.trained_networks import find_weights

__all__ = ["STAGES", "Manipulation"]

STAGES = ("reconstruct", "reference", "edit", "conditioning", "render", "compose")
"""Names in order; "reference" is there only where one is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manipulation:
    """One run of the pipeline.

    Attributes:
      video: What is changed.
      output: The video to write.
      work: Folder of the intermediate files, as an absolute path.
      emotions: Emotions told by label, one after the other; or none.
      reference: Video whose expression is taken, or None.
      intensity: Of the emotion, 0 to 1.5.
      transition: How several emotions follow each other.
      seed: Which variety of the emotion.
      manipulator: Folder of the manipulator.
      renderer: Folder of the renderer.
      detail: Whether the renderer was trained on surfaces with wrinkles.
      reading: How the video is reconstructed.
      reading_reference: How the reference is.
      segmenter: Face segmentation file, or None.
      blend: How faces are put into the frames.
      label: Whether a visible label is drawn.
      crf: Quality of the encoder, or None for its default.
    """

    video: Path
    output: Path
    work: Path
    emotions: tuple[str, ...] = ()
    reference: Path | None = None
    intensity: float = 1.0
    transition: str = "steps"
    seed: int = 0
    manipulator: Path
    renderer: Path
    detail: bool = False
    reading: ReconstructOptions
    reading_reference: ReconstructOptions
    segmenter: Path | None = None
    blend: str = "pyramid"
    label: bool = False
    crf: int | None = None

    @property
    def clip(self) -> str:
        """The video's id in its records."""
        return self.reading.clip(self.video)

    @property
    def records(self) -> Path:
        """What the video is reconstructed into."""
        return self.work / "records"

    @property
    def track(self) -> Path:
        """Landmarks, alignment and flags of the video's frames."""
        return self.records / "tracks" / f"{clip_file_name(self.clip)}.npz"

    def stages(self) -> list[Stage]:
        """Returns the stages in order."""
        found = [self._reconstruct(), self._edit(), self._conditioning(), self._render(), self._compose()]
        if self.reference is not None:
            found.insert(1, self._reconstruct_reference(self.reference))
        return found

    def _reconstruct(self) -> Stage:
        words = self.reading.words(self.video, self.records)
        return Stage("reconstruct", tuple(words), self.records, self.reading.depends(self.video))

    def _reconstruct_reference(self, video: Path) -> Stage:
        output = self.work / "reference"
        words = self.reading_reference.words(video, output)
        return Stage("reference", tuple(words), output, self.reading_reference.depends(video))

    def _edit(self) -> Stage:
        output = self.work / "edited.npz"
        command = ["manipulate-coefficients", str(codes_path(self.records, self.clip))]
        command += [f"--checkpoint={self.manipulator}", f"--intensity={self.intensity}", f"--seed={self.seed}"]
        command += [f"--transition={self.transition}", f"--output={output}"]
        if self.reference is None:
            command += ["--emotion", *self.emotions]
        else:
            shown = codes_path(self.work / "reference", self.reading_reference.clip(self.reference))
            command.append(f"--reference={shown}")
        told = [self.emotions, self.intensity, self.transition, self.seed]
        return _stage("edit", command, output, [told, file_facts(find_weights(self.manipulator, "manipulator"))])

    def _conditioning(self) -> Stage:
        output = self.work / "conditioning"
        command = ["edit-conditioning", str(self.records), f"--clip={self.clip}"]
        command += [f"--codes={self.work / 'edited.npz'}", f"--output={output}"]
        if self.reading.assets is not None:
            command.append(f"--assets={self.reading.assets}")
        if self.detail:
            command.append("--detail")
        return _stage("conditioning", command, output, [self.detail])

    def _render(self) -> Stage:
        output = self.work / "faces"
        command = ["render", str(self.records), f"--checkpoint={self.renderer}", f"--clip={self.clip}"]
        command += [f"--conditioning={self.work / 'conditioning'}", f"--output={output}"]
        if self.detail:
            command.append("--detail")
        return _stage("render", command, output, [self.detail, file_facts(find_weights(self.renderer, "renderer"))])

    def _compose(self) -> Stage:
        command = ["compose", str(self.records), f"--clip={self.clip}", f"--faces={self.work / 'faces' / self.clip}"]
        command += [f"--video={self.video}", f"--output={self.output}", f"--blend={self.blend}", "--overwrite"]
        if self.segmenter is not None:
            command.append(f"--segmenter={self.segmenter}")
        if self.label:
            command.append("--label")
        if self.crf is not None:
            command.append(f"--crf={self.crf}")
        depends = [str(self.output.absolute()), self.blend, self.label, self.crf, file_facts(self.segmenter)]
        return _stage("compose", command, self.output, depends, inside=False)


def _stage(name: str, command: list[str], output: Path, depends: object, *, inside: bool = True) -> Stage:
    return Stage(name, tuple(python_words("asccl_jax.cli", *command)), output, depends, inside)
