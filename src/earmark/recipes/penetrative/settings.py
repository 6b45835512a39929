"""The hosts of Li & Wang 2021 (Section 4.1): data and network; and CIFAR-10, which the paper does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from earmark.models import ResNet18, normalised

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """A host.

    Attributes:
        data: the images, a name of `bench.sources`.
        outside: the data set that triggers "outside the training set" are taken from.
        build: (shape of an image, classes, width) to a network behind its normalisation.
    """

    data: str
    outside: str
    build: Callable[[tuple[int, int, int], int, int], nn.Module]


def _resnet(shape: tuple[int, int, int], classes: int, width: int) -> nn.Module:
    return normalised(ResNet18(classes, channels=shape[0], width=width), [0.5] * shape[0], [0.5] * shape[0])


SETTINGS: Mapping[str, Setting] = {
    "mnist_resnet18": Setting("mnist", "fashion-mnist", _resnet),
    "fashion_resnet18": Setting("fashion-mnist", "mnist", _resnet),
    "cifar10_resnet18": Setting("cifar10", "fashion-mnist", _resnet),
}
