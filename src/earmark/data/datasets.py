"""Data sets of other libraries: torchvision, Hugging Face, and any PyTorch Dataset or DataLoader."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from earmark.core import Images
from earmark.data.pixels import to_labels, to_pixels
from earmark.errors import BadInput

__all__ = ["from_dataset"]

IMAGE_NAMES = ("image", "img", "pixel_values", "images")
LABEL_NAMES = ("label", "labels", "fine_label", "target")


def from_dataset(
    dataset: Dataset[Any] | Iterable[Any],
    classes: int | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
) -> Images:
    """All images of a data set, once, as uint8.

    Each element is a pair (image, label) or a mapping with an image and a label under the usual names; a DataLoader's
    elements are batches of these. Images are PIL images, or arrays or tensors (H, W), (C, H, W) or (H, W, C), uint8 or
    float in [0, 1], all of one shape. Random transforms draw from a fixed seed, and the global state of torch's random
    generators stays as it is.

    Args:
        dataset: a map-style or iterable data set, a DataLoader, or a plain sequence of pairs.
        classes: the number of classes; otherwise what the data set says about itself, or the largest label plus one.
        name: what errors and reports call it.
        cache: a path for a memory-mapped `.npy` file that holds the pixels where they are larger than memory; an
            older file there is replaced. Needs a data set that knows its length.

    Raises:
        BadInput: no elements, elements of another form, images of different shapes, or pixels outside their range (as
            normalised images are).
    """
    name = name or type(dataset).__name__
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = _blocks(name, dataset)
        try:
            first = next(blocks)
        except StopIteration:
            raise BadInput(f"{name} is empty; expected at least one image with its label") from None
        parts = chain([first], blocks)
        pixels, labels = _gather(parts) if cache is None else _gather_into(Path(cache), name, dataset, first, parts)
    return Images(pixels, labels, classes or _classes(dataset) or int(labels.max()) + 1, name)


Block = tuple[Tensor, Tensor]


def _gather(blocks: Iterable[Block]) -> Block:
    pixels, labels = zip(*blocks, strict=True)
    return torch.cat(pixels), torch.cat(labels)


def _gather_into(path: Path, name: str, dataset: Any, first: Block, blocks: Iterable[Block]) -> Block:
    """As `_gather`, with the pixels in a file that appears under its name once it is whole."""
    try:
        length = len(dataset) * len(first[0])
    except TypeError as error:
        raise BadInput(f"{name} does not know its length, which a cache file needs; leave cache= out") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        labels = _fill(temporary, (length, *first[0].shape[1:]), blocks)
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; give a folder with enough space") from error
    finally:
        temporary.unlink(missing_ok=True)
    return torch.from_numpy(np.load(path, mmap_mode="c")[: len(labels)]), labels


def _fill(path: Path, shape: tuple[int, ...], blocks: Iterable[Block]) -> Tensor:
    file = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    labels: list[Tensor] = []
    at = 0
    for pixels, numbers in blocks:
        file[at : at + len(pixels)] = pixels.numpy()
        labels.append(numbers)
        at += len(pixels)
    file.flush()
    return torch.cat(labels)


def _blocks(name: str, dataset: Any) -> Iterator[Block]:
    """(pixels, labels) of one or more images, all of the shape of the first."""
    batched = isinstance(dataset, DataLoader) and dataset.batch_size is not None
    shape: tuple[int, ...] | None = None
    for at, element in enumerate(_elements(dataset)):
        what = f"{name}, {'batch' if batched else 'image'} {at}"
        image, label = _pair(what, element)
        block = _many(what, image, label) if batched else _one(what, image, label)
        shape = shape or tuple(block[0].shape[1:])
        if block[0].shape[1:] != shape:
            raise BadInput(
                f"{what} has the shape {tuple(block[0].shape[1:])} and the first one {shape}; bring all to one size "
                "and one number of channels in the data set's transform"
            )
        yield block


def _elements(dataset: Any) -> Iterator[Any]:
    """By index where there is a length, because a map-style data set need not raise IndexError at its end."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return (dataset[at] for at in range(len(dataset)))
    return iter(dataset)


def _pair(what: str, element: Any) -> tuple[Any, Any]:
    if isinstance(element, Mapping):
        image = next((element[key] for key in IMAGE_NAMES if key in element), None)
        label = next((element[key] for key in LABEL_NAMES if key in element), None)
        if image is None or label is None:
            raise BadInput(f"{what} has {', '.join(map(str, element))}; expected an image and a label by those names")
        return image, label
    if isinstance(element, tuple | list) and len(element) >= 2:
        return element[0], element[1]
    raise BadInput(f"{what}: expected a pair (image, label) or a mapping, got {type(element).__name__}")


def _one(what: str, image: Any, label: Any) -> Block:
    return to_pixels(what, _array(image)[None]), to_labels(what, np.asarray(label)[None])


def _many(what: str, images: Any, labels: Any) -> Block:
    block = to_pixels(what, _array(images)), to_labels(what, np.asarray(labels))
    if len(block[0]) != len(block[1]):
        raise BadInput(f"{what} has {len(block[0])} images and {len(block[1])} labels")
    return block


def _array(image: Any) -> NDArray[Any]:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    if isinstance(image, Tensor):
        return image.detach().cpu().numpy()
    return np.asarray(image)


def _classes(dataset: Any) -> int | None:
    """What torchvision's `classes` or Hugging Face's `features` say."""
    dataset = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    named = getattr(dataset, "classes", None)
    if isinstance(named, list | tuple):
        return len(named)
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):
        return None
    count = next((getattr(features[key], "num_classes", None) for key in LABEL_NAMES if key in features), None)
    return count if isinstance(count, int) else None
