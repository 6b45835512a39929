"""Which parameters a run may change: a function from (model, anatomy) to parameter names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from earmark.models import Reader

__all__ = ["Trainable", "all_layers", "head_only", "trunk_only"]

Trainable = Callable[[nn.Module, Reader], set[str]]


def all_layers(model: nn.Module, anatomy: Reader) -> set[str]:
    """Every parameter that the model itself lets train."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def head_only(model: nn.Module, anatomy: Reader) -> set[str]:
    """The last linear layer alone (FTLL, RTLL)."""
    return anatomy.head_parameters(model)


def trunk_only(model: nn.Module, anatomy: Reader) -> set[str]:
    """Everything but the last linear layer (FixLL: W_P stays as it is, eq. 5)."""
    return all_layers(model, anatomy) - anatomy.head_parameters(model)
