"""Adi et al. 2018 as one expression: abstract images with labels at random, learnt with the task or after it."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor
from earmark.embed import adi as two_to_a_batch
from earmark.fidelity import DeepFidelity
from earmark.marks import Abstract, TriggerMint, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["adi"]


def adi(mint: TriggerMint | None = None, embed: Backdoor | None = None, alpha: float = 1e-6) -> Scheme[TriggerSet]:
    """The scheme with any trigger set; by default 100 abstract images whose labels the key draws, taught to the host.

    Null: exact. The paper draws labels at random, too; its pictures were collected, these are painted from the key.

    Args:
        mint: what the trigger set is made of; `Abstract()` where none is given.
        embed: `embed.adi()` with its settings, which fine-tunes the host; `embed.adi(fresh=True)` is the paper's
            FromScratch.
        alpha: the error probability that V allows.
    """
    mint = mint or Abstract()
    return Scheme(
        name="adi",
        mint=mint,
        embed=embed or two_to_a_batch(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
