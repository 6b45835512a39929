"""Any JSON service that takes one image: a template for what is sent, and the path to the answer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from torch import Tensor

from earmark.errors import BadInput
from earmark.suspects.answers import Answer, ClassNames, Unreadable, plain
from earmark.suspects.forms.base import json_of, listed, numbers
from earmark.suspects.pixels import png
from earmark.suspects.wire import Message, Reply

__all__ = ["CustomJson"]


def _base64(pixels: Tensor) -> str:
    return base64.b64encode(png(pixels)).decode()


IMAGES: Final[Mapping[str, Callable[[Tensor], Any]]] = {
    "$png": _base64,
    "$data_url": lambda pixels: f"data:image/png;base64,{_base64(pixels)}",
    "$chw": lambda pixels: pixels.float().div(255).tolist(),
    "$hwc": lambda pixels: pixels.permute(1, 2, 0).tolist(),
}
"""What a template's text stands for: PNG in base64, the same as a data URL, numbers (C, H, W) in [0, 1], and whole
numbers (H, W, C) to 255."""


@final
class CustomJson:
    """One image a request, in JSON of the service's own shape.

    The value that `answer` leads to may be a score for each class, a list of {label, score} or of labels, an object of
    scores by label, or one label.

    Args:
        url: where to post.
        names: what labels stand for.
        template: the request as JSON, with `"$png"`, `"$data_url"`, `"$chw"` or `"$hwc"` where the image goes.
        answer: the path to the answer: names and positions with dots between, `*` for each of a list
            (`predictions.0`, `classes.*.name`); empty for the whole.
        label: the member of an object that holds a label, where it has an unusual name.
        score: the member that holds its score, likewise.

    Raises:
        BadInput: a template that is not JSON, or has no place for the image.
    """

    batch = 1

    def __init__(
        self,
        url: str,
        names: ClassNames,
        *,
        template: Any = None,
        answer: str = "",
        label: str | None = None,
        score: str | None = None,
    ) -> None:
        self._url, self._names = url, names
        self._template = {"image": "$png"} if template is None else _parsed(template)
        self._path = [step for step in re.split(r"\.", answer) if step]
        self._label, self._score = label, score
        self._used = sorted(_places(self._template))
        if len(self._used) != 1:
            raise BadInput(
                f"the template has {len(self._used)} places for the image, expected one of {', '.join(IMAGES)} in it, "
                'such as {"image": "$png"}'
            )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "form": "json",
            "sends": self._used[0],
            "answer": ".".join(self._path),
            "size": "as the service resizes",
            **self._names.facts,
        }

    def greeting(self) -> Message | None:
        return None

    def greeted(self, reply: Reply) -> None:
        return

    def message(self, pixels: Tensor) -> Message:
        return Message(self._url, json.dumps(_filled(self._template, pixels[0])).encode(), images=1)

    def read(self, reply: Reply, count: int) -> list[Answer]:
        value = _at(json_of(reply), self._path)
        scores = numbers(value)
        if scores is not None:
            return [self._names.scores(scores)]
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            label = self._names(value)
            if label < 0:
                raise Unreadable(f"it named no class of the mark's task, but {plain(str(value), 40)!r}")
            return [Answer(label=label)]
        return [listed(value, self._names, self._label, self._score)]


def _parsed(template: Any) -> Any:
    if not isinstance(template, str):
        return template
    try:
        return json.loads(template)
    except (ValueError, RecursionError) as error:
        raise BadInput(f'the template is not JSON ({error}); expected such as {{"image": "$png"}}') from error


def _places(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [place for each in value.values() for place in _places(each)]
    if isinstance(value, list):
        return [place for each in value for place in _places(each)]
    return [value] if isinstance(value, str) and value in IMAGES else []


def _filled(value: Any, pixels: Tensor) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(each, pixels) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, pixels) for each in value]
    return IMAGES[value](pixels) if isinstance(value, str) and value in IMAGES else value


def _at(value: Any, path: list[str]) -> Any:
    for at, step in enumerate(path):
        if step == "*" and isinstance(value, list):
            return [_at(each, path[at + 1 :]) for each in value]
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise Unreadable(f"its answer has nothing at {'.'.join(path)!r}: {plain(step, 40)!r} is not there")
    return value
