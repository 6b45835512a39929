"""Embedding passports (Fan et al. 2021, Section 4.4): V1, V2 and V3 as one run with other paths and triggers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from earmark.core import Data, Images
from earmark.embed.configured import Configured
from earmark.embed.start import FromScratch, Start
from earmark.errors import BadInput, CannotCarry, number, whole
from earmark.files import digest
from earmark.layers import expose, on_path, protect
from earmark.marks import Passports, TriggerSet
from earmark.models import Anatomy, dissect
from earmark.training import (
    Augment,
    BothPaths,
    History,
    PathsCrossEntropy,
    Record,
    Settings,
    SignLoss,
    Term,
    accuracy,
    fit,
    require_every_class,
)

__all__ = ["PassportLayers", "passport_v1", "passport_v2", "passport_v3"]

DEEPIPR = Settings(
    epochs=200,
    batch_size=64,
    lr=0.01,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(100, 150),
    batchnorm="train",
    triggers_per_batch=2,
)
"""The released code's run on CIFAR (the paper states no weight decay)."""


@final
@dataclass(frozen=True)
class PassportLayers(Configured):
    """Train a network whose passport layers compute with the mark, and give back a plain network.

    Without a public path (V1), what comes back has gamma and beta of the passports in its norms: nobody needs the
    passports to run it, and it runs as fast as the host. With one (V2, V3), it has the public path's own scale and
    shift, and the passports fit its convolutions.

    Attributes:
        public: whether the network learns a public path beside the one with passports.
        triggers: a trigger set that both paths learn (V3), which is committed and judged like any other.
        start: the model that training begins with.
        settings: of the run.
        augment: a random view of the training images.
        margin, ridge, sign: of the sign loss (`training.SignLoss`); `sign` is its weight, lambda.
        head: the name of the last linear layer, where the search for it cannot tell.
        watch: how many test images accuracy is measured on after each epoch; 0 for none.
        measures: what else is measured of the network in training after each epoch, by name.
        checkpoint: a file; a killed run goes on from it. It holds neither passports nor bits.
        on_history: called at the end with the records of all epochs.
    """

    public: bool = True
    triggers: TriggerSet | None = None
    start: Start = field(default_factory=FromScratch)
    settings: Settings = DEEPIPR
    augment: Augment | None = None
    margin: float = 0.1
    ridge: float = 1e-5
    sign: float = 0.1
    head: str | None = None
    watch: int = 2_000
    measures: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)
    checkpoint: Path | None = None
    on_history: Callable[[History], None] | None = None

    def __post_init__(self) -> None:
        whole("watch", self.watch, 0)
        for what in ("margin", "ridge", "sign"):
            number(what, getattr(self, what), 0, 1e6)

    @property
    def name(self) -> str:
        """What the paper calls the scheme."""
        return "V1" if not self.public else "V2" if self.triggers is None else "V3"

    def __call__(self, host: nn.Module, mark: Passports, data: Data, rng: torch.Generator) -> nn.Module:
        """A plain network that carries `mark`; `host` stays untouched.

        Raises:
            CannotCarry: the host lacks the mark's layers, or its classes or image shape are not the data's.
            BadInput: a class without training images, triggers that do not fit, a network in which both paths cannot
                share a pass, or bits that are signs of products and no public path to multiply with.
            Diverged: the loss stopped being finite.
        """
        if mark.scale == "product" and not self.public:
            raise BadInput(
                "V1 has no public scale to multiply the private one with; embed by V2 or V3, or mint privately"
            )
        anatomy = dissect(host, data.train.pixels[:1], self.head)
        _carries(data, anatomy, self.triggers)
        require_every_class(data.train)
        model = self.protected(self.start(host, anatomy, rng), mark, data)
        history = fit(
            model,
            data.train,
            self.terms_for(mark),
            self.settings if self.triggers is not None else self.settings.but(triggers_per_batch=0),
            rng,
            triggers=None if self.triggers is None else self.triggers.lessons,
            augment=self.augment,
            head=BothPaths(anatomy) if self.public else anatomy.head,
            monitor=lambda one: self._measure(one, mark, data.test),
            identity=self._identity(mark, data.test),
            checkpoint=self.checkpoint,
            title=f"passports {self.name}",
        )
        if self.on_history is not None:
            self.on_history(history)
        return expose(model, "public" if self.public else "private")

    def protected(self, model: nn.Module, mark: Passports, data: Data) -> nn.Module:
        """A copy of `model` whose layers are passport layers with this mark."""
        example = data.train.pixels[:1].float() / 255
        return protect(copy.deepcopy(model), mark.layers(), example, public=self.public)

    def terms_for(self, mark: Passports) -> tuple[Term, ...]:
        """The loss terms: each path's cross entropy, and the signs."""
        norms = tuple(site.norm for site in mark.sites)
        product = mark.scale == "product"
        return PathsCrossEntropy(), SignLoss(norms, mark.bits, self.margin, self.ridge, self.sign, product)

    def _identity(self, mark: Passports, test: Images) -> Any:
        watched = test.sample(self.watch)
        return [mark.digest(), self.public, digest({"pixels": watched.pixels, "labels": watched.labels})]

    def _measure(self, model: nn.Module, mark: Passports, test: Images) -> Record:
        """Shares: of bits that are right, and of test images and triggers answered rightly along each path."""
        right = mark.shown(model) == mark.bits
        record = {"bits": float(right.float().mean())}
        if self.triggers is not None:
            record["trig_acc"] = accuracy(model, self.triggers.as_images())
        if self.watch:
            some = test.sample(self.watch)
            record["val_acc"] = accuracy(model, some)
            with on_path(model, "private"):
                record["private_acc"] = accuracy(model, some)
        return record | {name: measure(model) for name, measure in self.measures.items()}


def passport_v1(start: Start | None = None) -> PassportLayers:
    """V1: the passport goes with the network, and is written into it."""
    return PassportLayers(public=False, start=start or FromScratch())


def passport_v2(start: Start | None = None) -> PassportLayers:
    """V2: the passport stays with the owner; the network is released along its public path."""
    return PassportLayers(start=start or FromScratch())


def passport_v3(triggers: TriggerSet, start: Start | None = None) -> PassportLayers:
    """V3: V2, and a trigger set that is verified without looking inside."""
    return PassportLayers(triggers=triggers, start=start or FromScratch())


def _carries(data: Data, anatomy: Anatomy, triggers: TriggerSet | None) -> None:
    if data.classes != anatomy.classes:
        raise CannotCarry(f"the data has {data.classes} classes and the host answers {anatomy.classes}; check both")
    if triggers is not None and (triggers.shape, triggers.classes) != (data.shape, data.classes):
        raise BadInput(
            f"the triggers are {triggers.shape} of {triggers.classes} classes and the data {data.shape} of "
            f"{data.classes}; mint triggers for this data"
        )
