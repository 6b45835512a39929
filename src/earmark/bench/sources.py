"""The images that measurements run on: a folder with one sub-folder per data set, or the embedded digits."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from earmark.core import Data, Images, rng
from earmark.data import digits, folder, idx, resized
from earmark.errors import BadInput
from earmark.marks.triggers.font import GLYPHS

__all__ = ["LETTERS", "Source", "letters", "located", "open_images", "other_images", "reduced"]

LETTERS = "letters"
SHADES = (255, 191, 127)
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


def letters() -> Images:
    """The capital letters of the library's own bitmap font, which show no digit: 624 images of 8 x 8, 26 classes.

    Each letter (5 x 7 pixels) stands at each of the eight places that it has room for, in three shades on black.

    >>> letters()
    Images('letters', 624 of 1x8x8, 26 classes)
    """
    images, labels = [], []
    for label, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        ink = torch.from_numpy(GLYPHS[letter]).to(torch.uint8)
        for top, left, shade in itertools.product(range(2), range(4), SHADES):
            image = torch.zeros(1, 8, 8, dtype=torch.uint8)
            image[0, top : top + ink.shape[0], left : left + ink.shape[1]] = ink * shade
            images.append(image)
            labels.append(label)
    return Images(torch.stack(images), torch.tensor(labels), 26, LETTERS)


def other_images(name: str, root: Path | None = None) -> Images:
    """Images of another data set than the task's: `letters`, or the training images of what `open_images` knows."""
    return letters() if name == LETTERS else open_images(name, root).data.train


def reduced(data: Data, images: int | None, test: int | None, size: tuple[int, int] | None, seed: int) -> Data:
    """At most so many training and test images, drawn by the seed, resized to (height, width) where that is given."""

    def some(whole: Images, count: int | None) -> Images:
        if count is not None and count < len(whole):
            whole = whole.subset(torch.randperm(len(whole), generator=rng(seed))[:count])
        pixels = whole.pixels if size is None else resized(whole.pixels, *size)
        return Images(pixels, whole.labels, whole.classes, whole.name)

    return Data(some(data.train, images), some(data.test, test))
