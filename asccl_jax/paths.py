"""Names and places of files: what may be a file's name, the home folder, the user's cache, the recipes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from pathlib import Path, PurePath

__all__ = [
    "as_argument",
    "cache_folder",
    "cut_name",
    "expand_home",
    "find_recipe",
    "id_part",
    "is_litter",
    "name_hash",
    "readable",
    "user_cache",
]

# Python gives bytes that are not UTF-8 as lone surrogates, with which no record, page or line of text can be written.

_PART_BYTES = 200
"""Of a part of an id, which becomes a folder's name; the usual file systems hold 255, some with encryption 143."""


_LITTER = frozenset(
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "@eadir"]
)


def readable(name: str) -> str:
    r"""Returns a name as it can be written and printed anywhere, on one line; most names as they are.

    Bytes that are not UTF-8, and control characters, are spelled as in Python's own text.

    >>> import os
    >>> print(readable("Où?"), readable(os.fsdecode(b"caf\xe9")), readable("two" + chr(10) + "lines"))
    Où? caf\xe9 two\x0alines
    """
    text = _bytes(name).decode(errors="backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


def id_part(name: str) -> str:
    r"""Returns the name of a file or folder as a part of a clip's id, and so of paths that are made of ids.

    >>> print(id_part("talk.v2"), id_part(".."), len(id_part("動" * 84)))
    talk.v2 \x2e\x2e 75
    """
    text = readable(name).replace("/", "\\x2f")
    if text in (".", ".."):
        text = "\\x2e" * len(text)
    return text if len(text.encode()) <= _PART_BYTES else f"{cut_name(text, _PART_BYTES - 13)}-{name_hash(name)[:12]}"


def cut_name(name: str, most: int) -> str:
    """Returns what fits into so many bytes of a name's start, whole characters only.

    >>> print(cut_name("talk", 80), cut_name("動画", 5))
    talk 動
    """
    return _bytes(name)[:most].decode(errors="ignore")


def is_litter(name: str) -> bool:
    """Returns whether a file or folder was left by a system and not by a person, or is hidden.

    >>> is_litter("._talk.mp4"), is_litter("Thumbs.db"), is_litter("talk.mp4")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _LITTER


def name_hash(*names: str) -> str:
    """Returns the SHA-256 of names, in hexadecimal."""
    return hashlib.sha256(b"\n".join(map(_bytes, names))).hexdigest()


def as_argument(path: PurePath) -> str:
    """Returns a path as a word of a command line that no program takes for an option.

    >>> from pathlib import Path
    >>> print(as_argument(Path("-talk.mp4")), as_argument(Path("a/-talk.mp4")))
    ./-talk.mp4 a/-talk.mp4
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def _bytes(name: str) -> bytes:
    # Not `os.fsencode`: a name's hash must not depend on the locale, in which the same name may be other bytes.
    return name.encode(errors="surrogateescape")


# The home folder in what people write: shells leave `~` alone after `=`, in quotes, in recipes and in tables.


def expand_home(word: str) -> str:
    """Returns a word of a command line, a recipe's entry or a table's cell with the home folder in place of `~`.

    `~` counts at the beginning, and after the first `=` of an option; a file of that very name is `./~`.
    """
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if value != "~" and not (value.startswith("~") and "/" in value):
        return word
    # `Path.expanduser` raises for an unknown person; a shell leaves the word as it is.
    return option + equals + os.path.expanduser(value)  # noqa: PTH111


# Where caches lie: with the user's others, or in the temporary folder for who has no home, as users of containers.


def cache_folder() -> Path | None:
    """Returns a folder for caches that is there and can be written; None where there is no such place.

    `$XDG_CACHE_HOME/asccl-jax`, else `~/.cache/asccl-jax`, else a folder of this user's own in the temporary folder.
    """
    return _made(user_cache()) or _private(Path(tempfile.gettempdir()) / f"asccl-jax-{_user()}")


def user_cache() -> Path | None:
    """Returns where this user's caches belong, be it there or not; None for a user without a home."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "asccl-jax"
    try:
        return Path.home() / ".cache" / "asccl-jax"
    except RuntimeError:  # an unknown user without HOME
        return None


def _made(path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError:
        return None


def _private(path: Path) -> Path | None:
    """A folder that nobody else may have filled: what lies in it is run."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    safe = found.st_uid == _user() and not found.st_mode & 0o077 and not path.is_symlink()
    return _made(path) if safe else None


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


# Where recipes lie: in the current folder, in the checkout that this package is of, or in the installed package.

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
