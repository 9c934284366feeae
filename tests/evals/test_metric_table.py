import numpy as np
import pytest

from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.evals.metric_comparisons import Comparisons
from asccl_jax.evals.metric_scores import MetricScores, metric_losses
from asccl_jax.evals.metric_table import Row, demo_bars, outcomes, summarise, verdict
from asccl_jax.evals.metric_text import markdown, text

GROUPS = 30
CONDITIONS = ("matched", "other_speech", "neutral_same_speech", "neutral_other_speech", "brow_only")


def comparisons(controlled: bool = True, clips: int = GROUPS, people: int = 2) -> Comparisons:
    records = [
        ComparisonRecord(
            group=10 * group,
            condition=condition,
            query_clip=f"q{group % clips}",
            query_frame=0,
            key_clip=f"{condition}{group % clips}",
            key_frame=group,
            speaker=f"P{group % people}",
            emotion="happy" if group % 3 else "sad",
            speech_distance=0.0,
        )
        for group in range(GROUPS)
        for condition in CONDITIONS
    ]
    return Comparisons(tuple(records), controlled, "comparisons")


def row(name: str, kind: str, *levels: float, noise: float = 0.01) -> Row:
    """A row whose loss under each condition is a level plus noise, a quarter of it from each stage."""
    rng = np.random.default_rng(sum(map(ord, name)))
    losses = np.tile(levels, GROUPS) + noise * rng.normal(size=len(levels) * GROUPS)
    if kind == "pixels":
        return Row(name, kind, {"face": losses, "mouth": losses, "brow": losses})
    nce = np.repeat(losses[:, None] / 4, 4, axis=1)
    scores = MetricScores(nce, 0.9 + 0 * nce, 0.8 + 0 * nce, 0.1 + 0 * nce, {"mouth": nce[:, :3], "brow": nce[:, :3]})
    return Row(name, kind, metric_losses(scores), scores)


@pytest.fixture(scope="module")
def table():
    rows = [
        row("trained", "trained", 4.0, 6.0, 2.0, 4.0, 3.0),
        row("mis-paired", "control", 4.0, 4.8, 2.0, 2.6, 2.5),
        row("untrained", "untrained", 12.0, 12.1, 10.0, 10.1, 10.5, noise=1.0),
        row("pixel difference", "pixels", 0.10, 0.11, 0.10, 0.11, 0.11, noise=0.05),
    ]
    return summarise(rows, comparisons())


def test_ratios_and_excesses_have_the_values_by_hand(table):
    trained = table.row("trained")
    # Noise of 0.01 over 30 groups leaves 0.002 on each mean.
    assert trained.result("speech", "face").ratio.value == pytest.approx(1.5, abs=0.01)
    assert trained.result("neutral_speech", "mouth").ratio.value == pytest.approx(2.0, abs=0.02)
    assert trained.mouth_over_brow.value == pytest.approx(2.0, abs=0.03)
    assert trained.mouth_over_emotion.value == pytest.approx(1.0, abs=0.02)
    assert trained.total.value == pytest.approx(4.0, abs=0.01)
    assert [stage.gap for stage in trained.stages] == pytest.approx([0.7] * 4)
    assert set(trained.speakers) == {"P0", "P1"} and set(trained.emotions) == {"happy", "sad"}
    assert trained.result("small_speech", "face") is None


def test_only_the_metric_and_its_baselines_compete(table):
    assert {leader.first for leader in table.leaders} | {leader.second for leader in table.leaders} <= {
        "trained",
        "untrained",
        "pixel difference",
    }
    speech = next(leader for leader in table.leaders if leader.contrast == "speech" and leader.view == "face")
    assert speech.first == "trained" and speech.value == 1 and speech.clear


