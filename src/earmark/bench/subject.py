"""What all cells of one seed share: the host, the marked models, and the claims on them. Each is made once and kept."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from earmark.attacks.ambiguity.forgery import draw_owner
from earmark.bench.grid import Grid
from earmark.bench.naming import seed_of
from earmark.bench.store import Store
from earmark.core import Data, Mark, rng
from earmark.data import corrupted, ood
from earmark.evidence import Bundle, Claim, commit
from earmark.evidence.commit import CLAIM, EVIDENCE_FOLDER
from earmark.fidelity import DeepFidelity
from earmark.files import read_json
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import TriggerSet
from earmark.models import built
from earmark.schemes import Scheme
from earmark.training import Settings, accuracy, train_host

__all__ = ["Marked", "Subject"]

NAME = "grid"
WATCHED = 2_000
"""How many training images choose the epoch of a host."""


@final
@dataclass(frozen=True, eq=False)
class Marked:
    """One scheme's marked model, with everything that a cell asks of it.

    Attributes:
        scheme: the scheme.
        model: the model as released.
        mark: the owner's mark, as the opened evidence holds it.
        claim, evidence: the owner's commitment.
        facts: "host" and "marked", shares of test images right; "fidelity"; "embed_seconds" and "host_seconds".
    """

    scheme: Scheme[Any]
    model: nn.Module
    mark: Mark
    claim: Claim
    evidence: Bundle
    facts: dict[str, Any]


@final
class Subject:
    """One seed of a grid.

    Args:
        grid: what is measured.
        seed: which of its seeds.
        out: models, claims and checkpoints of the seed go to a folder of their own in it.
    """

    def __init__(self, grid: Grid, seed: int, out: Path) -> None:
        self.grid, self.seed = grid, seed
        self.data, self.thief = _divided(grid.images, grid.aside, seed)
        self.store = Store(out / "models" / f"seed{seed}", {"effort": grid.effort, "seed": seed}, self.data)
        self._host: nn.Module | None = None
        self._marked: dict[str, Marked] = {}

    @property
    def owner(self) -> OwnerKey:
        """A throw-away owner, from the seed: as his key is nobody's secret, his triggers may be shown."""
        return draw_owner(self.rng("owner"))

    @property
    def rival(self) -> MarkKey:
        """The key of a thief who marks the model again."""
        return draw_owner(self.rng("rival")).mark_key(NAME)

    def rng(self, *parts: str) -> torch.Generator:
        """Randomness for one purpose, the same whatever was done before."""
        return rng(seed_of(self.seed, *parts))

    def fresh(self) -> nn.Module:
        """The network before it has learned anything."""
        return built(self.grid.build, self.rng("network")).to(Settings().torch_device())

    def host(self) -> nn.Module:
        """The host, trained once."""
        if self._host is None:
            self._host = self.store.model("host", self.fresh, self._train_host)
        return self._host

    def _train_host(self, checkpoint: Path) -> nn.Module:
        watched = Data(self.data.train, self.data.train.sample(WATCHED))
        begun = time.monotonic()
        host = train_host(
            self.fresh(), watched, self.rng("host"), self.grid.host, augment=self.grid.augment, checkpoint=checkpoint
        )
        self.store.value("host-seconds", lambda: time.monotonic() - begun)
        return host

    def marked(self, label: str) -> Marked:
        """The marked model of one scheme, embedded, measured and committed to once; the last one stays in memory."""
        if label not in self._marked:
            self._marked = {label: self._make(label)}
        return self._marked[label]

    def _make(self, label: str) -> Marked:
        scheme, host, slug = self.grid.schemes[label], self.host(), slug_of(label, self.grid)
        key = self.owner.mark_key(NAME)
        folder = self.store.path(f"{slug}.commitment")
        known = Bundle.read(folder / EVIDENCE_FOLDER) if folder.is_dir() else None
        mark = scheme.mint(key, host, self.data) if known is None else known.mark

        def train(checkpoint: Path) -> nn.Module:
            begun = time.monotonic()
            embed = _watched(scheme.embed, checkpoint, self.grid)
            model: nn.Module = embed(host, mark, self.data, self.rng("embed", label))
            self.store.value(f"{slug}.seconds", lambda: time.monotonic() - begun)
            return model

        model = self.store.model(slug, self.fresh, train)
        commit(
            self.owner, mark, name=NAME, host=host, marked=model, scheme=scheme.name, out=folder, check=False,
            alpha=self.grid.alpha,
        )  # fmt: skip
        facts = self.store.value(slug, lambda: self._facts(scheme, model, host, mark, slug))
        return Marked(
            scheme, model, mark, Claim.read(folder / CLAIM), known or Bundle.read(folder / EVIDENCE_FOLDER), facts
        )

    def _facts(self, scheme: Scheme[Any], model: nn.Module, host: nn.Module, mark: Mark, slug: str) -> dict[str, Any]:
        return {
            "host": accuracy(host, self.data.test),
            "marked": accuracy(model, self.data.test),
            "fidelity": self._fidelity(scheme, mark)(model, host, self.data).to_dict(),
            "embed_seconds": self._kept(f"{slug}.seconds"),
            "host_seconds": self._kept("host-seconds"),
        }

    def _kept(self, slug: str) -> float:
        """A number that was measured while a model was trained, before it was saved."""
        value: float = read_json(self.store.path(f"{slug}.json"))["value"]
        return value

    def _fidelity(self, scheme: Scheme[Any], mark: Mark) -> Any:
        """The scheme's F; deep fidelity is told the triggers, and to compare answers away from the data, too."""
        if not isinstance(scheme.fidelity, DeepFidelity):
            return scheme.fidelity
        test, draw = self.data.test, self.rng("fidelity")
        others = {"corrupted": corrupted(test, "gaussian-noise", 3, draw), "ood": ood(test, draw)}
        return replace(scheme.fidelity, mark=mark if isinstance(mark, TriggerSet) else None, others=others)


def slug_of(label: str, grid: Grid) -> str:
    """The files of one scheme's marked models, without their ending."""
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '-', label)[:60]}-{grid.scheme_id(label)}"


def _watched(embed: Any, checkpoint: Path, grid: Grid) -> Any:
    """The embedding with a checkpoint, where it takes one, and with the grid's view of images, where it has none."""
    own: dict[str, Any] = {"checkpoint": checkpoint}
    own |= {"augment": grid.augment} if getattr(embed, "augment", True) is None else {}
    known = getattr(type(embed), "__dataclass_fields__", {})
    changes = {name: value for name, value in own.items() if name in known}
    return replace(embed, **changes) if changes else embed


def _divided(data: Data, aside: int, seed: int) -> tuple[Data, Data]:
    """The owner's data, and the thief's: the same, or so many training images that the owner does not have."""
    if not aside:
        return data, data
    order = torch.randperm(len(data.train), generator=rng(seed_of(seed, "aside")))
    mine, theirs = data.train.subset(order[aside:]), data.train.subset(order[:aside])
    return Data(mine, data.test), Data(theirs, data.test)
