"""Deep fidelity, measured: one pass over each set of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from earmark.core import Data, FidelityReport, Images
from earmark.fidelity.formulas import (
    agreement,
    penultimate_feature_loss,
    prototype_change,
    softmax_loss,
    total_weight_loss,
)
from earmark.marks import TriggerSet
from earmark.models import dissect
from earmark.training import accuracy, predict, read_all

__all__ = ["DeepFidelity"]


@dataclass(frozen=True)
class DeepFidelity:
    """Measure a marked model against its host: the paper's metrics, and what accuracy hides beyond them.

    Attributes:
        mark: the trigger set, for the trigger accuracy; None leaves it out.
        others: further images on which the two models' answers are compared: corrupted ones, out-of-distribution ones.
            Agreement on `data.test` is always measured.
        head: the name of the last linear layer, where the search for it cannot tell.
    """

    mark: TriggerSet | None = None
    others: Mapping[str, Images] = field(default_factory=dict)
    head: str | None = None

    def __call__(self, model: nn.Module, host: nn.Module, data: Data) -> FidelityReport:
        """Every metric of `FidelityReport`; PFL and SPL over `data.train`, accuracy and agreement over `data.test`."""
        ours, theirs = (dissect(m, _example(m, data), self.head) for m in (model, host))
        read, read_host = read_all(model, ours, data.train), read_all(host, theirs, data.train)
        test, test_host = predict(model, data.test), predict(host, data.test)
        same_size = read.features.shape == read_host.features.shape
        pfl = penultimate_feature_loss(read.features, read_host.features) if same_size else None
        scale = float(read_host.features.double().square().sum(dim=1).mean())
        agreements = {name: agreement(predict(model, images), predict(host, images)) for name, images in self.others.items()}
        return FidelityReport(
            val_acc=_accuracy(test, data.test),
            trig_acc=None if self.mark is None else _trigger_accuracy(model, self.mark),
            twl=total_weight_loss(model, host),
            ave_pfl=pfl,
            ave_spl=softmax_loss(read.logits, read_host.logits),
            prototype_change=prototype_change(ours.linear(model), theirs.linear(host)),
            relative_pfl=None if pfl is None or scale == 0 else pfl / scale,
            host_val_acc=_accuracy(test_host, data.test),
            agreement={"test": agreement(test, test_host), **agreements},
        )


def _example(model: nn.Module, data: Data) -> Tensor:
    return data.train.pixels[:1].to(next(model.parameters()).device).float() / 255


def _accuracy(logits: Tensor, images: Images) -> float:
    return float((logits.argmax(dim=1) == images.labels).double().mean())


def _trigger_accuracy(model: nn.Module, mark: TriggerSet) -> float:
    return accuracy(model, Images(mark.images, mark.labels, mark.classes, "triggers"))
