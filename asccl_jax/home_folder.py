"""The home folder in what people write: shells leave `~` alone after `=`, in quotes, in recipes and in tables."""

from __future__ import annotations

import os

__all__ = ["expand_home"]


def expand_home(word: str) -> str:
    """Returns a word of a command line, a recipe's entry or a table's cell with the home folder in place of `~`.

    `~` counts at the beginning, and after the first `=` of an option; a file of that very name is `./~`.
    """
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if value != "~" and not (value.startswith("~") and "/" in value):
        return word
    # `Path.expanduser` raises for an unknown person; a shell leaves the word as it is.
    return option + equals + os.path.expanduser(value)  # noqa: PTH111
