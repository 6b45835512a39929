"""Function-coupled watermarks (Wen et al. 2023) as one expression: fused triggers, learnt under masked training."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor
from earmark.embed import function_coupled as algorithm_1
from earmark.fidelity import DeepFidelity
from earmark.marks import Fused, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["function_coupled"]


def function_coupled(
    mint: Fused | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any fusion and any embedding; by default keyed groups of direct fusions, and Algorithm 1.

    With `fixll_pfl().but(masking=Masking())` as `embed` it keeps the host's features, too; with
    `Fused(style="invisible")` and `embed.function_coupled_plus()` the mark is also in copies that are taught by the
    model's scores.

    Args:
        mint: what the trigger set is made of; `Fused()` where none is given.
        embed: `embed.function_coupled` with its settings, or any other method; Algorithm 1 where none is given.
        alpha: the error probability that V allows.
    """
    mint = mint or Fused()
    return Scheme(
        name="function-coupled",
        mint=mint,
        embed=embed or algorithm_1(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
