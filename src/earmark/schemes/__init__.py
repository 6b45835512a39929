"""Schemes: the only place that joins the four letters. One short file per paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from earmark.marks import TriggerSet
from earmark.schemes.base import Scheme
from earmark.schemes.deep_fidelity import deep_fidelity
from earmark.schemes.function_coupled import function_coupled
from earmark.schemes.penetrative import penetrative

__all__ = ["SCHEMES", "Scheme", "deep_fidelity", "function_coupled", "penetrative", "scheme_of"]

SCHEMES: Mapping[str, Callable[..., Scheme[TriggerSet]]] = {
    "deep-fidelity": deep_fidelity,
    "function-coupled": function_coupled,
    "penetrative": penetrative,
}
"""By the name that a claim has."""


def scheme_of(mark: TriggerSet) -> str:
    """The name of the scheme whose own triggers these are; any other kind goes with deep fidelity, which takes all."""
    return _OWN.get(str(mark.settings.get("mint")), "deep-fidelity")


_OWN: Mapping[str, str] = {"fused": "function-coupled", "penetrative": "penetrative"}
