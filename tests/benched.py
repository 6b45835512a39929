"""A grid of small networks that takes a second, and attacks that misbehave; importable, so that workers have them."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny import TinyNet, blobs
from torch import nn

from earmark.bench import Attack, Cell, Grid, named_attack, own_attack
from earmark.core import Data
from earmark.embed import Uchida, ftal
from earmark.marks import Noise, ProjectionMint
from earmark.schemes import Scheme, deep_fidelity, uchida
from earmark.training import HOST

__all__ = ["Fails", "Halves", "Kills", "KillsOnce", "KillsParent", "data", "grid", "measurements"]


def data() -> Data:
    """Images that a small network learns at once."""
    return Data(blobs(96, seed=1), blobs(60, seed=2))


SCHEMES: Mapping[str, Scheme[Any]] = {
    "triggers": deep_fidelity(Noise(count=40), ftal().but(lr=3e-3, epochs=8, triggers_per_batch=8, enough=0.9)),
    "bits": uchida(ProjectionMint(bits=16), Uchida().but(epochs=2)),
}


@dataclass(frozen=True)
class Halves:
    """Every weight halved: an attack of the caller's own."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        halved = copy.deepcopy(model)
        for parameter in halved.parameters():
            parameter.data /= 2
        return halved


@dataclass(frozen=True)
class Fails:
    """An attack with a mistake in it."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        raise ZeroDivisionError("not\n today")


@dataclass(frozen=True)
class Kills:
    """An attack that takes the process with it."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        os.kill(os.getpid(), signal.SIGKILL)
        return model


@dataclass(frozen=True)
class KillsOnce:
    """The same, the first time only; then the model as it is."""

    file: Path

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        if not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return copy.deepcopy(model)


@dataclass(frozen=True)
class KillsParent:
    """The whole grid is killed from within one of its cells, the first time only."""

    file: Path

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        if not self.file.exists():
            self.file.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        return copy.deepcopy(model)


def grid(attacks: Mapping[str, Any] | None = None, **changes: Any) -> Grid:
    """Two schemes under some attacks, one seed."""
    own = {"half": named_attack("half"), "blur": named_attack("blur"), "read-off": named_attack("read-off", count=40)}
    wanted = own if attacks is None else {n: a if isinstance(a, Attack) else own_attack(a) for n, a in attacks.items()}
    settings = {"data": data, "build": TinyNet, "schemes": SCHEMES, "attacks": wanted, "seeds": (0,)}
    host = HOST.but(epochs=3, milestones=(), lr=1e-2)
    return Grid(**{**settings, "host": host, "task": "blobs", "network": "tiny", **changes})


def measurements(cells: list[Cell]) -> dict[tuple[str, str, int], Any]:
    """What was measured, without what differs from run to run: time, and how long it took."""
    changing = {"cost", "time", "tries", "hardware", "commit"}
    return {(c.scheme, c.attack, c.seed): c.model_dump(exclude=changing) | _counted(c) for c in cells}


def _counted(cell: Cell) -> dict[str, Any]:
    return {} if cell.cost is None else {"samples": cell.cost.samples, "queries": cell.cost.queries}


tuned = partial(named_attack, "fine-tune-ftal", epochs=1, trials=2, batch_size=16)
"""An attack in two trials."""
