"""What a suspect said of one image, in the few forms in which models and services answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from earmark.errors import BadInput, EarmarkError
from earmark.files import digest, read_json

__all__ = ["Answer", "ClassNames", "Unreadable", "answers_of", "plain", "ranking", "rows"]

WORDS: Final = 160
MOST_CLASSES: Final = 1 << 17
LEAST: Final = 1e-12
"""What stands for a probability that a service has rounded to zero and listed all the same."""
STEP: Final = 1e-9
"""What keeps classes apart that a list gives equal scores and an order."""
SPECIAL: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Unreadable(EarmarkError):
    """What came from a suspect is no answer of a classifier; its words go into the verdict."""


@final
@dataclass(frozen=True)
class Answer:
    """What was said of one image: exactly one of the four.

    Attributes:
        label: the class alone; one that is none of the task's is negative.
        scores: a number for each class, probabilities or logits.
        listed: (class, log-probability or logit) of some classes, the first one first; the rest is unknown.
        fault: why there is no answer.

    Raises:
        BadInput: none of them, or several.
    """

    label: int | None = None
    scores: tuple[float, ...] | None = None
    listed: tuple[tuple[int, float], ...] | None = None
    fault: str | None = None

    def __post_init__(self) -> None:
        given = [self.label, self.scores, self.listed, self.fault]
        if sum(part is not None for part in given) != 1:
            raise BadInput("an answer is a label, scores, a list of classes or a fault, and one of them alone")

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON, numbers that JSON lacks as text."""
        if self.label is not None:
            return {"label": self.label}
        if self.scores is not None:
            return {"scores": [_told(value) for value in self.scores]}
        if self.listed is not None:
            return {"listed": [[at, _told(value)] for at, value in self.listed]}
        return {"fault": self.fault}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The answer whose `to_json` this is, from a file that may be hostile.

        Raises:
            BadInput: anything else.
        """
        try:
            ((form, content),) = value.items()
            if form == "label" and type(content) is int and -1 <= content < MOST_CLASSES:
                return cls(label=content)
            if form == "scores" and type(content) is list and content:
                return cls(scores=tuple(map(_read, content)))
            if form == "listed" and type(content) is list:
                return cls(listed=tuple((_class(at), _read(score)) for at, score in content))
            if form == "fault" and type(content) is str:
                return cls(fault=plain(content))
        except (AttributeError, TypeError, ValueError, OverflowError):
            pass
        raise BadInput("an answer is not of the form that a transcript has; get the original file")


def _told(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _read(value: Any) -> float:
    if type(value) is str:
        return SPECIAL[value] if value in SPECIAL else _class(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _class(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise ValueError("no class")
    return value


def plain(text: str, limit: int = WORDS) -> str:
    r"""Foreign text as one short line that can stand in a verdict or a log.

    >>> plain("<html>\n\x1b[31m  hello")
    '<html> [31m hello'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def answers_of(said: Tensor, count: int) -> list[Answer]:
    """Each image's answer, from scores (N, K) or labels (N,).

    Raises:
        Unreadable: another shape or type.
    """
    if said.ndim not in (1, 2) or len(said) != count or said.is_complex() or not said.numel():
        raise Unreadable(f"it answered {count} images with shape {tuple(said.shape)}, not with a row for each")
    if said.ndim == 2:
        return [Answer(scores=tuple(row)) for row in said.double().tolist()]
    if said.is_floating_point() or said.dtype == torch.bool:
        raise Unreadable(f"it answered with one {said.dtype} an image, neither scores nor integer labels")
    return [Answer(label=label if 0 <= label < MOST_CLASSES else -1) for label in said.tolist()]


def rows(answers: Sequence[Answer], classes: int) -> Tensor:
    """The answers as a `Query` gives them.

    Labels alone make int64 (N,), -1 where there is none. Otherwise float64 (N, K or more): a class that a list does not
    name has -inf, so it is never first, and an image whose list says nothing of the classes that count stays without an
    answer; an image without scores, or with fewer than K, has NaN. Where all scores are fewer than K they stay so, for
    the test to say.

    Args:
        answers: one an image.
        classes: K.

    Raises:
        Unreadable: all of them are faults.
    """
    if answers and all(answer.fault is not None for answer in answers):
        raise Unreadable(str(answers[0].fault))
    if all(answer.label is not None or answer.fault is not None for answer in answers):
        return torch.tensor([-1 if answer.label is None else answer.label for answer in answers], dtype=torch.int64)
    widths = [len(answer.scores) for answer in answers if answer.scores is not None]
    only = all(answer.scores is not None or answer.fault is not None for answer in answers)
    width = max(widths) if only else max([classes, *widths])
    out = torch.full((len(answers), width), -math.inf, dtype=torch.float64)
    for row, answer in zip(out, answers, strict=True):
        _fill(row, answer, min(classes, width))
    return out


def _fill(row: Tensor, answer: Answer, classes: int) -> None:
    if answer.fault is not None or (answer.scores is not None and len(answer.scores) < classes):
        row.fill_(math.nan)
    elif answer.scores is not None:
        row[: len(answer.scores)] = torch.tensor(answer.scores, dtype=torch.float64)
    else:
        said = [(answer.label, 0.0)] if answer.label is not None else answer.listed or ()
        for at, value in said:
            if 0 <= at < len(row):
                row[at] = value


