"""Ways to reach a model that stands accused: a module in memory, or one that the user's own code builds."""

from earmark.suspects.load import load_model
from earmark.suspects.module import as_query

__all__ = ["as_query", "load_model"]
