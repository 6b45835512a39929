"""How a network with passport layers learns: both of its paths in one pass, and the signs of its scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import BadInput, number
from earmark.layers import PassportNorm, on_path
from earmark.models import Anatomy, Reading
from earmark.training.terms import Step

__all__ = ["BothPaths", "PathsCrossEntropy", "SignLoss", "sign_loss"]


@final
@dataclass(frozen=True)
class BothPaths:
    """Reads a protected network along both paths at once: rows (2B, ...), the public ones first.

    Attributes:
        anatomy: the head, which both paths share.
    """

    anatomy: Anatomy

    @property
    def classes(self) -> int | None:
        return self.anatomy.classes

    def head_parameters(self, model: nn.Module) -> set[str]:
        return self.anatomy.head_parameters(model)

    def read(self, model: nn.Module, images: Tensor, through: Callable[[Tensor], Any] | None = None) -> Reading:
        with on_path(model, "both"):
            return self.anatomy.read(model, images, through)


@final
@dataclass(frozen=True)
class PathsCrossEntropy:
    """The mean cross entropy (nats) of each path over the joined batch, summed (Fan et al. 2021, Algorithm 4)."""

    weight: float = 1.0
    needs_host = False
    needs_triggers = False
    needs_labels = True
    name = "ce"

    def __call__(self, step: Step) -> Tensor:
        paths = step.logits.float().chunk(len(step.logits) // len(step.targets))
        return torch.stack([F.cross_entropy(logits, step.targets) for logits in paths]).sum()


def sign_loss(scales: Tensor, bits: Tensor, margin: float, ridge: float, weight: float) -> Tensor:
    """sum_c max(0, margin - b_c gamma_c) + (ridge / weight) gamma_c^2 (Fan et al. 2021, Algorithm 2, eq. 6).

    Sums, not means, as in the released code, whose margin of 0.1 is the paper's alpha, and whose lambda of 0.1 is the
    weight that a term multiplies this with: the ridge itself is not weighted.

    Args:
        scales: gamma, (n,).
        bits: b, (n,), -1 or +1.
        margin: how far from 0 the scales are driven.
        ridge: keeps the scales from growing.
        weight: lambda.
    """
    hinges = (margin - bits.to(scales) * scales).clamp(min=0).sum()
    return hinges + ridge / max(weight, 1e-12) * scales.square().sum()


@final
@dataclass(frozen=True, eq=False)
class SignLoss:
    """`sign_loss` of all passport layers of a network, so that the signs of their scales become the bits.

    With `product`, the scales are those of both paths multiplied, and the public one learns from the loss as well.

    It is computed from the weights in training, by every process of several for itself.

    Attributes:
        norms: the names of the passport layers.
        bits: int8 (n,), -1 or +1, one for each of their channels in this order. No repr shows them.
        margin: how far from 0 the scales are driven.
        ridge: keeps the scales from growing.
        weight: lambda.
        product: whether the public scale has a say.

    Raises:
        BadInput: a number that is negative.
    """

    norms: tuple[str, ...]
    bits: Tensor = field(repr=False)
    margin: float = 0.1
    ridge: float = 1e-5
    weight: float = 0.1
    product: bool = False
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "sign"

    def __post_init__(self) -> None:
        for what in ("margin", "ridge", "weight"):
            number(f"{what} of the sign loss", getattr(self, what), 0, 1e6)

    def __call__(self, step: Step) -> Tensor:
        layers = [_layer(step.model, name) for name in self.norms]
        scales = torch.cat([layer.of_the_pass()[0] for layer in layers]).float()
        if self.product:
            scales = scales * torch.cat([layer.norm.get_parameter("weight") for layer in layers])
        return sign_loss(scales, self.bits, self.margin, self.ridge, self.weight)


def _layer(model: nn.Module, name: str) -> PassportNorm:
    layer = model.get_submodule(name)
    if not isinstance(layer, PassportNorm):
        raise BadInput(f"expected a passport layer at {name!r}, got {type(layer).__name__}; protect the network first")
    return layer
