"""The coarse face encoder and the face segmenter replayed from a golden's seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from DECA_torch_bridge.deca_model import IMAGE_SIZE, coarse_encoder
from DECA_torch_bridge.segmenter import Segmenter
from tests.parity import recipe
from tests.parity.metric import Replayed

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "replay"]

NAMES = r"deca_encoders.*"
MANIFESTS = ("deca_E_flame", "segmentation_unet_scale4")
INPUTS = r"cfg"

_REDUCTION = 4


def replay(
    arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Sequence[Mapping[str, Any]]], *, exact: bool
) -> Replayed:
    """Everything a golden of the encoders holds.

    Args:
      arrays: Arrays of the file; only the seed, and the segmented picture's size, are read.
      manifests: Entries of the networks' state dicts.
      exact: Compute in float64.
    """
    seed = int(arrays["cfg"][0])
    dtype = torch.float64 if exact else torch.float32
    size = int(arrays["segmentation/logits/shape"][-1])

    def picture(name: str, side: int) -> torch.Tensor:
        drawn = recipe.make_input(name, (1, 3, side, side), seed, "uniform", 0, 1)
        return torch.from_numpy(drawn).movedim(1, -1).to(dtype)

    encoder = _loaded(coarse_encoder(), manifests[MANIFESTS[0]], seed, "deca.E_flame.").to(dtype)
    segmenter = _loaded(Segmenter(reduction=_REDUCTION), manifests[MANIFESTS[1]], seed, "seg.").to(dtype)
    with torch.no_grad():
        pooled = encoder.features(picture("deca.image", IMAGE_SIZE))
        params = encoder.layers(pooled)
        scores = segmenter(picture("seg.image", size))
    return Replayed(
        {
            "E_flame/pooled": pooled.numpy(),
            "E_flame/params": params.numpy(),
            "segmentation/logits": scores.movedim(-1, 1).numpy(),
            "segmentation/logits_strided2": scores.movedim(-1, 1)[:, :, ::2, ::2].numpy(),
            "segmentation/argmax": scores.argmax(dim=-1).to(torch.uint8).numpy(),
        }
    )


def _loaded(module: nn.Module, manifest: Sequence[Mapping[str, Any]], seed: int, prefix: str) -> nn.Module:
    weights = recipe.make_weights(manifest, seed, prefix=prefix)
    module.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
    return module.eval()
