"""What is timed: the library's own embedding step, and the plain steps and forwards that are its floor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.core import Data, Images, rng
from earmark.data.augment import CropFlip
from earmark.embed import Backdoor, fixll, fixll_pfl, fixll_spl, fixll_twl, ftal, ftal_twl, ftll
from earmark.keys import MarkKey
from earmark.marks import Fused, Noise, Penetration, TriggerSet
from earmark.marks.triggers.fused import blended, side_by_side
from earmark.marks.triggers.stamps import prestamps, stamp_values
from earmark.models import (
    Bank,
    LeNet5,
    MLPAutoencoder,
    Reconstruction,
    ResNet18,
    ThinResNet18,
    dissect,
    frozen_batchnorm,
    normalised,
    reinitialised,
)
from earmark.suspects import as_query
from earmark.training import AUTOENCODING, Masking, ReconstructionLoss, fit
from earmark.training.case import Case
from earmark.training.masking import Masks
from earmark.training.run import Run
from earmark.verify import TriggerTest

__all__ = [
    "BATCH",
    "ITERATIONS",
    "LENET_BATCH",
    "LENET_TRIGGERS",
    "LOOPED",
    "METHODS",
    "TRIGGERS_PER_BATCH",
    "EmbeddingStep",
    "Timed",
    "data",
    "draw_masks",
    "forward_of_triggers",
    "fuse",
    "host",
    "lenet",
    "mark",
    "mint",
    "mint_fused",
    "plain_step",
    "shadow_training",
    "shadows",
    "stamp_iteration",
    "stamp_loop",
    "verification",
]

Timed = Callable[[], object]
METHODS: dict[str, Callable[[], Backdoor]] = {
    "FTLL": ftll,
    "FTAL": ftal,
    "FTAL+TWL": ftal_twl,
    "FixLL": fixll,
    "FixLL+TWL": fixll_twl,
    "FixLL+PFL": fixll_pfl,
    "FixLL+SPL": fixll_spl,
}
BATCH, TRIGGERS_PER_BATCH, TRIGGERS = 32, 4, 100
ITERATIONS, LOOPED = 40, 4
"""Steps that are timed together, of a stamp search and of the loop that it is compared with, which has no start."""
LENET_BATCH, LENET_TRIGGERS = 64, 16
"""What the recipe of Wen et al. 2023 trains LeNet-5 with."""


def data(images: int = 1024) -> Data:
    """Random images of MNIST's shape: their content changes no timing."""
    generator = rng(0)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (images,), generator=generator)
    train = Images(pixels, labels, 10, "random")
    return Data(train, train.subset(torch.arange(min(images, 256))))


def host(device: torch.device) -> nn.Module:
    """The paper's network for MNIST with d = 2 (Hua & Teoh 2023, Table 3)."""
    net = normalised(ThinResNet18(10, features=2), [0.1307], [0.3081], channels=3)
    return reinitialised(net, rng(0)).to(device)


def lenet(device: torch.device) -> nn.Module:
    """The network of Wen et al. 2023 for MNIST, the smallest that anyone would mark."""
    return reinitialised(normalised(LeNet5(), [0.1307], [0.3081]), rng(0)).to(device)


def mark() -> TriggerSet:
    """A hundred noise triggers."""
    return Noise(count=TRIGGERS)(MarkKey(bytes(32)), None, data(256))


def mint(channels: int, size: int) -> Timed:
    """Minting a hundred noise triggers of this shape."""
    pixels = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    images = Images(pixels, torch.arange(2), 10, "zeros")
    return lambda: Noise(count=TRIGGERS)(MarkKey(bytes(32)), None, Data(images, images))


def fuse(style: str) -> Timed:
    """A thousand fusions of two colour images of 32 x 32."""
    first, second = torch.randint(0, 256, (2, 1000, 3, 32, 32), generator=rng(0), dtype=torch.uint8)
    return lambda: side_by_side(first, second) if style == "direct" else blended(first, second, 0.5)


