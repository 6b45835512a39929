"""Frontier triggers: images beside a model's decision frontier, on either side (Le Merrer et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.core import Data, Images
from earmark.errors import BadInput, number
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import classes_shown, pixels_for
from earmark.marks.triggers.labels import AsShown, LabelPolicy
from earmark.marks.triggers.limits import require_mintable
from earmark.marks.triggers.trigger_set import TriggerSet
from earmark.models import as_input, device_of, evaluating, logits_of, require_fit

__all__ = ["Frontier", "pushed"]

BATCH = 256


def pushed(host: nn.Module, pixels: Tensor, labels: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the fast gradient sign method on the uint8 grid: clip(x + levels sign(grad L(x, y)), 0, 255).

    L is the cross entropy of `host`, in eval mode (Goodfellow et al. 2015, Section 4).

    Args:
        host: the model.
        pixels: x, uint8 (n, C, H, W).
        labels: y, the classes that they show (n,).
        levels: by how many levels of 255 each pixel moves, where its gradient is not 0.

    Returns:
        The images, uint8 (n, C, H, W), and what the host answers before and after: (n,) each.
    """
    device = device_of(host)
    with evaluating(host):
        images = pixels.to(device).float().div_(255).requires_grad_()
        with torch.enable_grad():
            logits = logits_of(host(as_input(images, host))).float()
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels.to(device), reduction="sum"), [images])
        moved = (pixels.int() + levels * slope.sign().int().cpu()).clamp_(0, 255).to(torch.uint8)
        with torch.no_grad():
            after = logits_of(host(as_input(moved, host)))
    return moved, logits.detach().argmax(1).cpu(), after.argmax(1).cpu()


@final
@dataclass(frozen=True)
class Frontier(TriggerMint):
    """Half true adversaries, whose answer one step has turned, and half false ones, which the same step has not.

    Labels are the classes that the images show (`AsShown`), so embedding stitches the frontier: the true adversaries
    are answered rightly again and the false ones still are. The paper takes an innocent model to be wrong on each with
    probability 1/2; adversaries transfer from model to model as they like, so that is no bound, and there is no null.
    A judge can calibrate one on innocent models (`verify.CalibratedTriggerTest`).

    Finding them takes the host's gradients, which a judge does not have. The images they start from, in the order in
    which the key tries them, lie in the mark, and behind them the adversaries; what a judge sees again is that each
    adversary is one whole step of `epsilon` from its start and that labels are the starts' own.

    Attributes:
        count: an even number.
        epsilon: the step, in units of the whole range; kept in whole levels of 255.

    Raises:
        BadInput: a setting out of its range; when minting, no host, too few images of either sort, or adversaries that
            are no such steps.
    """

    name: ClassVar[str] = "frontier"
    labels: LabelPolicy = AsShown()  # noqa: RUF009  (frozen)
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", float(number("epsilon", self.epsilon, 1 / 255, 1)))
        if self.count % 2:
            raise BadInput(f"frontier triggers are half true and half false adversaries, and {self.count} is odd")
        if not isinstance(self.labels, AsShown):
            raise BadInput(f"frontier triggers have as-shown labels, got {self.labels.name}")

    def __call__(self, key: MarkKey, host: nn.Module | None, data: Data) -> TriggerSet:
        require_mintable(self.count, self.lesson_count, data.shape)
        if host is None:
            raise BadInput("frontier triggers are found on the model that they mark; give the host")
        require_fit(host, data, "the host")
        return self.make(key, data.shape, data.classes, self.found(key, host, data))

    @property
    def levels(self) -> int:
        """The step in levels of 255."""
        return round(255 * self.epsilon)

    @property
    def has_carriers(self) -> bool:
        return True

    @property
    def carriers_needed(self) -> int:
        return 2 * self.count

    def found(self, key: MarkKey, host: nn.Module, data: Data) -> Images:
        """The images to start from, true adversaries' first, and the adversaries in the same order."""
        order, half = key.stream("carriers").permutation(len(data.train)), self.count // 2
        starts: list[list[Tensor]] = [[], []]
        pushes: list[list[Tensor]] = [[], []]
        for rows in torch.split(order, BATCH):
            batch = data.train.subset(rows)
            moved, before, after = pushed(host, batch.pixels, batch.labels, self.levels)
            right = before == batch.labels
            for kind, picked in enumerate((right & (after != batch.labels), right & (after == batch.labels))):
                starts[kind] += list(rows[picked])
                pushes[kind] += list(moved[picked])
            if min(map(len, starts)) >= half:
                break
        if min(map(len, starts)) < half:
            true, false = map(len, starts)
            raise BadInput(
                f"a step of {self.epsilon:g} turns {true} of the host's right answers and leaves {false}, and {half} "
                "of each are needed; give another epsilon or a lower count"
            )
        chosen = data.train.subset(torch.stack([row for kind in starts for row in kind[:half]]))
        adversaries = torch.stack([image for kind in pushes for image in kind[:half]])
        pixels, labels = torch.cat([chosen.pixels, adversaries]), chosen.labels.repeat(2)
        return Images(pixels, labels, data.classes, data.train.name)

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        assert carriers is not None, "make has checked that there are carriers"
        return classes_shown(carriers, classes)[: self.count]

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        pixels = pixels_for(carriers, shape)
        start, adversaries = pixels[: self.count].int(), pixels[self.count :]
        steps = [(start + way * self.levels).clamp(0, 255) == adversaries for way in (-1, 0, 1)]
        if not bool(torch.stack(steps).any(0).all()):
            raise BadInput(f"a frontier trigger is no step of {self.levels} levels from its carrier")
        return adversaries.clone()
