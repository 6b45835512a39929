"""A scheme is a frozen tuple: how a mark is minted, and the four processes of Fan et al. 2021, Definition 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from earmark.core import Embed, Fidelity, Invert, Mark, Mint, Verify

__all__ = ["Scheme"]

M = TypeVar("M", bound=Mark)


@dataclass(frozen=True)
class Scheme(Generic[M]):
    """(E, F, V, I) and the mint that feeds them.

    Attributes:
        name: what a claim calls it.
        mint: the owner's mark from a key.
        embed: E, a marked copy of a host.
        fidelity: F, how far the copy stands from the host.
        verify: V, whether a suspect carries a mark.
        invert: I, the ambiguity attack that a table prints beside V.
    """

    name: str
    mint: Mint[M]
    embed: Embed[M]
    fidelity: Fidelity
    verify: Verify[Any, M]
    invert: Invert[M]
