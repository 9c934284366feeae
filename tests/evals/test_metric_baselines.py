import numpy as np
import pytest

from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.evals.contrasts import MOUTH
from asccl_jax.evals.metric_baselines import pixel_differences
from asccl_jax.frozen_metric import FrozenMetric


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
