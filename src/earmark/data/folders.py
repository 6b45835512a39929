"""Folders of image files, one sub-folder per class."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from earmark.core import Data, Images
from earmark.data.decoding import SUFFIXES, decode_all
from earmark.data.splits import split
from earmark.errors import BadInput
from earmark.files import canonical_json, save_tensors

__all__ = ["folder"]

CACHE_VERSION = 1
TEST_NAMES = ("test", "val")
log = logging.getLogger(__name__)


def folder(
    root: str | Path, size: tuple[int, int] | None = None, test_share: float = 0.2, seed: int = 0, cache: bool = True
) -> Data:
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val`), or in `root/<class>/` and then split here.

    Classes are numbered in the order of their names. Files are decoded once; the pixels are kept in
    `<root>.earmark.safetensors` beside the folder until a file's name, size or time of change differs, and an
    unwritable place only means that there is no such file. Hidden files and files of other kinds are left out.

    Args:
        root: the folder.
        size: (height, width) to bring all images to, by area averaging without regard to their aspect ratio.
        test_share: the share to test on, where there is no test folder.
        seed: names the split, where there is no test folder.
        cache: whether to read and write the file beside the folder.

    Raises:
        BadInput: no such folder, fewer than two classes, a class without images, classes that differ between train and
            test, a file that is no 8-bit image, or images of more than one size.
    """
    root = Path(root).resolve()
    parts = _parts(root)
    listings = [_list(part) for part in parts]
    if any(listing.names != listings[0].names for listing in listings):
        odd = sorted(set(listings[0].names) ^ set(listings[1].names))
        raise BadInput(f"{parts[0]} and {parts[1]} differ in their classes: {', '.join(odd[:5])} is in one only")
    pixels = _pixels(root, [file for listing in listings for file in listing.files], size, cache)
    sides = torch.split(pixels, [len(listing.files) for listing in listings])
    images = [Images(p, x.labels, len(x.names), root.name) for p, x in zip(sides, listings, strict=True)]
    return Data(*images) if len(images) == 2 else split(images[0], test_share, seed)


@dataclass(frozen=True)
class _Listing:
    names: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Tensor


def _parts(root: Path) -> list[Path]:
    if not root.is_dir():
        raise BadInput(f"{root} is no folder; expected one with train/ and test/, or with one sub-folder per class")
    if not (root / "train").is_dir():
        return [root]
    for name in TEST_NAMES:
        if (root / name).is_dir():
            return [root / "train", root / name]
    raise BadInput(f"{root} has train/ but neither test/ nor val/; add one, or give the train folder to have it split")


def _list(part: Path) -> _Listing:
    classes = sorted(child for child in part.iterdir() if child.is_dir() and not child.name.startswith("."))
    if len(classes) < 2:
        raise BadInput(f"{part} has {len(classes)} sub-folders; expected one per class, two at least")
    files: list[Path] = []
    labels: list[int] = []
    for label, place in enumerate(classes):
        found = sorted(file for file in place.iterdir() if _is_image(file))
        if not found:
            raise BadInput(f"{place} has no images, so its class is empty; add some or remove the folder")
        files += found
        labels += [label] * len(found)
    return _Listing(tuple(place.name for place in classes), tuple(files), torch.tensor(labels))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _pixels(root: Path, files: list[Path], size: tuple[int, int] | None, cache: bool) -> Tensor:
    if not cache:
        return decode_all(files, size)
    middle = "" if size is None else f".{size[0]}x{size[1]}"
    beside, state = root.parent / f"{root.name}{middle}.earmark.safetensors", _state(root, files)
    kept = _read_cache(beside, state)
    if kept is not None:
        return kept
    pixels = decode_all(files, size)
    try:
        save_tensors(beside, {"pixels": pixels}, {"files": state})
    except BadInput as error:
        log.warning("the decoded images are not kept: %s", error)
    return pixels


def _state(root: Path, files: list[Path]) -> str:
    """A digest of the names, sizes and times of change of all files."""
    stats = [(file, file.stat()) for file in files]
    rows = [[file.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
    return hashlib.sha256(canonical_json([CACHE_VERSION, rows])).hexdigest()


def _read_cache(path: Path, state: str) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("files") != state:
                return None
            pixels: Tensor = file.get_tensor("pixels")
            return pixels
    except (SafetensorError, OSError) as error:
        log.warning("%s is not readable and is made again: %s", path, error)
        return None
