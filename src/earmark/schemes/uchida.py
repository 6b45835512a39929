"""Uchida et al. 2017 as one expression: bits in the mean filter of one layer, read by a secret projection."""

from __future__ import annotations

from earmark.attacks import ForgedProjection
from earmark.embed import Uchida
from earmark.fidelity import DeepFidelity
from earmark.marks import Projection, ProjectionMint
from earmark.schemes.base import Scheme
from earmark.verify import ProjectionTest

__all__ = ["uchida"]


def uchida(mint: ProjectionMint | None = None, embed: Uchida | None = None, alpha: float = 1e-6) -> Scheme[Projection]:
    """The scheme with any layer and any number of bits; by default fine-tuned into the host's widest convolution.

    V alone accepts the forgery of I; a judge (`evidence.judge`) mints the projection again and refuses it.

    Args:
        mint: which layer, how many bits and what signature; `ProjectionMint()` where none is given.
        embed: `embed.Uchida` with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or ProjectionMint()
    return Scheme(
        name="uchida",
        mint=mint,
        embed=embed or Uchida(),
        fidelity=DeepFidelity(),
        verify=ProjectionTest(alpha=alpha),
        invert=ForgedProjection(mint),
    )
