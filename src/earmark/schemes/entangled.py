"""Entangled watermarks (Jia et al. 2021) as one expression: patches, drawn near to what they are taught as."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor
from earmark.embed import entangled as drawn_near
from earmark.fidelity import DeepFidelity
from earmark.marks import Patched, TriggerMint, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["entangled"]


def entangled(
    mint: TriggerMint | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any triggers and any embedding; by default 30 patches, entangled in the penultimate feature.

    Null: exact with the default labels, one to a patch, which the key draws. The paper's own are one patch, one class
    that is patched and one that is taught, `Patched(group=1, carrier_class=4, labels=OneClass(6))`: then there is none,
    and V rejects or is inconclusive, unless a judge calibrates one (`CalibratedTriggerTest`).

    Args:
        mint: the patches and their labels; `Patched()` where none is given.
        embed: `embed.entangled` with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or Patched()
    return Scheme(
        name="entangled",
        mint=mint,
        embed=embed or drawn_near(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
