"""Checks of settings, which may come from a stranger's file."""

from __future__ import annotations

import math
from typing import Any

from earmark.errors import BadInput

__all__ = ["number", "whole"]


def whole(what: str, value: Any, low: int, high: int = 1_000_000) -> int:
    """`value`, if it is an int (and no bool) between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadInput(f"{what}: expected a whole number from {low} to {high}, got {value!r:.80}")
    return value


def number(what: str, value: Any, low: float, high: float) -> float:
    """`value`, if it is a number between `low` and `high`, which NaN is not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isnan(value):
        raise BadInput(f"{what}: expected a number from {low:g} to {high:g}, got {value!r:.80}")
    return value