def ranking(said: Iterable[tuple[int, float | None]]) -> Answer:
    """A list of classes, with or without scores, as services give the first few of them.

    Scores in [0, 1] are probabilities and are told by their logarithm; those of one class that several names stand for
    add up. Where the scores descend, or there are none, the list's order decides between equals: a service that rounds
    has sorted before. Classes below 0, which are not the task's, are left out.

    >>> ranking([(2, 1.0), (0, 0.0), (-1, 0.0), (1, 0.0)]).listed[1][0]
    0
    """
    pairs = [(at, value) for at, value in said if at >= 0]
    if any(value is None for _, value in pairs):
        first = dict(reversed([(at, -float(place)) for place, (at, _) in enumerate(pairs)]))
        return Answer(listed=tuple(sorted(first.items(), key=lambda pair: -pair[1])))
    scores = [float(value) for _, value in pairs if value is not None]
    if not all(map(math.isfinite, scores)):
        return Answer(fault="it gave a class a score that is no finite number")
    descending = all(a >= b for a, b in pairwise(scores))
    probable = all(0 <= score <= 1 for score in scores)
    summed: dict[int, float] = {}
    for (at, _), score in zip(pairs, scores, strict=True):
        summed[at] = summed.get(at, 0.0) + score if probable else max(score, summed.get(at, -math.inf))
    values = [(at, math.log(max(score, LEAST)) if probable else score) for at, score in summed.items()]
    if not descending:
        return Answer(listed=tuple(values))
    return Answer(listed=tuple((at, value - place * STEP) for place, (at, value) in enumerate(values)))


# ----------------------------------------------------------------------------------------------------- names of classes

NUMBERED: Final = re.compile(r"(?:label|class)?[_ -]?([0-9]{1,6})", re.IGNORECASE)


@final
@dataclass(frozen=True)
class ClassNames:
    """Which class of the task a service means by a name or a number.

    Without `by_name`, a number, or text such as "7" or "LABEL_7", is the class of that number. Whoever rules on a claim
    fixes the names before the evidence is opened: whoever may choose them afterwards chooses answers.

    Attributes:
        by_name: the class by the name, or by the number as text, that the service gives it; None for none.
        source: where the names stand, in words.
        numbered: whether a number that is nobody's name is the class of that number here, too.
    """

    by_name: Mapping[str, int] | None = field(default=None)
    source: str = "a file of whoever asked"
    numbered: bool = False

    @classmethod
    def listed(cls, names: Sequence[str], source: str) -> ClassNames:
        """The names of all classes, that of class 0 first, for services that may answer in numbers as well.

        >>> named = ClassNames.listed(["cat", "dog"], "the claim")
        >>> named("dog"), named("LABEL_1"), named("cow")
        (1, 1, -1)
        """
        return cls({name.strip(): at for at, name in enumerate(names)}, source, numbered=True)

    @classmethod
    def read(cls, path: str, *counts: int) -> ClassNames:
        """The names in a JSON file: a list, the name of class 0 first, or an object from names to classes.

        Args:
            path: the file.
            counts: the numbers of classes that a task may have; a list has one of them, an object's classes are below
                the largest.

        Raises:
            BadInput: another content.
        """
        value, classes = read_json(path), max(counts)
        if isinstance(value, list) and len(value) in counts and len({str(name) for name in value}) == len(value):
            value = {str(name): at for at, name in enumerate(value)}
        if not isinstance(value, dict) or not value:
            lengths = " or ".join(map(str, sorted(set(counts))))
            raise BadInput(
                f"{path}: expected a JSON list of {lengths} different names, that of class 0 first, or an object from "
                f"names to classes, got {type(value).__name__}"
            )
        for name, at in value.items():
            if type(at) is not int or not 0 <= at < classes:
                raise BadInput(f"{path}: {name!r:.60} stands for {at!r:.40}, expected a class from 0 to {classes - 1}")
        return cls(value)

    def __call__(self, said: object) -> int:
        """The class, or -1 for what names none.

        >>> ClassNames()("LABEL_7"), ClassNames({"cat": 3})("cat"), ClassNames()("cat")
        (7, 3, -1)
        """
        if isinstance(said, bool) or not isinstance(said, int | float | str):
            return -1
        if isinstance(said, float):
            said = int(said) if said.is_integer() else ""
        name = str(said).strip()
        if self.by_name is not None and (name in self.by_name or not self.numbered):
            return self.by_name.get(name, -1)
        found = NUMBERED.fullmatch(name)
        at = int(found[1]) if found else -1
        return at if at < MOST_CLASSES else -1

    def scores(self, values: Sequence[float]) -> Answer:
        """A score for each of the service's classes, in its order.

        With an object from names to classes, position i is what it calls "i"; a list of names tells no positions.
        """
        if self.by_name is None or not any(str(at) in self.by_name for at in range(len(values))):
            return Answer(scores=tuple(values))
        return ranking((self(at), value) for at, value in enumerate(values))

    @property
    def facts(self) -> dict[str, Any]:
        """How many names there are and the hash that binds them."""
        if self.by_name is None:
            return {}
        bound = digest({}, dict(self.by_name))
        return {"class_names": {"count": len(self.by_name), "sha256": bound, "source": self.source}}
