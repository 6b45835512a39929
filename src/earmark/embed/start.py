"""Where embedding starts: at the host, or at a network of the same shape that has learned nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from earmark.embed.prototypes import prototypes
from earmark.errors import BadInput
from earmark.files import state_tensors
from earmark.models import Anatomy, built, device_of, reinitialised

__all__ = ["FromHost", "FromModel", "FromScratch", "Start"]


class Start(Protocol):
    """The model that training begins with: a new one, whatever it is."""

    def __call__(self, host: nn.Module, anatomy: Anatomy, rng: torch.Generator) -> nn.Module: ...


@dataclass(frozen=True)
class FromHost:
    """A copy of the host: embedding by fine-tuning."""

    def __call__(self, host: nn.Module, anatomy: Anatomy, rng: torch.Generator) -> nn.Module:
        return copy.deepcopy(host)


@dataclass(frozen=True)
class FromModel:
    """A copy of another model of the host's architecture, one that has learned the triggers under weaker terms, say.

    The host is still what the model is held to; `TotalWeightLoss` counts from this model on.

    Attributes:
        model: what training begins with; it stays untouched.

    Raises:
        BadInput: the model is of another architecture than the host.
    """

    model: nn.Module = field(repr=False)

    def __call__(self, host: nn.Module, anatomy: Anatomy, rng: torch.Generator) -> nn.Module:
        form, wanted = (_form(model) for model in (self.model, host))
        if form != wanted:
            raise BadInput(
                "the model that embedding begins with has other parameters than the host; give a marked copy of it"
            )
        return copy.deepcopy(self.model).to(device_of(host))


def _form(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state_tensors(model).items()}


@dataclass(frozen=True)
class FromScratch:
    """Fresh parameters: embedding while the model learns its task.

    Attributes:
        head: "fresh", "host" (the host's prototypes; with a fixed last layer this is FixLL + scratch), or the name of a
            polytope, whose vertices become the prototypes, with a zero bias.
        build: makes a network with fresh parameters, for an architecture whose modules cannot draw them anew.
    """

    head: str = "fresh"
    build: Callable[[], nn.Module] | None = None

    def __call__(self, host: nn.Module, anatomy: Anatomy, rng: torch.Generator) -> nn.Module:
        model = reinitialised(host, rng) if self.build is None else built(self.build, rng).to(device_of(host))
        linear = anatomy.linear(model)
        with torch.no_grad():
            if self.head == "host":
                linear.load_state_dict(anatomy.linear(host).state_dict())
            elif self.head != "fresh":
                linear.weight.copy_(prototypes(self.head, anatomy.classes, anatomy.features))
                if linear.bias is not None:
                    linear.bias.zero_()
        return model
