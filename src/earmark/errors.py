"""The errors that earmark raises on purpose, and the checks of settings that raise them.

Each says what was expected, what came and what to do.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BadInput",
    "CannotCarry",
    "Diverged",
    "EarmarkError",
    "Tampered",
    "WrongPassword",
    "number",
    "probability",
    "unknown_name",
    "whole",
]


class EarmarkError(Exception):
    """Base of every error that earmark raises on purpose; catching it catches nothing else."""


class BadInput(EarmarkError, ValueError):
    """An argument, a file or a setting that cannot be used as it is."""


class CannotCarry(EarmarkError):
    """A host that cannot carry the mark it was asked to carry."""


class Tampered(EarmarkError):
    """Evidence that is not what was committed; the message names the file."""


class WrongPassword(EarmarkError):
    """A key file that the given password does not open."""


class Diverged(EarmarkError):
    """A training run that came to nothing: a loss that is no finite number, an autoencoder that collapsed."""


def unknown_name(what: str, came: str, known: Iterable[str]) -> BadInput:
    """A `BadInput` for a name that is not one of `known`, with the nearest one as a suggestion.

    >>> str(unknown_name("attack", "prume", ["prune", "fine-tune"]))
    "unknown attack 'prume': did you mean 'prune'? Known: fine-tune, prune"
    >>> str(unknown_name("attack", "x", ["prune", "fine-tune"]))
    "unknown attack 'x'; known: fine-tune, prune"
    """
    names = sorted(known)
    near = difflib.get_close_matches(came, names, n=1)
    hint = f": did you mean {near[0]!r}? Known" if near else "; known"
    return BadInput(f"unknown {what} {came!r}{hint}: {', '.join(names)}")


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


def probability(what: str, value: Any) -> float:
    """`value`, if it is a number strictly between 0 and 1, as an error probability is.

    >>> probability("alpha", 1e-6)
    1e-06
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise BadInput(f"{what}: expected a probability strictly between 0 and 1, got {value!r:.80}")
    return value
