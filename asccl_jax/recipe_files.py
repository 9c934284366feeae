"""Where recipes lie: in the current folder, in the checkout that this package is of, or in the installed package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_recipe"]

_PACKAGE = Path(__file__).resolve().parent
"""The folder of `asccl_jax`. An installed one holds the checkout's `configs/`, see setup.py."""


def find_recipe(words: str) -> str | None:
    """Returns the recipe that FILE[:VARIANT] names, with the file's place; None where there is no such file.

    A file of that name counts first; else `configs/NAME.py` is the recipe of that name that came with this package.
    """
    name, *variant = words.rsplit(":", 1) if not Path(words).is_file() else [words]
    places = [Path(name)]
    if not Path(name).is_absolute() and ".." not in Path(name).parts:
        places += [_PACKAGE.parent / name, _PACKAGE / name]
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else ":".join([str(found), *variant])
