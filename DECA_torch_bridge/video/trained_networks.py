"""The networks that a run is given: whether they are there, and whom a renderer has learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asccl_jax.data.manifest import Manifest
from asccl_jax.errors import InputError

__all__ = ["QUICKSTART", "find_weights", "person_remark", "require_network", "run_config"]

QUICKSTART = Path("runs/quickstart")
"""Where `launch/quickstart.sh` trains a manipulator and a renderer."""

_HOW_TO_GET = {
    "manipulator": (
        "`bash launch/quickstart.sh` trains a small one, `python -m asccl_jax.main --config configs/manipulator.py` a"
        " whole one (README, Change the expression); name it with --manipulator"
    ),
    "renderer": (
        "`asccl train-renderer VIDEO` trains one for the person in a video, `bash launch/quickstart.sh` a small one for"
        " a synthetic person; name it with --renderer"
    ),
    "metric": "`bash launch/quickstart.sh` trains a small one; name it with --metric",
}


def find_weights(directory: Path, kind: str) -> Path | None:
    """Returns where the weights of a folder, or of a training run's, are (see `saved_weights`); None if nowhere."""
    folders = (directory, directory / "best", directory / "last")
    return next((folder for folder in folders if (folder / f"{kind}.json").is_file()), None)


def require_network(directory: Path, kind: str) -> Path:
    """Returns where the weights of a network are.

    Raises:
      InputError: There are none; the message says how to get some.
    """
    found = find_weights(directory, kind)
    if found is None:
        raise InputError(f"--{kind} {directory}: no trained {kind} there; {_HOW_TO_GET[kind]}")
    return found


def run_config(directory: Path) -> dict[str, Any]:
    """Returns the recipe of the training run that a network is of; nothing where it is not known."""
    for folder in (directory, directory.parent):
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def person_remark(renderer: Path, speaker: str, video: Path) -> str:
    """Returns a warning if a renderer's run says that it has never seen a person; else nothing.

    Args:
      renderer: Folder of the renderer, or of its run.
      speaker: What the person is called.
      video: Where they are seen.
    """
    data = run_config(renderer).get("data", {})
    try:
        manifest = Manifest.from_json((Path(data["dir"]) / "manifest.json").read_text(encoding="utf-8"))
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return ""
    chosen = set(data.get("speakers") or manifest.speakers("train"))
    sources = {Path(clip.source).name for clip in manifest.clips.values() if clip.speaker in chosen}
    if speaker in chosen or video.name in sources:
        return ""
    people = ", ".join(sorted(chosen)[:3]) + (", ..." if len(chosen) > 3 else "")
    return (
        f"--renderer {renderer} has learnt {people}, not {speaker}: expect the wrong skin; asccl train-renderer {video}"
        " trains one for this person (or, if it is the same one, say so: --speaker NAME)"
    )
