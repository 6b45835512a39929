"""The nouns and the verbs, and nothing else.

Fan et al. 2021 (DeepIPR, Definition 1) define an ownership scheme as four processes: embed E, fidelity F, verify V and
invert I. Everything in earmark is an instance of one of four nouns (a model, a mark, data, a verdict) or of one of
seven verbs. Constructors take settings; calls take the case.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Protocol, TypeAlias, TypeVar, final, runtime_checkable

import torch
from torch import Tensor, nn

from earmark.errors import BadInput, probability
from earmark.keys import MarkKey

__all__ = [
    "MOST_CLASSES",
    "Data",
    "Embed",
    "Evade",
    "Fidelity",
    "FidelityReport",
    "Images",
    "Invert",
    "Mark",
    "Mint",
    "Null",
    "Query",
    "Remove",
    "Verdict",
    "Verify",
    "rng",
]

Query: TypeAlias = Callable[[Tensor], Tensor]
"""A black box: images (N, C, H, W), float in [0, 1], to scores (N, K), or labels (N,) where that is all there is."""


def rng(seed: int) -> torch.Generator:
    """A CPU generator seeded with `seed`: the form in which every verb takes its randomness.

    Raises:
        BadInput: a seed that does not fit into 63 bits, or a negative one.
    """
    if not 0 <= seed < 2**63:
        raise BadInput(f"a seed is a whole number from 0 to 2^63 - 1, got {seed}")
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------------- data

MOST_CLASSES: Final = 1 << 16
"""More than any task has: one wrong label in a file must not make a run reserve room for as many classes."""


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled images as they leave a PNG: uint8 pixels (N, C, H, W) with C 1 or 3, int64 labels (N,) below `classes`.

    They live on the CPU, where evidence is; training moves what it needs.

    Raises:
        BadInput: wrong dtype, rank, channel count, length or device, fewer than 2 classes or more than 2^16, or a label
            outside 0..classes-1.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    name: str = "images"

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] not in (1, 3):
            raise BadInput(
                f"{self.name}: expected uint8 pixels (N, 1 or 3, H, W), got {self.pixels.dtype} "
                f"{tuple(self.pixels.shape)}; convert with earmark.data.from_dataset"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise BadInput(
                f"{self.name}: expected int64 labels ({len(self.pixels)},), "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if self.pixels.device.type != "cpu" or self.labels.device.type != "cpu":
            raise BadInput(f"{self.name}: expected tensors on the CPU, got {self.pixels.device}; move them with .cpu()")
        if not 2 <= self.classes <= MOST_CLASSES:
            raise BadInput(
                f"{self.name}: expected 2 to {MOST_CLASSES} classes, got {self.classes}; number the classes from 0"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise BadInput(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"expected 0 to {self.classes - 1}; name the class count that the labels have"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        """Counts only: triggers are images, too, and secret."""
        return f"Images({self.name!r}, {len(self)} of {'x'.join(map(str, self.shape))}, {self.classes} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, c, h, w = self.pixels.shape
        return int(c), int(h), int(w)

    def subset(self, index: Tensor) -> Images:
        """The images at `index`, in that order."""
        return Images(self.pixels[index], self.labels[index], self.classes, self.name)

    def sample(self, count: int) -> Images:
        """At most `count` images, spread evenly: data are often sorted by class, so the first ones will not do."""
        count = min(count, len(self))
        return self.subset(torch.arange(count) * len(self) // max(1, count))

    def batches(self, size: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
        """(images float [0, 1], labels) in order, `size` at a time, on `device`."""
        for at in range(0, len(self), size):
            pixels = self.pixels[at : at + size].to(device)
            yield pixels.float().div_(255), self.labels[at : at + size].to(device)


@dataclass(frozen=True, eq=False)
class Data:
    """The images that a model learns from and the images that it is measured on: same shape, same classes."""

    train: Images
    test: Images

    def __post_init__(self) -> None:
        for what in ("shape", "classes"):
            a, b = getattr(self.train, what), getattr(self.test, what)
            if a != b:
                remedy = "name it for both with classes=" if what == "classes" else "bring both to one shape"
                raise BadInput(f"train and test differ in {what}: {a} and {b}; {remedy}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.shape

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return self.train.classes


# ---------------------------------------------------------------------------------------------------------------- mark


@dataclass(frozen=True)
class Null:
    """What a suspect that has nothing to do with the key would score: the hypothesis that a test tries to reject.

    `basis` says how far it can be trusted: "exact" by construction, "calibrated" on innocent models, or "none", and
    then no test on it may end in a yes. `rate` bounds an innocent suspect's chance of one match, trials independent.
    """

    basis: Literal["exact", "calibrated", "none"]
    rate: float | None
    words: str

    def __post_init__(self) -> None:
        if (self.basis == "none") != (self.rate is None):
            raise BadInput(
                f"a null has a rate exactly where it has a basis; got basis {self.basis!r}, rate {self.rate}"
            )
        if self.rate is not None and not 0 < self.rate < 1:
            raise BadInput(f"a null's rate lies strictly between 0 and 1, got {self.rate}")


@runtime_checkable
class Mark(Protocol):
    """What E hides and V looks for. Frozen; made of tensors, which a commitment hashes; knows its own null."""

    @property
    def kind(self) -> str:
        """The name under which `earmark.marks` finds the class again."""

    @property
    def null(self) -> Null:
        """What an innocent suspect would score."""

    def spec(self) -> Mapping[str, Any]:
        """Every setting that minting took, as JSON; with `tensors` it is the whole mark."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors that the mark is made of."""


# ------------------------------------------------------------------------------------------------------------- verdict


