"""Washers one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import torch

from earmark.attacks.evasion.washer import Wash, Washer, require_washer
from earmark.attacks.needs import Needs, together
from earmark.core import Data
from earmark.errors import BadInput

__all__ = ["Chain"]


@final
@dataclass(frozen=True)
class Chain(Washer):
    """The images go through `washers` in order; so does the generator, when each makes its washing.

    Raises:
        BadInput: no washer, or something that is none, by its place.
    """

    washers: tuple[Washer, ...]

    def __post_init__(self) -> None:
        given: Any = self.washers
        if not isinstance(given, tuple) or not given:
            raise BadInput(f"washers: expected a tuple of one washer or more, got {given!r:.80}")
        for place, washer in enumerate(given, start=1):
            require_washer(f"washer {place}", washer)

    @property
    def needs(self) -> Needs:
        """What all of its washers need together."""
        return together(*(washer.needs for washer in self.washers))

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        washes = [washer.washing(data, rng) for washer in self.washers]
        return lambda images: reduce(lambda washed, wash: wash(washed), washes, images)
