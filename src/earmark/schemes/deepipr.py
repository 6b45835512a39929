"""DeepIPR (Fan et al. 2021) as one expression: passports, in a network that learns its task with and without them."""

from __future__ import annotations

from earmark.attacks import SolvedPassports
from earmark.embed import PassportLayers, passport_v2
from earmark.fidelity import DeepFidelity
from earmark.marks import PassportMint, Passports
from earmark.schemes.base import Scheme
from earmark.verify import PassportTest

__all__ = ["deepipr"]


def deepipr(
    mint: PassportMint | None = None, embed: PassportLayers | None = None, alpha: float = 1e-6
) -> Scheme[Passports]:
    """The scheme with any passports and any of V1, V2 and V3; by default random passports for three layers, and V2.

    V alone accepts the forgery of I; a judge (`evidence.judge`) mints the mark again and refuses it.

    Args:
        mint: which layers, what signature and what passports; `PassportMint()` where none is given.
        embed: `embed.passport_v1()`, `passport_v2()` or `passport_v3(triggers)`, with its settings.
        alpha: the error probability that V allows.
    """
    mint = mint or PassportMint()
    return Scheme(
        name="deepipr",
        mint=mint,
        embed=embed or passport_v2(),
        fidelity=DeepFidelity(),
        verify=PassportTest(alpha=alpha),
        invert=SolvedPassports(mint.layers),
    )
