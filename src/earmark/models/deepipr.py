"""AlexNet_p and ResNet_p, the networks for 32x32 images of Fan et al. 2021 (Table 4), as plain networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import BadInput, unknown_name
from earmark.models.restart import redraw_residual
from earmark.models.sizes import require_positive

__all__ = ["AlexNetP", "ResNetP"]

GROUP = 16
SMALLEST = 8
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "gn": lambda channels: nn.GroupNorm(max(1, channels // GROUP), channels),
}


def _block(inside: int, outside: int, kernel: int, norm: str, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, norm, ReLU: the block that can become a passport layer."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, NORMS[norm](outside), nn.ReLU(inplace=True))


def _require_norm(norm: str, width: int) -> None:
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if norm == "gn" and width % GROUP and GROUP % width:
        raise BadInput(
            f"group norm takes {GROUP} channels a group: expected a multiple or divisor as width, got {width}"
        )


class AlexNetP(nn.Module):
    """Five convolutions, each with a norm and ReLU, three max-pools, and one linear layer without dropout.

    5x5 (w), pool, 5x5 (3w), pool, 3x3 (6w), 3x3 (4w), 3x3 (4w), pool. In the paper the last three are passport layers,
    which carry 896 bits. Convolutions start from Kaiming-normal (fan out).

    Args:
        classes: K, the number of classes.
        channels: channels of the input.
        width: w, 64 in the paper; with group norm a multiple of 16, or a divisor.
        norm: "bn" for batch norm, "gn" for group norm with 16 channels a group.
        size: (H, W) of the input, each at least 8.

    With 3x32x32, K = 10 and w = 64 it has 2,493,386 parameters.

    Raises:
        BadInput: another norm, a width that it cannot group, or a size below its least.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 3,
        width: int = 64,
        norm: str = "bn",
        size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        require_positive(classes=classes, channels=channels, width=width)
        _require_norm(norm, width)
        if min(size) < SMALLEST:
            raise BadInput(f"AlexNetP reads images of {SMALLEST} x {SMALLEST} or more, got {size[0]} x {size[1]}")
        self.trunk = nn.Sequential(
            _block(channels, width, 5, norm), nn.MaxPool2d(2),
            _block(width, 3 * width, 5, norm), nn.MaxPool2d(2),
            _block(3 * width, 6 * width, 3, norm),
            _block(6 * width, 4 * width, 3, norm),
            _block(4 * width, 4 * width, 3, norm), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(4 * width * (size[0] // 8) * (size[1] // 8), classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from the global generator."""
        redraw_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        logits: Tensor = self.head(self.trunk(x).flatten(1))
        return logits


class _Residual(nn.Module):
    """Two blocks and a shortcut, each with its own ReLU before the sum (as released), and one after it."""

    def __init__(self, inside: int, outside: int, stride: int, norm: str) -> None:
        super().__init__()
        self.first = _block(inside, outside, 3, norm, stride)
        self.second = _block(outside, outside, 3, norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = _block(inside, outside, 1, norm, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNetP(nn.Module):
    """ResNet_p: a 3x3 stem, four stages of residual blocks with strides 1, 2, 2, 2, a global average, a linear layer.

    Unlike ResNet-18, its second convolutions and shortcuts have a ReLU before the sum as well. In the paper all of the
    fourth stage's convolutions are passport layers: 2,560 bits with two blocks a stage (ResNet_p-18), 1,536 with one
    (ResNet9). Convolutions start from Kaiming-normal (fan out).

    Args:
        classes: K, the number of classes.
        channels: channels of the input.
        width: w, channels of the stem and the first stage, 64 in the paper; the others have 2w, 4w and 8w. With group
            norm a multiple of 16, or a divisor.
        norm: "bn" for batch norm, "gn" for group norm with 16 channels a group.
        blocks: how many blocks each stage has.

    With K = 10 and w = 64 it has 11,173,962 parameters, and 4,903,242 with one block a stage.

    Raises:
        BadInput: another norm, a width that it cannot group, no block in a stage, or a size below 1.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 3,
        width: int = 64,
        norm: str = "bn",
        blocks: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        require_positive(classes=classes, channels=channels, width=width)
        _require_norm(norm, width)
        if len(blocks) != 4 or min(blocks) < 1:
            raise BadInput(f"blocks: expected four numbers above 0, one a stage, got {tuple(blocks)}")
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stem = _block(channels, width, 3, norm)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    _Residual(inside, outside, stride, norm),
                    *(_Residual(outside, outside, 1, norm) for _ in range(count - 1)),
                )
                for (inside, outside), stride, count in zip(pairwise(widths), (1, 2, 2, 2), blocks, strict=True)
            )
        )
        self.head = nn.Linear(8 * width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from the global generator."""
        redraw_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1))
        return logits
