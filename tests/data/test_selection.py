"""A fixed few of many examples."""

import itertools

import pytest

from asccl_jax.data.selection import evenly_spaced


@pytest.mark.parametrize("count", [2, 3, 7, 10, 100, 1001])
def test_evenly_spaced_keeps_both_ends_repeats_nothing_and_leaves_equal_gaps(count):
    for limit in range(2, min(count, 60) + 1):
        chosen = evenly_spaced(range(count), limit)
        assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, limit)
        gaps = {after - before for before, after in itertools.pairwise(chosen)}
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


def test_a_limit_that_does_not_bind_keeps_all():
    for limit in (3, 8, None):
        assert evenly_spaced("abc", limit) == ["a", "b", "c"]
    assert evenly_spaced([], 4) == evenly_spaced("abc", 0) == []
