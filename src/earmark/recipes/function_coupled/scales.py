"""How much of the paper's effort a run makes: full, cpu or quick, setting by setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from earmark.embed.function_coupled import TRAINING
from earmark.recipes.function_coupled.settings import SETTINGS
from earmark.training import Settings

__all__ = ["SCALES", "Effort", "Thief"]

SGD = TRAINING.but(lr=0.1, triggers_per_batch=0)
"""The released run, for hosts at ten times the rate: the paper trains its hosts in a way that it does not state."""


@dataclass(frozen=True)
class Thief:
    """What the attacks of Section 5.3 spend.

    Attributes:
        images: how many in-distribution images the thief has; 1,000 to 2,000 in the paper.
        trials: fine-tuning runs in a row, 10 in the paper.
        epochs: of one trial, 20 in the released code.
        rates: learning rates of fine-tuning, up to that of the embedding; 1e-5 in the released code.
        transfer_epochs: of one trial of transfer learning, at the paper's rate of 1e-4.
        transfer_images: images of the other task.
        overwrite: the run that embeds the thief's mark, at the paper's rate of 1e-4.
        extract: the run that teaches the copy.
        shares: of weights pruned.
    """

    images: int
    trials: int
    epochs: int
    rates: tuple[float, ...]
    transfer_epochs: int
    transfer_images: int
    overwrite: Settings
    extract: Settings
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Effort:
    """How much one setting gets.

    Attributes:
        data: another data set than the paper's; None for the paper's.
        images, test: how many training and test images, drawn once per seed; None for all.
        side: height and width that images are resized to; None for as they are.
        width: channels of the network's first convolution.
        host: the run of the unmarked host.
        embed: the run that marks it, from the host on.
        fresh: the run that marks while the model learns its task, where the paper starts from scratch.
        one_class_per_batch: lessons beside each batch of images of a mark with one target class, and of the schemes
            that are compared with it; None for as many as the runs say.
        drop: p, the share of weights dropped; the paper states none.
        every: steps between two masks: 1 is Section 4.2.2 of the paper, None (once an epoch) its Algorithm 1.
        refine_images, refine_lr: K_ft and eta' of training-time fine-tuning; the paper states none.
        count: verification triggers of a one-class mark, 90 in the paper.
        teaching: fusions that a one-class mark is learnt from, below 1 % of the training images in the paper.
        groups: pairs of classes with a label each; as many as there are, up to 40.
        each: fusions that each of the groups is learnt from.
        votes: verification triggers of each of the groups, which answer for it together.
        aside: training images that the owner never looks at, for the thief who has others.
        thief: see `Thief`.
        augment: whether training images are cropped and flipped where the setting says so.
        seeds: how many runs of each row, where nobody says otherwise.
        notes: what a reader has to know beside the numbers.
    """

    images: int | None
    test: int | None
    side: int | None
    width: int
    host: Settings
    embed: Settings
    fresh: Settings
    drop: float
    every: int | None
    refine_images: int
    refine_lr: float
    count: int
    teaching: int
    groups: int
    each: int
    votes: int
    aside: int
    thief: Thief
    augment: bool
    seeds: int
    one_class_per_batch: int | None = None
    data: str | None = None
    notes: tuple[str, ...] = ()

    def run(self, groups: bool, fresh: bool = False) -> Settings:
        """The run that marks: with keyed groups or one class, from scratch or from the host on."""
        usual = self.fresh if fresh else self.embed
        few = None if groups else self.one_class_per_batch
        return usual if few is None else usual.but(triggers_per_batch=few)


FULL = Effort(
    images=None,
    test=None,
    side=None,
    width=64,
    host=SGD,
    embed=SGD.but(lr=0.01, triggers_per_batch=10),
    fresh=SGD.but(triggers_per_batch=10),
    drop=0.1,
    every=1,
    refine_images=128,
    refine_lr=1e-4,
    count=90,
    teaching=480,
    groups=40,
    each=120,
    votes=3,
    aside=2_000,
    thief=Thief(
        images=2_000,
        trials=10,
        epochs=20,
        rates=(1e-5, 1e-3, 1e-2),
        transfer_epochs=20,
        transfer_images=5_000,
        overwrite=SGD.but(epochs=20, lr=1e-4, milestones=(), triggers_per_batch=10),
        extract=SGD.but(lr=0.01, epochs=150, milestones=(40, 80, 120)),
    ),
    augment=True,
    seeds=3,
    notes=(
        "Hosts and marked models train for 40 epochs, the rate divided by 10 after 15, 25 and 35, as the released code "
        "does on Tiny ImageNet; the paper states neither its runs nor p, eta' and K_ft.",
    ),
)

LENET = SGD.but(epochs=12, batch_size=64, lr=0.01, milestones=(8, 11))
MNIST = replace(
    FULL,
    width=6,
    host=LENET,
    embed=LENET.but(triggers_per_batch=16),
    fresh=LENET.but(triggers_per_batch=16),
    augment=False,
    thief=replace(
        FULL.thief,
        epochs=5,
        transfer_epochs=2,
        overwrite=LENET.but(epochs=3, lr=1e-4, milestones=(), triggers_per_batch=16),
        extract=LENET.but(epochs=12),
    ),
    notes=(
        "All 60,000 training images but the 2,000 set aside for the thief, and LeNet-5 at its full width: the paper's "
        "scale. Runs of 12 epochs (the paper states none), the rate divided by 10 after 8 and 11.",
    ),
)

THIN = SGD.but(epochs=12, milestones=(7, 10))
CPU = replace(
    FULL,
    images=20_000,
    width=8,
    host=THIN,
    embed=THIN.but(lr=0.02, epochs=8, milestones=(5, 7), triggers_per_batch=32),
    fresh=THIN.but(triggers_per_batch=32),
    augment=False,
    thief=replace(
        FULL.thief,
        images=1_000,
        epochs=5,
        rates=(1e-5, 1e-3, 2e-2),
        transfer_epochs=2,
        transfer_images=2_000,
        overwrite=THIN.but(epochs=2, lr=1e-4, milestones=(), triggers_per_batch=32),
        extract=THIN.but(lr=0.02),
    ),
    notes=(
        "No augmentation, and a network an eighth as wide as the paper's. Hosts train 12 epochs, marked models 8 more.",
    ),
)

HALF = SGD.but(epochs=8, milestones=(5, 7), precision="bf16-mixed")
CIFAR = replace(
    CPU,
    images=None,
    side=16,
    width=16,
    host=HALF,
    embed=HALF.but(lr=0.05, triggers_per_batch=64),
    fresh=HALF.but(triggers_per_batch=64),
    one_class_per_batch=10,
    each=200,
    votes=15,
    thief=replace(
        CPU.thief,
        rates=(1e-5, 1e-3, 5e-2),
        overwrite=HALF.but(epochs=2, lr=1e-4, milestones=(), triggers_per_batch=64),
        extract=HALF.but(lr=0.05, precision="32-true"),
    ),
    notes=(
        "All training images but the 2,000 set aside for the thief, resized to 16 x 16, which makes a step four times "
        "cheaper; no augmentation; a network a quarter as wide as the paper's, trained in bfloat16 mixed precision. "
        "Hosts train 8 epochs, marked models 8 more. Keyed groups are taught 200 fusions each, 64 beside 128 images, "
        "and asked 15; marks of one class have 10 lessons beside 128 images, as the released code has, and so have the "
        "thieves who overwrite them. Fine-tuning, transfer and extraction compute in float32.",
    ),
)

TINY = SGD.but(epochs=6, batch_size=32, lr=0.05, milestones=(4,))
QUICK = replace(
    FULL,
    data="digits",
    side=32,
    images=1_000,
    test=200,
    width=4,
    host=TINY,
    embed=TINY.but(epochs=4, triggers_per_batch=16),
    fresh=TINY.but(triggers_per_batch=16),
    count=20,
    teaching=40,
    groups=8,
    each=5,
    aside=100,
    augment=False,
    seeds=1,
    thief=Thief(
        images=100,
        trials=2,
        epochs=1,
        rates=(1e-3,),
        transfer_epochs=1,
        transfer_images=100,
        overwrite=TINY.but(epochs=1, lr=1e-4, triggers_per_batch=16),
        extract=TINY.but(epochs=1, lr=0.005),
        shares=(0.2, 0.8),
    ),
    notes=("scikit-learn's digits and a narrow network: a check of the machinery, not a reproduction.",),
)


def _of_many_classes(effort: Effort) -> Effort:
    """What a set of 500 images a class has enough images for."""
    return replace(effort, teaching=300, each=30)


SCALES: Mapping[str, Mapping[str, Effort]] = {
    "full": {
        "mnist_lenet5": MNIST,
        "cifar10_resnet18": FULL,
        "cifar100_vgg16": _of_many_classes(FULL),
        "tinyimagenet_resnet18": _of_many_classes(FULL),
    },
    "cpu": {
        "mnist_lenet5": MNIST,
        "cifar10_resnet18": CIFAR,
        "cifar100_vgg16": _of_many_classes(replace(CPU, images=None)),
    },
    "quick": dict.fromkeys(SETTINGS, QUICK),
}
"""By scale and setting; a setting that a scale leaves out is not run there."""
