"""Schemes: the only place that joins the four letters. One short file per paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from earmark.core import Mark
from earmark.schemes.base import Scheme
from earmark.schemes.deep_fidelity import deep_fidelity
from earmark.schemes.deepipr import deepipr
from earmark.schemes.function_coupled import function_coupled
from earmark.schemes.penetrative import penetrative
from earmark.schemes.uchida import uchida

__all__ = ["SCHEMES", "Scheme", "deep_fidelity", "deepipr", "function_coupled", "penetrative", "scheme_of", "uchida"]

SCHEMES: Mapping[str, Callable[..., Scheme[Any]]] = {
    "deep-fidelity": deep_fidelity,
    "deepipr": deepipr,
    "function-coupled": function_coupled,
    "penetrative": penetrative,
    "uchida": uchida,
}
"""By the name that a claim has."""


def scheme_of(mark: Mark) -> str:
    """The name of the scheme whose own mark this is; any other triggers go with deep fidelity, which takes all."""
    if mark.kind in _KINDS:
        return _KINDS[mark.kind]
    return _OWN.get(str(mark.spec()["settings"].get("mint")), "deep-fidelity")


_KINDS: Mapping[str, str] = {"passports": "deepipr", "projection": "uchida"}
_OWN: Mapping[str, str] = {"fused": "function-coupled", "penetrative": "penetrative"}
