"""DECA's checkpoint: read when whole and right, else everything that is wrong is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from asccl_jax.errors import InputError
from DECA_torch_bridge.deca_model import DetailDecoder, coarse_encoder, detail_encoder, read_deca_model


def _content() -> dict[str, Any]:
    """A checkpoint of the right names and sizes; each tensor is one number repeated, which takes no room."""
    with torch.device("meta"):
        networks = {"E_flame": coarse_encoder(), "E_detail": detail_encoder(), "D_detail": DetailDecoder()}
    weights = {
        name: {
            key: torch.full((), index % 7, dtype=tensor.dtype).expand(tensor.shape)
            for index, (key, tensor) in enumerate(network.state_dict().items())
        }
        for name, network in networks.items()
    }
    return {**weights, "opt": {"state": {}, "lr": 1e-4}, "global_step": 7, "batch_size": 8}


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_read_from_old_and_new_files(tmp_path: Path, zipped: bool) -> None:
    content = _content()
    torch.save(content, tmp_path / "deca_model.tar", _use_new_zipfile_serialization=zipped)
    weights = read_deca_model(tmp_path / "deca_model.tar")
    assert [len(part) for part in weights] == [322, 322, 44]
    for name, part in weights._asdict().items():
        assert list(part) == list(content[name])
        assert all(torch.equal(part[key], content[name][key]) for key in part)
    DetailDecoder().load_state_dict(weights.D_detail, strict=True)


def test_every_wrong_key_is_listed(tmp_path: Path) -> None:
    content = _content()
    del content["E_flame"]["layers.2.bias"], content["E_flame"]["encoder.conv1.weight"]
    content["E_flame"]["extra.weight"] = torch.zeros(1)
    content["E_detail"]["layers.2.weight"] = torch.zeros(236, 1024)
    content["D_detail"]["l1.0.bias"] = [1.0]
    content["D_detail"]["conv_blocks.0.weight"] = torch.full((128,), torch.nan)
    torch.save(content, tmp_path / "deca_model.tar")
    with pytest.raises(InputError) as caught:
        read_deca_model(tmp_path / "deca_model.tar")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "E_flame lacks encoder.conv1.weight, layers.2.bias",
        "E_flame has unexpected extra.weight",
        "E_detail has unfit layers.2.weight (236x1024, expected 128x1024)",
        "l1.0.bias (list, expected a tensor)",
        "conv_blocks.0.weight (has values that are not finite)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        (
            {"state_dict": {"a": torch.zeros(1)}},
            r"lacks the networks E_flame, E_detail, D_detail \(it has state_dict\)",
        ),
        ({"E_flame": {"a": 1}, "E_detail": {}, "D_detail": {}}, "E_flame has none of its 322 weights, but a"),
    ],
)
def test_foreign_checkpoint_is_told(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "deca_model.tar")
    with pytest.raises(InputError, match=words):
        read_deca_model(tmp_path / "deca_model.tar")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_checkpoint_is_told(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "deca_model.tar"
    torch.save(_content(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        InputError, match=r"deca_model\.tar: damaged or not a PyTorch checkpoint: .+; get the file again"
    ):
        read_deca_model(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_that_would_run_something_is_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"

    class _Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    torch.save(_content() | {"opt": _Hostile()}, tmp_path / "deca_model.tar", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"refused, nothing was run: it names \w+\.system,"):
        read_deca_model(tmp_path / "deca_model.tar")
    assert not marker.exists()


def test_absent_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_deca_model(tmp_path / "deca_model.tar")
