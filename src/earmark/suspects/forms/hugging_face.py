"""The inference form of Hugging Face: an image in, a list of labels with scores out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, final

from torch import Tensor

from earmark.errors import whole
from earmark.suspects.answers import Answer, ClassNames, Unreadable
from earmark.suspects.forms.base import json_of, listed
from earmark.suspects.pixels import png
from earmark.suspects.wire import Message, Reply

__all__ = ["HuggingFace"]

TOP: Final = 1000


@final
class HuggingFace:
    """Image classification as the Hugging Face inference endpoints and `pipeline` servers answer it.

    The bytes of a PNG are posted; back comes [{"label": ..., "score": ...}, ...], the first few classes, five unless
    `top_k` asks for more. The service resizes by itself. (Hugging Face, "Inference Providers: Image Classification".)

    Args:
        url: the endpoint.
        names: what its labels stand for.
        top_k: how many classes to ask for; the image then goes as base64 in JSON with the parameter.
    """

    batch = 1

    def __init__(self, url: str, names: ClassNames, *, top_k: int | None = None) -> None:
        self._url, self._names = url, names
        self._top = top_k if top_k is None else whole("top_k", top_k, 1, TOP)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"form": "hf", "sends": "png", "size": "as the service resizes", **self._names.facts}

    def greeting(self) -> Message | None:
        return None

    def greeted(self, reply: Reply) -> None:
        return

    def message(self, pixels: Tensor) -> Message:
        image = png(pixels[0])
        if self._top is None:
            return Message(self._url, image, "image/png", 1)
        body = {"inputs": base64.b64encode(image).decode(), "parameters": {"top_k": self._top}}
        return Message(self._url, json.dumps(body).encode(), images=1)

    def read(self, reply: Reply, count: int) -> list[Answer]:
        value = json_of(reply)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]  # pipelines that take lists answer with one list an image
        if not isinstance(value, list):
            raise Unreadable(f"it answered with {type(value).__name__}, not with a list of labels and scores")
        return [listed(value, self._names, "label", "score")]
