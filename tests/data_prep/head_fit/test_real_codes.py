"""A code dict that DECA itself wrote fits our fields and draws a head."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from data_prep.head_fit.head_assets import builtin_assets, head_model
from data_prep.head_fit.head_drawing import HeadRenderer
from data_prep.head_fit.published_codes import read_published_codes, write_published_codes
from data_prep.head_fit.view import crop_view
from tests.data_prep.head_fit.golden_head import golden_assets

FOLDER = Path(__file__).parents[4] / "shared" / "clips" / "codedict"
FILES = sorted(FOLDER.glob("*.npz"))

pytestmark = pytest.mark.skipif(not FILES, reason="needs ../shared/clips/codedict")


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def codes(request) -> CodeDict:
    with np.load(request.param, allow_pickle=False) as file:
        known = {field.name for field in dataclasses.fields(CodeDict)} & set(file.files)
        return CodeDict(frame_index=np.arange(len(file["pose"])), **{name: file[name] for name in known})


def test_all_fields_are_there_and_survive_both_files(codes: CodeDict, tmp_path: Path):
    assert codes.shape.shape[1] == 100 and codes.exp.shape[1] == 50
    assert codes.tex is not None and codes.light is not None and codes.detail is not None
    codes.save(tmp_path / "codes.npz")
    write_published_codes(tmp_path / "published", codes)
    for read in (CodeDict.load(tmp_path / "codes.npz"), read_published_codes(tmp_path / "published")):
        for name in ("shape", "exp", "pose", "cam", "tex", "light", "detail"):
            np.testing.assert_array_equal(getattr(read, name), getattr(codes, name), err_msg=name)


@pytest.mark.parametrize("assets", [golden_assets, builtin_assets])
def test_it_draws_a_head(codes: CodeDict, assets):
    renderer = HeadRenderer(head_model(assets()))
    renders = renderer.renders(codes, view=crop_view(codes))
    for name in ("nmfc", "shape", "landmarks"):
        assert np.isfinite(getattr(renders, name)).all(), name
    # The head fills much of DECA's crop, with colours and shades, and the crop's middle is on it.
    assert 0.05 < renders.alpha.mean() < 0.99
    assert renders.alpha[:, 100:124, 100:124].all()
    inside = renders.alpha & (renders.shape.max(axis=-1) > 0)
    assert inside.sum() > 0.8 * renders.alpha.sum()
    assert renders.nmfc[inside].std(axis=0).min() > 0.02
    assert renders.shape[inside].std() > 0.02
