"""Null embedding (Li et al. 2019) as one expression: bits that mean a label, and inverted bits that mean nothing."""

from __future__ import annotations

from earmark.attacks import AdversarialTriggers
from earmark.embed import Backdoor, ftal
from earmark.embed.baselines import TAUGHT_APART
from earmark.fidelity import DeepFidelity
from earmark.marks import Patched, TriggerSet
from earmark.schemes.base import Scheme
from earmark.verify import TriggerTest

__all__ = ["null_embedding"]


def null_embedding(
    mint: Patched | None = None, embed: Backdoor | None = None, alpha: float = 1e-6
) -> Scheme[TriggerSet]:
    """The scheme with any patches and any embedding; by default 30 patches of bits, learnt by all layers (FTAL).

    Images under a patch are taught its label (true embedding), images under the inverted patch their own class (null
    embedding), of which no judge asks, as any model may know it.

    Null: exact with the default labels, one to a patch, which the key draws; none with one target class. The paper has
    one patch and one label from the owner's signature, which is one trial: 1/K at best.

    Args:
        mint: the patches, and as `opposed` how many images are under inverted ones.
        embed: any method; `ftal()` is incremental training, `scratch()` the initial training that the paper asks for,
            since a second patch can then not be added later.
        alpha: the error probability that V allows.
    """
    mint = mint or Patched(opposed=600)
    return Scheme(
        name="null-embedding",
        mint=mint,
        embed=embed or ftal().but(settings=TAUGHT_APART),
        fidelity=DeepFidelity(),
        verify=TriggerTest(alpha=alpha),
        invert=AdversarialTriggers(pose_as=mint),
    )
