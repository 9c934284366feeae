"""JAX's geometry meets the golden of FLAME and DECA within the bounds that the bridge is held to."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.parity import comparison, tolerances
from tests.parity.flame_jax import replay

GOLDENS = Path(os.environ.get("ASCCL_GOLDENS", Path(__file__).resolve().parent.parent / "goldens"))
FILES = sorted(file.name for file in GOLDENS.glob("flame_deca*.npz"))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_golden_heads_and_drawings_are_met(file, exact):
    with np.load(GOLDENS / file) as archive:
        golden = dict(archive)
    results = replay(golden, exact=exact)
    spreads = tolerances.known_spreads(GOLDENS / "README.md", file.removesuffix(".npz"), golden)
    replayed = {name: value for name, value in golden.items() if name.removeprefix("f64/") in results.tensors}
    lines = list(comparison.compare(replayed, results, spreads, exact=exact))
    drawn = set() if exact else {"raster/pix_to_face", "raster/zbuf", "raster/bary", "render/shape_images"}
    twin = "f64/" if exact else ""
    assert {line.name for line in lines} >= {f"{twin}out/verts", f"{twin}mesh/vertex_normals"} | drawn
    for line in lines:
        assert line.passed, line
