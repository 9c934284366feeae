"""PyTorch twins of the networks that score faces, with weights by the goldens' recipe, which keeps maps in range."""

import numpy as np
import torch

from tests.parity.recipe import make_array
from tests.twins.face_network_twins import ArcFaceTwin, EfficientFaceTwin, ResNetFaceTwin, SyncNetTwin

TWINS = {
    "resnet-face": ResNetFaceTwin,
    "efficient-face": EfficientFaceTwin,
    "arcface": ArcFaceTwin,
    "syncnet": SyncNetTwin,
}


def drawn_twin(name, settings=None, *, seed=1):
    settings = {
        key: value for key, value in (settings or {}).items() if (name, key) != ("efficient-face", "image_size")
    }
    twin = TWINS[name](**settings)
    drawn = {
        key: torch.from_numpy(make_array({"key": key, "shape": tuple(tensor.shape), "kind": _kind(key, tensor)}, seed))
        for key, tensor in twin.state_dict().items()
    }
    twin.load_state_dict(drawn, strict=True)
    return twin.eval()


def arrays_of(twin):
    return {key: tensor.numpy() for key, tensor in twin.state_dict().items()}


def forward(name, twin, inputs):
    """Outputs of a twin for inputs laid out as Flax has them."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
    with torch.no_grad():
        if name == "syncnet":
            windows, mfcc = tensors
            outputs = twin.lip(windows.permute(0, 4, 1, 2, 3)), twin.audio(mfcc.mT[:, None])
        else:
            outputs = (twin.embed if name == "arcface" else twin)(tensors[0].permute(0, 3, 1, 2))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _kind(key, tensor):
    if key.endswith("num_batches_tracked"):
        return "counter"
    if key.endswith("running_mean"):
        return "run_mean"
    if key.endswith("running_var"):
        return "run_var"
    if tensor.ndim > 1:
        return "linear_w" if tensor.ndim == 2 else "conv_w"
    if key.endswith("bias"):
        return "bias"
    return "prelu_w" if "prelu" in key else "norm_w"
