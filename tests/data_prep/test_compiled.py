"""Compiled functions are kept where there is a place for them, and run where there is none."""

import numba
import pytest
from numba.core import caching

from data_prep import compiled as module
from data_prep.compiled import compiled


def add(first, second):
    return first + second


@pytest.mark.parametrize("place", [True, False])
def test_a_package_and_a_home_that_cannot_be_written_cost_the_cache_only(tmp_path, monkeypatch, place):
    nowhere = [kind for kind in caching.CacheImpl._locator_classes if "UserProvided" not in kind.__name__]
    for locator in nowhere:
        monkeypatch.setattr(locator, "from_function", classmethod(lambda cls, function, file: None))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path if place else None)
    assert compiled(nogil=True)(add)(1, 2) == 3
    assert (tmp_path / "numba").exists() == place
