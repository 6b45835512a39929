"""Overwriting: the thief embeds a mark of his own over the owner's, by the same scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, final

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.core import Data, Embed, Mark, Mint
from earmark.keys import MarkKey

__all__ = ["Overwrite"]

M = TypeVar("M", bound=Mark)


@final
@dataclass(frozen=True)
class Overwrite(Generic[M]):
    """A second E, with the thief's key. The scheme's own `mint` and `embed` come as arguments, so any scheme will do.

    Both marks may then verify; what decides is who committed first, and that the thief has no model without the owner's
    mark (Adi et al. 2018, Section 2.3; DeepIPR, Section 3.1).
    """

    mint: Mint[M]
    embed: Embed[M]
    key: MarkKey
    needs: ClassVar[Needs] = Needs(weights=True, data="labelled images", more="the scheme")

    def mark(self, model: nn.Module, data: Data) -> M:
        """The thief's mark for the stolen `model`: what a call embeds, and what the thief would commit to."""
        return self.mint(self.key, model, data)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        return self.embed(model, self.mark(model, data), data, rng)
