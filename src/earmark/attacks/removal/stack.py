"""Attacks one after the other: a list of attacks is an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from earmark.attacks.needs import Needs, needs_of, together
from earmark.core import Data, Remove
from earmark.errors import BadInput

__all__ = ["Stack"]


@final
@dataclass(frozen=True)
class Stack:
    """Each attack works on what the one before it left, with the same data, and draws from the same generator in turn.

    Attributes:
        attacks: one or more; a list is kept as a tuple.

    Raises:
        BadInput: no attack, or something that cannot be called, by its place.
    """

    attacks: Sequence[Remove]

    def __post_init__(self) -> None:
        given: Any = self.attacks
        if not isinstance(given, list | tuple) or not given:
            raise BadInput(f"attacks: expected one attack or more, got {given!r:.80}")
        for place, attack in enumerate(given, start=1):
            if not callable(attack):
                raise BadInput(f"attack {place}: expected an attack, such as PruneGlobal(0.5), got {attack!r:.80}")
        object.__setattr__(self, "attacks", tuple(given))

    @property
    def needs(self) -> Needs:
        """What all of its attacks need together."""
        return together(*map(needs_of, self.attacks))

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        for attack in self.attacks:
            model = attack(model, data, rng)
        return model
