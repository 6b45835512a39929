"""An ONNX file as a suspect, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from earmark.errors import BadInput, unknown_name, whole
from earmark.suspects.answers import Answer, answers_of
from earmark.suspects.pixels import Intake, as_pixels
from earmark.suspects.reached import Heard, Reached, library

__all__ = ["OnnxModel"]

TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}
LABELS: Final = ("tensor(int64)", "tensor(int32)")
QUIET: Final = 3
"""onnxruntime's level for errors alone: what it warns of is not the judge's matter."""


@final
class OnnxModel(Reached):
    """A classifier in an ONNX file: one image input (N, C, H, W) or (N, H, W, C), one output of scores or labels.

    Images are brought to the input's size and channels, and to [0, 1] or, for uint8 inputs, 0 to 255. A fixed batch
    dimension is filled up with the last image.

    Args:
        file: the `.onnx` file.
        classes: K, of the task that it is asked about.
        output: the output that holds the scores, where several could.
        layout: `nchw` or `nhwc`, where the input's shape leaves it open.
        top: the value of white; 255 for a float input that takes pixels.
        mean: per channel, in [0, 1], where the file does not normalise by itself.
        std: per channel, in [0, 1].
        batch: images a run, where the file leaves the number free.

    Raises:
        BadInput: onnxruntime is missing, the file is none that it can load, or its inputs and outputs do not fit.
    """

    def __init__(
        self,
        file: Path | str,
        classes: int,
        *,
        output: str | None = None,
        layout: str | None = None,
        top: float | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        batch: int = 64,
    ) -> None:
        runtime = library("onnxruntime", "onnx")
        self.classes, self._file = classes, Path(file)
        self._session = _session(runtime, self._file)
        source = self._input()
        dims = [dim if isinstance(dim, int) else None for dim in source.shape]
        try:
            self._intake = Intake.of(dims, TYPES[source.type], layout=layout, top=top, mean=mean, std=std)
        except BadInput as error:
            raise BadInput(f"{self._file}: {error}") from error
        self._name, self._fixed = source.name, dims[0] if dims[0] and dims[0] > 0 else None
        self._batch = self._fixed or whole("batch", batch, 1)
        self._output = self._scores(output)

    def _input(self) -> Any:
        inputs = self._session.get_inputs()
        images = [each for each in inputs if each.type in TYPES and len(each.shape) == 4]
        if len(inputs) != 1 or len(images) != 1:
            told = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs) or "none"
            raise BadInput(f"{self._file}: expected one input of images with four dimensions, it has {told:.300}")
        return images[0]

    def _scores(self, wanted: str | None) -> str:
        outputs = {each.name: each for each in self._session.get_outputs()}
        if wanted is not None:
            if wanted not in outputs:
                raise unknown_name(f"output of {self._file}", wanted, outputs)
            return wanted
        scores = [name for name, each in outputs.items() if each.type in TYPES and _fits(each.shape, self.classes)]
        labels = [name for name, each in outputs.items() if each.type in LABELS and len(each.shape) == 1]
        found = scores or labels
        if len(found) != 1:
            told = ", ".join(f"{name} {each.type} {each.shape}" for name, each in outputs.items())
            raise BadInput(
                f"{self._file}: expected one output with scores for {self.classes} classes or a label an image, it has "
                f"{told:.300}; name it with output="
            )
        return str(found[0])

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"kind": "onnx", "name": self._file.name, **self._intake.facts}

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        answers: list[Answer] = []
        for part in torch.split(as_pixels(images), self._batch):
            short = (self._fixed or len(part)) - len(part)
            filled = torch.cat([part, part[-1:].expand(short, -1, -1, -1)]) if short else part
            (said,) = self._session.run([self._output], {self._name: self._intake(filled)})
            answers += answers_of(_flat(np.asarray(said))[: len(part)], len(part))
        for at, answer in enumerate(answers if heard else ()):
            heard(at, answer)  # type: ignore[misc]
        return answers


def _session(runtime: Any, file: Path) -> Any:
    if not file.is_file():
        raise BadInput(f"{file} is not there; give the .onnx file")
    options = runtime.SessionOptions()
    options.log_severity_level = QUIET
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each status of its C library
        words = " ".join(str(error).split())
        raise BadInput(f"{file} is no ONNX model that onnxruntime can load: {words:.200}") from error


def _fits(shape: Sequence[Any], classes: int) -> bool:
    """(N, K or more), perhaps with spatial dimensions of 1, where dimensions without a number are free."""
    if len(shape) < 2 or any(dim not in (1, None) and isinstance(dim, int) for dim in shape[2:]):
        return False
    return not isinstance(shape[1], int) or shape[1] >= classes


def _flat(said: np.ndarray[Any, Any]) -> Tensor:
    """Without trailing dimensions of 1: scores (N, K, 1, 1) and labels (N, 1) are met."""
    while said.ndim > 2 and said.shape[-1] == 1:
        said = said[..., 0]
    if said.ndim == 2 and said.shape[1] == 1 and said.dtype.kind in "iu":
        said = said[:, 0]
    return torch.from_numpy(np.ascontiguousarray(said))
