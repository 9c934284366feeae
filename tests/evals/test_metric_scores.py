import collections
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.data.frames import FrameStore
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.evals.contrasts import MOUTH, REGIONS
from asccl_jax.evals.metric_comparisons import load_comparisons
from asccl_jax.evals.metric_scores import (
    chance_level,
    count_images,
    evaluation_locations,
    metric_losses,
    pixel_differences,
    score_comparisons,
)
from asccl_jax.losses.contrastive import location_scores
from asccl_jax.models.correlation import prepare_images
from asccl_jax.sampling import map_sizes
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import FrozenMetric
from tests.evals.conftest import SETTINGS


class CountingFrames:
    """Frames that remember how often each was read, and may be moved down by some rows."""

    def __init__(self, frames: FrameStore, *, moved_rows: int = 0) -> None:
        self.frames = frames
        self.reads = collections.Counter()
        self.moved_rows = moved_rows

    def image(self, clip: str, frame: int) -> np.ndarray:
        self.reads[clip, frame] += 1
        image = self.frames.image(clip.removeprefix("moved:"), frame)
        return np.roll(image, self.moved_rows, axis=0) if clip.startswith("moved:") else image


@pytest.fixture(scope="module")
def frames(records: Path) -> FrameStore:
    return FrameStore(records, "comparisons")


def test_scores_equal_the_losses_own_location_scores(metric: FrozenMetric, records: Path, frames: FrameStore):
    record = load_comparisons(records).records[1]
    scores = score_comparisons(metric, frames, [record], draws=2)

    @functools.partial(jax.jit, static_argnums=3)
    def expected(query: jax.Array, key: jax.Array, locations: tuple, stages: int) -> jax.Array:
        maps = [metric.features(prepare_images(image[None], SETTINGS))[:stages] for image in (query, key)]
        found = location_scores(*maps, metric.embed, locations, SETTINGS)
        parts = ("nce", "hit", "corresponding", "other")
        means = [[jnp.mean(getattr(stage, part).astype(jnp.float32)) for stage in found] for part in parts]
        return jnp.array(means)

    images = [jnp.asarray(frames.image(clip, 0)) for clip in (record.query_clip, record.key_clip)]
    for region in REGIONS:
        draws = evaluation_locations(SETTINGS, 2, region=region)
        each = [expected(*images, tuple(stage[draw] for stage in draws), len(draws)) for draw in range(2)]
        nce, top1, corresponding, other = np.mean(each, axis=0)
        pairs = {
            "face": (
                (scores.nce, nce),
                (scores.top1, top1),
                (scores.corresponding, corresponding),
                (scores.other, other),
            ),
        }
        for found, wanted in pairs.get(region, ((scores.confined.get(region), nce),)):
            # Sums in float32 in another order, divided by a temperature of 0.07.
            np.testing.assert_allclose(found[0], wanted, rtol=2e-4, atol=2e-4)


def test_each_image_is_read_once_and_order_does_not_matter(metric: FrozenMetric, records: Path, frames: FrameStore):
    comparisons = list(load_comparisons(records).records)
    counting = CountingFrames(frames)
    seen = []
    straight = score_comparisons(metric, counting, comparisons, draws=1, regions=("face",), advance=seen.append)
    assert set(counting.reads.values()) == {1}
    assert sum(seen) == len(counting.reads) == count_images(comparisons) == 6 * 9
    order = np.random.default_rng(0).permutation(len(comparisons))
    shuffled = score_comparisons(metric, frames, [comparisons[i] for i in order], draws=1, regions=("face",))
    # Another place in the batch may round differently.
    np.testing.assert_allclose(shuffled.nce, straight.nce[order], rtol=1e-4, atol=1e-4)


def test_a_face_against_itself_is_found_everywhere_and_a_shift_by_one_cell_is_caught(
    metric: FrozenMetric, records: Path, frames: FrameStore
):
    record = load_comparisons(records).records[0]
    itself = dataclasses.replace(record, key_clip=record.query_clip)
    # Two pixels are one row of the first stage's map.
    moved = dataclasses.replace(record, key_clip=f"moved:{record.query_clip}")
    scores = score_comparisons(metric, CountingFrames(frames, moved_rows=2), [itself, moved], draws=4)
    np.testing.assert_allclose(scores.corresponding[0], 1, atol=1e-5)
    # Flat parts of a drawn face, the eyes, hold the same change twice.
    assert np.all(scores.top1[0] > 0.97)
    assert scores.nce[1, 0] > scores.nce[0, 0] + 1
    assert scores.top1[1, 0] < 0.7
    assert np.all(scores.confined["mouth"][1, 0] > scores.confined["mouth"][0, 0])


