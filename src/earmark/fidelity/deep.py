"""Deep fidelity, measured: one pass over each set of images, in the memory of one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from earmark.core import Data, FidelityReport, Images
from earmark.errors import BadInput
from earmark.fidelity.formulas import (
    agreement,
    penultimate_feature_loss,
    prototype_change,
    softmax_loss,
    total_weight_loss,
)
from earmark.marks import TriggerSet
from earmark.models import (
    Anatomy,
    Reading,
    dissect,
    plainly_laid_out,
    require_fit,
    require_initialised,
    require_shape,
)
from earmark.training import accuracy, predict, readings

__all__ = ["DeepFidelity"]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of a data set; of the training images, one batch after the other."""

    model: nn.Module
    data: Data
    anatomy: Anatomy
    train: Iterable[Reading]
    test: Tensor
    others: Mapping[str, Tensor]


@dataclass(frozen=True)
class DeepFidelity:
    """Measure a marked model against its host: the paper's metrics, and what accuracy hides beyond them.

    Sums run in float64, batch by batch, over both models side by side, so that a call takes the memory of a batch
    however many training images there are, and one forward pass of each model over them. `against` saves the host's
    pass in every later call and keeps 4 N (d + K) bytes on the CPU for it, N training images, d features, K classes:
    130 MB for CIFAR-10 with d = 640, and 16 GB for ImageNet with d = 2048; there, call without it.

    Both models are read with their weights in one memory layout: where their trunks are equal, PFL is exactly 0.

    Attributes:
        mark: the trigger set, for the trigger accuracy; None leaves it out.
        others: further images on which the two models' answers are compared: corrupted ones, out-of-distribution ones.
            Agreement on `data.test` is always measured.
        head: the name of the last linear layer, where the search for it cannot tell.
        outputs: what `against` has computed; a call with that host and data does not ask the host again.
    """

    mark: TriggerSet | None = None
    others: Mapping[str, Images] = field(default_factory=dict)
    head: str | None = None
    outputs: Outputs | None = None

    def against(self, host: nn.Module, data: Data) -> DeepFidelity:
        """The same measure with the host's outputs computed, for more than one model of one host."""
        self._require_fit(host, data, "the host")
        outputs = self._outputs(host, data)
        return replace(self, outputs=replace(outputs, train=tuple(outputs.train)))

    def __call__(self, model: nn.Module, host: nn.Module, data: Data) -> FidelityReport:
        """Every metric of `FidelityReport`; PFL and SPL over `data.train`, accuracy and agreement over `data.test`.

        Raises:
            BadInput: a model or a host that does not take the images or answer the classes of data, mark and others,
                or answers numbers that are not finite.
        """
        self._require_fit(model, data, "the model")
        if self.mark is not None and (self.mark.shape, self.mark.classes) != (data.shape, data.classes):
            require_fit(model, self.mark, whose="the mark")
        known = self.outputs
        if known is None or known.model is not host or known.data is not data:
            self._require_fit(host, data, "the host")
            known = self._outputs(host, data)
        ours, theirs = self._outputs(model, data), known
        pfl, spl, scale = _means(ours, theirs)
        return FidelityReport(
            val_acc=_accuracy(ours.test, data.test),
            trig_acc=None if self.mark is None else _trigger_accuracy(model, self.mark),
            twl=total_weight_loss(model, host),
            ave_pfl=pfl,
            ave_spl=spl,
            prototype_change=prototype_change(ours.anatomy.linear(model), theirs.anatomy.linear(host)),
            relative_pfl=None if pfl is None or scale == 0 else pfl / scale,
            host_val_acc=_accuracy(theirs.test, data.test),
            agreement={
                "test": agreement(ours.test, theirs.test),
                **{name: agreement(ours.others[name], theirs.others[name]) for name in self.others},
            },
        )

    def _require_fit(self, model: nn.Module, data: Data, what: str) -> None:
        require_initialised(model)
        require_fit(model, data, what)
        for shape in {images.shape for images in self.others.values()} - {data.shape}:
            require_shape(model, shape, what)

    def _outputs(self, model: nn.Module, data: Data) -> Outputs:
        read = plainly_laid_out(model)
        anatomy = dissect(read, data.train.pixels[:1], self.head)
        others = {name: predict(read, images) for name, images in self.others.items()}
        train, test = _checked(readings(read, anatomy, data.train)), predict(read, data.test)
        _finite(test)
        return Outputs(model, data, anatomy, train, test, others)


def _means(ours: Outputs, theirs: Outputs) -> tuple[float | None, float, float]:
    """PFL (None where features differ in size), SPL and ||z_host||_2^2, each averaged over the training images."""
    same_size = ours.anatomy.features == theirs.anatomy.features
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    for our, their in zip(ours.train, theirs.train, strict=True):
        pfl = penultimate_feature_loss(our.features, their.features) if same_size else 0.0
        scale = float(their.features.double().square().sum(dim=1).mean())
        means = torch.tensor([pfl, softmax_loss(our.logits, their.logits), scale], dtype=torch.float64)
        sums, count = sums + len(our.logits) * means, count + len(our.logits)
    pfl, spl, scale = (sums / count).tolist()
    return pfl if same_size else None, spl, scale


def _checked(train: Iterator[Reading]) -> Iterator[Reading]:
    for reading in train:
        _finite(*reading)
        yield reading


def _finite(*outputs: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in outputs):
        raise BadInput("the model's features or logits are not finite numbers; its fidelity cannot be measured")


def _accuracy(logits: Tensor, images: Images) -> float:
    return float((logits.argmax(dim=1) == images.labels).double().mean())


def _trigger_accuracy(model: nn.Module, mark: TriggerSet) -> float:
    return accuracy(model, mark.as_images())
