"""Training with exponential weights: large ones decide, so that pruning takes away what a mark does not need.

Namba & Sakuma 2019: for the time of embedding each layer computes with EW(w, T) in place of its weights w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn
from torch.nn.utils import parametrize

from earmark.errors import BadInput, number
from earmark.training.masking import LAYERS

__all__ = ["ExponentialWeighting", "exponentially_weighted"]


def exponentially_weighted(weight: Tensor, temperature: float) -> Tensor:
    """EW(w, T) = w exp(T |w|) / max exp(T |w|), the maximum over the layer; signs and the largest weight stay.

    Args:
        weight: w, of any shape.
        temperature: T, 0 or more; 0 changes nothing.

    >>> exponentially_weighted(Tensor([0.0, 1.0, -2.0]), 1.0)
    tensor([ 0.0000,  0.3679, -2.0000])
    """
    size = weight.abs()
    return weight * (temperature * (size - size.amax())).exp()


class _Weighted(nn.Module):
    """The parametrisation of one weight."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, weight: Tensor) -> Tensor:
        return exponentially_weighted(weight, self._temperature)


@final
@dataclass(frozen=True)
class ExponentialWeighting:
    """Layers that compute with EW(w, T) while a model is trained, and plain layers with these very weights afterwards.

    The gradient goes to w, through the maximum as well. Training begins at EW of the weights that the model has, as in
    the paper, which costs some accuracy at first.

    Attributes:
        temperature: T, 0 or more; the larger, the fewer weights count.
        layers: the kinds of layers whose weights are taken so, never their biases.

    Raises:
        BadInput: a temperature below 0; when applied, no such layer, or layers that share a weight.
    """

    temperature: float = 2.0
    layers: tuple[type[nn.Module], ...] = LAYERS

    def __post_init__(self) -> None:
        number("temperature", self.temperature, 0, 1e6)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Within, `model` computes with exponential weights; on leaving, they are its weights."""
        found = self._found(model)
        for layer in found:
            parametrize.register_parametrization(layer, "weight", _Weighted(self.temperature))
        try:
            yield model
        finally:
            for layer in found:
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    def _found(self, model: nn.Module) -> list[nn.Module]:
        every = [layer for layer in model.modules() if isinstance(layer, self.layers)]
        found = [layer for layer in every if isinstance(layer.weight, nn.Parameter)]
        if not found:
            kinds = ", ".join(kind.__name__ for kind in self.layers)
            raise BadInput(f"exponential weighting: no layer of the kinds {kinds} has weights; name other kinds")
        if len({id(layer.weight) for layer in found}) < len(found):
            raise BadInput("exponential weighting: two layers share a weight; name other kinds of layers")
        return found
