"""A small metric with weights worth comparing: every parameter and statistic away from its default."""

import numpy as np
import torch

from asccl_jax.settings import MetricSettings
from tests.twins.metric_twin import CorrelationMetricTwin

SIZE = 48
NETWORK = {"stage_blocks": (1, 1, 1, 1), "stage_widths": (8, 12, 16, 20), "image_size": SIZE}


def random_twin(settings: MetricSettings, *, seed: int) -> CorrelationMetricTwin:
    torch.manual_seed(seed)
    twin = CorrelationMetricTwin(settings)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
            elif parameter.ndim == 4:
                parameter.mul_(10 * (2 / parameter[0].numel()) ** 0.5)
            assert name
        for name, buffer in twin.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.3 * torch.rand(buffer.shape))
    return twin


def arrays_of(twin: CorrelationMetricTwin) -> dict[str, np.ndarray]:
    return {key: tensor.detach().numpy().copy() for key, tensor in twin.state_dict().items()}
