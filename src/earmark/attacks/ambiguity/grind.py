"""Key grinding: mint honestly under one name after another, and claim with the key that happens to fit.

Innocent models agree on junk (all noise to one class, say), so the best of N keys fits a stranger's model better than
one key would. Every mark that is tried mints again, so only the p-value can stop it: times N, or times 2^64 where N is
not known (`earmark.stats.grind_log10_p`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from earmark.attacks.ambiguity.forgery import NAME, Forger, Forgery, draw_owner
from earmark.attacks.needs import Needs
from earmark.core import Data, Mint
from earmark.errors import whole
from earmark.keys import OwnerKey
from earmark.marks import TriggerSet, log_shares
from earmark.models import require_fit
from earmark.training import predict

__all__ = ["Grind"]


@final
@dataclass(frozen=True)
class Grind(Forger):
    """The best of `keys` honest marks for somebody else's model; among equals the first.

    Attributes:
        mint: the scheme's mint.
        keys: N, how many of the owner's mark keys are tried, each under a name of its own.

    Raises:
        BadInput: less than one key; on the call, data that do not fit the model.
    """

    mint: Mint[TriggerSet]
    keys: int = 2**8
    needs: ClassVar[Needs] = Needs(weights=False, queries="classes")

    def __post_init__(self) -> None:
        whole("keys", self.keys, low=1, high=2**40)

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        require_fit(model, data)
        owner = draw_owner(rng)
        best, most = self._try(model, data, owner, f"{NAME} 0")
        for at in range(1, self.keys):
            forgery, matches = self._try(model, data, owner, f"{NAME} {at}")
            if matches > most:
                best, most = forgery, matches
        return best

    def _try(self, model: nn.Module, data: Data, owner: OwnerKey, name: str) -> tuple[Forgery, int]:
        mark = self.mint(owner.mark_key(name), model, data)
        shares = log_shares(predict(model, mark.as_images()), mark.classes)
        return Forgery(mark, owner, name), int(mark.trials_matched(shares).sum())
