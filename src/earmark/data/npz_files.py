"""NumPy archives, as Keras and MedMNIST lay them out."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.core import Data, Images
from earmark.data.pixels import to_labels, to_pixels
from earmark.errors import BadInput

__all__ = ["npz"]

LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)


def npz(file: str | Path, classes: int | None = None) -> Data:
    """Arrays `x_train, y_train, x_test, y_test`, or `train_images, train_labels, test_images, test_labels`.

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or float in [0, 1]. Nothing is unpickled.

    Args:
        file: the archive.
        classes: the number of classes; the largest label plus one where it is not given.

    Raises:
        BadInput: no such file, no archive, other names, arrays of objects, or shapes and values that do not fit.
    """
    file = Path(file)
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            names = _names(file, archive)
            x_train, y_train, x_test, y_test = (archive[name] for name in names)
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {file}; name an .npz archive that is there") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{file} is no readable .npz archive of plain arrays ({error}); save it with np.savez"
        ) from error
    return _data(file, (x_train, x_test), (y_train, y_test), classes)


def _names(file: Path, archive: Mapping[str, Any]) -> tuple[str, ...]:
    for names in LAYOUTS:
        if all(name in archive for name in names):
            return names
    raise BadInput(f"{file} holds {', '.join(sorted(archive)) or 'nothing'}; expected {', '.join(LAYOUTS[0])}")


def _data(file: Path, images: tuple[NDArray[Any], ...], labels: tuple[NDArray[Any], ...], classes: int | None) -> Data:
    pixels = [to_pixels(f"{file} images", part) for part in images]
    numbers = [to_labels(f"{file} labels", part) for part in labels]
    if not all(len(part) for part in numbers):
        raise BadInput(f"{file} has an empty part; expected images to train on and to test on")
    count = max(int(part.max()) for part in numbers) + 1 if classes is None else classes
    train, test = (Images(p, n, count, file.stem) for p, n in zip(pixels, numbers, strict=True))
    return Data(train, test)
