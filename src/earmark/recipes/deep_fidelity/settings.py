"""The hosts of Hua & Teoh 2023: networks, normalisations, data, and the polytope that fits each feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from earmark.data import CropFlip
from earmark.models import ThinResNet18, WideResNet, normalised
from earmark.training import HOST, Settings

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """A host of the paper and how the released code trains it.

    Attributes:
        data: the data set.
        build: from the number of classes and the stem's width to the network behind its normalisation.
        polytope: one that fits its feature.
        host: settings of its run, which are those of a run from scratch, too.
        tuned: settings of FTLL and FTAL, which keep one rate to the end.
        augment: a random view of the training images, at their full size.
    """

    data: str
    build: Callable[[int, int], nn.Module]
    polytope: str
    host: Settings
    tuned: Settings
    augment: CropFlip | None = None


def _mnist(features: int) -> Callable[[int, int], nn.Module]:
    return lambda classes, width: normalised(
        ThinResNet18(classes, features, width=width), [0.1307], [0.3081], channels=3
    )


def _cifar10(classes: int, width: int) -> nn.Module:
    net = ThinResNet18(classes, 64, width=width)
    return normalised(net, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], channels=3)


def _cifar100(classes: int, width: int) -> nn.Module:
    net = WideResNet(classes, depth=28 if width >= 16 else 10, widen=10 if width >= 16 else 1)
    return normalised(net, [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761], channels=3)


def _host(epochs: int) -> Settings:
    return HOST.but(epochs=epochs, milestones=(epochs // 2,))


SETTINGS: Mapping[str, Setting] = {
    "mnist_d2": Setting("mnist", _mnist(2), "fan", _host(20), Settings(epochs=20)),
    "mnist_d3": Setting("mnist", _mnist(3), "fan", _host(20), Settings(epochs=20)),
    "cifar10_resnet18_d64": Setting("cifar10", _cifar10, "simplex", _host(50), Settings(epochs=50), CropFlip()),
    "cifar100_wrn28_10_d640": Setting("cifar100", _cifar100, "simplex", _host(100), Settings(epochs=50), CropFlip()),
}
