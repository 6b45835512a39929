"""The grid: schemes × attacks × seeds on one task, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from earmark.bench.attack import NONE, Attack
from earmark.bench.naming import described, identity, images_digest
from earmark.bench.record import FORMAT
from earmark.core import Data, Images
from earmark.errors import BadInput, probability, whole
from earmark.schemes import Scheme
from earmark.training import HOST, Augment, Settings

__all__ = ["Grid", "Task"]


class Task(NamedTuple):
    """One piece of work: a seed's host, one scheme's marked model on it, or one attack on that.

    >>> Task(0, "deep-fidelity", "half").needs
    Task(seed=0, scheme='deep-fidelity', attack=None)
    """

    seed: int
    scheme: str | None = None
    attack: str | None = None

    @property
    def needs(self) -> Task | None:
        """What must be done first."""
        if self.attack is not None:
            return Task(self.seed, self.scheme)
        return None if self.scheme is None else Task(self.seed)

    def __str__(self) -> str:
        """What people are told.

        >>> print(Task(3), Task(3, "uchida"), Task(3, "uchida", "half"), sep="; ")
        host, seed 3; uchida, seed 3; uchida under half, seed 3
        """
        if self.scheme is None:
            return f"host, seed {self.seed}"
        return f"{self.scheme}{f' under {self.attack}' if self.attack else ''}, seed {self.seed}"


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """What is measured: each scheme under each attack, and under none, with each seed.

    Attributes:
        data: the task; or what reads it, so that workers read it themselves.
        build: makes an untrained network for the task.
        schemes: by label.
        attacks: by label, as `named_attack` and `own_attack` make them.
        seeds: of hosts, throw-away keys, embeddings and attacks.
        host: how hosts are trained; of the training images some choose the epoch, no test image does.
        augment: a random view of training images, for hosts, and for embeddings that have none of their own.
        aside: how many training images, drawn by the seed, are the thief's; the owner trains without them. 0: the thief
            has the owner's own training images, which is the most that he can have.
        alpha: the error probability that the judge allows.
        task, network: what results call them.

    Raises:
        BadInput: no scheme, no seed, one twice, or a setting out of its range.
    """

    data: Data | Callable[[], Data]
    build: Callable[[], nn.Module]
    schemes: Mapping[str, Scheme[Any]]
    attacks: Mapping[str, Attack]
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    host: Settings = HOST
    augment: Augment | None = None
    aside: int = 0
    alpha: float = 1e-6
    task: str = "data"
    network: str = "network"

    def __post_init__(self) -> None:
        if not self.schemes or not self.seeds:
            raise BadInput("a grid needs at least one scheme and one seed; name them")
        if len(set(self.seeds)) < len(self.seeds):
            raise BadInput(f"seeds: each is measured once, got {list(self.seeds)}")
        if NONE in self.attacks:
            raise BadInput(f"the cell {NONE!r}, the marked model as released, is always there; leave it out")
        for seed in self.seeds:
            whole("seed", seed, 0, 2**62)
        whole("aside", self.aside, 0, 10**9)
        probability("alpha", self.alpha)
        for label, attack in self.attacks.items():
            attack.check(label)

    @cached_property
    def images(self) -> Data:
        """The task's data, read once."""
        return self.data if isinstance(self.data, Data) else self.data()

    @cached_property
    def images_digest(self) -> str:
        """What they are known by."""
        return images_digest(self.images)

    @property
    def labels(self) -> list[str]:
        """The attacks, the cell without one first."""
        return [NONE, *self.attacks]

    def cells(self) -> Iterator[Task]:
        """Every cell, in the order in which they are begun."""
        for seed in self.seeds:
            for scheme in self.schemes:
                for attack in self.labels:
                    yield Task(seed, scheme, attack)

    @cached_property
    def effort(self) -> dict[str, Any]:
        """What all hosts of the grid depend on beside their seed."""
        parts = {"build": self.build, "host": self.host, "augment": self.augment, "aside": self.aside}
        return {"data": self.images_digest, **{name: described(part, whole=True) for name, part in parts.items()}}

    def scheme_id(self, scheme: str) -> str:
        """What a scheme's marked models are known by, beside their seed."""
        return identity(scheme, self.effort, self.schemes[scheme])

    def cell_id(self, cell: Task) -> str:
        """What a cell is known by: digits that differ wherever its outcome could."""
        attack = None if cell.attack in (None, NONE) else self.attacks[cell.attack or ""]
        return identity(FORMAT, self.scheme_id(cell.scheme or ""), cell.attack, attack, cell.seed, self.alpha)

    def settings(self, cell: Task) -> dict[str, Any]:
        """What a cell's parts are set to, where that is not their default."""
        scheme = self.schemes[cell.scheme or ""]
        attack = None if cell.attack in (None, NONE) else self.attacks[cell.attack or ""]
        own = {"mint": described(scheme.mint), "embed": described(scheme.embed), "scheme": scheme.name}
        acting = {} if attack is None else {"attack": described(attack.settings)}
        host = described(replace(self.host)) if self.host != HOST else "default"
        return {**own, **acting, "host": host, "aside": self.aside, "data": self.images_digest[:16]}

    def shipped(self) -> Grid:
        """The grid as it goes to another process: images as plain arrays, which need no shared memory."""
        return replace(self, data=_Arrays.of(self.data)) if isinstance(self.data, Data) else self


@final
@dataclass(frozen=True, eq=False)
class _Arrays:
    """Data in a form that any process can be given."""

    parts: tuple[tuple[NDArray[np.uint8], NDArray[np.int64], int, str], ...]

    @classmethod
    def of(cls, data: Data) -> _Arrays:
        return cls(tuple((i.pixels.numpy(), i.labels.numpy(), i.classes, i.name) for i in (data.train, data.test)))

    def __call__(self) -> Data:
        made = [
            Images(torch.from_numpy(pixels).clone(), torch.from_numpy(labels).clone(), classes, name)
            for pixels, labels, classes, name in self.parts
        ]
        return Data(*made)
