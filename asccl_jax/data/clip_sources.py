"""Opens whatever holds aligned frames: a data set of renders, published folders of one subject or of several."""

from __future__ import annotations

from pathlib import Path

from asccl_jax.data.aligned_frames import AlignedClips
from asccl_jax.data.manifest import MANIFEST_NAME
from asccl_jax.data.rendered_records import UNTRUSTED, RecordClips
from asccl_jax.data.subject_folders import FolderClips, is_subject_folder
from asccl_jax.errors import InputError

__all__ = ["open_clips"]


def open_clips(
    path: Path | str,
    *,
    image_size: int = 256,
    detail: bool = False,
    region: str = "face",
    untrusted: int = UNTRUSTED,
    cache_bytes: int = 1 << 30,
) -> AlignedClips:
    """Returns the clips of a data set of renders, of a subject's folder, or of a folder of subjects' folders.

    Args:
      path: Where.
      image_size: Side of the pictures wanted, in pixels.
      detail: Of records, take the surface with wrinkles rather than the coarse one.
      region: Of records, what the mask covers: "face" or "head".
      untrusted: Of records, flags of frames to leave out.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: Nothing of the kind, or it is damaged.
    """
    path = Path(path)
    if (path / MANIFEST_NAME).is_file():
        return RecordClips(
            path, image_size=image_size, detail=detail, region=region, untrusted=untrusted, cache_bytes=cache_bytes
        )
    if not path.is_dir():
        raise InputError(f"{path} does not exist; expected records of `asccl reconstruct`, or folders of subjects")
    folders = [path] if is_subject_folder(path) else sorted(filter(is_subject_folder, path.iterdir()))
    if not folders:
        raise InputError(
            f"{path}: neither records (no {MANIFEST_NAME}) nor folders of subjects (no nmfcs_aligned/, shapes_aligned/)"
        )
    return FolderClips(folders, image_size=image_size, cache_bytes=cache_bytes)
