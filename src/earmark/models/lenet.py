"""LeNet-5 (LeCun et al. 1998), the MNIST net of Wen et al. 2023, in the form that is trained today."""

from __future__ import annotations

from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.models.sizes import require_positive

__all__ = ["LeNet5"]

ORIGINAL = 32
SMALLEST = 12


class LeNet5(nn.Module):
    """conv5x5 (6) - pool - conv5x5 (16) - pool - linear 120 - linear 84 - linear K.

    Wen et al. name LeNet-5 and say no more of it. As is customary in work on watermarks, the layers are followed by
    ReLU and the pools take the maximum of 2x2, where LeCun et al. had tanh, trained averages and a sparsely connected
    second convolution. The 84 numbers before the last layer are the penultimate feature.

    The original reads 32x32. An axis shorter than that is padded by 2 at both ends, as MNIST's 28 is to 32, and a
    longer one is not; the first linear layer is as large as what the pools leave.

    Args:
        shape: (C, H, W) of the input, H and W at least 12.
        classes: K, the number of classes.
        width: w, channels of the first convolution, 6 in the original; the others follow: 8w // 3, 20w and 14w.

    With 1x28x28 or 1x32x32 and K = 10 it has 61,706 parameters.

    Raises:
        BadInput: images of fewer than 12 pixels either way, of which nothing would be left, or a size below 1.
    """

    def __init__(self, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, width: int = 6) -> None:
        super().__init__()
        channels, height, breadth = shape
        require_positive(channels=channels, classes=classes, width=width)
        if min(height, breadth) < SMALLEST:
            raise BadInput(f"LeNet5 reads images of {SMALLEST} x {SMALLEST} or more, got {height} x {breadth}")
        second, hidden, features = 8 * width // 3, 20 * width, 14 * width
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=(_padding(height), _padding(breadth))), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, second, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * _left(height) * _left(breadth), hidden), nn.ReLU(),
            nn.Linear(hidden, features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        logits: Tensor = self.head(self.trunk(x))
        return logits


def _padding(size: int) -> int:
    return 2 if size < ORIGINAL else 0


def _left(size: int) -> int:
    """What both convolutions and pools leave of an axis: 5 of 28 to 35, 1 of 12."""
    pooled = (size + 2 * _padding(size) - 4) // 2
    return (pooled - 4) // 2
