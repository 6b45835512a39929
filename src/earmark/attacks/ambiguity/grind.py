"""Key grinding: mint honestly from one key after another, and claim with the one that happens to fit.

Innocent models agree on junk (all noise to one class, say), so the best of N keys fits a stranger's model better than
one key would. Every mark that is tried mints again, so only the p-value can stop it: times N, or times 2^64 where N is
not known (`earmark.stats.grind_log10_p`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from earmark.attacks.ambiguity.forgery import Forger, Forgery, draw_key
from earmark.core import Data, Images, Mint
from earmark.keys import MarkKey
from earmark.marks import TriggerSet
from earmark.marks.triggers.check import whole
from earmark.training import answers

__all__ = ["Grind"]


@final
@dataclass(frozen=True)
class Grind(Forger):
    """The best of `keys` honest marks for somebody else's model; among equals the first.

    Attributes:
        mint: the scheme's mint.
        keys: N, how many keys are drawn and tried.

    Raises:
        BadInput: less than one key.
    """

    mint: Mint[TriggerSet]
    keys: int = 2**8

    def __post_init__(self) -> None:
        whole("keys", self.keys, low=1, high=2**40)

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        best, most = self._try(model, data, draw_key(rng))
        for _ in range(self.keys - 1):
            forgery, matches = self._try(model, data, draw_key(rng))
            if matches > most:
                best, most = forgery, matches
        return best

    def _try(self, model: nn.Module, data: Data, key: MarkKey) -> tuple[Forgery, int]:
        mark = self.mint(key, model, data)
        answered = answers(model, Images(mark.images, mark.labels, mark.classes))
        return Forgery(mark, key), int(mark.matches(answered).sum())
