"""What an owner hides and a judge looks for: kinds of marks, and how they are minted from a key.

| mint | triggers |
|---|---|
| `Noise` | normal noise |
| `NoiseChain` | the orthogonal chains of the deep fidelity paper's code |
| `Abstract` | generated geometric art |
| `Stamped` | a text, a logo or a keyed pattern on training images or on abstract art |
| `Unrelated` | images of another data set |
| `Fused` | two training images of different classes in one |
| `Penetrative` | training images under stamps that pass an autoencoder |
| `Noised` | training images under keyed noise |
| `Relabelled` | training images as they are |
| `Frontier` | training images beside a model's decision frontier |
| `Patched` | training images under small keyed patches, one label to a patch |
| `HashChain` | noise, each image the hash of the one before |
| `Sliced` | those of another mint, each with a key of its own, so that some can be opened without the others |

A label policy gives each trigger its label: `Uniform` (the default of most), `NotTrue` and `NotSources` draw it from
the key and have an exact null; `Chain`, `OneClass`, `Listed` and `AsShown` are what papers used and have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from earmark.errors import BadInput, unknown_name
from earmark.keys import MarkKey
from earmark.marks.passports import PassportMint, Passports, passport_mint
from earmark.marks.triggers.abstract import Abstract
from earmark.marks.triggers.base import FORMAT, TriggerMint
from earmark.marks.triggers.chain import NoiseChain
from earmark.marks.triggers.frontier import Frontier
from earmark.marks.triggers.fused import Fused
from earmark.marks.triggers.hash_chain import HashChain, is_chain
from earmark.marks.triggers.labels import (
    POLICIES,
    AsShown,
    Chain,
    LabelPolicy,
    Listed,
    NotSources,
    NotTrue,
    OneClass,
    Uniform,
    policy_from,
)
from earmark.marks.triggers.limits import MOST_TRIGGERS, require_mintable
from earmark.marks.triggers.merkle import audit_paths, root_from
from earmark.marks.triggers.noise import Noise
from earmark.marks.triggers.noised import Noised
from earmark.marks.triggers.patched import Patched
from earmark.marks.triggers.penetrative import Penetrative
from earmark.marks.triggers.relabelled import Relabelled
from earmark.marks.triggers.sliced import Sliced, bound_root, leaf_of, rooted
from earmark.marks.triggers.stamped import Stamped
from earmark.marks.triggers.stamps import Penetration
from earmark.marks.triggers.trials import log_shares, trial_answers
from earmark.marks.triggers.trigger_set import TriggerSet
from earmark.marks.triggers.unrelated import Unrelated
from earmark.marks.uchida import Projection, ProjectionMint, projection_mint

__all__ = [
    "MARKS",
    "MINTS",
    "MOST_TRIGGERS",
    "POLICIES",
    "Abstract",
    "AnyMark",
    "AsShown",
    "Chain",
    "Frontier",
    "Fused",
    "HashChain",
    "LabelPolicy",
    "Listed",
    "Noise",
    "NoiseChain",
    "Noised",
    "NotSources",
    "NotTrue",
    "OneClass",
    "PassportMint",
    "Passports",
    "Patched",
    "Penetration",
    "Penetrative",
    "Projection",
    "ProjectionMint",
    "Relabelled",
    "Sliced",
    "Stamped",
    "TriggerMint",
    "TriggerSet",
    "Uniform",
    "Unrelated",
    "audit_paths",
    "bound_root",
    "from_settings",
    "is_chain",
    "leaf_of",
    "log_shares",
    "mark_from_parts",
    "passport_mint",
    "policy_from",
    "projection_mint",
    "remint",
    "root_from",
    "rooted",
    "slicing",
    "trial_answers",
]

MINTS: Mapping[str, type[TriggerMint]] = {
    mint.name: mint
    for mint in (
        *(Noise, NoiseChain, Abstract, Stamped, Unrelated, Fused, Penetrative, Sliced),
        *(Noised, Relabelled, Frontier, Patched, HashChain),
    )
}
AnyMark: TypeAlias = TriggerSet | Passports | Projection
"""What a file of a mark may hold."""
MARKS: Mapping[str, type[TriggerSet] | type[Passports] | type[Projection]] = {
    "triggers": TriggerSet,
    "passports": Passports,
    "projection": Projection,
}


def from_settings(settings: Mapping[str, Any]) -> TriggerMint:
    """The mint whose `settings()` these are; a setting that is left out takes its default.

    Raises:
        BadInput: an unknown mint, setting or format, or a value out of its range.

    >>> from_settings({"mint": "noise", "count": 30}).count
    30
    """
    name, version = settings.get("mint"), settings.get("format", FORMAT)
    if not isinstance(name, str) or name not in MINTS:
        raise unknown_name("mint", str(name), MINTS)
    if version != FORMAT:
        raise BadInput(f"expected minting format {FORMAT}, got {version!r:.80}; use the earmark release that minted it")
    known = MINTS[name].setting_names()
    values = {key: value for key, value in settings.items() if key not in ("mint", "format")}
    for key in values:
        if key not in known:
            raise unknown_name(f"setting of {name} triggers", str(key), [*known, "mint", "format"])
    if "labels" in values:
        values["labels"] = policy_from(values["labels"])
    if "of" in values:
        values["of"] = _sliced(values["of"])
    return MINTS[name](**values)


def _sliced(settings: Any) -> TriggerMint:
    if not isinstance(settings, Mapping) or settings.get("mint") == Sliced.name:
        raise BadInput(f"expected the settings of the mint that is sliced, got {settings!r:.80}")
    return from_settings(settings)


def slicing(mark: TriggerSet) -> Sliced | None:
    """The mint of a mark that opens in slices; None for all others.

    Raises:
        BadInput: settings that no mint of this release has, or more triggers than a judge mints.
    """
    if mark.settings.get("mint") != Sliced.name:
        return None
    mint = from_settings(mark.settings)
    require_mintable(mint.count, 0, mark.shape)
    assert isinstance(mint, Sliced), "the name says so"
    return mint


def remint(key: MarkKey, mark: TriggerSet) -> TriggerSet:
    """The mark that `key` mints from `mark`'s settings and carriers: a judge compares its digest with `mark`'s.

    Equal digests say that this key made this mark, down to the last pixel and label. Another key, one changed pixel of
    a carrier, or triggers that were optimised on a model give another digest.

    Raises:
        BadInput: settings that no mint of this release has, or that do not fit the mark; or a mark too large to mint,
            by its own content or by what its settings ask for (`TriggerMint.make`).
    """
    mint = from_settings(mark.settings)
    if mint.count != len(mark):
        raise BadInput(f"the settings speak of {mint.count} triggers and the mark has {len(mark)}")
    require_mintable(len(mark), 0 if mark.teaching is None else len(mark.teaching), mark.shape)
    return mint.make(key, mark.shape, mark.classes, mark.carriers)


def mark_from_parts(kind: str, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AnyMark:
    """The mark of `kind` that was saved as `spec` and `tensors`.

    Raises:
        BadInput: an unknown kind, or parts that are not of its form.
    """
    if kind not in MARKS:
        raise unknown_name("kind of mark", kind, MARKS)
    return MARKS[kind].from_parts(spec, tensors)
