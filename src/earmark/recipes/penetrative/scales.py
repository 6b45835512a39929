"""How much of the paper's effort a run makes: full, cpu or quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from earmark.recipes.penetrative.settings import SETTINGS
from earmark.training import AUTOENCODING, HOST, Settings

__all__ = ["SCALES", "Effort"]


@dataclass(frozen=True)
class Effort:
    """How much one setting gets.

    Attributes:
        data: another data set than the paper's; None for the paper's.
        test: how many test images; None for all.
        width: channels of the classifier's first convolution, 64 in the paper.
        owner: the share of the training images that the shadows learn from; the adversary's autoencoders have the rest.
        shadows: K.
        adversaries: how many autoencoders, each with its own start, the adversary's numbers are means of.
        bottleneck: b, of shadows and adversaries; the paper states none, its code has 3.
        bottlenecks: those that a table of its own compares.
        autoencoder: the training of shadows and adversaries.
        looks: J; the search's images of each stamp, and the triggers of each stamp with the paper's labels.
        iterations: steps of the search.
        fixed: the paper's two labels.
        groups, each, teaching: keyed stamps, the triggers that are asked of each, and the images that all are learnt
            from.
        host: the training of the unmarked classifier.
        embed: the training that marks it: on from the host, or as long as the host where `fresh`.
        fresh: whether marked classifiers start from fresh parameters, as in the paper.
        washer: epochs of the autoencoders of other families, in the table `beyond`; None for the attack's own number.
        seeds: how many runs of each row, where nobody says otherwise.
        notes: what a reader has to know beside the numbers.
    """

    test: int | None
    width: int
    owner: float
    shadows: int
    adversaries: int
    bottleneck: int
    bottlenecks: tuple[int, ...]
    autoencoder: Settings
    looks: int
    iterations: int
    fixed: tuple[int, int]
    groups: int
    each: int
    teaching: int
    host: Settings
    embed: Settings
    fresh: bool
    washer: int | None
    seeds: int
    images: int | None = None
    data: str | None = None
    notes: tuple[str, ...] = ()


CLASSIFIER = HOST.but(epochs=20, batch_size=120, milestones=(12, 17))
FULL = Effort(
    test=None,
    width=64,
    owner=2 / 3,
    shadows=8,
    adversaries=3,
    bottleneck=32,
    bottlenecks=(3, 16, 32, 64),
    autoencoder=AUTOENCODING,
    looks=30,
    iterations=4_000,
    fixed=(0, 7),
    groups=40,
    each=3,
    teaching=600,
    host=CLASSIFIER,
    embed=CLASSIFIER.but(triggers_per_batch=8),
    fresh=True,
    washer=None,
    seeds=3,
    notes=(
        "Autoencoders are the paper's MLP with a bottleneck of 32 (the paper states none; its code has 3), 12 epochs "
        "of Adam at 1e-3, the rate divided by 10 after 9: shadows on two thirds of the training images, the "
        "adversary's on the others.",
        "Each stamp is found on images that are no triggers, and x + T is an 8-bit image; the paper finds it on its "
        "triggers and clips neither. With fixed labels the classifier trains on eq. (8); with keyed groups the "
        "carriers stay, too, and stamps are found on a third as many images and begin with low-frequency prestamps.",
    ),
)
CPU = replace(
    FULL,
    width=8,
    host=HOST.but(epochs=3, batch_size=120, milestones=(2,)),
    embed=HOST.but(epochs=1, batch_size=120, lr=3e-4, milestones=(), triggers_per_batch=16),
    fresh=False,
    notes=(
        *FULL.notes,
        "The classifier is an eighth as wide as the paper's. Hosts train 3 epochs; marked classifiers go on from the "
        "host for 1 more.",
    ),
)
QUICK = replace(
    FULL,
    data="digits",
    test=200,
    width=4,
    shadows=2,
    adversaries=1,
    bottleneck=16,
    bottlenecks=(8, 16),
    autoencoder=AUTOENCODING.but(epochs=8, batch_size=20, lr=3e-3, milestones=(6,)),
    looks=4,
    iterations=40,
    groups=8,
    teaching=40,
    host=HOST.but(epochs=3, milestones=(2,)),
    embed=HOST.but(epochs=1, milestones=(), triggers_per_batch=8),
    fresh=False,
    washer=30,
    seeds=1,
    notes=("scikit-learn's digits and a narrow network: a check of the machinery, not a reproduction.",),
)

SCALES: Mapping[str, Mapping[str, Effort]] = {
    "full": dict.fromkeys(SETTINGS, FULL),
    "cpu": dict.fromkeys(SETTINGS, CPU),
    "quick": dict.fromkeys(SETTINGS, QUICK),
}
"""By scale and setting."""
