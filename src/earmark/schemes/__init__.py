"""Schemes: the only place that joins the four letters. One short file per paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from earmark.core import Mark
from earmark.schemes.adi import adi
from earmark.schemes.base import Scheme
from earmark.schemes.deep_fidelity import deep_fidelity
from earmark.schemes.deepipr import deepipr
from earmark.schemes.entangled import entangled
from earmark.schemes.exponential_weighting import exponential_weighting
from earmark.schemes.frontier_stitching import frontier_stitching
from earmark.schemes.function_coupled import function_coupled
from earmark.schemes.null_embedding import null_embedding
from earmark.schemes.one_way_chain import one_way_chain
from earmark.schemes.penetrative import penetrative
from earmark.schemes.uchida import uchida
from earmark.schemes.zhang import zhang_content, zhang_noise, zhang_unrelated

__all__ = [
    "SCHEMES",
    "Scheme",
    "adi",
    "deep_fidelity",
    "deepipr",
    "entangled",
    "exponential_weighting",
    "frontier_stitching",
    "function_coupled",
    "null_embedding",
    "one_way_chain",
    "penetrative",
    "scheme_of",
    "uchida",
    "zhang_content",
    "zhang_noise",
    "zhang_unrelated",
]

SCHEMES: Mapping[str, Callable[..., Scheme[Any]]] = {
    "deep-fidelity": deep_fidelity,
    "deepipr": deepipr,
    "function-coupled": function_coupled,
    "penetrative": penetrative,
    "uchida": uchida,
    "adi": adi,
    "zhang-content": zhang_content,
    "zhang-noise": zhang_noise,
    "zhang-unrelated": zhang_unrelated,
    "exponential-weighting": exponential_weighting,
    "frontier-stitching": frontier_stitching,
    "entangled": entangled,
    "null-embedding": null_embedding,
    "one-way-chain": one_way_chain,
}
"""By the name that a claim has."""


def scheme_of(mark: Mark) -> str:
    """The name of the scheme whose own mark this is; any other triggers go with deep fidelity, which takes all."""
    if mark.kind in _KINDS:
        return _KINDS[mark.kind]
    settings = mark.spec()["settings"]
    if settings.get("mint") == "patched" and settings.get("opposed"):
        return "null-embedding"
    return _OWN.get(str(settings.get("mint")), "deep-fidelity")


_KINDS: Mapping[str, str] = {"passports": "deepipr", "projection": "uchida"}
_OWN: Mapping[str, str] = {
    "fused": "function-coupled",
    "penetrative": "penetrative",
    "noised": "zhang-noise",
    "relabelled": "exponential-weighting",
    "frontier": "frontier-stitching",
    "patched": "entangled",
    "hash-chain": "one-way-chain",
}
