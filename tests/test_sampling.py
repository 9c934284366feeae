"""Locations: the published regions, draws without replacement, confinement."""

import jax
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.sampling import NEIGHBOUR_OFFSETS, location_region, map_sizes, sample_locations

# Map side, region side r, border b, lowest and highest neighbour index of the released rule (specification, 3.1).
RELEASED_REGIONS = [
    (112, 106, 3, 2, 109),
    (56, 53, 1, 0, 54),
    (28, 26, 1, 0, 27),
    (14, 13, 0, -1, 13),
    (128, 121, 3, 2, 124),
    (64, 60, 2, 1, 62),
    (32, 30, 1, 0, 31),
    (16, 15, 0, -1, 15),
    (36, 34, 1, 0, 35),
    (18, 17, 0, -1, 17),
    (9, 8, 0, -1, 8),
    (5, 4, 0, -1, 4),
]


@pytest.mark.parametrize(("size", "side", "border", "low", "high"), RELEASED_REGIONS)
def test_wrap_border_is_the_released_region(size, side, border, low, high):
    assert location_region(size, border="wrap") == (border, side)
    assert (border - 1, border + side) == (low, high)


@pytest.mark.parametrize("size", [3, 4, 5, 7, 9, 14, 18, 28, 56, 112])
def test_inside_border_keeps_every_neighbour_on_the_map(size):
    first, side = location_region(size, border="inside")
    assert first >= 1
    assert first + side - 1 <= size - 2
    released_first, released_side = location_region(size, border="wrap")
    released = set(range(released_first, released_first + released_side))
    assert set(range(first, first + side)) <= released | {released_first + released_side}


def test_inside_border_changes_nothing_where_the_released_region_fits():
    assert location_region(112, border="inside") == location_region(112, border="wrap")


def test_too_small_a_map_is_refused():
    with pytest.raises(InputError, match="2x2 cells holds no centre"):
        location_region(2, border="inside")


@pytest.mark.parametrize(("image", "maps"), [(224, (112, 56, 28, 14)), (72, (36, 18, 9, 5)), (33, (17, 9, 5, 3))])
def test_map_sizes_round_up(image, maps):
    assert map_sizes(image) == maps


def test_offsets_are_the_eight_neighbours_row_by_row():
    every = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    assert list(NEIGHBOUR_OFFSETS) == every


@pytest.mark.parametrize("border", ["inside", "wrap"])
def test_centres_are_distinct_and_in_the_region(border):
    sizes, counts = map_sizes(112), (32, 16, 8, 4)
    for centres, size, count in zip(
        sample_locations(jax.random.key(3), sizes, counts, border=border), sizes, counts, strict=True
    ):
        first, side = location_region(size, border=border)
        assert centres.shape == (count, 2)
        assert len({tuple(cell) for cell in np.asarray(centres).tolist()}) == count
        assert centres.min() >= first
        assert centres.max() < first + side


def test_every_cell_of_the_region_is_drawn_equally_often():
    draw = jax.vmap(lambda key: sample_locations(key, (7,), (4,), border="inside")[0])
    centres = np.asarray(draw(jax.random.split(jax.random.key(0), 4000))).reshape(-1, 2)
    counts = np.zeros((7, 7))
    np.add.at(counts, (centres[:, 0], centres[:, 1]), 1)
    first, side = location_region(7, border="inside")
    inside = counts[first : first + side, first : first + side]
    assert inside.sum() == counts.sum() == 16000
    # 16000 draws over 25 cells: 640 each, standard deviation 23; five of them.
    assert np.abs(inside - 16000 / side**2).max() < 5 * 23


def test_small_map_gives_all_its_cells():
    (centres,) = sample_locations(jax.random.key(0), (4,), (32,), border="inside")
    assert sorted(map(tuple, np.asarray(centres).tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_draws_repeat_with_the_key_and_differ_between_keys_and_stages():
    def draw(seed):
        return [np.asarray(x) for x in sample_locations(jax.random.key(seed), (28, 28), (8, 8), border="inside")]

    first, again, other = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    assert (first[0] != first[1]).any()


def test_draw_is_the_same_under_jit():
    def draw(key):
        return sample_locations(key, (56, 28), (16, 8), border="inside")

    for eager, traced in zip(draw(jax.random.key(5)), jax.jit(draw)(jax.random.key(5)), strict=True):
        np.testing.assert_array_equal(eager, traced)


def test_centres_stay_within_a_box():
    box = (0.6, 0.9, 0.25, 0.75)
    for centres, size in zip(
        sample_locations(jax.random.key(0), map_sizes(112), (32, 16, 8, 4), border="inside", within=box),
        map_sizes(112),
        strict=True,
    ):
        rows, columns = (np.asarray(centres) + 0.5).T / size
        assert ((rows >= 0.6) & (rows <= 0.9)).all()
        assert ((columns >= 0.25) & (columns <= 0.75)).all()


def test_box_between_cells_takes_the_nearest_one():
    (centres,) = sample_locations(jax.random.key(0), (4,), (8,), border="inside", within=(0.5, 0.52, 0.9, 1.0))
    # On a map of four only rows and columns 1 and 2 are allowed.
    assert np.asarray(centres).tolist() == [[2, 2]]
