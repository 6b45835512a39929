"""The hosts of Wen et al. 2023 (Table 1): data, networks, and the tasks that a thief transfers each of them to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from earmark.data import CropFlip
from earmark.models import VGG16BN, LeNet5, ResNet18, normalised
from earmark.training import Augment

__all__ = ["SETTINGS", "Setting"]

MEAN_STD = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


@dataclass(frozen=True)
class Setting:
    """A host of the paper.

    Attributes:
        data: the images, a name of `bench.sources`.
        build: (shape of an image, classes, width) to a network behind its normalisation.
        transfers: the tasks that a thief transfers the model to.
        augment: a random view of the training images.
    """

    data: str
    build: Callable[[tuple[int, int, int], int, int], nn.Module]
    transfers: tuple[str, ...] = ()
    augment: Augment | None = None


def _lenet(shape: tuple[int, int, int], classes: int, width: int) -> nn.Module:
    return normalised(LeNet5(shape, classes, width=width), [0.1307], [0.3081])


def _resnet(stem: str) -> Callable[[tuple[int, int, int], int, int], nn.Module]:
    return lambda shape, classes, width: normalised(ResNet18(classes, width=width, stem=stem), *MEAN_STD, channels=3)


def _vgg(shape: tuple[int, int, int], classes: int, width: int) -> nn.Module:
    return normalised(VGG16BN(classes, width=width), *MEAN_STD, channels=3)


SETTINGS: Mapping[str, Setting] = {
    "mnist_lenet5": Setting("mnist", _lenet, ("fashion-mnist",)),
    "cifar10_resnet18": Setting("cifar10", _resnet("cifar"), ("cifar100", "mnist"), CropFlip()),
    "cifar100_vgg16": Setting("cifar100", _vgg, ("tinyimagenet",), CropFlip()),
    "tinyimagenet_resnet18": Setting("tinyimagenet", _resnet("tiny"), (), CropFlip()),
}
