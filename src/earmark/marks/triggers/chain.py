"""The noise of the deep fidelity paper's code: chains of images, each the one before turned by a secret matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput, number, whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.labels import Chain, LabelPolicy
from earmark.marks.triggers.noise import to_pixels

__all__ = ["NoiseChain"]

Reals = NDArray[np.float64]

TALLEST = 256
"""The most rows of an image: finding Q takes a time that grows with the cube of them."""


@final
@dataclass(frozen=True)
class NoiseChain(TriggerMint):
    """Orthogonal chains (`gen_key_chain` in the code of Hua & Teoh 2023, ghua-ac/dnn_watermark): A_j = Q A_{j-1}.

    Q is a random orthogonal H x H matrix, one for the set. Each of count / length originals A_0 has normal entries and
    is scaled to ||A_0||_F = sqrt(W), so that every plane has standard deviation 1 / sqrt(H) in the normalised units in
    which that code feeds it to the model. In earmark normalisation belongs to the model, and triggers are images:
    pixel = clip(round(255 (mean + std A_j))), the same plane in all channels. With the `mean` and `std` of the data's
    normalisation (0.1307 and 0.3081 for MNIST, about 0.48 and 0.25 for CIFAR-10) the model sees what the paper's saw,
    up to 8 bits. The defaults lie around mid-grey.

    By default trigger j of a chain has label j, as in that code; so there is no null and no proof. `labels=Uniform()`
    keeps the images and gives an exact null.

    Attributes:
        length: m, the number of images per chain; `count` is a multiple of it.
        std: the standard deviation of the data that the model's normalisation divides by.
        mean: the mean that it subtracts.

    Raises:
        BadInput: a length, count, mean or deviation that does not fit, or images of more than 256 rows.
    """

    name: ClassVar[str] = "noise-chain"
    labels: LabelPolicy = field(default_factory=Chain)
    length: int = 10
    std: float = 0.25
    mean: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count % whole("chain length", self.length, low=2):
            raise BadInput(f"{self.count} triggers are no whole number of chains of {self.length}; give a multiple")
        if isinstance(self.labels, Chain) and self.labels.length != self.length:
            raise BadInput(
                f"chains of {self.length} images need labels=Chain({self.length}), got Chain({self.labels.length})"
            )
        object.__setattr__(self, "std", float(number("chain std", self.std, 0.01, 10)))
        object.__setattr__(self, "mean", float(number("chain mean", self.mean, 0, 1)))

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        channels, height, width = shape
        if height > TALLEST:
            raise BadInput(f"chains are for images of at most {TALLEST} rows, got {height}; take Noise for larger ones")
        chains = self.count // self.length
        turn = _orthogonal(key.stream("chain-basis").normals(height * height).numpy().reshape(height, height))
        planes = key.stream("chain").normals(chains * height * width).numpy().reshape(chains, height, width)
        steps = [np.stack([plane * (math.sqrt(width) / _norm(plane)) for plane in planes])]
        while len(steps) < self.length:
            steps.append(_turned(turn, steps[-1]))
        values = torch.from_numpy(np.stack(steps, 1)).reshape(self.count, 1, height, width)
        return to_pixels(self.mean + self.std * values).expand(self.count, channels, height, width).contiguous()


# The three functions below round every operation on its own and add in an order that does not matter (`math.fsum` is
# exact) or is written down, where a matrix product of a library adds in the order that suits the processor.


def _norm(values: Reals) -> float:
    return math.sqrt(math.fsum((values * values).ravel()))


def _orthogonal(matrix: Reals) -> Reals:
    """The orthogonal factor of a square matrix by Gram-Schmidt on its columns, each projection made twice."""
    basis: list[Reals] = []
    for column in matrix.T:
        for other in 2 * basis:
            column = column - other * math.fsum(other * column)
        basis.append(column / _norm(column))
    return np.stack(basis, 1)


def _turned(turn: Reals, planes: Reals) -> Reals:
    """Turn @ plane for each plane, adding the products from the first column of `turn` to the last."""
    total = np.zeros_like(planes)
    for k in range(len(turn)):
        total += turn[:, k, None] * planes[:, k, None, :]
    return total
