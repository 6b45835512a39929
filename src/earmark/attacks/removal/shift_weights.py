"""Weight shifting: the mean filter is taken out of each convolution, noise is put in, and fine-tuning mends the rest.

Lukas et al. 2022, "SoK: How robust is image classification deep neural network watermarking?" (IEEE S&P), made it
against marks that are read from a layer's mean filter, as Uchida's is; formula and constants are those of their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from earmark.attacks.removal.surgery import by_filter, weight_layers
from earmark.attacks.removal.tuning import OwnTask
from earmark.core import Data
from earmark.errors import BadInput, number

__all__ = ["ShiftWeights"]


@final
@dataclass(frozen=True)
class ShiftWeights(OwnTask):
    """W_o <- W_o - shift * mean_o(W_o) - noise * N(0, std(W)^2) in each convolution; then ten epochs of fine-tuning.

    The mean is over the filters of one group, the standard deviation over the whole weight. Much is to be learned again
    then, hence at the host's first learning rate. The other settings are `OwnTask`'s.

    Attributes:
        shift: how often the mean filter is subtracted; 1 leaves a mean of zero, the paper has 1.5 and 2.5.
        noise: standard deviations of the layer's weights.

    Raises:
        BadInput: a number out of its range; on the call, a model without convolutions.
    """

    epochs: int = 10
    lr: float = 1e-3
    shift: float = 1.5
    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shift", "noise"):
            number(name, getattr(self, name), 0, 1e3)

    @torch.no_grad()
    def prepared(self, tuned: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        found = [layer for layer in weight_layers(tuned) if isinstance(layer, _ConvNd)]
        if not found:
            raise BadInput("weight shifting is for convolutions, and the model has none; take another attack")
        for layer in {id(layer.weight): layer for layer in found}.values():
            filters = by_filter(layer)
            drawn = torch.randn(filters.shape, generator=rng).to(filters)
            spread = filters.std() if filters.numel() > 1 else 0.0
            filters.sub_(self.shift * filters.mean(1, keepdim=True) + self.noise * spread * drawn)
        return tuned
