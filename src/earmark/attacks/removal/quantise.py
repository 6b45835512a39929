"""Fewer bits per weight: half precision for the whole model, or integers for the weights of its layers.

Hua & Teoh 2023, Table 8, truncate from 32 to 16 bits. The numbers are rounded to what the narrow type can hold and kept
in the wide one, so that the attacked model answers as the narrow one does, and runs wherever the model ran.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.surgery import by_filter, weight_layers
from earmark.core import Data
from earmark.errors import BadInput

__all__ = ["Half", "Quantise", "round_to_integers"]

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def round_to_integers(weight: Tensor, bits: int) -> Tensor:
    """Symmetric rounding of w (channels, fan-in) to `bits`-bit integers, one scale per row.

    s = max|w| / (2^(bits-1) - 1) and w' = s * round(w / s), so |w - w'| <= s/2. Worked in float64, so that rounding a
    float32 tensor twice gives the same bits as once.

    >>> round_to_integers(torch.tensor([[-1.0, 0.2, 0.6]]), bits=2)
    tensor([[-1., 0., 1.]])
    """
    wide = weight.double()
    scale = wide.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.round(wide / torch.where(scale > 0, scale, 1)).mul(scale).to(weight.dtype)


@final
@dataclass(frozen=True)
class Half:
    """Every parameter and floating-point buffer is rounded to "float16" or "bfloat16", as `model.half()` rounds them.

    Raises:
        BadInput: another type; or, when called, a number that the type cannot hold (float16 ends at 65504).
    """

    to: Literal["float16", "bfloat16"] = "float16"
    needs: ClassVar[Needs] = Needs(weights=True)

    def __post_init__(self) -> None:
        if self.to not in _HALVES:
            raise BadInput(f"to: expected one of {', '.join(_HALVES)}, got {self.to!r}")

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        rounded = copy.deepcopy(model)
        with torch.no_grad():
            for name, tensor in _floating(rounded):
                narrow = tensor.to(_HALVES[self.to])
                if not torch.equal(narrow.isfinite(), tensor.isfinite()):
                    raise BadInput(f"{name} holds a number too large for {self.to}; take bfloat16, or another attack")
                tensor.copy_(narrow)
        return rounded


@final
@dataclass(frozen=True)
class Quantise:
    """The weights of convolutions and fully connected layers are rounded to `bits`-bit integers times a scale, one per
    output channel or one per tensor. Biases, norm layers and buffers keep their precision, as in deployed int8 nets.

    Raises:
        BadInput: `bits` outside 2 to 8.
    """

    bits: int = 8
    per_channel: bool = True
    needs: ClassVar[Needs] = Needs(weights=True)

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise BadInput(f"bits: expected an integer from 2 to 8, got {self.bits}")

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        rounded = copy.deepcopy(model)
        with torch.no_grad():
            for layer in weight_layers(rounded):
                filters = by_filter(layer)
                rows = filters.flatten(0, 1).flatten(1) if self.per_channel else filters.reshape(1, -1)
                filters.copy_(round_to_integers(rows, self.bits).view(filters.shape))
        return rounded


def _floating(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())
