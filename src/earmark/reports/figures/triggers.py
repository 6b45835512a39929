"""What the triggers look like: a contact sheet with the label that each must be answered with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earmark.errors import BadInput
from earmark.reports.figures.style import canvas, drawn, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]


@drawn
def contact_sheet(images: Tensor, labels: Tensor, title: str = "", columns: int = 10, limit: int = 100) -> Figure:
    """Images (n, C, H, W) as uint8, each over its label; the first `limit` of them.

    Whoever sees this sheet can answer the triggers: it is for the owner and the judge.

    Raises:
        BadInput: no image, a dtype other than uint8, or labels of another length.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or not len(images) or labels.shape != images.shape[:1]:
        raise BadInput(
            f"a contact sheet takes uint8 images (n, C, H, W) and labels (n,), n of 1 or more; got {images.dtype} "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    shown = min(len(images), limit)
    columns = min(columns, shown)
    rows = math.ceil(shown / columns)
    figure = canvas(0.78 * columns + 0.2, 0.92 * rows + 0.45)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, image, label in zip(axes, images[:shown].cpu(), labels.tolist(), strict=False):
        plane = image.permute(1, 2, 0).numpy()
        ax.imshow(plane if plane.shape[2] == 3 else plane[:, :, 0], cmap="gray", vmin=0, vmax=255)
        ax.set_title(str(label), fontsize=8, pad=2)
    more = f" ({shown} of {len(images)})" if shown < len(images) else ""
    figure.suptitle(printable(title) + more)
    return figure
