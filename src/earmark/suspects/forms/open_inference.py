"""The Open Inference Protocol, version 2 over REST, as Triton, KServe and MLServer speak it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor

from earmark.errors import BadInput, unknown_name, whole
from earmark.suspects.answers import Answer, ClassNames, Unreadable, answers_of, plain, ranking
from earmark.suspects.forms.base import json_of
from earmark.suspects.pixels import Intake
from earmark.suspects.wire import Message, Reply, shown

__all__ = ["OpenInference"]

FLOATS: Final = {"FP16": "float32", "FP32": "float32", "FP64": "float64", "BF16": "float32", "UINT8": "uint8"}
"""What an input may hold, and the type in which its numbers are made; JSON carries them as text."""
MOST_DIMS: Final = 8
WHOLE: Final = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")


@final
class OpenInference:
    """One model of a v2 server: its metadata say what it takes, `POST .../infer` asks it.

    (Open Inference Protocol, "HTTP/REST", kserve/open-inference-protocol.) Outputs may be scores (n, K), whole numbers
    (n,) or (n, 1) as labels, or text (BYTES): a label an image, or the strings "score:index:label" of Triton's
    classification extension.

    Args:
        url: `http://host/v2/models/NAME`, with `/versions/N` and `/infer` if wanted.
        names: what labels stand for.
        input: the input that takes the images, where there are several.
        output: the output that holds the answer, where there are several.
        layout: `nchw` or `nhwc`, where the input's shape leaves it open.
        top: the value of white; 255 for a float input that takes pixels.
        mean: per channel, in [0, 1], where the model does not normalise by itself.
        std: per channel, in [0, 1].
        batch: images a request; 1 unless the model takes more.
    """

    def __init__(
        self,
        url: str,
        names: ClassNames,
        *,
        input: str | None = None,
        output: str | None = None,
        layout: str | None = None,
        top: float | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        batch: int = 1,
    ) -> None:
        self._url = url.removesuffix("/").removesuffix("/infer")
        self._names, self.batch = names, whole("batch", batch, 1)
        self._wanted, self._output = input, output
        self._how = {"layout": layout, "top": top, "mean": mean, "std": std}
        self._type, self._intake = "FP32", Intake()

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"form": "v2", "sends": self._type, **self._intake.facts, **self._names.facts}

    def greeting(self) -> Message | None:
        return Message(self._url)

    def greeted(self, reply: Reply) -> None:
        value = json_of(reply) if reply.status == 200 else None
        inputs, outputs = _tensors(value, "inputs"), _tensors(value, "outputs")
        if not inputs:
            raise BadInput(
                f"{shown(self._url)} does not describe a model's inputs (status {reply.status}); expected the address "
                "of a model, .../v2/models/NAME"
            )
        if self._wanted is not None and self._wanted not in inputs:
            raise unknown_name(f"input of {shown(self._url)}", self._wanted, inputs)
        if self._wanted is None and len(inputs) > 1:
            raise BadInput(f"{shown(self._url)} has the inputs {plain(', '.join(inputs))}; name one with input=")
        if self._output is not None and outputs and self._output not in outputs:
            raise unknown_name(f"output of {shown(self._url)}", self._output, outputs)
        self._wanted = self._wanted or next(iter(inputs))
        self._learn(*inputs[self._wanted])

    def _learn(self, datatype: str, shape: list[int]) -> None:
        if datatype not in FLOATS:
            raise BadInput(f"{shown(self._url)} takes {plain(datatype, 20)}, expected one of {', '.join(FLOATS)}")
        dims: list[int | None] = [*([None] if len(shape) == 3 else []), *shape]
        try:
            self._intake = Intake.of(dims, FLOATS[datatype], **self._how)  # type: ignore[arg-type]
        except BadInput as error:
            raise BadInput(f"{shown(self._url)}: {error}") from error
        self._type = datatype

    def message(self, pixels: Tensor) -> Message:
        array = self._intake(pixels)
        tensor = {
            "name": self._wanted,
            "shape": list(array.shape),
            "datatype": self._type,
            "data": array.ravel().tolist(),
        }
        body: dict[str, Any] = {"inputs": [tensor]}
        if self._output is not None:
            body["outputs"] = [{"name": self._output}]
        return Message(f"{self._url}/infer", json.dumps(body).encode(), images=len(pixels))

    def read(self, reply: Reply, count: int) -> list[Answer]:
        value = json_of(reply)
        outputs = value.get("outputs") if isinstance(value, Mapping) else None
        if not isinstance(outputs, list) or not all(isinstance(each, Mapping) for each in outputs) or not outputs:
            raise Unreadable("it answered with JSON that has no outputs")
        chosen = [each for each in outputs if self._output in (None, each.get("name"))]
        if len(chosen) != 1:
            told = plain(", ".join(str(each.get("name")) for each in outputs), 80)
            raise Unreadable(f"it answered with the outputs {told}, of which output= names no single one")
        return self._answers(chosen[0], count)

    def _answers(self, output: Mapping[str, Any], count: int) -> list[Answer]:
        shape, datatype, data = output.get("shape"), output.get("datatype"), _flat(output.get("data"))
        if not isinstance(shape, list) or not _is_shape(shape, count, len(data)):
            raise Unreadable(
                f"it answered {count} images with the shape {plain(str(shape), 40)} and {len(data)} numbers, "
                "not with a row for each"
            )
        width = len(data) // count
        if datatype == "BYTES":
            return [self._named(data[at * width : (at + 1) * width]) for at in range(count)]
        try:
            if datatype in WHOLE and width == 1:
                labels = torch.tensor([self._names(each) for each in data], dtype=torch.int64)
                return answers_of(labels, count)
            values = [float(each) for each in data if not isinstance(each, bool | str)]
        except (TypeError, ValueError, OverflowError):
            values = []
        if len(values) != len(data):
            raise Unreadable(f"it answered with {plain(str(datatype), 20)} that are no numbers")
        return [self._names.scores(values[at * width : (at + 1) * width]) for at in range(count)]

    def _named(self, said: Sequence[Any]) -> Answer:
        pairs = [_split(each) for each in said if isinstance(each, str)]
        found = [(self._names(label), score) for label, score in pairs]
        if len(pairs) != len(said) or all(at < 0 for at, _ in found):
            raise Unreadable(f"it named no class of the mark's task, but {plain(str(said[0]), 40)!r}")
        return Answer(label=found[0][0]) if len(found) == 1 and found[0][1] is None else ranking(found)


def _split(said: str) -> tuple[str, float | None]:
    """A label and its score, from "score:index:label" or "score:index" (Triton), or from a label alone."""
    score, colon, rest = said.partition(":")
    try:
        return (rest.partition(":")[2] or rest, float(score)) if colon else (said, None)
    except ValueError:
        return said, None


def _tensors(value: Any, which: str) -> dict[str, tuple[str, list[int]]]:
    """Names, types and shapes of the tensors that metadata tell of; those that are malformed are left out."""
    told = value.get(which) if isinstance(value, Mapping) else None
    found = {}
    for each in told if isinstance(told, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("name"), str) and isinstance(each.get("shape"), list):
            dims = each["shape"]
            if all(type(dim) is int and -1 <= dim < 1 << 24 for dim in dims):
                found[each["name"]] = (str(each.get("datatype")), dims)
    return found


def _is_shape(shape: list[Any], count: int, size: int) -> bool:
    """Whether it is a shape with a row for each of `count` images, and `size` numbers in all."""
    sound = 0 < len(shape) <= MOST_DIMS and all(type(dim) is int and 0 < dim <= size for dim in shape)
    return sound and shape[0] == count and math.prod(shape) == size


def _flat(data: Any, depth: int = 4) -> list[Any]:
    """Nested lists as one; data may be flat or nested by the protocol."""
    if not isinstance(data, list):
        raise Unreadable("it answered without data, or with binary data that was not asked for")
    if data and isinstance(data[0], list):
        if depth == 0:
            raise Unreadable("it answered with data nested deeper than any output")
        return [each for part in data for each in _flat(part, depth - 1)]
    return data