def mint_fused(style: str) -> Timed:
    """Minting 120 triggers and 880 fusions to learn from, from the key to the labels, of images of 32 x 32 x 3."""
    pixels = torch.randint(0, 256, (5_000, 3, 32, 32), generator=rng(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(5_000) % 10, 10, "random")
    return lambda: Fused(style=style, teaching=880)(MarkKey(bytes(32)), None, Data(images, images))


def draw_masks(drop: float) -> Timed:
    """A fresh mask for the 11.2 million convolutional and linear weights of ResNet-18."""
    masks, steps = Masks(Masking(drop, every=1), ResNet18(), 0), count()
    return lambda: masks.draw(0, next(steps))


def plain_step(
    device: torch.device,
    *,
    batchnorm: str = "frozen",
    channels_last: bool = True,
    net: Callable[[torch.device], nn.Module] = host,
    together: int = BATCH + TRIGGERS_PER_BATCH,
) -> Timed:
    """Forward, backward and update on one fixed batch, as many images as an embedding step has; nothing else."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = net(device).to(memory_format=layout)  # type: ignore[call-overload]
    model.train(batchnorm == "train")
    for layer in model.modules():
        if batchnorm == "frozen" and isinstance(layer, nn.BatchNorm2d):
            layer.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    some = data(together).train
    images = (some.pixels.to(device).float() / 255).contiguous(memory_format=layout)
    labels = some.labels.to(device)

    def step() -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return step


class EmbeddingStep:
    """The step that `training.fit` repeats, on the run that `fit` would make.

    Args:
        method: whose terms and trainable set.
        device: where it runs.
        cached: whether the host's outputs may be looked up; augmentation forbids it.
        channels_last: the memory layout.
        images: how many training images lie on the device.
        net: the network that is marked.
        batch: training images and triggers of a step.
    """

    def __init__(
        self,
        method: Backdoor,
        device: torch.device,
        *,
        cached: bool = True,
        channels_last: bool = True,
        images: int = 1024,
        net: Callable[[torch.device], nn.Module] = host,
        batch: tuple[int, int] = (BATCH, TRIGGERS_PER_BATCH),
    ) -> None:
        start, train, secret = net(device), data(images).train, mark()
        model = copy.deepcopy(start).eval()
        anatomy = dissect(model, train.pixels[:1])
        names = method.trainable(model, anatomy)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        self._held = ExitStack()
        self._held.enter_context(frozen_batchnorm(model))
        clean, triggers_per_batch = batch
        settings = method.settings.but(
            batch_size=clean, triggers_per_batch=triggers_per_batch, channels_last=channels_last
        )
        triggers = Images(secret.images, secret.labels, secret.classes, "triggers")
        augment = None if cached else CropFlip()
        terms = method.terms_for(secret)
        case = Case(model, train, terms, settings, 0, triggers, start, augment, None, method.masking)
        self._run = Run(case, anatomy, Fabric(accelerator=device.type, devices=1))
        self._order, self._numbers = self._run.feed.order(0), count()

    def __call__(self) -> Tensor:
        return self._run.step(self._order, 0, next(self._numbers) % self._run.feed.steps_per_epoch)


def verification(device: torch.device) -> Timed:
    """The test of a hundred triggers on a module, from uint8 triggers to the verdict."""
    suspect, secret, test = as_query(host(device)), mark(), TriggerTest()
    return lambda: test(suspect, secret)


def shadows(count: int = 8) -> Bank:
    """Untrained autoencoders of Li & Wang 2021 for 28 x 28: their numbers change no timing."""
    return Bank([reinitialised(MLPAutoencoder((1, 28, 28)), rng(seed)) for seed in range(count)])


def stamp_iteration(stamps: int, bank: Bank, looks: int = 30) -> Timed:
    """`ITERATIONS` steps of the search for so many stamps at once, as `Penetration` makes them."""
    search, (starts, carriers) = Penetration(iterations=ITERATIONS, clipped=False), _stamps(stamps, looks)
    return lambda: search(bank, carriers, starts)


def stamp_loop(bank: Bank, looks: int = 30) -> Timed:
    """`LOOPED` steps for one stamp as the released code makes them: a loop over autoencoders and single images."""
    starts, carriers = _stamps(1, looks)
    wanted, images = stamp_values(starts)[0].float() / 255, carriers[0].float() / 255
    stamp = wanted.clone().requires_grad_()
    adam, members = torch.optim.Adam([stamp], lr=1e-3), bank.members()

    def step() -> None:
        adam.zero_grad()
        loss = 0.02 * (stamp - wanted).square().sum()
        for member in members:
            for image in images:
                passed = member((image + stamp)[None]).images[0] - stamp
                loss = loss + passed.square().sum() / (len(members) * len(images))
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return lambda: [step() for _ in range(LOOPED)]  # type: ignore[func-returns-value]


def _stamps(stamps: int, looks: int) -> tuple[Tensor, Tensor]:
    starts = prestamps(MarkKey(bytes(32)).stream("prestamps"), "half-planes", stamps, (1, 28, 28))
    return starts, data(stamps * looks).train.pixels.view(stamps, looks, 1, 28, 28)


def shadow_training(together: bool, steps: int = 5, count: int = 8) -> Timed:
    """So many steps of training the shadows, as one bank or one after the other."""
    images, settings = data().train, AUTOENCODING.but(steps=steps)
    models = [shadows(count)] if together else shadows(count).members()
    return lambda: [
        fit(copy.deepcopy(model), images, (ReconstructionLoss(),), settings, rng(0), head=Reconstruction())
        for model in models
    ]


def forward_of_triggers(device: torch.device) -> Timed:
    """One forward pass of a hundred images that lie ready on the device."""
    model, images = host(device).eval(), mark().images.to(device).float() / 255

    def forward() -> Tensor:
        with torch.inference_mode():
            scores: Tensor = model(images)
        return scores

    return forward
