"""Speakers that results are reported on, and whether what is scored has learnt them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from asccl_jax.buckets import remote_address
from asccl_jax.data.manifest import MANIFEST_NAME
from asccl_jax.data.tracks import LIST_NAME
from asccl_jax.work import write_atomically

__all__ = [
    "SPEAKERS_FILE",
    "TEST_SPEAKERS",
    "leak_remarks",
    "learnt_speakers",
    "reported_split",
    "scored_on",
    "write_speakers",
]

TEST_SPEAKERS: Mapping[str, tuple[str, ...]] = {
    "mead": ("M003", "M009", "M012", "M030", "W015", "W029"),
    "ravdess": tuple(f"Actor_{number:02d}" for number in range(1, 7)),
}
"""By layout of a data set, the speakers of the papers' tables, which `asccl evaluate` scores."""

SPEAKERS_FILE = "speakers.json"
"""File of a run that names the speakers it trains on, by split."""

_NETWORKS = (("init_from",), ("metric", "path"), ("mesh", "metric"))
"""Entries of a recipe that name networks trained before."""


def reported_split(splits: Iterable[str]) -> str:
    """Returns the split that results are reported on: "test" where there is one, else "validation"."""
    return "test" if "test" in splits else "validation"


def write_speakers(
    workdir: Path, speakers: Mapping[str, Collection[str]], config: Mapping[str, Any], *, goes_on: bool = False
) -> None:
    """Writes whom a run trains on and selects by, and whom the networks that it starts from have learnt.

    Args:
      workdir: Folder of the run.
      speakers: By split, what the run reads.
      config: Its recipe.
      goes_on: Whether it goes on from steps that it has made before, perhaps on other people.
    """
    before = _read(workdir / SPEAKERS_FILE) if goes_on else None
    learnt = {*before.get("train", ()), *before.get("earlier", ())} if before is not None else set[str]()
    for keys in _NETWORKS:
        entry: Any = config
        for key in keys:
            entry = entry.get(key, "") if isinstance(entry, Mapping) else ""
        if entry and (found := learnt_speakers(entry)) is not None:
            learnt |= found["train"]
    content = {**{split: sorted(names) for split, names in speakers.items()}, "earlier": sorted(learnt)}
    write_atomically(workdir / SPEAKERS_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def learnt_speakers(path: Path | str) -> dict[str, set[str]] | None:
    """Returns whom a network was trained on, "train", and selected by, "validation"; None where nobody knows.

    Args:
      path: Folder of a run, or of a network in one (`best/`); or records, or tracks, that something is trained on.
    """
    if remote_address(path) is not None:
        return None
    place = Path(path).resolve()
    for folder in (place, place.parent):
        if (found := _read(folder / SPEAKERS_FILE)) is not None:
            trained = {*found.get("train", ()), *found.get("earlier", ())}
            return {"train": trained, "validation": set(found.get("validation", ()))}
    for folder in (place, place.parent):
        # A run of before speakers were noted: its data may still be there.
        if (config := _read(folder / "config.json")) is not None:
            data = config.get("data", {})
            return _of_data(Path(data.get("dir") or "/nowhere"), data.get("speakers") or ())
    return _of_data(place, ())


def leak_remarks(scored: Mapping[str, Path | str], speakers: Collection[str]) -> list[str]:
    """Returns what has to be said of figures on some speakers: who had learnt them, and of whom nobody knows that.

    Args:
      scored: Networks by what the table calls them, or the data that they were trained on.
      speakers: Whose clips are scored.
    """
    remarks = []
    for name, path in scored.items():
        learnt = learnt_speakers(path)
        if learnt is None:
            remarks.append(f"nobody knows whom {name} ({path}) was trained on: it may be those scored here")
            continue
        trained = learnt["train"] & set(speakers)
        selected = learnt["validation"] & set(speakers) - trained
        reported = learnt["train"] & {name for names in TEST_SPEAKERS.values() for name in names} - trained
        for found, how in (
            (trained, "was trained on {}, whose clips are scored here"),
            (selected, "was selected by {}, whose clips are scored here"),
            (reported, "was trained on {}, whom the papers report on"),
        ):
            if found:
                remarks.append(f"{name} ({path}) {how.format(', '.join(sorted(found)))}")
    return remarks


def scored_on(split: str, speakers: Collection[str], scored: Mapping[str, Path | str]) -> str:
    """Returns whose clips figures are of, with all `leak_remarks`, as sentences."""
    told = f"Split {split}, speaker{'s' * (len(set(speakers)) > 1)} {', '.join(sorted(set(speakers)))}."
    return " ".join([told, *(f"NOTE: {remark}." for remark in leak_remarks(scored, speakers))])


def _of_data(folder: Path, chosen: Collection[str]) -> dict[str, set[str]] | None:
    """Speakers of a data set by split, or those of them who were chosen."""
    content = _read(folder / LIST_NAME) or _read(folder / MANIFEST_NAME)
    if content is None:
        return None
    try:
        who = [(clip["split"], clip["speaker"]) for clip in content["clips"].values()]
    except (AttributeError, KeyError, TypeError):
        return None
    return {
        split: {speaker for found, speaker in who if found == split and (not chosen or speaker in chosen)}
        for split in ("train", "validation")
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
