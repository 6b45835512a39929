"""False claims: triggers made on models of the forger's own, which other people's models then answer as he foretold.

Liu et al. 2024, "False claims against model ownership resolution" (USENIX Security): a malicious accuser commits to
adversarial examples that transfer, before he has ever seen the models that he will accuse. The images are found by
momentum steps (Dong et al. 2018, "Boosting adversarial attacks with momentum", CVPR) on the margin of the wanted logit
(Carlini & Wagner 2017, "Towards evaluating the robustness of neural networks", IEEE S&P), in several models at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from earmark.attacks.ambiguity.adversarial import lead
from earmark.attacks.ambiguity.forgery import Forger, Forgery, honest_start
from earmark.attacks.needs import Needs
from earmark.core import Data, Images
from earmark.errors import number, whole
from earmark.marks import TriggerMint
from earmark.models import as_input, built, device_of, logits_of, reinitialised
from earmark.training import HOST, CrossEntropy, Settings, fit, predict
from earmark.training.progress import Meter, meter

__all__ = ["FalseClaim"]

BLOCK = 128


@final
@dataclass(frozen=True)
class FalseClaim(Forger):
    """Triggers that models which the forger has never asked, of the same task, answer with labels of his choice.

    He trains surrogates of his own on `data.train`, moves images by x <- clip(x + step sign(g)), g the gradient, with
    momentum, of the wanted logit minus the largest other, mean over the surrogates, and keeps of each image the iterate
    whose label leads by most in the surrogate where it leads by least. Of the model that a call is given
    nothing is used but its kind: surrogates are drawn anew, and it is asked nothing about the triggers. So they can be
    committed to before the accused model exists. What gives them away is that the key mints other pixels.

    Attributes:
        count: n, the number of triggers; None for the posed mint's own number, or 100.
        surrogates: how many models the forger trains.
        build: makes one of them; None for the kind of the given model.
        epochs, lr, milestones, batch_size: of their training by Adam.
        steps: gradient steps.
        step: pixel levels (of 255) per step.
        epsilon: how many levels a pixel may move.
        decay: of the momentum.
        pose_as: the mint whose claim the forger copies, base images and labels included; None for random test images,
            each with the label that comes second in the surrogates' mean probability, which is the easiest to reach.

    Raises:
        BadInput: a setting out of its range; on the call, more triggers than test images, or data that do not fit the
            model.
    """

    count: int | None = None
    surrogates: int = 3
    build: Callable[[], nn.Module] | None = None
    epochs: int = HOST.epochs
    lr: float = HOST.lr
    milestones: tuple[int, ...] = HOST.milestones
    batch_size: int = HOST.batch_size
    steps: int = 100
    step: int = 2
    epsilon: int = 64
    decay: float = 1.0
    pose_as: TriggerMint | None = None
    needs: ClassVar[Needs] = Needs(weights=False, data="labelled images")

    def __post_init__(self) -> None:
        for name, low in (("surrogates", 1), ("steps", 0), ("step", 1), ("epsilon", 0)):
            whole(name, getattr(self, name), low)
        number("decay", self.decay, 0, 1e3)
        self.training()

    def training(self) -> Settings:
        """The settings of a surrogate's training."""
        own = {"epochs": self.epochs, "lr": self.lr, "milestones": self.milestones, "batch_size": self.batch_size}
        return HOST.but(**own)

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        start = honest_start(self.pose_as, self.count, model, data, rng)
        own = [self._surrogate(model, data.train, rng, at) for at in range(1, self.surrogates + 1)]
        wanted = start.mark if self.pose_as else replace(start.mark, labels=_easiest(own, start.mark.as_images()))
        parts = list(zip(torch.split(wanted.images, BLOCK), torch.split(wanted.labels, BLOCK), strict=True))
        with meter("moving images", len(parts) * (self.steps + 1)) as show:
            images = torch.cat([self._moved(own, *part, show) for part in parts])
        return replace(start, mark=replace(wanted, images=images))

    def _surrogate(self, model: nn.Module, images: Images, rng: torch.Generator, at: int) -> nn.Module:
        fresh = reinitialised(model, rng) if self.build is None else built(self.build, rng).to(device_of(model))
        fresh.requires_grad_(True)
        fit(fresh, images, (CrossEntropy(),), self.training(), rng, title=f"surrogate {at} of {self.surrogates}")
        return fresh.eval().requires_grad_(False)

    def _moved(self, own: Sequence[nn.Module], base: Tensor, labels: Tensor, show: Meter) -> Tensor:
        device = device_of(own[0])
        x, labels = base.to(device).int(), labels.to(device)
        low, high = (x - self.epsilon).clamp(min=0), (x + self.epsilon).clamp(max=255)
        best, most = x.clone(), torch.full((len(x),), -torch.inf, device=device)
        momentum = torch.zeros_like(x, dtype=torch.float32)
        for _ in range(self.steps + 1):
            images = x.float().div_(255).requires_grad_()
            logits = [logits_of(model(as_input(images, model))).float() for model in own]
            leads = torch.stack([lead(each, labels) for each in logits])
            least = leads.detach().amin(0)
            better = least > most
            best[better], most[better] = x[better], least[better]
            (slope,) = torch.autograd.grad(leads.mean(0).sum(), images)
            momentum = self.decay * momentum + slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
            x = (x + self.step * momentum.sign().int()).clamp(low, high)
            show.advance()
        return best.to("cpu", torch.uint8)


def _easiest(own: Sequence[nn.Module], images: Images) -> Tensor:
    """The class that comes second in the mean probability of the models, (n,)."""
    mean = torch.stack([predict(model, images).softmax(1) for model in own]).mean(0)
    return mean.topk(2, dim=1).indices[:, 1]
