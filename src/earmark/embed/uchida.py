"""Embedding bits that a projection reads: one more term while a network learns its task (Uchida et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from earmark.core import Data, Images
from earmark.embed.configured import Configured
from earmark.embed.start import FromHost, Start
from earmark.errors import BadInput, CannotCarry, number, whole
from earmark.files import digest
from earmark.marks import Projection, TriggerSet
from earmark.models import dissect
from earmark.training import (
    Augment,
    CrossEntropy,
    History,
    ProjectionLoss,
    Record,
    Settings,
    Term,
    Trainable,
    accuracy,
    all_layers,
    fit,
    require_every_class,
)

__all__ = ["UCHIDA", "Uchida"]

UCHIDA = Settings(
    epochs=200,
    batch_size=64,
    lr=0.1,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 120, 160),
    decay=0.2,
    batchnorm="train",
)
"""The paper's training from scratch (Section 4.1), but for Nesterov's form of the momentum."""
TUNED = UCHIDA.but(epochs=20, lr=0.05, milestones=())


@final
@dataclass(frozen=True)
class Uchida(Configured):
    """Train a network on its terms and on lambda times the projection loss, so that one layer's mean filter shows bits.

    From the host, it is the paper's fine-tune-to-embed; with `start=FromScratch()` and `settings=UCHIDA` its
    train-to-embed. Any terms can be held beside it, and a trigger set can be taught with it.

    Attributes:
        strength: lambda, the weight of the projection loss (`training.ProjectionLoss`).
        terms: what else the network learns.
        trainable: which parameters may change; the layer's weight has to be among them.
        triggers: a trigger set that is taught beside, and committed and judged like any other.
        start: the model that training begins with.
        settings: of the run.
        augment: a random view of the training images.
        head: the name of the last linear layer, where the search for it cannot tell.
        watch: how many test images accuracy is measured on after each epoch; 0 for none.
        measures: what else is measured of the network in training after each epoch, by name.
        checkpoint: a file; a killed run goes on from it. It holds neither projection nor bits.
        on_history: called at the end with the records of all epochs.
    """

    strength: float = 0.01
    terms: tuple[Term, ...] = (CrossEntropy(),)
    trainable: Trainable = all_layers
    triggers: TriggerSet | None = None
    start: Start = field(default_factory=FromHost)
    settings: Settings = TUNED
    augment: Augment | None = None
    head: str | None = None
    watch: int = 2_000
    measures: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)
    checkpoint: Path | None = None
    on_history: Callable[[History], None] | None = None

    def __post_init__(self) -> None:
        whole("watch", self.watch, 0)
        number("strength", self.strength, 0, 1e6)

    def __call__(self, host: nn.Module, mark: Projection, data: Data, rng: torch.Generator) -> nn.Module:
        """A copy of `host`, which stays untouched, that shows the bits.

        Raises:
            CannotCarry: the host lacks the mark's layer, or its classes are not the data's.
            BadInput: the layer is the head or is not trained, a class has no training images, or triggers do not fit.
            Diverged: the loss stopped being finite.
        """
        anatomy = dissect(host, data.train.pixels[:1], self.head)
        layer = mark.name_in(host)
        if data.classes != anatomy.classes:
            raise CannotCarry(f"the data has {data.classes} classes and the host answers {anatomy.classes}; check both")
        if layer == anatomy.head:
            raise BadInput(
                f"{layer!r} is the head, and no answer depends on the mean of a head's rows, so that removing the bits "
                "costs nothing; mint for another layer"
            )
        if any(term.needs_labels for term in self.terms):
            require_every_class(data.train)
        model = self.start(host, anatomy, rng)
        if f"{layer}.weight" not in self.trainable(model, anatomy):
            raise BadInput(f"{layer!r} is not among the layers that are trained; mint for another, or train it")
        history = fit(
            model,
            data.train,
            self.terms_for(mark, layer),
            self.settings if self.triggers is not None else self.settings.but(triggers_per_batch=0),
            rng,
            triggers=None if self.triggers is None else self.triggers.lessons,
            host=host,
            trainable=self.trainable,
            augment=self.augment,
            head=anatomy.head,
            monitor=lambda one: self._measure(one, mark, data.test),
            identity=self._identity(mark, data.test),
            checkpoint=self.checkpoint,
            title="uchida",
        )
        if self.on_history is not None:
            self.on_history(history)
        return model

    def terms_for(self, mark: Projection, layer: str | None = None) -> tuple[Term, ...]:
        """The loss terms; `layer` is the layer's name in the host, the mark's own unless given."""
        own = ProjectionLoss(layer or mark.layer.name, mark.projection, mark.bits, self.strength)
        return *self.terms, own

    def _identity(self, mark: Projection, test: Images) -> Any:
        watched = test.sample(self.watch)
        seen = digest({"pixels": watched.pixels, "labels": watched.labels})
        return [mark.digest(), sorted(self.measures), seen]

    def _measure(self, model: nn.Module, mark: Projection, test: Images) -> Record:
        """Shares: of bits that are right, and of test images and triggers answered rightly."""
        record = {"bits": float((mark.shown(model) == mark.bits).float().mean())}
        if self.triggers is not None:
            record["trig_acc"] = accuracy(model, self.triggers.as_images())
        if self.watch:
            record["val_acc"] = accuracy(model, test.sample(self.watch))
        return record | {name: measure(model) for name, measure in self.measures.items()}
