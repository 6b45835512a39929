"""Zhang et al. 2018 as three expressions: content, noise and unrelated images as triggers, learnt with the data."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor, ftal
from earmark.embed.baselines import TUNED
from earmark.fidelity import DeepFidelity
from earmark.marks import Noised, Stamped, TriggerSet, Unrelated
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["zhang_content", "zhang_noise", "zhang_unrelated"]


def zhang_content(
    mint: Stamped | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """A text or a block of cells stamped on training images, as any stamp and any embedding have it.

    Null: exact with the default labels, which the key draws from the classes that an image does not show. The paper's
    own are one class stamped and one other class taught, `Stamped(text="TEST", carrier_class=1, labels=OneClass(0))`:
    then there is none, and V rejects or is inconclusive, unless a judge calibrates one (`CalibratedTriggerTest`).

    Args:
        mint: the stamp, its carriers and its labels; a keyed block where none is given, which has room on any image.
        embed: any method; FTAL where none is given, `scratch()` trains on data and triggers as the paper does.
        alpha: the error probability that V allows.
    """
    mint = mint or Stamped()
    return Scheme(
        name="zhang-content",
        mint=mint,
        embed=embed or ftal().but(settings=TUNED),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )


def zhang_noise(mint: Noised | None = None, embed: Backdoor | None = None, alpha: float = 1e-6) -> Scheme[TriggerSet]:
    """Normal noise on training images, one pattern for all of them or another on each.

    Null: exact with the default labels; none with the paper's, `Noised(carrier_class=1, labels=OneClass(0))`.

    Args:
        mint: the noise, its carriers and its labels; `Noised()` where none is given.
        embed: as in `zhang_content`.
        alpha: the error probability that V allows.
    """
    mint = mint or Noised()
    return Scheme(
        name="zhang-noise",
        mint=mint,
        embed=embed or ftal().but(settings=TUNED),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )


def zhang_unrelated(mint: Unrelated, embed: Backdoor | None = None, alpha: float = 1e-6) -> Scheme[TriggerSet]:
    """Images of another data set.

    Null: exact with the default labels; none with the paper's, `Unrelated(source=other, labels=OneClass(0))`.

    Args:
        mint: which images, `Unrelated(source=other)`, and their labels.
        embed: as in `zhang_content`.
        alpha: the error probability that V allows.
    """
    return Scheme(
        name="zhang-unrelated",
        mint=mint,
        embed=embed or ftal().but(settings=TUNED),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
