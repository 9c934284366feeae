"""The report tells figures and what is missing; its file is strict JSON and always the same."""

import json

import numpy as np
import pytest

from data_prep.evaluate.video_metrics import ClipScores, PoolScore, ProbeError, Refusal, ShownClip, VideoEvaluation
from data_prep.evaluate.video_references import PUBLISHED, MapCheck, MapPair, caveats
from data_prep.evaluate.video_report import to_dict, to_text, write_video_report


def clip(speaker, emotion, lag):
    values = {
        "lip_landmark_distance": 0.0412345678,
        "mouth_correlation": 0.9,
        "lag_frames": lag,
        "lag_ms": 100 / 3 * lag,
    }
    lacking = {"psnr_db": "no true frames", "ssim": "no true frames"}
    return ClipScores(f"{speaker}/{emotion}/s", speaker, emotion, "s", 30, values, lacking, "src", "", "precomputed")


@pytest.fixture(scope="module")
def evaluation():
    frames = (np.zeros((24, 24, 3), np.uint8),) * 2
    return VideoEvaluation(
        clips=tuple(clip(one, emotion, 2.0 * (one == "Bob")) for one in ("Ann", "Bob") for emotion in ("happy", "sad")),
        real=(ClipScores("r", "Ann", "happy", "s", 30, {"picture_jitter": 0.1}),),
        pools=(
            PoolScore("fad_resnetface18", "happy", "", 2.5, 600, 60),
            PoolScore("expression_csim", "happy", "Ann", 0.8, 9, 9),
        ),
        refused=(Refusal("fake", "Eve/<b>/s", "truncated: 3 of 9 frames can be read"),),
        networks={"resnet-face": "ab" * 32},
        missing={"syncnet": "get syncnet_v2.model from somewhere"},
        silent=1,
        check=MapCheck("cross", 2, 1, (MapPair("src", "M003", "W015", "fear"),), (("x", "not in the map"),), 1),
        probe=ProbeError(0.0123, 40),
        caveats=("frames other than the papers'",),
        shown=(
            ShownClip(
                "Ann/happy/s",
                (("source", frames), ("happy", frames)),
                (0, 1),
                {
                    name: (np.arange(2.0), np.array([0.1, end]))
                    for name, end in (("source", 0.2), ("manipulated", np.nan))
                },
                b"film",
                b"poster",
            ),
        ),
    )


def test_the_page_holds_films_figures_and_what_is_missing(evaluation, tmp_path):
    page = write_video_report(tmp_path, evaluation).read_text()
    for words in (
        "2 of 4 clips LAG",
        "data:video/mp4;base64,",
        "get syncnet_v2.model from somewhere",
        "truncated: 3 of 9 frames",
        "NOT COMPARABLE with this evaluation: frames other than",
        "1 of the 2 pairs",
        "errs by 0.0123",
        "has 60 frames, fewer than",
        "NED + STCCL-VD",
        "this evaluation",
    ):
        assert words in page
    assert "Eve/<b>" not in page  # names of files are escaped


def test_the_file_is_strict_json_of_seven_digits_without_times(evaluation):
    text = json.dumps(to_dict(evaluation), allow_nan=False)
    assert text == json.dumps(to_dict(evaluation), allow_nan=False)
    read = json.loads(text)
    assert read["figures"]["lip_landmark_distance"]["overall"]["value"] == 0.04123457
    pooled = {"value": 2.5, "low": None, "high": None, "count": 1, "unit": "", "units": 0, "within": ""}
    assert read["figures"]["fad_resnetface18"]["overall"] == pooled
    assert read["clips"][0]["lacking"]["ssim"] == "no true frames"
    assert read["missing_networks"] == {"syncnet": "get syncnet_v2.model from somewhere"}


def test_the_console_names_missing_files_and_refused_clips(evaluation):
    text = to_text(evaluation)
    assert "without --syncnet: get syncnet_v2.model" in text
    assert "not scored: Eve/<b>/s (fake): truncated" in text


def test_published_averages_are_those_of_the_papers():
    rows = {(one.data, one.setting, row.method): row for one in PUBLISHED for row in one.rows}
    for key, figures in {
        ("MEAD", "intra", "NED"): (2.108, 9.454, 0.831),
        ("MEAD", "cross", "NED + STCCL-VD"): (4.169, 9.216, 0.795),
        ("MEAD", "cross", "NED + CDRL"): (4.344, 9.351, 0.792),
        ("RAVDESS", "intra", "ICface + STCCL-CM"): (7.294, 8.027, 0.775),
    }.items():
        assert (rows[key].fad, rows[key].lse_d, rows[key].csim) == figures


def test_caveats_vanish_where_all_is_as_published():
    from asccl_jax.data.schema import EMOTIONS
    from data_prep.evaluate.video_references import MEAD_SPEAKERS

    networks = ["resnet-face", "efficient-face", "syncnet"]
    assert caveats(MEAD_SPEAKERS, EMOTIONS, covered=True, networks=networks, mixed_sizes=False) == ()
    found = caveats(MEAD_SPEAKERS[:5], EMOTIONS[:6], covered=None, networks=[], mixed_sizes=True)
    assert len(found) == 5
    assert "without W015" in found[0]
