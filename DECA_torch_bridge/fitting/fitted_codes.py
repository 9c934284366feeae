"""What the fit found as a code dict: the `landmarks` encoder speaks the same language as DECA's networks."""

from __future__ import annotations

import numpy as np

from asccl_jax.data.codes import CodeDict
from DECA_torch_bridge.fitting.clip_fit import ClipFit

__all__ = ["code_dict"]


def code_dict(fit: ClipFit, *, original_size: tuple[int, int] | None = None) -> CodeDict:
    """Returns the code dict of a fitted clip; texture, light and detail are not known.

    Args:
      fit: The clip.
      original_size: Width and height of its frames in pixels.
    """
    return CodeDict(
        frame_index=fit.frame_index,
        shape=np.repeat(fit.shape[None], len(fit.frame_index), axis=0).astype(np.float32),
        exp=fit.expression.astype(np.float32),
        pose=fit.pose.astype(np.float32),
        cam=fit.crop_camera.astype(np.float32),
        tform=fit.crop_transform,
        original_size=original_size,
    )
