"""The data set that comes with the installation, so that nothing need be downloaded to try earmark."""

from __future__ import annotations

import numpy as np
import torch

from earmark.core import Data, Images
from earmark.data.splits import split

__all__ = ["digits"]


def digits() -> Data:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 grey, ten classes, split four to one with a fixed seed.

    Grey levels 0..16 become pixels round(v * 255 / 16).

    >>> digits().shape
    (1, 8, 8)
    """
    from sklearn.datasets import load_digits  # takes longer than all of earmark, so only where it is asked for

    bunch = load_digits()
    pixels = (bunch.images.astype(np.int64) * 255 + 8) // 16
    images = torch.from_numpy(pixels.astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return split(Images(images, labels, 10, "digits"), test_share=0.2, seed=0)
