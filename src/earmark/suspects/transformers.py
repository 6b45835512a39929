"""An image-classification checkpoint of Transformers as a suspect, with the processor that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from earmark.errors import BadInput, whole
from earmark.suspects.answers import Answer, ClassNames, answers_of
from earmark.suspects.pixels import as_pixels
from earmark.suspects.reached import Heard, Reached, library

__all__ = ["Checkpoint"]

WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json")


@final
class Checkpoint(Reached):
    """A folder that `save_pretrained` wrote: configuration, safetensors weights and an image processor.

    Images reach the model through its own processor, which resizes and normalises them as the checkpoint says. Nothing
    is fetched, nothing is unpickled, and no code that lies in the folder is run.

    Args:
        folder: the checkpoint.
        classes: K, of the task that it is asked about.
        names: the task's classes by the names in the checkpoint's `id2label`; without them its class i is class i.
        batch: images a forward pass.

    Raises:
        BadInput: Transformers is missing, the folder is no such checkpoint, or it has other classes.
    """

    def __init__(self, folder: Path | str, classes: int, *, names: ClassNames | None = None, batch: int = 32) -> None:
        self.classes, self._folder, self._batch = classes, Path(folder), whole("batch", batch, 1)
        for name, wanted in {"config.json": ("config.json",), "weights as safetensors": WEIGHTS}.items():
            if not any((self._folder / each).is_file() for each in wanted):
                raise BadInput(f"{self._folder} has no {name}; give the folder that save_pretrained wrote")
        self._processor, self._model = _loaded(library("transformers", "hf"), self._folder)
        labels = {int(at): str(name) for at, name in (self._model.config.id2label or {}).items()}
        self._names = names
        self._at = None if names is None or names.by_name is None else [names(labels[at]) for at in sorted(labels)]
        if self._at is not None and set(self._at) == {-1}:
            raise BadInput(f"none of the names is one of {self._folder}'s classes, such as {labels[min(labels)]!r:.60}")

    @property
    def facts(self) -> Mapping[str, Any]:
        known = {} if self._names is None else self._names.facts
        return {
            "kind": "transformers",
            "name": self._folder.resolve().name,
            "model": type(self._model).__name__,
            "processor": type(self._processor).__name__,
            **known,
        }

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        answers: list[Answer] = []
        for part in torch.split(as_pixels(images), self._batch):
            answers += answers_of(self._scores(part), len(part))
        for at, answer in enumerate(answers if heard else ()):
            heard(at, answer)  # type: ignore[misc]
        return answers

    def _scores(self, pixels: Tensor) -> Tensor:
        grey = pixels.shape[1] == 1 and getattr(self._model.config, "num_channels", 3) != 1
        colour = pixels.expand(-1, 3, -1, -1) if grey else pixels
        images = list(colour.permute(0, 2, 3, 1).numpy())
        taken = self._processor(images, return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            logits: Tensor = self._model(**taken).logits.double().clone()
        if self._at is None:
            return logits
        out = torch.full((len(logits), self.classes), -torch.inf, dtype=torch.float64)
        shares = torch.log_softmax(logits, 1)
        for at, to in enumerate(self._at):
            if to >= 0:
                out[:, to] = torch.logaddexp(out[:, to], shares[:, at])
        return out


def _loaded(transformers: Any, folder: Path) -> tuple[Any, Any]:
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **local)
        model = transformers.AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, **local)
    except Exception as error:  # on hostile files its libraries raise nearly anything: SafetensorError, IndexError, ...
        words = " ".join(str(error).split())
        raise BadInput(f"{folder} is no image classifier that Transformers can load: {words:.200}") from error
    return processor, model.eval()
