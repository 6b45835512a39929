"""The networks and tasks of Fan et al. 2021 (Tables 4 to 7), and what changed between the two eras of their code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from earmark.data import CropFlip
from earmark.models import AlexNetP, ResNetP, normalised
from earmark.training import Augment

__all__ = ["SETTINGS", "Setting"]

CIFAR = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
CROPS = CropFlip()
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Setting:
    """A network of the paper on its own task.

    Attributes:
        data: the images, a name of `bench.sources`.
        network: (shape of an image, classes, width, norm) to a network.
        layers: which convolutions get passports, as in `PassportMint`.
        tolerance: epsilon_f, in points.
        targets: the tasks that the network is transferred to.
        mean_std: of the input's normalisation.
        weight_decay: while it is trained, and protected.
        augment: a random view of the training images.
        target_augment: of the target's images.
    """

    data: str
    network: Callable[[tuple[int, int, int], int, int, str], nn.Module]
    layers: str | int
    tolerance: float
    targets: tuple[str, ...]
    mean_std: tuple[list[float], list[float]] = CIFAR
    weight_decay: float = 5e-4
    augment: Augment = CROPS
    target_augment: Augment = CROPS

    def build(self, shape: tuple[int, int, int], classes: int, width: int, norm: str) -> nn.Module:
        """The network with fresh parameters, behind its normalisation."""
        mean, std = self.mean_std
        network = self.network(shape, classes, width, norm)
        if shape[0] == 1:
            return normalised(network, mean[:1], std[:1])
        return normalised(network, mean, std)


def _alexnet(shape: tuple[int, int, int], classes: int, width: int, norm: str) -> nn.Module:
    return AlexNetP(classes, channels=shape[0], width=width, norm=norm, size=shape[1:])


def _resnet(shape: tuple[int, int, int], classes: int, width: int, norm: str) -> nn.Module:
    return ResNetP(classes, channels=shape[0], width=width, norm=norm)


TO = {"cifar10": ("cifar100", "caltech101"), "cifar100": ("cifar10", "caltech101")}


def _era_2020(setting: Setting) -> Setting:
    """The public code since June 2020: another weight decay and normalisation, and no crops when transferring."""
    return replace(setting, mean_std=IMAGENET, weight_decay=1e-4, target_augment=CropFlip(pad=0))


PAPER = {
    **{f"{data}_alexnet": Setting(data, _alexnet, 3, 3.0, targets) for data, targets in TO.items()},
    **{f"{data}_resnet18": Setting(data, _resnet, "*stages.3*", 10.0, targets) for data, targets in TO.items()},
}
SETTINGS: Mapping[str, Setting] = {
    **PAPER,
    **{f"{name}-2020": _era_2020(setting) for name, setting in PAPER.items()},
}
"""By data and network as the code of 2019 has them, from which the paper's CIFAR rows very probably come; "-2020" as it
has been since."""