def test_verdict_names_wins_and_says_when_there_is_none(table):
    assert outcomes(table)["speech"] == "ahead"
    assert "clearly beats" in verdict(table) and "not worth" not in verdict(table)
    twins = [row(name, kind, 4, 4.1, 2, 2.1, 2.05, noise=1.0) for name, kind in (("a", "trained"), ("b", "untrained"))]
    even = summarise(twins, comparisons())
    assert set(outcomes(even).values()) <= {"level", "unheard"}
    assert "not worth its cost" in verdict(even)


def test_verdict_of_too_few_clips_is_open():
    rows = [row("trained", "trained", 4, 6, 2, 4, 3), row("untrained", "untrained", 4, 4.1, 2, 2.1, 2.05, noise=1.0)]
    few, enough = (summarise(rows, comparisons(clips=clips)) for clips in (4, GROUPS))
    assert outcomes(enough)["speech"] == "ahead" and outcomes(few)["speech"] == "open"
    assert "too few clips to tell which row is best at: clearly other speech" in verdict(few)
    assert "level" not in verdict(few) and "not worth" not in verdict(few)


def test_a_row_that_gets_everything_wrong_is_not_praised():
    wrong = [row(name, kind, 6, 4, 4, 2, 3) for name, kind in (("a", "trained"), ("b", "untrained"))]
    assert set(outcomes(summarise(wrong, comparisons())).values()) == {"unheard"}


def test_bars_compare_with_start_and_control(table):
    bars = {bar.title: bar for bar in demo_bars(table)}
    assert bars["total NCE of matched pairs"].met
    share = bars["total NCE over that of the untrained network"]
    assert share.value == pytest.approx(1 / 3, abs=0.02) and share.met
    assert bars["loss of clearly other speech over matched"].met
    against = next(bar for title, bar in bars.items() if title.startswith("loss of clearly") and "control" in title)
    assert against.bound == pytest.approx(1.2, abs=0.02) and against.met
    assert not bars["stage 3 top-1"].met
    assert not bars["the same ratio with centres on the brows"].met


def test_bars_do_not_apply_to_derived_comparisons(table):
    derived = summarise([row("trained", "trained", 4, 6, 2, 4, 3)], comparisons(controlled=False))
    assert demo_bars(derived) == ()


def test_every_table_says_what_its_intervals_resample(table):
    printed = text(table)
    for title in ("Loss and retrieval by stage", "Which row wins where", "Loss ratios", "Speech against other changes"):
        assert "95 % intervals over 30 query clips of 2 speakers" in printed.split(title)[1].split("\n\n")[0]
    assert "95 % intervals over 15 query clips of 1 speaker" in printed.split("by speaker")[1].split("\n\n")[0]


def test_frames_of_few_clips_are_resampled_by_clip_or_not_at_all():
    rows = [row("a", "trained", 4, 4.3, 2, 2.5, 3, noise=0.3), row("b", "untrained", 4, 4.1, 2, 2.4, 3, noise=0.3)]
    found = {
        clips: summarise(rows, comparisons(clips=clips, people=1)).row("trained").total for clips in (GROUPS, 10, 3)
    }
    assert (found[10].unit, found[10].units, found[10].count) == ("query clip", 10, GROUPS)
    assert not found[3].known and found[3].value == found[GROUPS].value
    assert not any(leader.clear for leader in summarise(rows, comparisons(clips=3, people=1)).leaders)
    assert summarise(rows, comparisons(people=6)).row("trained").total.unit == "speaker"


def test_text_lines_up_and_markdown_is_a_table(table):
    printed, document = text(table), markdown(table)
    for part in (
        "Loss and retrieval by stage",
        "Which row wins where",
        "Loss ratios",
        "Orderings",
        "Bars of the demo recipe",
    ):
        assert part in printed and f"## {part}" in document
    block = printed.split("Loss ratios\n")[1].split("\n\n")[0].splitlines()[1:]
    assert len({len(line) for line in block if "stages" not in line and "stage" not in line}) == 1
    tables = [line for line in document.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
