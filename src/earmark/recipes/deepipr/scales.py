"""How much of the paper's effort a run makes: full, cpu or quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from earmark.attacks.ambiguity.passports.learnt import FORGING
from earmark.attacks.ambiguity.passports.retrained import INSIDER
from earmark.embed.passports import DEEPIPR
from earmark.recipes.deepipr.settings import SETTINGS
from earmark.training import Settings

__all__ = ["SCALES", "Effort"]


@dataclass(frozen=True)
class Effort:
    """How much one setting gets.

    Attributes:
        data: another data set than the paper's, for the targets, too; None for the paper's.
        images, test: how many training and test images, drawn once per seed; None for all.
        side: height and width that images are resized to; None for as they are.
        width: channels of the network's first convolution.
        run: the training of baselines and of protected networks, from scratch.
        tune: the training on a target task, from a protected network, with a fresh head.
        target_images: training images of a target; None for all.
        passports, candidates: the kind of passports, and how many images each is chosen from.
        triggers: of V3.
        draws: how many random passports a forger tries.
        forger, insider: the training of forgers who learn scales, and of those who learn passports.
        shares: of weights pruned, and of scales flipped.
        changed: the shares of signs that forgers change.
        watch: test images that accuracy is measured on after each epoch of a training that is watched.
        timed: how many steps training is timed over.
        augment: whether training images are cropped and flipped.
        seeds: how many runs of each row, where nobody says otherwise.
        notes: what a reader has to know beside the numbers.
    """

    images: int | None
    test: int | None
    side: int | None
    width: int
    run: Settings
    tune: Settings
    target_images: int | None
    passports: str
    candidates: int
    triggers: int
    draws: int
    forger: Settings
    insider: Settings
    shares: tuple[float, ...]
    changed: tuple[float, ...]
    watch: int
    timed: int
    augment: bool
    seeds: int
    data: str | None = None
    notes: tuple[str, ...] = ()


TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FULL = Effort(
    images=None,
    test=None,
    side=None,
    width=64,
    run=DEEPIPR,
    tune=DEEPIPR.but(weight_decay=5e-4, triggers_per_batch=0),
    target_images=None,
    passports="shuffle",
    candidates=20,
    triggers=100,
    draws=50,
    forger=FORGING,
    insider=INSIDER,
    shares=TENTHS,
    changed=TENTHS,
    watch=10_000,
    timed=200,
    augment=True,
    seeds=5,
    notes=(
        "200 epochs of SGD at 0.01, the rate divided by 10 after 100 and 150, in batches of 64, for baselines, "
        "protected networks and transfer alike; the paper states no run for the latter. The last epoch counts; the "
        "released code keeps the epoch that is best on the test images.",
        "Passports are feature maps of the trained baseline of the same norm, in evaluation mode, of 20 test images; "
        "the released code takes them in training mode. Triggers are generated art with labels from the key; the "
        "paper's 100 images are of unknown origin.",
    ),
)
CPU = replace(
    FULL,
    images=10_000,
    test=5_000,
    width=16,
    run=DEEPIPR.but(epochs=20, milestones=(12, 17), batch_size=32),
    tune=DEEPIPR.but(epochs=10, milestones=(6, 9), batch_size=32, weight_decay=5e-4, triggers_per_batch=0),
    target_images=5_000,
    draws=20,
    forger=FORGING.but(epochs=10, batch_size=32),
    insider=INSIDER.but(epochs=10, batch_size=32),
    changed=(0.0, 0.1, 0.3, 0.5, 1.0),
    watch=2_000,
    timed=60,
    augment=False,
    seeds=1,
    notes=(
        "10,000 training images drawn by the seed, no augmentation, and a network a quarter as wide as the paper's, "
        "which carries a quarter of the bits. 20 epochs of SGD at 0.01, the rate divided by 10 after 12 and 17, in "
        "batches of 32; transfer 10 epochs on 5,000 images, divided after 6 and 9. Forgers learn for 10 epochs of all "
        "of them; the paper's for 100. " + FULL.notes[1],
    ),
)
TINY = DEEPIPR.but(epochs=4, batch_size=20, lr=0.02, milestones=(3,))
QUICK = replace(
    FULL,
    data="digits",
    images=400,
    test=100,
    side=16,
    width=16,
    run=TINY,
    tune=TINY.but(epochs=1, milestones=(), triggers_per_batch=0),
    target_images=100,
    candidates=4,
    triggers=20,
    draws=2,
    forger=FORGING.but(epochs=1, batch_size=20),
    insider=INSIDER.but(epochs=1, batch_size=20),
    shares=(0.0, 0.6),
    changed=(0.0, 1.0),
    watch=100,
    timed=2,
    augment=False,
    seeds=1,
    notes=("scikit-learn's digits and a narrow network: a check of the machinery, not a reproduction.",),
)

SCALES: Mapping[str, Mapping[str, Effort]] = {
    "full": dict.fromkeys(SETTINGS, FULL),
    "cpu": dict.fromkeys(("cifar10_alexnet", "cifar10_alexnet-2020"), CPU),
    "quick": dict.fromkeys(SETTINGS, QUICK),
}
"""By scale and setting; a setting that a scale leaves out is not run there."""
