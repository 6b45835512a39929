"""The IDX files of MNIST and its relatives (Fashion-MNIST, EMNIST, KMNIST), plain or gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import BadInput

__all__ = ["idx"]

UNSIGNED_BYTE = 0x08
LARGEST = 1 << 34


def idx(folder: str | Path, classes: int | None = None) -> Data:
    """The four files `train-images*`, `train-labels*`, `t10k-images*`, `t10k-labels*` of one folder.

    Args:
        folder: where the files are; each plain or ending in `.gz`, and the plain one is taken where both are there.
        classes: the number of classes; the largest label plus one where it is not given.

    Raises:
        BadInput: a file is missing, cut short, too long or of another kind; the message names it.
    """
    folder = Path(folder)
    parts = [(_images(_find(folder, p, "images")), _labels(_find(folder, p, "labels"))) for p in ("train", "t10k")]
    count = max(int(labels.max()) for _, labels in parts) + 1 if classes is None else classes
    train, test = (Images(images, labels, count, folder.name) for images, labels in parts)
    return Data(train, test)


def _find(folder: Path, part: str, what: str) -> Path:
    found = sorted(folder.glob(f"{part}-{what}*"), key=lambda path: (path.suffix == ".gz", path.name))
    if not found:
        raise BadInput(f"{folder} has no file {part}-{what}*; expected MNIST's four IDX files, plain or .gz")
    return found[0]


def _images(path: Path) -> Tensor:
    return torch.from_numpy(_read(path, rank=3))[:, None]


def _labels(path: Path) -> Tensor:
    return torch.from_numpy(_read(path, rank=1).astype(np.int64))


def _read(path: Path, rank: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One array: two zero bytes, the type code, the rank, `rank` big-endian sizes, then the values."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            shape = _header(file, path, rank)
            body = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read ({error}); it may be cut short or damaged") from error
    if len(body) != math.prod(shape):
        short = "cut short" if len(body) < math.prod(shape) else "too long"
        raise BadInput(f"{path} is {short}: its header promises {math.prod(shape)} values; fetch the file again")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


def _header(file: gzip.GzipFile | IO[bytes], path: Path, rank: int) -> tuple[int, ...]:
    head = file.read(4 + 4 * rank)
    if len(head) < 4 + 4 * rank or head[:4] != bytes([0, 0, UNSIGNED_BYTE, rank]):
        raise BadInput(f"{path} is no IDX file of rank {rank} with bytes in it: it starts with {head[:4].hex(' ')!r}")
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
    if not 0 < math.prod(shape) <= LARGEST:
        raise BadInput(f"{path} claims the shape {shape}, which is empty or larger than {LARGEST} bytes")
    return shape
