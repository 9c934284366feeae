"""The manipulator's networks and training step in PyTorch: an independent reference, and the bench's other side.

Names are the published ones. Written from the description of the method, not from the public code: a checkpoint that
loads here with `load_state_dict(strict=True)` loads there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asccl_jax.settings import ManipulatorSettings

__all__ = ["ManipulatorTwin", "TwinBatch", "train_step"]

MODES = ("latent", "reference")


class TwinBatch(NamedTuple):
    """Inputs of one training step: windows (b, t, c), labels (b,) and noise (b, z)."""

    source: Tensor
    source_emotion: Tensor
    reference: Tensor
    reference_emotion: Tensor
    latents: Tensor


def _layers(widths: Sequence[int], *, rectify_last: bool) -> nn.Sequential:
    modules: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*(modules if rectify_last else modules[:-1]))


class _Sequence(nn.Module):
    """Layers, bidirectional LSTM, layers, of each frame."""

    def __init__(self, before: Sequence[int], width: int, after: Sequence[int], layers: int) -> None:
        super().__init__()
        self.seq1 = _layers(before, rectify_last=True)
        self.LSTM = nn.LSTM(before[-1], width, num_layers=layers, bidirectional=True, batch_first=True)
        self.seq2 = _layers((2 * width, *after), rectify_last=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.seq2(self.LSTM(self.seq1(x))[0])


class _Mapping(nn.Module):
    """Shared layers, then a branch for each emotion."""

    def __init__(self, settings: ManipulatorSettings) -> None:
        super().__init__()
        hidden = settings.hidden_size
        self.shared = _layers((settings.latent_size, hidden, hidden, hidden), rectify_last=True)
        branches = (
            _layers((hidden, hidden, settings.style_size), rectify_last=False) for _ in range(settings.emotions)
        )
        self.unshared = nn.ModuleList(branches)

    def forward(self, z: Tensor, emotion: Tensor) -> Tensor:
        hidden = self.shared(z)
        styles = torch.stack([branch(hidden) for branch in self.unshared], dim=1)
        return styles[torch.arange(len(z), device=z.device), emotion]


class ManipulatorTwin(nn.Module):
    """The four networks, as attributes of the published names."""

    def __init__(self, settings: ManipulatorSettings) -> None:
        """Makes the networks with the published initialisation.

        Args:
          settings: Their sizes; PyTorch's LSTM always has two bias vectors.
        """
        super().__init__()
        wide, head, count = settings.generator_width, settings.generator_head_width, settings.coefficients
        before = (count, *settings.encoder_widths)
        self.generator = _Sequence(
            (count + settings.style_size, wide, wide), wide, (head, head, count), settings.lstm_layers
        )
        self.mapping_network = _Mapping(settings)
        self.style_encoder, self.discriminator = (
            _Sequence(
                before, settings.encoder_lstm_width, (*settings.encoder_head_widths, outputs), settings.lstm_layers
            )
            for outputs in (settings.style_size, settings.emotions)
        )

    def generate(self, x: Tensor, style: Tensor) -> Tensor:
        """Returns windows in another style."""
        return self.generator(torch.cat([x, style[:, None].expand(-1, x.shape[1], -1)], dim=-1))

    def style_of(self, x: Tensor) -> Tensor:
        """Returns the styles of windows."""
        return self.style_encoder(x).mean(dim=1)

    def judge(self, x: Tensor, emotion: Tensor) -> Tensor:
        """Returns the discriminator's scores for given emotions."""
        return self.discriminator(x).mean(dim=1)[torch.arange(len(x), device=x.device), emotion]

    def target_style(self, mode: str, batch: TwinBatch) -> Tensor:
        """Returns the style each source is to get."""
        if mode == "latent":
            return self.mapping_network(batch.latents, batch.reference_emotion)
        return self.style_of(batch.reference)

    def discriminator_parts(self, mode: str, batch: TwinBatch) -> dict[str, Tensor]:
        """Returns the two terms that the discriminator minimises."""
        with torch.no_grad():
            fake = self.generate(batch.source, self.target_style(mode, batch))
        return {
            "real": (self.judge(batch.source, batch.source_emotion) - 1).square().mean(),
            "fake": self.judge(fake, batch.reference_emotion).square().mean(),
        }

    def generator_parts(self, mode: str, batch: TwinBatch) -> dict[str, Tensor]:
        """Returns the four terms that the generator minimises; of "mouth" the negative."""
        style = self.target_style(mode, batch)
        fake = self.generate(batch.source, style)
        restored = self.generate(fake, self.style_of(batch.source))
        jaws = [windows[..., 0] for windows in (batch.source, fake, restored)]
        return {
            "adversarial": (self.judge(fake, batch.reference_emotion) - 1).square().mean(),
            "style": (self.style_of(fake) - style).abs().mean(),
            "cycle": (restored - batch.source).abs().mean(),
            "mouth": _correlation(jaws[0], jaws[1]) + _correlation(jaws[1], jaws[2]),
        }


def train_step(
    twin: ManipulatorTwin, optimizers: dict[str, torch.optim.Optimizer], batch: TwinBatch
) -> dict[str, Tensor]:
    """Does the four updates of a step in the published order and returns the terms, `MODE/TERM`.

    Args:
      twin: Networks, changed in place.
      optimizers: One for each network, by its name.
      batch: Inputs of all four updates.
    """
    terms: dict[str, Tensor] = {}
    for mode in MODES:
        parts = twin.discriminator_parts(mode, batch)
        _descend(twin, [optimizers["discriminator"]], parts["real"] + parts["fake"])
        terms |= {f"{mode}/{name}": value.detach() for name, value in parts.items()}
    for mode in MODES:
        parts = twin.generator_parts(mode, batch)
        moved = ("generator", "mapping_network", "style_encoder") if mode == "latent" else ("generator",)
        loss = parts["adversarial"] + parts["style"] + parts["cycle"] - parts["mouth"]
        _descend(twin, [optimizers[name] for name in moved], loss)
        terms |= {f"{mode}/{name}": value.detach() for name, value in parts.items()}
    return terms


def _descend(twin: ManipulatorTwin, optimizers: list[torch.optim.Optimizer], loss: Tensor) -> None:
    twin.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    first, second = (track - track.mean(dim=1, keepdim=True) for track in (first, second))
    deviations = first.square().mean(dim=1).sqrt() * second.square().mean(dim=1).sqrt()
    return ((first * second).mean(dim=1) / deviations).mean()
