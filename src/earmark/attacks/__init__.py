"""What thieves and forgers do, by name: removing a mark, hiding it from a query, and reading a mark into a model.

| name | attack |
|---|---|
| fine-tune-ftll, -ftal, -rtll, -rtal | go on training (`FineTune`): last or all layers, the last one kept or new |
| transfer | go on training on another task with as many classes |
| extract-soft, -hard, -noise | `Extract`: a fresh network learns the model's scores, classes, or scores of noise |
| knockoff | `Knockoff`: a fresh network learns the model's scores of another data set's images |
| distil | `Distil`: a network learns the model's softened scores, and labels beside them |
| prune-global, -layer, -random, -structured | zero a share of weights or channels (and recalibrate batch norm) |
| fine-prune | `FinePrune`: silence the channels that images leave inactive, and go on training |
| shift-weights | `ShiftWeights`: take the mean filter out of convolutions, add noise, and go on training |
| smooth-labels | `SmoothLabels`: go on training with smoothed labels |
| adversarial-training | `AdversarialTraining`: go on training with images that are moved against the model |
| cleanse | `Cleanse`: search the model for patches that call up a class, and unlearn them |
| half, bfloat16, int8, int4 | fewer bits per weight |
| overwrite | the thief's own mark by the same scheme |
| ensemble | `Ensemble`: several attacked copies, whose answers are averaged |
| stack | `Stack`: attacks one after the other |

| name | removal of passports: what needs convolutions with norms, and changes no answer (but for the last) |
|---|---|
| flip-signs | `FlipSigns`: a filter and its norm's scale negated |
| permute-channels | `PermuteChannels`: channels in another order, those of a residual stream all together |
| rescale-channels | `RescaleChannels`: channels multiplied, and divided in the next layer |
| fold-norm | `FoldNorm`: batch norm written into the convolution |
| dummy-channels | `DummyChannels`: channels that cancel |
| flip-scales | `FlipScales`: scales negated, and nothing else |

| name | evasion: what happens to an image before the stolen model sees it |
|---|---|
| jpeg | encoding and decoding |
| blur, median | a Gaussian or median filter |
| bit-depth | fewer levels per pixel |
| noise | noise on every pixel |
| noise-denoise | noise that drowns a trigger, then a filter, the median unless set |
| flip, rotate, crop | `Flip`, `Rotate`, `Crop`: a mirror image, a small turn, a window that is stretched |
| autoencoder | `Autoencode`: what a network with a narrow code makes of the image |
| chain | washers one after the other |
| refuse | `Refuse`: a guard that answers odd images at random, and washes none |

`cost` says how much accuracy an evasion costs the thief. Each attack states in `needs` what its thief must know and own
(`needs_of`), and `measured` runs one and tells what it took: seconds, samples, queries.

| name | forgery |
|---|---|
| adversarial | noise on images until the model answers the forger's labels |
| read-off | labels that are the model's own answers |
| grind | the best of many keys |
| false-claim | `FalseClaim`: noise on images until models of the forger's own, and so strangers', answer his labels |

| name | forgery of passports |
|---|---|
| random | `RandomPassports`: drawn, or feature maps, with the bits that they show |
| solved | `SolvedPassports`: the solution of linear equations, with bits of choice and exact fidelity |
| reverse-scales | `ReverseScales`: scales learnt from reversed signs, then solved for |
| cerb | `CERB`: scales learnt through a block behind random passports, then solved for |
| retrained | `RetrainedPassports`: the owner's passports, trained to other bits |

| name | forgery of projections |
|---|---|
| projection | `ForgedProjection`: a matrix fitted to the weights, to read bits of choice |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from earmark.attacks.ambiguity.adversarial import AdversarialTriggers
from earmark.attacks.ambiguity.false_claim import FalseClaim
from earmark.attacks.ambiguity.forgery import Forger, Forgery
from earmark.attacks.ambiguity.grind import Grind
from earmark.attacks.ambiguity.passports.drawn import RandomPassports
from earmark.attacks.ambiguity.passports.forgery import PassportForger, PassportForgery
from earmark.attacks.ambiguity.passports.learnt import CERB, ReverseScales
from earmark.attacks.ambiguity.passports.retrained import RetrainedPassports
from earmark.attacks.ambiguity.passports.solved import SolvedPassports
from earmark.attacks.ambiguity.projection import ForgedProjection, ProjectionForgery
from earmark.attacks.ambiguity.read_off import ReadOff
from earmark.attacks.costs import Spent, measured
from earmark.attacks.evasion.autoencoder import Autoencode
from earmark.attacks.evasion.chain import Chain
from earmark.attacks.evasion.cost import Cost, cost, query_accuracy
from earmark.attacks.evasion.filters import BitDepth, Blur, Median
from earmark.attacks.evasion.geometry import Crop, Flip, Rotate
from earmark.attacks.evasion.jpeg import Jpeg
from earmark.attacks.evasion.noise import NoiseDenoise
from earmark.attacks.evasion.refuse import Refuse
from earmark.attacks.evasion.washer import Washer
from earmark.attacks.needs import Needs, needs_of
from earmark.attacks.removal.adversarial_training import AdversarialTraining
from earmark.attacks.removal.channels import FlipSigns, FoldNorm, MarkByFlips, RescaleChannels
from earmark.attacks.removal.cleanse import Cleanse
from earmark.attacks.removal.distil import Distil
from earmark.attacks.removal.dummies import DummyChannels
from earmark.attacks.removal.ensemble import Averaged, Ensemble
from earmark.attacks.removal.extract import Extract
from earmark.attacks.removal.fine_prune import FinePrune
from earmark.attacks.removal.fine_tune import FineTune, ftal, ftll, rtal, rtll
from earmark.attacks.removal.knockoff import Knockoff
from earmark.attacks.removal.overwrite import Overwrite
from earmark.attacks.removal.permute import PermuteChannels
from earmark.attacks.removal.prune import PruneChannels, PruneGlobal, PruneLayers, PruneRandom
from earmark.attacks.removal.quantise import Half, Quantise
from earmark.attacks.removal.recalibrate import recalibrated
from earmark.attacks.removal.scales import FlipScales
from earmark.attacks.removal.shift_weights import ShiftWeights
from earmark.attacks.removal.smooth_labels import SmoothLabels
from earmark.attacks.removal.stack import Stack
from earmark.attacks.removal.transfer import Transfer
from earmark.core import Evade, Remove
from earmark.errors import BadInput, unknown_name

__all__ = [
    "ATTACKS",
    "CERB",
    "EVASIONS",
    "FORGERIES",
    "PASSPORT_FORGERIES",
    "PASSPORT_REMOVALS",
    "PROJECTION_FORGERIES",
    "WASHERS",
    "AdversarialTraining",
    "AdversarialTriggers",
    "Autoencode",
    "Averaged",
    "BitDepth",
    "Blur",
    "Chain",
    "Cleanse",
    "Cost",
    "Crop",
    "Distil",
    "DummyChannels",
    "Ensemble",
    "Extract",
    "FalseClaim",
    "FinePrune",
    "FineTune",
    "Flip",
    "FlipScales",
    "FlipSigns",
    "FoldNorm",
    "ForgedProjection",
    "Forger",
    "Forgery",
    "Grind",
    "Half",
    "Jpeg",
    "Knockoff",
    "MarkByFlips",
    "Median",
    "Needs",
    "NoiseDenoise",
    "Overwrite",
    "PassportForger",
    "PassportForgery",
    "PermuteChannels",
    "ProjectionForgery",
    "PruneChannels",
    "PruneGlobal",
    "PruneLayers",
    "PruneRandom",
    "Quantise",
    "RandomPassports",
    "ReadOff",
    "Refuse",
    "RescaleChannels",
    "RetrainedPassports",
    "ReverseScales",
    "Rotate",
    "ShiftWeights",
    "SmoothLabels",
    "SolvedPassports",
    "Spent",
    "Stack",
    "Transfer",
    "Washer",
    "attack",
    "cost",
    "evader",
    "forger",
    "measured",
    "needs_of",
    "passport_forger",
    "projection_forger",
    "query_accuracy",
    "recalibrated",
    "washer",
]

ATTACKS: Mapping[str, Callable[..., Remove]] = {
    "fine-tune-ftll": ftll,
    "fine-tune-ftal": ftal,
    "fine-tune-rtll": rtll,
    "fine-tune-rtal": rtal,
    "transfer": Transfer,
    "extract-soft": Extract,
    "extract-hard": partial(Extract, answers="hard"),
    "extract-noise": partial(Extract, loss="mse", noise=0.1),
    "knockoff": Knockoff,
    "distil": Distil,
    "prune-global": PruneGlobal,
    "prune-layer": PruneLayers,
    "prune-random": PruneRandom,
    "prune-structured": PruneChannels,
    "fine-prune": FinePrune,
    "shift-weights": ShiftWeights,
    "smooth-labels": SmoothLabels,
    "adversarial-training": AdversarialTraining,
    "cleanse": Cleanse,
    "half": Half,
    "bfloat16": partial(Half, to="bfloat16"),
    "int8": partial(Quantise, bits=8),
    "int4": partial(Quantise, bits=4),
    "overwrite": Overwrite,
    "ensemble": Ensemble,
    "stack": Stack,
}

PASSPORT_REMOVALS: Mapping[str, Callable[..., Remove]] = {
    "flip-signs": FlipSigns,
    "permute-channels": PermuteChannels,
    "rescale-channels": RescaleChannels,
    "fold-norm": FoldNorm,
    "dummy-channels": DummyChannels,
    "flip-scales": FlipScales,
}
"""Apart from `ATTACKS`, which any classifier can be given to."""

WASHERS: Mapping[str, Callable[..., Washer]] = {
    "jpeg": Jpeg,
    "blur": Blur,
    "median": Median,
    "bit-depth": BitDepth,
    "noise": partial(NoiseDenoise, denoiser=Median(1)),
    "noise-denoise": NoiseDenoise,
    "flip": Flip,
    "rotate": Rotate,
    "crop": Crop,
    "autoencoder": Autoencode,
    "chain": Chain,
}

EVASIONS: Mapping[str, Callable[..., Evade]] = {**WASHERS, "refuse": Refuse}
"""All that stands in front of a model: what washes images, and what answers some of them at random."""

FORGERIES: Mapping[str, Callable[..., Forger]] = {
    "adversarial": AdversarialTriggers,
    "read-off": ReadOff,
    "grind": Grind,
    "false-claim": FalseClaim,
}

PASSPORT_FORGERIES: Mapping[str, Callable[..., PassportForger]] = {
    "random": RandomPassports,
    "solved": SolvedPassports,
    "reverse-scales": ReverseScales,
    "cerb": CERB,
    "retrained": RetrainedPassports,
}

PROJECTION_FORGERIES: Mapping[str, Callable[..., ForgedProjection]] = {"projection": ForgedProjection}

T = TypeVar("T")


def attack(name: str, **settings: Any) -> Remove:
    """The attack called `name`, with its defaults but for `settings`.

    Raises:
        BadInput: an unknown attack or setting, with the nearest known one; a setting that is missing or out of range.

    >>> attack("prune-global", share=0.5)
    PruneGlobal(share=0.5, exclude_head=False, head=None, recalibrate=0)
    """
    return _built("attack", {**ATTACKS, **PASSPORT_REMOVALS}, name, settings)


def forger(name: str, **settings: Any) -> Forger:
    """The forger called `name`, with its defaults but for `settings`; raises as `attack` does."""
    return _built("forgery", FORGERIES, name, settings)


def passport_forger(name: str, **settings: Any) -> PassportForger:
    """The forger of passports called `name`, with its defaults but for `settings`; raises as `attack` does.

    >>> passport_forger("solved", layers=2)
    SolvedPassports(layers=2, flips=True)
    """
    return _built("forgery of passports", PASSPORT_FORGERIES, name, settings)


def projection_forger(name: str, **settings: Any) -> ForgedProjection:
    """The forger of projections called `name`, with its defaults but for `settings`; raises as `attack` does.

    >>> projection_forger("projection", steps=9).steps
    9
    """
    return _built("forgery of projections", PROJECTION_FORGERIES, name, settings)


def evader(name: str, **settings: Any) -> Evade:
    """The evasion called `name`, with its defaults but for `settings`; raises as `attack` does.

    >>> evader("refuse", refusals=0.01)
    Refuse(refusals=0.01, score='mahalanobis', images=None)
    """
    return _built("evasion", EVASIONS, name, settings)


def washer(name: str, **settings: Any) -> Washer:
    """The evasion called `name`, of those that wash images: one that goes into a chain; raises as `attack` does.

    >>> washer("noise-denoise", std=0.2, denoiser=washer("blur"))
    NoiseDenoise(std=0.2, denoiser=Blur(sigma=1.0))
    """
    return _built("washing evasion", WASHERS, name, settings)


def _built(what: str, table: Mapping[str, Callable[..., T]], name: str, settings: Mapping[str, Any]) -> T:
    if name not in table:
        raise unknown_name(what, name, table)
    known = inspect.signature(table[name]).parameters
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in settings]
    if missing:
        raise BadInput(f"{name} needs {', '.join(missing)}; give {'it' if len(missing) == 1 else 'them'} by name")
    return table[name](**settings)
