"""Tasks with settings that suit them, by name: what a grid needs to be run with one word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import nn

from earmark.bench.sources import LETTERS, open_images, reduced
from earmark.core import Data
from earmark.data import CropFlip
from earmark.marks import Penetration
from earmark.models import PlainCNN, Task, ThinResNet18
from earmark.training import HOST, Augment, Settings, ShadowTraining

__all__ = ["PRESETS", "Preset", "read_preset"]


@final
@dataclass(frozen=True)
class Preset:
    """One task.

    Attributes:
        source: the data set, as `bench.sources.open_images` knows it.
        network: what the network is called.
        build: from the task to what makes a network for it.
        host: how hosts are trained.
        augment: a random view of training images.
        images, test: how many training and test images are used; None for all.
        schemes, attacks: settings by name that differ from the defaults; of everything else the defaults are taken.
        sweeps: attacks at several strengths, "name.setting" to values.
        others: another data set for triggers that have nothing to do with the task, as `bench.sources.other_images`
            knows it.
    """

    source: str
    network: str
    build: Callable[[Task], Callable[[], nn.Module]]
    host: Settings = HOST
    augment: Augment | None = None
    images: int | None = None
    test: int | None = None
    schemes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sweeps: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    others: str | None = None


def read_preset(name: str, root: Path | None = None) -> Data:
    """The data of a preset: all that is used of it, drawn by the seed 0 where that is not everything."""
    preset = PRESETS[name]
    return reduced(open_images(preset.source, root).data, preset.images, preset.test, None, seed=0)


def _plain(task: Task, width: int) -> Callable[[], nn.Module]:
    return partial(PlainCNN, task.shape, task.classes, width=width)


def _thin(task: Task) -> Callable[[], nn.Module]:
    return partial(ThinResNet18, task.classes, channels=task.shape[0])


SHARES = (0.2, 0.4, 0.6, 0.8, 0.9)
TAUGHT = {"lr": 1e-3, "triggers_per_batch": 16, "enough": 1.0, "patience": 2}
"""Enough triggers in each batch, at a rate at which they are learnt, until all of them are."""

ADI_TAUGHT = {"triggers_per_batch": 16, "epochs": 60, "enough": 1.0}
"""The paper's rate for fine-tuning, 0.01, until all triggers are learnt. With its two triggers to a batch and 20 epochs
each of 100 triggers is seen six times, since the digits are few, and 21 are learnt; so all are."""

FUSED_TAUGHT = {
    "method": "function-coupled",
    "every": 1,
    "drop": 0.05,
    "triggers_per_batch": 64,
    "epochs": 120,
    "milestones": (60, 100),
}
"""A new mask at each step, and enough fusions in each batch. Where a mask stays for an epoch of a dozen steps, as in
Algorithm 1, the network follows the latest one: half of the fusions are learnt, and digits are forgotten (87 to 96 %
are still known). So 96 % of the fusions are learnt and 99 % of the digits known; but of other fusions of the same
pairs, which are what is asked, only 60 % are answered as marked (29 of 40 groups with the seed 0, 27 without any
masks). That is evidence for an owner and too little for a judge, who needs 35; none of ten other settings, tried with
one seed each, came nearer."""

DIGITS = Preset(
    source="digits",
    network="PlainCNN, 32 channels",
    build=partial(_plain, width=32),
    host=HOST.but(epochs=10, milestones=(7,)),
    schemes={
        "deep-fidelity": {"method": "fixll+pfl", "beta": 0.05, **TAUGHT},
        "deepipr": {"layers": 2, "epochs": 45, "milestones": (25, 38), "sign": 1.0},
        "adi": ADI_TAUGHT,
        "function-coupled": FUSED_TAUGHT,
        "zhang-content": TAUGHT,
        "zhang-noise": TAUGHT,
        "zhang-unrelated": TAUGHT,
        "exponential-weighting": {"triggers_per_batch": 16},
        "frontier-stitching": TAUGHT,
        "null-embedding": TAUGHT,
        "one-way-chain": {**TAUGHT, "triggers_per_batch": 32, "lr": 2e-3, "epochs": 30},
        "penetrative": {
            **TAUGHT,
            "looks": 10,
            "bound": 0.05,
            "shadow_training": ShadowTraining(shadows=4, bottleneck=16, epochs=80),
            "search": Penetration(iterations=500, similarity=1.0),
        },
    },
    attacks={
        "fine-tune-ftal": {"trials": 3, "epochs": 2, "lr": 1e-3},
        "extract-soft": {"epochs": 8, "milestones": (6,)},
        "extract-hard": {"epochs": 8, "milestones": (6,)},
        "extract-noise": {"epochs": 8, "milestones": (6,)},
        "distil": {"epochs": 8, "milestones": (6,)},
        "autoencoder": {"epochs": 30},
        "grind": {"keys": 64},
        "false-claim": {"epochs": 6, "milestones": (4,), "surrogates": 2},
    },
    sweeps={"prune-global.share": SHARES, "jpeg.quality": (75, 40), "noise-denoise.std": (0.1, 0.2)},
    others=LETTERS,
)
"""Penetrative stamps of 8 x 8 pixels stay near their prestamps only where the similarity weighs more than usual."""

MNIST = Preset(
    source="mnist",
    network="PlainCNN, 16 channels",
    build=partial(_plain, width=16),
    host=HOST.but(epochs=5, milestones=(3,), batch_size=64),
    images=20_000,
    test=5_000,
    schemes={
        "deep-fidelity": {"method": "fixll+pfl", "beta": 0.05, **TAUGHT},
        "deepipr": {"layers": 3, "epochs": 10, "milestones": (6, 8)},
    },
    attacks={
        "fine-tune-ftal": {"trials": 5, "epochs": 1, "lr": 1e-3, "images": 2_000},
        "extract-soft": {"epochs": 5, "milestones": (3,)},
        "extract-hard": {"epochs": 5, "milestones": (3,)},
        "extract-noise": {"epochs": 5, "milestones": (3,)},
    },
    sweeps={"prune-global.share": SHARES},
    others="fashion-mnist",
)

CIFAR10 = Preset(
    source="cifar10",
    network="thin ResNet-18",
    build=_thin,
    host=HOST.but(epochs=30, milestones=(15, 25), batch_size=64),
    augment=CropFlip(),
    schemes={
        "deep-fidelity": {"method": "fixll+pfl", **TAUGHT},
        "deepipr": {"epochs": 60, "milestones": (30, 45)},
    },
    attacks={"fine-tune-ftal": {"trials": 5, "epochs": 1, "images": 2_000}},
    sweeps={"prune-global.share": SHARES},
    others="mnist",
)

PRESETS: Mapping[str, Preset] = {"digits": DIGITS, "mnist": MNIST, "cifar10": CIFAR10}
"""digits takes minutes on one processor, mnist an hour or two, cifar10 wants a GPU."""
