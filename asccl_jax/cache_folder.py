"""Where caches lie: with the user's others, or in the temporary folder for who has no home, as users of containers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "user_cache"]


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
