"""One-way chains (Zhu et al. 2020) as one expression: noise that hashes to noise, learnt two images to a batch."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor
from earmark.embed import adi as two_to_a_batch
from earmark.fidelity import DeepFidelity
from earmark.marks import HashChain, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["one_way_chain"]


def one_way_chain(
    mint: HashChain | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with a chain of any length; by default 100 images, fine-tuned two to a batch.

    The chain is there against forgers: triggers that were fitted to a model do not hash to each other
    (`marks.is_chain`), so I fails before anybody's key is opened, where other triggers are refused as not minted.

    Null: exact, by labels that the key draws when the chain is fixed.

    Args:
        mint: the chain; `HashChain()` where none is given.
        embed: `embed.adi()`, whose two triggers to each batch of 100 are this paper's as well, or any other method.
        alpha: the error probability that V allows.
    """
    mint = mint or HashChain()
    return Scheme(
        name="one-way-chain",
        mint=mint,
        embed=embed or two_to_a_batch(),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
