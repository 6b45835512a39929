"""What every form of service has: a message for pixels, and a reading of the reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from torch import Tensor

from earmark.suspects.answers import Answer, ClassNames, Unreadable, plain, ranking
from earmark.suspects.wire import Message, Reply

__all__ = ["Form", "json_of", "listed", "numbers"]

LABELS: Final = ("label", "name", "class", "class_name", "className", "displayName")
SCORES: Final = ("score", "probability", "confidence", "prob", "value")


class Form(Protocol):
    """The protocol of one kind of service.

    Attributes:
        batch: images that one message may hold.
    """

    @property
    def batch(self) -> int: ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is done to images and answers, as JSON."""

    def greeting(self) -> Message | None:
        """What is asked of the service before any image is sent; None for nothing."""

    def greeted(self, reply: Reply) -> None:
        """Learn from the reply to it; `BadInput` for a service that cannot be the suspect."""

    def message(self, pixels: Tensor) -> Message:
        """What is sent for uint8 images (n, C, H, W)."""

    def read(self, reply: Reply, count: int) -> list[Answer]:
        """Each image's answer; `Unreadable` for what is none."""


def json_of(reply: Reply) -> Any:
    """The JSON value of a reply, NaN and infinities let through as numbers.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        kind = plain(reply.kind, 40) or "something without a type"
        raise Unreadable(f"it answered with {kind} that is not JSON") from error


def numbers(value: Any) -> list[float] | None:
    """A list of numbers as floats, or None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        return None
    try:
        return [float(each) for each in value]
    except OverflowError:
        return None


def listed(value: Any, names: ClassNames, label: str | None = None, score: str | None = None) -> Answer:
    """The answer in a list of classes: objects with a label and a score, labels alone, or an object of scores by label.

    Args:
        value: the list or object.
        names: what the labels stand for.
        label: the member that holds a label; the usual names where it is None.
        score: the member that holds a score; likewise.

    Raises:
        Unreadable: something else, or no label that is a class of the task.
    """
    if isinstance(value, Mapping) and not any(known in value for known in ((label,) if label else LABELS)):
        value = [{"label": name, "score": each} for name, each in value.items()]
        label, score = "label", "score"
    pairs = [_pair(each, label, score) for each in (value if isinstance(value, list) else [value])]
    if not pairs:
        raise Unreadable("it answered with an empty list of classes")
    found = [(names(said), each) for said, each in pairs]
    if all(at < 0 for at, _ in found):
        raise Unreadable(f"it named no class of the mark's task, but {plain(str(pairs[0][0]), 40)!r}")
    return ranking(found)


def _pair(value: Any, label: str | None, score: str | None) -> tuple[object, float | None]:
    if not isinstance(value, Mapping):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return value, None
        raise Unreadable(f"it answered with a list of {type(value).__name__}, not of classes")
    said = _member(value, (label,) if label else LABELS)
    if said is None:
        raise Unreadable(f"it answered with objects without a label, but with {plain(', '.join(map(str, value)), 60)}")
    given = _member(value, (score,) if score else SCORES)
    return said, None if given is None else _number(given)


def _member(value: Mapping[str, Any], known: Sequence[str]) -> Any:
    return next((value[name] for name in known if name in value), None)


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unreadable("it gave a class a score that is no number") from None
