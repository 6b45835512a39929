"""What was measured: JSON values and trained models, each made once and kept in one folder."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from earmark.bench.hardware import hardware
from earmark.core import Data
from earmark.errors import BadInput
from earmark.files import digest, load_tensors, read_json, save_tensors, write_json
from earmark.marks import TriggerSet

__all__ = ["Store", "measured_on"]

V = TypeVar("V")
IMAGES = ("pixels", "labels")
UNKNOWN = "a machine that was not noted"


class Store:
    """A folder whose files belong to one effort: values and models that another effort made are never mixed in.

    A run that is killed leaves what it has finished, and a checkpoint of what it was in the middle of.

    Args:
        folder: made if it is not there.
        effort: JSON that says what the files are made with; the first store in a folder writes it down.
        data: the images that they are made from, which belong to it.

    Raises:
        BadInput: the folder holds files of another effort, or of other images.
    """

    def __init__(self, folder: Path, effort: Mapping[str, Any], data: Data) -> None:
        self.folder, self._machines = folder, dict[str, None]()
        parts = {"train": data.train, "test": data.test}
        tensors = {f"{part} {name}": getattr(images, name) for part, images in parts.items() for name in IMAGES}
        effort = {**effort, "data": digest(tensors)}
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "about.json"
        if not about.exists():
            write_json(about, effort)
        elif read_json(about) != effort:
            raise BadInput(
                f"{folder} holds rows of another effort or of other images; give a new folder, or remove this one"
            )

    def path(self, name: str) -> Path:
        """The file called `name` in the folder."""
        return self.folder / name

    def checkpoint(self, slug: str) -> Path:
        """Where the run that makes `slug` saves its state."""
        return self.path(f"{slug}.checkpoint.safetensors")

    def value(self, slug: str, measure: Callable[[], V]) -> V:
        """What `measure` found, from its file if it was measured before; the checkpoints of its runs go."""
        path = self.path(f"{slug}.json")
        if not path.exists():
            write_json(path, {"machine": hardware(), "value": measure()})
        self._forget(slug)
        kept = read_json(path)
        known = isinstance(kept, dict) and set(kept) == {"machine", "value"}
        self._machines[str(kept["machine"]) if known else UNKNOWN] = None
        found: V = kept["value"] if known else kept
        return found

    def model(self, slug: str, fresh: Callable[[], nn.Module], train: Callable[[Path], nn.Module]) -> nn.Module:
        """The model called `slug`: `train(checkpoint)`, or from then on `fresh()` with the weights that it got.

        The checkpoint goes when the model is saved.
        """
        path = self.path(f"{slug}.safetensors")
        if not path.exists():
            made = train(self.checkpoint(slug))
            save_tensors(path, made.state_dict())
            self._forget(slug)
            return made
        model = fresh()
        model.load_state_dict(load_tensors(path))
        return model

    def mark(self, slug: str, mint: Callable[[], TriggerSet]) -> TriggerSet:
        """The trigger set called `slug`: what `mint` makes, or from then on what its two files hold."""
        spec, tensors = self.path(f"{slug}.spec.json"), self.path(f"{slug}.safetensors")
        if not spec.exists():
            made = mint()
            save_tensors(tensors, made.tensors())
            write_json(spec, made.spec())
        return TriggerSet.from_parts(read_json(spec), load_tensors(tensors))

    @property
    def machines(self) -> list[str]:
        """What the values that were asked for were measured on."""
        return list(self._machines)

    def _forget(self, slug: str) -> None:
        """Attacks in several trials have a checkpoint for each."""
        for path in self.folder.glob(f"{glob.escape(self.checkpoint(slug).name)}*"):
            path.unlink()


def measured_on(stores: Iterable[Store]) -> str:
    """The machines that the values asked of these folders were measured on, as one line."""
    return "; ".join(dict.fromkeys(machine for store in stores for machine in store.machines))
