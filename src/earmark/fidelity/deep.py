"""Deep fidelity, measured: one pass over each set of images."""

from __future__ import annotations

from collections.abc import Mapping
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
from earmark.models import Reading, dissect
from earmark.training import accuracy, predict, read_all

__all__ = ["DeepFidelity"]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of a data set. A host's is computed once for all models that are measured against it."""

    model: nn.Module
    data: Data
    train: Reading
    test: Tensor
    others: Mapping[str, Tensor]


@dataclass(frozen=True)
class DeepFidelity:
    """Measure a marked model against its host: the paper's metrics, and what accuracy hides beyond them.

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
        return replace(self, outputs=self._outputs(host, data))

    def __call__(self, model: nn.Module, host: nn.Module, data: Data) -> FidelityReport:
        """Every metric of `FidelityReport`; PFL and SPL over `data.train`, accuracy and agreement over `data.test`."""
        known = self.outputs
        theirs = (
            known if known is not None and known.model is host and known.data is data else self._outputs(host, data)
        )
        ours = self._outputs(model, data)
        same_size = ours.train.features.shape == theirs.train.features.shape
        pfl = penultimate_feature_loss(ours.train.features, theirs.train.features) if same_size else None
        scale = float(theirs.train.features.double().square().sum(dim=1).mean())
        heads = (dissect(m, data.train.pixels[:1], self.head).linear(m) for m in (model, host))
        return FidelityReport(
            val_acc=_accuracy(ours.test, data.test),
            trig_acc=None if self.mark is None else _trigger_accuracy(model, self.mark),
            twl=total_weight_loss(model, host),
            ave_pfl=pfl,
            ave_spl=softmax_loss(ours.train.logits, theirs.train.logits),
            prototype_change=prototype_change(*heads),
            relative_pfl=None if pfl is None or scale == 0 else pfl / scale,
            host_val_acc=_accuracy(theirs.test, data.test),
            agreement={
                "test": agreement(ours.test, theirs.test),
                **{name: agreement(ours.others[name], theirs.others[name]) for name in self.others},
            },
        )

    def _outputs(self, model: nn.Module, data: Data) -> Outputs:
        anatomy = dissect(model, data.train.pixels[:1], self.head)
        others = {name: predict(model, images) for name, images in self.others.items()}
        train, test = read_all(model, anatomy, data.train), predict(model, data.test)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in (*train, test)):
            raise BadInput("the model's features or logits are not finite numbers; its fidelity cannot be measured")
        return Outputs(model, data, train, test, others)


def _accuracy(logits: Tensor, images: Images) -> float:
    return float((logits.argmax(dim=1) == images.labels).double().mean())


def _trigger_accuracy(model: nn.Module, mark: TriggerSet) -> float:
    return accuracy(model, Images(mark.images, mark.labels, mark.classes, "triggers"))
