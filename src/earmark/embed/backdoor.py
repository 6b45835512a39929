"""Embedding a trigger set: loss terms, times a trainable set, times a start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from earmark.core import Data, Images
from earmark.embed.configured import Configured
from earmark.embed.smoothing import MarkTerm
from earmark.embed.start import FromHost, Start
from earmark.errors import BadInput, CannotCarry
from earmark.files import digest
from earmark.marks import TriggerSet
from earmark.models import dissect
from earmark.training import (
    Augment,
    History,
    Masking,
    Record,
    Refinement,
    Settings,
    Term,
    Trainable,
    accuracy,
    all_layers,
    fit,
    require_every_class,
)

__all__ = ["Backdoor", "Surgery"]


class Surgery(Protocol):
    """What a model is made into while it is trained, such as `training.ExponentialWeighting`."""

    def applied(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """Within, the model has another form; on leaving, it is a plain model that answers the same."""


@dataclass(frozen=True)
class Backdoor(Configured):
    """Hide a trigger set in a copy of the host: W~ = argmin sum_t weight_t term_t (Hua & Teoh 2023, eqs. 8-14).

    Attributes:
        name: what the method is called.
        terms: the loss terms; a `MarkTerm` is made for the mark first.
        trainable: which parameters may change.
        start: the model that training begins with.
        settings: of the run; a run from scratch wants `batchnorm="train"` and a higher rate.
        augment: a random view of the training images.
        views: what is taught beside the mark's lessons, made from them once, such as `ShadowViews`.
        replace: train without the images that the mark's triggers are made from, as Li & Wang 2021, eq. (8), have it;
            otherwise these keep their place, with their own labels.
        masking: weights dropped for a while during training (Wen et al. 2023).
        refinement: training-time fine-tuning in between (Wen et al. 2023).
        surgery: another form of the model for the time of training, in which `measures` see it, too.
        head: the name of the last linear layer, where the search for it cannot tell.
        enough: stop after the first epoch with at least this trigger accuracy; None trains to the end.
        patience: with `enough`, how many epochs more to train after it was first reached.
        select: "last", or "best": the epoch with the highest (trigger accuracy, validation accuracy).
        watch: how many images of `data.test` validation accuracy is measured on after each epoch; 0 for none.
        checkpoint: a file; a killed run goes on from it.
        measures: what else is measured after each epoch, by name; it becomes a part of the record.
        on_history: called at the end with the records of all epochs, those before a resumption included.
    """

    name: str
    terms: tuple[Term | MarkTerm, ...]
    trainable: Trainable = all_layers
    start: Start = field(default_factory=FromHost)
    settings: Settings = field(default_factory=Settings)
    augment: Augment | None = None
    views: Callable[[Images], Images] | None = None
    replace: bool = False
    masking: Masking | None = None
    refinement: Refinement | None = None
    surgery: Surgery | None = None
    head: str | None = None
    enough: float | None = None
    patience: int = 0
    select: str = "last"
    watch: int = 2_000
    checkpoint: Path | None = None
    measures: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)
    on_history: Callable[[History], None] | None = None

    def __post_init__(self) -> None:
        if self.select not in ("last", "best"):
            raise BadInput(f"select is 'last' or 'best', got {self.select!r}")
        if self.watch < 0 or self.patience < 0:
            raise BadInput(f"watch and patience are 0 or more, got {self.watch} and {self.patience}")
        if self.enough is not None and not 0 < self.enough <= 1:
            raise BadInput(f"enough is a trigger accuracy above 0 and up to 1, got {self.enough}")

    def __call__(self, host: nn.Module, mark: TriggerSet, data: Data, rng: torch.Generator) -> nn.Module:
        """A marked copy of `host`, which stays untouched.

        Raises:
            CannotCarry: the host has another number of classes than the mark, or the images another shape.
            BadInput: a class without training images, or settings that do not fit the trigger set.
            Diverged: the loss stopped being finite.
        """
        anatomy = dissect(host, data.train.pixels[:1], self.head)
        _carries(mark, data, anatomy.classes)
        train = _without(data.train, mark.carriers) if self.replace else data.train
        if self.needs_labels:
            require_every_class(train)
        model = self.start(host, anatomy, rng)
        with nullcontext() if self.surgery is None else self.surgery.applied(model):
            history = fit(
                model,
                train,
                self.terms_for(mark),
                self.settings,
                rng,
                triggers=mark.lessons if self.views is None else self.views(mark.lessons),
                host=host,
                trainable=self.trainable,
                augment=self.augment,
                head=anatomy.head,
                masking=self.masking,
                refinement=self.refinement,
                monitor=lambda m: self._measure(m, mark, data.test),
                until=self._has_enough if self.enough is not None else None,
                identity=self._identity(data.test),
                prefer=(lambda r: (r["trig_acc"], r.get("val_acc", 0.0))) if self.select == "best" else None,
                checkpoint=self.checkpoint,
                title=self.name,
            )
        if self.on_history is not None:
            self.on_history(history)
        return model

    def terms_for(self, mark: TriggerSet) -> tuple[Term, ...]:
        """The loss terms, those that depend on the mark made for it."""
        return tuple(term.bound(mark) if isinstance(term, MarkTerm) else term for term in self.terms)

    def _identity(self, test: Images) -> Any:
        """What stopping, selection and the history depend on, beside the run's own settings."""
        watched = test.sample(self.watch)
        seen = digest({"pixels": watched.pixels, "labels": watched.labels})
        form = [] if self.surgery is None else [repr(self.surgery)]
        return [self.enough, self.patience, self.select, sorted(self.measures), seen, *form]

    def _measure(self, model: nn.Module, mark: TriggerSet, test: Images) -> Record:
        record = {"trig_acc": accuracy(model, mark.as_images())}
        if mark.teaching is not None:
            record["taught_acc"] = accuracy(model, mark.teaching)
        if self.watch:
            record["val_acc"] = accuracy(model, test.sample(self.watch))
        record |= {name: measure(model) for name, measure in self.measures.items()}
        return record

    def _has_enough(self, history: History) -> bool:
        reached = [record["trig_acc"] >= (self.enough or 0) for record in history]
        return True in reached and len(reached) - 1 - reached.index(True) >= self.patience

    @property
    def needs_labels(self) -> bool:
        """Whether any term uses the labels of the training images (FixLL+PFL and FixLL+SPL do not)."""
        return any(term.needs_labels for term in self.terms)


def _without(images: Images, carriers: Images | None) -> Images:
    """The images that are none of the carriers, to the last pixel."""
    if carriers is None:
        return images
    taken = {row.tobytes() for row in carriers.pixels.numpy()}
    kept = [at for at, row in enumerate(images.pixels.numpy()) if row.tobytes() not in taken]
    return images.subset(torch.tensor(kept, dtype=torch.int64))


def _carries(mark: TriggerSet, data: Data, classes: int) -> None:
    if data.classes != classes:
        raise CannotCarry(
            f"the data has {data.classes} classes and the host answers {classes}; check which belongs to which"
        )
    if mark.classes != classes:
        raise CannotCarry(
            f"the mark has labels of {mark.classes} classes and the host answers {classes}; mint for this host"
        )
    if tuple(mark.images.shape[1:]) != data.shape:
        raise CannotCarry(
            f"the triggers are {tuple(mark.images.shape[1:])} and the data {data.shape}; mint for this data"
        )
