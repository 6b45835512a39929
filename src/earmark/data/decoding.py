"""Image files to one uint8 array."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from earmark.data.convert import resized
from earmark.errors import BadInput

__all__ = ["SUFFIXES", "decode_all"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
GREY = frozenset({"1", "L", "LA"})
PATIENCE = 5.0  # seconds without a progress bar


def decode_all(files: Sequence[Path], size: tuple[int, int] | None) -> Tensor:
    """uint8 (N, 1, H, W) if every file is grey, otherwise (N, 3, H, W); transparency is dropped.

    Raises:
        BadInput: a file that is no 8-bit image, or, without `size`, the first file of another size than the first.
    """
    first, grey = _decode(files[0], size)
    out = np.empty((len(files), *first.shape), np.uint8)
    for at, path in enumerate(_tracked(files)):
        pixels, is_grey = _decode(path, size)
        if pixels.shape != first.shape:
            raise BadInput(
                f"{path} is {_size(pixels)} and {files[0]} is {_size(first)}; expected one size, "
                "make them equal or give size=(height, width)"
            )
        out[at], grey = pixels, grey and is_grey
    return torch.from_numpy(out[:, :1].copy() if grey else out)


def _decode(path: Path, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
    """(3, H, W), and whether the file is grey."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode[0] in "IF":
                raise BadInput(f"{path} has pixels of mode {mode}, not 8 bits a channel; convert it to an 8-bit image")
            colour = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} is no readable image ({error}); remove or replace it") from error
    if size is not None:
        colour = resized(torch.tensor(colour)[None], *size)[0].numpy()
    return colour, mode in GREY


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[2]}"


def _tracked(files: Sequence[Path]) -> Iterator[Path]:
    """The files, with a progress bar on standard error once they have taken longer than `PATIENCE`."""
    start, bar = time.monotonic(), Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("decoding images once", total=len(files))
    try:
        for at, path in enumerate(files):
            yield path
            if at % 256 == 255 and time.monotonic() - start > PATIENCE:
                bar.start()
                bar.update(task, completed=at + 1)
    finally:
        bar.stop()
