"""What is timed of passports: a step that trains them over a plain one, gamma over the convolution that defines it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.core import Data, Images, rng
from earmark.embed import PassportLayers
from earmark.keys import MarkKey
from earmark.layers import Site, affine, expose, windows
from earmark.marks import Noise, PassportMint
from earmark.models import AlexNetP, ResNetP, built, dissect
from earmark.training import BothPaths
from earmark.training.case import Case
from earmark.training.run import Run

__all__ = ["NETS", "TARGETS", "answer", "gamma", "gamma_by_convolution", "plain_step", "protected_step"]

BATCH, TRIGGERS, PASSPORTS = 32, 2, 20
NETS: dict[str, tuple[Callable[..., nn.Module], int | str]] = {
    "AlexNet_p": (AlexNetP, 3),
    "ResNet_p-18": (ResNetP, "stages.3.*"),
}
"""Networks of Fan et al. 2021 at full width, and which of their layers have passports."""
TARGETS = {
    "AlexNet_p": {"V1": 1.05, "V2": 1.5, "V3": 1.55},
    "ResNet_p-18": {"V1": 1.05, "V2": 1.25, "V3": 1.30},
}
Timed = Callable[[], object]


def _data(images: int = 256) -> Data:
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=rng(0), dtype=torch.uint8)
    some = Images(pixels, torch.arange(images) % 10, 10, "random")
    return Data(some, some)


def _network(name: str, norm: str, device: torch.device) -> nn.Module:
    return built(lambda: NETS[name][0](norm=norm), rng(0)).to(device)


def plain_step(name: str, norm: str, device: torch.device) -> Timed:
    """Forward, backward and update with SGD on one fixed batch."""
    model = _network(name, norm, device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    some = _data(BATCH).train
    images = (some.pixels.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
    labels = some.labels.to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def protected_step(name: str, norm: str, scheme: str, device: torch.device) -> Timed:
    """The step that trains V1, V2 or V3, as `training.fit` repeats it; V3 has two triggers beside the images."""
    host, images = _network(name, norm, device), _data()
    mark = PassportMint(layers=NETS[name][1], witnesses=0)(MarkKey(bytes(32)), host, images)
    method = PassportLayers(public=scheme != "V1")
    model, anatomy = method.protected(host, mark, images), dissect(host, images.train.pixels[:1])
    secret = Noise(count=10)(MarkKey(bytes(32)), None, images).as_images() if scheme == "V3" else None
    settings = method.settings.but(batch_size=BATCH, triggers_per_batch=TRIGGERS if secret else 0)
    reader = BothPaths(anatomy) if method.public else anatomy
    case = Case(model.train(), images.train, method.terms_for(mark), settings, 0, secret, None, None, reader)
    run, numbers = Run(case, reader, Fabric(accelerator=device.type, devices=1)), count()
    order = run.feed.order(0)
    return lambda: run.step(order, 0, next(numbers) % run.feed.steps_per_epoch)


def answer(name: str, protected: bool, device: torch.device) -> Timed:
    """One image through a network that was released as V1, or that never had passports."""
    model, images = _network(name, "bn", device), _data()
    if protected:
        mark = PassportMint(layers=NETS[name][1], witnesses=0)(MarkKey(bytes(32)), model, images)
        model = expose(PassportLayers(public=False).protected(model, mark, images), "private")
    one = images.train.pixels[:1].to(device).float() / 255
    model = model.eval()

    def ask() -> Tensor:
        with torch.inference_mode():
            scores: Tensor = model(one)
        return scores

    return ask


def _passports() -> tuple[Tensor, Tensor, Site]:
    site = Site("conv", "norm", (256, 8, 8), 256, (3, 3), padding=(1, 1, 1, 1))
    passports = torch.rand(PASSPORTS, 256, 8, 8, generator=rng(0)) * 2 - 1
    return torch.randn(256, 256, 3, 3, generator=rng(1)), passports, site


def gamma() -> Timed:
    """The scales of 256 channels from the means of 20 passports' windows, which were taken once."""
    weight, passports, site = _passports()
    means = windows(passports, site).float().unsqueeze(0)
    return lambda: affine(weight, means)


def gamma_by_convolution() -> Timed:
    """The same as the paper has it: the convolution over all 20, averaged."""
    weight, passports, _ = _passports()
    return lambda: F.conv2d(passports, weight, padding=1).mean((0, 2, 3))
