"""Schemes: the only place that joins the four letters. One short file per paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from earmark.marks import TriggerSet
from earmark.schemes.base import Scheme
from earmark.schemes.deep_fidelity import deep_fidelity
from earmark.schemes.function_coupled import function_coupled

__all__ = ["SCHEMES", "Scheme", "deep_fidelity", "function_coupled", "scheme_of"]

SCHEMES: Mapping[str, Callable[..., Scheme[TriggerSet]]] = {
    "deep-fidelity": deep_fidelity,
    "function-coupled": function_coupled,
}
"""By the name that a claim has."""


def scheme_of(mark: TriggerSet) -> str:
    """The name of the scheme whose own triggers these are; any other kind goes with deep fidelity, which takes all."""
    return "function-coupled" if mark.settings.get("mint") == "fused" else "deep-fidelity"
