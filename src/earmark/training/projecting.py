"""How a layer learns bits: the regulariser of Uchida et al. 2017 on the mean of its filters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch.nn.functional as F
from torch import Tensor

from earmark.errors import number
from earmark.training.terms import Step

__all__ = ["ProjectionLoss"]


@final
@dataclass(frozen=True, eq=False)
class ProjectionLoss:
    """-sum_j b_j log y_j + (1 - b_j) log(1 - y_j), y = sigmoid(X w) (Uchida et al. 2017, eqs. 2 and 3).

    w is the layer's weight averaged over its filters. It is a sum, not a mean, as in Fan et al. 2021, eq. (2), too.

    Attributes:
        layer: the name of the layer.
        projection: X, float32 (T, M).
        bits: int8 (T,), -1 for b = 0 and +1 for b = 1. No repr shows either.
        weight: the paper's lambda, 0.01.

    Raises:
        BadInput: a weight that is negative.
    """

    layer: str
    projection: Tensor = field(repr=False)
    bits: Tensor = field(repr=False)
    weight: float = 0.01
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "projection"

    def __post_init__(self) -> None:
        number("weight of the projection loss", self.weight, 0, 1e6)

    def __call__(self, step: Step) -> Tensor:
        own = f"{self.layer}.weight"
        weight = step.unmasked.get(own, step.model.get_submodule(self.layer).weight)
        assert isinstance(weight, Tensor), "the layer that a projection reads has a weight"
        mean = weight.float().mean(0).flatten()
        wanted = (self.bits > 0).to(mean)
        return F.binary_cross_entropy_with_logits(self.projection.to(mean) @ mean, wanted, reduction="sum")
