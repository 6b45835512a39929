"""The images that measurements run on: a folder with one sub-folder per data set, or the embedded digits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from earmark.core import Data, Images, rng
from earmark.data import digits, folder, idx, resized
from earmark.errors import BadInput

__all__ = ["Source", "located", "open_images", "reduced"]

IDX = ("mnist", "fashion-mnist")
LOSSLESS = ("cifar10", "cifar100")
"""Sets whose originals are no JPEG files."""
STAND_INS: Mapping[str, tuple[str, str]] = {
    "caltech101": ("caltech101-32", "Caltech-101, 32 x 32."),
    "cifar100": (
        "tinyimagenet100-32",
        "100 classes of Tiny ImageNet, 32 x 32, stand in for CIFAR-100: not the paper's data.",
    ),
    "tinyimagenet": (
        "caltech101-32",
        "Caltech-101, 32 x 32, stands in for Tiny ImageNet: not the paper's data.",
    ),
}


class Source(NamedTuple):
    """A data set, what it is, and what a reader has to know about it."""

    data: Data
    name: str
    notes: list[str]


def located(name: str, root: Path | None) -> tuple[Path, str]:
    """The sub-folder of the data set called `name`, or of the one that stands in for it, and what that is called.

    Raises:
        BadInput: no folder was given, or it does not hold the data set.
    """
    root = root or (Path(os.environ["EARMARK_DATA"]) if "EARMARK_DATA" in os.environ else None)
    if root is None:
        raise BadInput(f"real images are needed: give the folder that holds {name}/ as --data or EARMARK_DATA")
    known = [name, *STAND_INS.get(name, ())[:1]]
    for held in known:
        if (root / held).is_dir():
            return root / held, held
    raise BadInput(f"{root} holds no {' or '.join(f'{held}/' for held in known)}; put the data set there")


def open_images(name: str, root: Path | None) -> Source:
    """The data set called `name`, or the one that stands in for it.

    Args:
        name: "digits", or a sub-folder: mnist, fashion-mnist (IDX files), cifar10, cifar100, tinyimagenet, caltech101
            (folders of images); where one of the last three is missing, another set may stand in for it.
        root: the folder that holds it; None takes the environment's EARMARK_DATA.

    Raises:
        BadInput: as `located`, or files that cannot be read.
    """
    if name == "digits":
        return Source(digits(), name, [])
    path, held = located(name, root)
    if name in IDX:
        return Source(idx(path), name, [])
    notes = [] if held == name else [STAND_INS[name][1]]
    if held in LOSSLESS and next(path.rglob("*.jp*g"), None):
        notes.append(f"{held} is read from JPEG files, a little noisier than the original.")
    return Source(folder(path), held, notes)


def reduced(data: Data, images: int | None, test: int | None, size: tuple[int, int] | None, seed: int) -> Data:
    """At most so many training and test images, drawn by the seed, resized to (height, width) where that is given."""

    def some(whole: Images, count: int | None) -> Images:
        if count is not None and count < len(whole):
            whole = whole.subset(torch.randperm(len(whole), generator=rng(seed))[:count])
        pixels = whole.pixels if size is None else resized(whole.pixels, *size)
        return Images(pixels, whole.labels, whole.classes, whole.name)

    return Data(some(data.train, images), some(data.test, test))
