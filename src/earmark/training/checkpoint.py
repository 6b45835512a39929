"""Where a run stands, in one safetensors file: written atomically, so a run killed at any moment goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.files import save_tensors, state_tensors

__all__ = ["Checkpoint", "Position"]

STANDING = ("epoch", "step", "sums", "history", "best_score", "done")
"""What of a `Position` is written as JSON; the best state is tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """Save to `path` after each epoch, and within an epoch once `seconds` have passed since the last time."""

    path: Path
    seconds: float = 60.0


@dataclass
class Position:
    """How far a run has come.

    `epoch` and `step` are the next to do, `sums` the terms' sums in this epoch, `best` the preferred epoch's state.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: list[float] | None = None
    best: dict[str, Tensor] | None = None
    done: bool = False
    mask: Tensor | None = None


class Saver:
    """Writes and reads the state of one run; a run with another `fingerprint` is refused."""

    def __init__(self, checkpoint: Checkpoint | Path | str | None, fingerprint: str) -> None:
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(Path(checkpoint))
        self._checkpoint = checkpoint
        self._fingerprint = fingerprint
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for a save within an epoch."""
        return self._checkpoint is not None and time.monotonic() - self._last >= self._checkpoint.seconds

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
        """Write everything that the rest of the run depends on."""
        if self._checkpoint is None:
            return
        tensors = {f"model/{name}": value for name, value in state_tensors(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optim/{index}/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
        tensors |= {} if position.mask is None else {"mask": position.mask}
        tensors |= {f"best/{name}": value for name, value in (position.best or {}).items()}
        about = {"fingerprint": self._fingerprint, **{name: getattr(position, name) for name in STANDING}}
        save_tensors(self._checkpoint.path, tensors, {"earmark": json.dumps(about)})
        self._last = time.monotonic()

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
        """Put model and optimizer where the saved run stood; a fresh `Position` where there is none.

        Raises:
            BadInput: the file belongs to a run with other settings, data, seed or start, or is damaged.
        """
        if self._checkpoint is None or not self._checkpoint.path.exists():
            return Position()
        about, tensors = _read(self._checkpoint.path)
        if about["fingerprint"] != self._fingerprint:
            raise BadInput(
                f"{self._checkpoint.path} is the checkpoint of another run (other settings, data, seed or start); "
                "remove it or name another file"
            )
        model.load_state_dict(_under(tensors, "model/"), strict=False)  # extra state that is no tensor is not kept
        saved = optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optim/").items():
            index, key = name.split("/", 1)
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**saved, "state": state})
        _as_laid_out(optimizer)
        best = _under(tensors, "best/") or None
        return Position(**{name: about[name] for name in STANDING}, best=best, mask=tensors.get("mask"))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["earmark"])
            if not isinstance(about, dict) or not {"fingerprint", *STANDING} <= about.keys():
                raise ValueError("it does not say where a run stands")
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise BadInput(f"{path} is no readable checkpoint ({error}); remove it to start the run again") from error


def _as_laid_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their parameters, which files do not keep and fused kernels rely on."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