@final
class _Facts(Mapping[str, Any]):
    """A mapping that nobody can change, and that copies and compares as a dict does."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return repr(self._facts)


def _frozen(value: Any) -> Any:
    """JSON whose objects and arrays cannot be changed."""
    if isinstance(value, Mapping):
        return _Facts({name: _frozen(part) for name, part in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    """The same as dicts and lists."""
    if isinstance(value, Mapping):
        return {name: _thawed(part) for name, part in value.items()}
    return list(map(_thawed, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Verdict:
    """A decision about one suspect, with everything that it rests on.

    Attributes:
        accepted: True, False, or None where the evidence allows neither (an "inconclusive" verdict).
        statistic: the number of matches (or of right bits) among `n`.
        n: the number of trials the test made.
        null: the hypothesis that was tested.
        log10_p: log10 of the p-value, corrections included; None where the null has no basis.
        alpha: the error probability below which p had to fall.
        reason: one sentence for a reader who does not know the method.
        details: further numbers, all JSON, as a copy that cannot be changed.

    Raises:
        BadInput: alpha outside (0, 1), or an acceptance that null, p and alpha do not bear out.
    """

    accepted: bool | None
    statistic: float
    n: int
    null: Null
    log10_p: float | None
    alpha: float
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        probability("alpha", self.alpha)
        object.__setattr__(self, "details", _frozen(self.details))
        if self.accepted and (self.null.basis == "none" or self.log10_p is None):
            raise BadInput("a verdict without a trustworthy null cannot accept; make it inconclusive (accepted=None)")
        if self.accepted and self.log10_p is not None and not self.log10_p <= math.log10(self.alpha):
            raise BadInput(f"a verdict cannot accept at log10 p = {self.log10_p} with alpha = {self.alpha}")

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a verdict may be inconclusive, so it is neither true nor false: ask .accepted (True, False or None)"
        )

    @property
    def p_value(self) -> float | None:
        """10 ** log10_p, which may underflow to 0.0; `log10_p` does not."""
        return None if self.log10_p is None else min(1.0, 10.0**self.log10_p)

    @property
    def word(self) -> str:
        """accepted, rejected or inconclusive."""
        return {True: "accepted", False: "rejected", None: "inconclusive"}[self.accepted]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        null = {"basis": self.null.basis, "rate": self.null.rate, "words": self.null.words}
        return {
            "accepted": self.accepted,
            "word": self.word,
            "statistic": self.statistic,
            "n": self.n,
            "null": null,
            "p_value": self.p_value,
            "log10_p": self.log10_p,
            "alpha": self.alpha,
            "reason": self.reason,
            "details": _thawed(self.details),
        }

    def to_json(self) -> str:
        """`to_dict` as one JSON object."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False)

    def __str__(self) -> str:
        p = "no p-value" if self.log10_p is None else f"p = 10^{round(self.log10_p, 1) + 0.0:.1f}"
        return f"{self.word}: {self.statistic:g} of {self.n}, {p}, alpha = {self.alpha:g} ({self.reason})"


@dataclass(frozen=True)
class FidelityReport:
    """How far a marked model stands from its host (Hua & Teoh 2023, Section 5, "Performance Metrics").

    Attributes:
        val_acc: share of test images answered correctly.
        trig_acc: share of triggers answered with their label; None where no trigger set was given.
        twl: total weight loss ||W - W_host||_2^2 over all parameters (eq. 3); None across architectures.
        ave_pfl: mean over training images of ||z - z_host||_2^2 (eq. 6 over N).
        ave_spl: mean over training images of KL(softmax(host) || softmax(model)) in nats (eq. 7 over N).
        prototype_change: ||W_P - W_P,host||_2^2, the head's weights; None across architectures.
        relative_pfl: ave_pfl over the mean of ||z_host||_2^2, comparable across feature scales.
        host_val_acc: the host's share of test images answered correctly.
        agreement: share of images on which model and host give the same answer, by name ("test", "corrupted", "ood").
    """

    val_acc: float
    trig_acc: float | None
    twl: float | None
    ave_pfl: float | None
    ave_spl: float
    prototype_change: float | None
    relative_pfl: float | None
    host_val_acc: float
    agreement: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {**self.__dict__, "agreement": dict(self.agreement)}


# --------------------------------------------------------------------------------------------------------------- verbs

M = TypeVar("M", bound=Mark)
M_co = TypeVar("M_co", bound=Mark, covariant=True)
M_contra = TypeVar("M_contra", bound=Mark, contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


class Mint(Protocol[M_co]):
    """Owner: derive a mark from a key. Deterministic, so that a judge can mint it again."""

    def __call__(self, key: MarkKey, host: nn.Module | None, data: Data) -> M_co: ...


class Embed(Protocol[M_contra]):
    """Owner, E: a marked copy of the host, which stays untouched."""

    def __call__(self, host: nn.Module, mark: M_contra, data: Data, rng: torch.Generator) -> nn.Module: ...


class Fidelity(Protocol):
    """Anyone, F: how far the model stands from its host."""

    def __call__(self, model: nn.Module, host: nn.Module, data: Data) -> FidelityReport: ...


class Verify(Protocol[S_contra, M_contra]):
    """Judge, V: does the suspect carry the mark? S is a `Query` or an `nn.Module`: the access that the test needs."""

    def __call__(self, suspect: S_contra, mark: M_contra) -> Verdict: ...


class Invert(Protocol[M_co]):
    """Forger, I: an ambiguity attack, a mark read off a model that somebody else made."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> M_co: ...


class Remove(Protocol):
    """Thief: a new model that should keep the accuracy and lose the mark."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module: ...


class Evade(Protocol):
    """Thief: a query that answers like the model and hides the mark."""

    def __call__(self, model: Query, data: Data, rng: torch.Generator) -> Query: ...
