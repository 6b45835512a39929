"""Deep fidelity (Hua & Teoh 2023) as one expression: a trigger set, hidden with features and prototypes kept."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor, fixll_pfl
from earmark.fidelity import DeepFidelity
from earmark.marks import Noise, TriggerMint, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["deep_fidelity"]


def deep_fidelity(
    mint: TriggerMint | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any of its mints and embedding methods; by default 100 noise triggers and FixLL+PFL (eq. 13).

    Args:
        mint: what the trigger set is made of; `Noise()` where none is given.
        embed: one of `earmark.embed.METHODS`, with its settings; `fixll_pfl()` where none is given.
        alpha: the error probability that V allows.
    """
    mint = mint or Noise()
    return Scheme(
        name="deep-fidelity",
        mint=mint,
        embed=embed or fixll_pfl(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
