"""What all evasions share: every image is washed before the stolen model sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.core import Data, Query
from earmark.errors import BadInput
from earmark.suspects import as_query

__all__ = ["Wash", "Washer", "black_box", "require_washer"]

BLOCK = 256

Wash: TypeAlias = Callable[[Tensor], Tensor]
"""Images (N, C, H, W), float in [0, 1], to new images of the same shape, type and device; the given ones stay."""


class Washer(ABC):
    """The verb evade: `washing` gives the function on images, a call puts it in front of a model.

    The query washes 256 images at a time, without gradient, and hands the model a tensor of its own. An `nn.Module` in
    the place of a query is asked through `as_query`.

    Raises:
        BadInput: by the query, images that are not float (N, C, H, W).
    """

    @property
    def needs(self) -> Needs:
        """A model to ask, which the thief hosts, and nothing else."""
        return Needs(weights=False, queries="classes")

    @abstractmethod
    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        """What happens to the images; a washer that learns does it here, from `data`, which is the thief's."""

    def __call__(self, model: Query, data: Data, rng: torch.Generator) -> Query:
        ask, wash = black_box(model), self.washing(data, rng)

        def query(images: Tensor) -> Tensor:
            if images.ndim != 4 or not images.is_floating_point():
                raise BadInput(
                    f"expected images (N, C, H, W), float in [0, 1], got {images.dtype} {tuple(images.shape)}"
                )
            with torch.no_grad():
                washed = torch.cat([wash(block) for block in torch.split(images, BLOCK)])
            return ask(washed)

        return query


def black_box(model: Query | nn.Module) -> Query:
    """The model as a query: a module through `as_query`, so that neither its mode nor its buffers change."""
    return as_query(model) if isinstance(model, nn.Module) else model


def require_washer(what: str, value: Any) -> None:
    """Raise `BadInput` for anything but a washer."""
    if not isinstance(value, Washer):
        raise BadInput(f"{what}: expected a washer, such as Median() or Jpeg(), got {value!r:.80}")
