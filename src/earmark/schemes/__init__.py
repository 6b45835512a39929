"""Schemes: the only place that joins the four letters. One short file per paper."""

from earmark.schemes.base import Scheme
from earmark.schemes.deep_fidelity import deep_fidelity

__all__ = ["Scheme", "deep_fidelity"]
