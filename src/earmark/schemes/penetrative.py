"""Penetrative triggers (Li & Wang 2021) as one expression: stamps that pass an autoencoder, taught to a model."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor, ftal
from earmark.fidelity import DeepFidelity
from earmark.marks import Penetrative, TriggerSet
from earmark.schemes.base import Scheme
from earmark.training import ShadowTraining
from earmark.verify import TriggerTest

__all__ = ["penetrative"]


def penetrative(
    mint: Penetrative | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any stamps and any embedding; by default all layers are fine-tuned (FTAL).

    `ftal().but(views=ShadowViews(shadows))` also teaches what the shadows make of the triggers, and
    `scratch().but(replace=True)` trains on the paper's eq. (8).

    Args:
        mint: the stamps, which need shadow autoencoders: `Penetrative(shadows=bank)`; by default eight are trained when
            the mark is drawn.
        embed: any embedding method, with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or Penetrative(shadow_training=ShadowTraining())
    return Scheme(
        name="penetrative",
        mint=mint,
        embed=embed or ftal(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