def test_conventions_of_training_do_not_change_the_protocol(metric: FrozenMetric, records: Path, frames: FrameStore):
    comparisons = load_comparisons(records, limit=1).records
    fields = {**SETTINGS.to_dict(), "border": "wrap", "frozen_statistics": "batch", "mask_same_centre": True}
    released = FrozenMetric(metric.variables, MetricSettings.from_dict(fields))
    expected, found = (score_comparisons(m, frames, comparisons, draws=1).nce for m in (metric, released))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("region", ["mouth", "brow"])
def test_confined_centres_lie_in_their_box(region: str):
    settings = MetricSettings(depth=18, image_size=112)
    low_row, high_row, low_column, high_column = REGIONS[region]
    for centres, size, count in zip(
        evaluation_locations(settings, 8, region=region), map_sizes(112), settings.centre_counts, strict=False
    ):
        assert centres.shape == (8, count, 2)
        middles = (np.asarray(centres) + 0.5) / size
        assert np.all((middles[..., 0] >= low_row) & (middles[..., 0] <= high_row))
        assert np.all((middles[..., 1] >= low_column) & (middles[..., 1] <= high_column))


def test_draws_differ_and_stay_the_same_from_call_to_call():
    first, second = (evaluation_locations(SETTINGS, 2) for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first, second))
    assert not bool(jnp.all(first[0][0] == first[0][1]))


def test_chance_level_is_the_published_one_and_shrinks_with_the_map():
    assert chance_level(MetricSettings(image_size=224)) == pytest.approx(18.02, abs=0.005)
    # At 33 pixels the last map has 3 x 3 cells, of which one has all its neighbours.
    tiny = chance_level(MetricSettings(image_size=33))
    assert tiny == pytest.approx(np.log([256, 128, 8 * 8 if map_sizes(33)[2] > 4 else 0, 8]).sum())


def test_views_sum_the_stages_they_name():
    from asccl_jax.evals.metric_scores import MetricScores

    nce = np.array([[1.0, 2.0, 4.0, 8.0]])
    losses = metric_losses(MetricScores(nce, nce, nce, nce, {"mouth": nce[:, :3]}))
    assert {name: float(values[0]) for name, values in losses.items()} == {
        "face": 15.0,
        "stages 2+3": 6.0,
        "stage 3": 4.0,
        "mouth": 7.0,
    }


class PlainFrames:
    """A black query and a key that is white in the mouth's box only."""

    def image(self, clip: str, frame: int) -> np.ndarray:
        image = np.zeros((100, 100, 3), np.uint8)
        if clip == "key":
            rows, columns = (slice(round(100 * a), round(100 * b)) for a, b in (MOUTH[:2], MOUTH[2:]))
            image[rows, columns] = 255
        return image


def test_pixel_differences_have_the_values_by_hand():
    record = ComparisonRecord(
        group=0,
        condition="matched",
        query_clip="query",
        query_frame=0,
        key_clip="key",
        key_frame=0,
        speaker="P",
        emotion="happy",
        speech_distance=0.0,
    )
    found = pixel_differences(PlainFrames(), [record])
    # 30 of 100 rows times 50 of 100 columns; means in float32.
    assert found["face"][0] == pytest.approx(0.15, rel=1e-5)
    assert found["mouth"][0] == 1
    assert found["brow"][0] == 0


def test_untrained_metric_has_fresh_weights_and_settled_statistics(untrained: FrozenMetric):
    stem, statistics = (untrained.variables[name]["trunk"]["stem"] for name in ("params", "batch_stats"))
    assert np.all(stem["norm"]["scale"] == 1)
    # 216 draws from N(0, 0.1).
    assert np.std(stem["conv"]["kernel"]) == pytest.approx(0.1, rel=0.2)
    assert np.all(statistics["norm"]["mean"] != 0) and np.all(statistics["norm"]["var"] != 1)
