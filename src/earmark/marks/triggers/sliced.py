"""Triggers that can be opened a few at a time: each is minted from a key of its own, and one root binds them all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from earmark import files
from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks.triggers.abstract import Abstract
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.labels import LabelPolicy, NotTrue, Uniform
from earmark.marks.triggers.limits import require_mintable
from earmark.marks.triggers.merkle import tree_hash
from earmark.marks.triggers.noise import Noise
from earmark.marks.triggers.stamped import Stamped
from earmark.marks.triggers.trigger_set import TriggerSet
from earmark.marks.triggers.unrelated import Unrelated

__all__ = ["Sliced", "bound_root", "leaf_of", "rooted"]

SEPARABLE = (Noise, Abstract, Stamped, Unrelated)
"""Mints whose triggers need nothing of one another."""
NOT_GIVEN = Uniform()
"""Told apart by identity from a `Uniform()` that the caller gives."""
LEAF = b"earmark/slice-leaf/1\n"
ROOT = b"earmark/slices/1\n"


@final
@dataclass(frozen=True)
class Sliced(TriggerMint):
    """The triggers of another mint, each from a sub-key of its own, so that k of n can be opened and minted again.

    Trigger i is what `of` makes of the key `MarkKey.trial_key(i)` and of the i-th carrier, as a set of one. Then a
    Merkle tree is built over all triggers; leaf i binds i, the trial's key and the digest of its image and carrier,
    under a salt of the trial's stream "slice-salt" (`leaf_of`). Its root, together with n and the spec, is what a claim
    shows (`rooted`). Last the labels are drawn: the i-th from the trial's stream "labels" whose context is that root
    and i.

    Why the labels come after the root: whoever opens k of n shows a judge k keys that might have been picked one by
    one. If a label followed from its own trial alone, a claimant could try keys and carriers for each trial by itself
    until its label is what innocent models say, K tries a trial. Behind the root one changed trial, opened or not,
    draws *all* labels anew, so trying is no better than with an ordinary mark and is paid for by the same 2^64.

    Attributes:
        of: the mint of the triggers; `count` and `labels` are its own.

    Raises:
        BadInput: a mint whose triggers are not separable, or labels that no key draws.
    """

    name: ClassVar[str] = "sliced"
    count: int = 0
    labels: LabelPolicy = NOT_GIVEN
    of: TriggerMint = field(default_factory=Noise)

    def __post_init__(self) -> None:
        if not isinstance(self.of, SEPARABLE):
            names = ", ".join(mint.name for mint in SEPARABLE)
            raise BadInput(f"expected a mint of separable triggers ({names}) to slice, got {self.of!r:.80}")
        if not isinstance(self.of.labels, Uniform | NotTrue):
            raise BadInput(f"sliced triggers have uniform or not-true labels, got {self.of.labels.name}")
        object.__setattr__(self, "count", self.count or self.of.count)
        object.__setattr__(self, "labels", self.of.labels if self.labels is NOT_GIVEN else self.labels)
        super().__post_init__()
        if (self.count, self.labels) != (self.of.count, self.of.labels):
            raise BadInput("sliced triggers have the count and the labels of the mint that is sliced; leave them out")

    @property
    def has_carriers(self) -> bool:
        return self.of.has_carriers

    def draw(self, key: MarkKey, data: Data) -> Images | None:
        return self.of.draw(key, data)

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        return self.of.true_labels(classes, carriers)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "of": self.of.settings()}

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return self._painted(self._keys(key), shape, carriers)

    def make(
        self, key: MarkKey, shape: tuple[int, int, int], classes: int, carriers: Images | None = None
    ) -> TriggerSet:
        require_mintable(self.count, 0, shape)
        self._check(carriers)
        keys, places = self._keys(key), range(self.count)
        images = self._painted(keys, shape, carriers)
        unlabelled = self._set(images, torch.zeros(self.count, dtype=torch.int64), classes, carriers)
        root = rooted(unlabelled, keys)
        return self._set(images, self._labels(keys, places, root, classes, carriers), classes, carriers)

    def remake(self, keys: Sequence[MarkKey], places: Sequence[int], root: bytes, mark: TriggerSet) -> TriggerSet:
        """What the keys of some trials mint again, from `mark`'s carriers and under `root`: a judge compares digests.

        Args:
            keys: of the opened trials.
            places: their indices among all trials.
            root: 32 bytes, from the claim.
            mark: the opened trials as they are shown.

        Raises:
            BadInput: carriers that do not fit, or more than a judge mints.
        """
        require_mintable(len(mark), 0, mark.shape)
        if self.has_carriers != (mark.carriers is not None) or not len(keys) == len(places) == len(mark):
            raise BadInput("expected one key and one place for each opened trigger, and carriers just where there are")
        if mark.carriers is not None and len(mark.carriers) != len(mark):
            raise BadInput(f"expected {len(mark)} carriers, one for each opened trigger, got {len(mark.carriers)}")
        images = self._painted(keys, mark.shape, mark.carriers)
        labels = self._labels(keys, places, root, mark.classes, mark.carriers)
        return self._set(images, labels, mark.classes, mark.carriers)

    def _keys(self, key: MarkKey) -> list[MarkKey]:
        return [key.trial_key(index) for index in range(self.count)]

    def _painted(self, keys: Sequence[MarkKey], shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        one = replace(self.of, count=1)
        return torch.cat([one.paint(key, shape, _at(carriers, i)) for i, key in enumerate(keys)])

    def _labels(
        self, keys: Sequence[MarkKey], places: Sequence[int], root: bytes, classes: int, carriers: Images | None
    ) -> Tensor:
        true = self.true_labels(classes, carriers)
        shown = [None if true is None else true[i : i + 1] for i in range(len(keys))]
        streams = [key.stream("labels", root + _octets(place)) for key, place in zip(keys, places, strict=True)]
        return torch.cat([self.labels.draw(s, 1, classes, own) for s, own in zip(streams, shown, strict=True)])

    def _set(self, images: Tensor, labels: Tensor, classes: int, carriers: Images | None) -> TriggerSet:
        return TriggerSet(images, labels, classes, self.labels.null(classes), self.settings(), carriers)


def leaf_of(key: MarkKey, place: int, mark: TriggerSet, at: int) -> bytes:
    r"""What the tree binds of the trial at `place`, whose key is `key` and which is number `at` of `mark`.

    "earmark/slice-leaf/1\n" + place (8 bytes) + salt + key.commitment() + digest({"images", "carriers",
    "carrier_labels"}, null), the digest of what the trial has of these. Nobody who lacks the key can test a guess.
    """
    tensors = {name: tensor[at : at + 1] for name, tensor in mark.tensors().items() if name != "labels"}
    salt, content = key.stream("slice-salt").read(32), bytes.fromhex(files.digest(tensors))
    return LEAF + _octets(place) + salt + bytes.fromhex(key.commitment()) + content


def rooted(mark: TriggerSet, keys: Sequence[MarkKey]) -> bytes:
    """The root of a whole mark whose trials have these keys: `bound_root` of its own tree."""
    return bound_root(mark, len(keys), tree_hash([leaf_of(key, i, mark, i) for i, key in enumerate(keys)]))


def bound_root(mark: TriggerSet, count: int, tree: bytes) -> bytes:
    r"""SHA-256("earmark/slices/1\n" + n (8 bytes) + SHA-256(canonical JSON of [spec, shape]) + tree's root)."""
    public = hashlib.sha256(files.canonical_json([mark.spec(), list(mark.shape)])).digest()
    return hashlib.sha256(ROOT + _octets(count) + public + tree).digest()


def _octets(index: int) -> bytes:
    return index.to_bytes(8, "big")


def _at(images: Images | None, index: int) -> Images | None:
    return None if images is None else images.subset(torch.tensor([index]))
