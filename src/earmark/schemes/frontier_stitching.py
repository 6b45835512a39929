"""Frontier stitching (Le Merrer et al. 2020) as one expression: adversarial images, answered as what they show."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor, ftal
from earmark.embed.baselines import TUNED
from earmark.fidelity import DeepFidelity
from earmark.marks import Frontier, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["frontier_stitching"]


def frontier_stitching(
    mint: Frontier | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with adversaries of any step; by default 50 true and 50 false ones at 0.1, and FTAL.

    Null: none. Labels are the classes that the images show, and how often adversaries of one model deceive another is
    not known; the paper takes 1/2. V rejects or is inconclusive, unless a judge calibrates a null on innocent models
    (`CalibratedTriggerTest`).

    Args:
        mint: how many adversaries and how large a step; `Frontier()` where none is given.
        embed: any method, with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or Frontier()
    return Scheme(
        name="frontier-stitching",
        mint=mint,
        embed=embed or ftal().but(settings=TUNED),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
