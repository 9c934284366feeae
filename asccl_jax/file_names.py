"""Names of files as what they are, bytes: shown as text, made parts of ids, cut to what a folder holds.

Python gives bytes that are not UTF-8 as lone surrogates, with which no record, page or line of text can be written.
"""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import PurePath

__all__ = ["as_argument", "cut_name", "id_part", "is_litter", "name_hash", "readable"]

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
