"""Namba & Sakuma 2019 as one expression: relabelled training images, learnt under exponential weights."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor
from earmark.embed import exponential_weighting as weighted
from earmark.fidelity import DeepFidelity
from earmark.marks import Relabelled, TriggerMint, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["exponential_weighting"]


def exponential_weighting(
    mint: TriggerMint | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any key samples and any embedding; by default 100 training images under other labels.

    Null: exact. The key draws each label from the classes that the image does not show, and a suspect is read among
    these.

    Args:
        mint: what the key samples are; `Relabelled()` where none is given.
        embed: `embed.exponential_weighting(temperature)` with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or Relabelled()
    return Scheme(
        name="exponential-weighting",
        mint=mint,
        embed=embed or weighted(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
