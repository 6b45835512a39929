"""Marks from strangers' files: every one is either a valid mark or an error, and none can claim a smaller null."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from earmark.core import rng
from earmark.data import digits
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import (
    MINTS,
    MOST_TRIGGERS,
    Noise,
    NoiseChain,
    NotTrue,
    OneClass,
    Stamped,
    TriggerMint,
    TriggerSet,
    Uniform,
    from_settings,
    mark_from_parts,
    remint,
)
from earmark.stats import GRINDING_BITS, required_triggers

KEY = MarkKey(bytes(range(32)))
MARK = Stamped(5, NotTrue())(KEY, None, digits())

Parts = tuple[dict[str, Any], dict[str, Tensor]]


def parts() -> Parts:
    return MARK.spec(), {name: tensor.clone() for name, tensor in MARK.tensors().items()}


def tensor(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[Parts], None]:
    def change(both: Parts) -> None:
        both[1][name] = value(both[1][name])

    return change


def spec(*path: str, value: Any) -> Callable[[Parts], None]:
    def change(both: Parts) -> None:
        place = both[0]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    return change


CHANGES: dict[str, Callable[[Parts], object]] = {
    "images of another dtype": tensor("images", lambda x: x.float()),
    "images of another rank": tensor("images", lambda x: x[0]),
    "two channels": tensor("images", lambda x: x.repeat(1, 2, 1, 1)),
    "no images": tensor("images", lambda x: x[:0]),
    "images without pixels": tensor("images", lambda x: x[..., :0]),
    "the same image twice": tensor("images", lambda x: x[[0, 0, 1, 2, 3]]),
    "fewer images": tensor("images", lambda x: x[:4]),
    "labels of another dtype": tensor("labels", lambda x: x.int()),
    "labels of another rank": tensor("labels", lambda x: x[:, None]),
    "a label out of range": tensor("labels", lambda x: x + 10),
    "a negative label": tensor("labels", lambda x: x - 10),
    "carriers of another dtype": tensor("carriers", lambda x: x.double()),
    "fewer carriers": lambda both: both[1].update(
        carriers=both[1]["carriers"][:4], carrier_labels=torch.zeros(4).long()
    ),
    "a carrier's label out of range": tensor("carrier_labels", lambda x: x + 10),
    "no labels": lambda both: both[1].pop("labels"),
    "no carrier labels": lambda both: both[1].pop("carrier_labels"),
    "another tensor": lambda both: both[1].update(evil=torch.zeros(1)),
    "carriers that the spec denies": spec("carriers", value=None),
    "carriers of another form": spec("carriers", value=[10, "digits"]),
    "carriers without a name": spec("carriers", value={"classes": 10}),
    "carriers with more": spec("carriers", "more", value=1),
    "one carrier class": spec("carriers", "classes", value=1),
    "classes as text": spec("classes", value="10"),
    "classes as bool": spec("classes", value=True),
    "fewer classes": spec("classes", value=3),
    "endless classes": spec("classes", value=10**30),
    "a null of its own": spec("null", value={"basis": "exact", "rate": 1e-9}),
    "no settings": lambda both: both[0].pop("settings"),
    "settings as a list": spec("settings", value=[]),
    "settings with NaN": spec("settings", "opacity", value=float("nan")),
    "settings with an object": spec("settings", "opacity", value=object()),
    "no label policy": lambda both: both[0]["settings"].pop("labels"),
    "an unknown label policy": spec("settings", "labels", "policy", value="unifrom"),
    "a label policy with more": spec("settings", "labels", "rate", value=0.001),
    "not-true labels of two classes": spec("classes", value=2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_parts_that_are_no_mark_are_an_error(what: str) -> None:
    both = parts()
    CHANGES[what](both)
    with pytest.raises(BadInput):
        mark_from_parts("triggers", *both)


def test_unchanged_parts_are_a_mark() -> None:
    assert mark_from_parts("triggers", *parts()).tensors().keys() == MARK.tensors().keys()


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(BadInput, match="did you mean 'triggers'"):
        mark_from_parts("trigger", *parts())


def test_a_file_that_claims_another_label_policy_gets_that_policys_null() -> None:
    for labels, rate in ((OneClass(1), None), (NotTrue(), 1 / 9)):
        both = parts()
        both[0]["settings"]["labels"] = labels.settings()
        assert mark_from_parts("triggers", *both).null.rate == rate


def test_what_is_wrong_with_settings_is_named() -> None:
    good = Noise(5).settings()
    for change, message in (
        ({"mint": "nois"}, "did you mean 'noise'"),
        ({"mint": 5}, "unknown mint '5'"),
        ({"sdt": 0.1}, "did you mean 'std'"),
        ({"name": "noise"}, "unknown setting of noise triggers 'name'"),
        ({"format": 2}, "expected minting format 1, got 2"),
        ({"count": 2.0}, "count of triggers"),
        ({"std": "0.2"}, "noise std"),
    ):
        with pytest.raises(BadInput, match=message):
            from_settings({**good, **change})


def test_a_whole_data_set_is_no_setting() -> None:
    with pytest.raises(BadInput, match="unknown setting of unrelated triggers 'source'"):
        from_settings({"mint": "unrelated", "source": 1})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([*MINTS, "train", "A"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for mint in MINTS.values() for name in mint.setting_names()} | {"format", "x"})


@given(st.sampled_from(sorted(MINTS)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
@settings(max_examples=100, deadline=None)
def test_hostile_settings_give_a_mint_or_an_error(name: str, changes: dict[str, Any]) -> None:
    try:
        mint = from_settings({**MINTS[name]().settings(), **changes})
    except BadInput:
        return
    assert isinstance(mint, TriggerMint)
    assert from_settings(mint.settings()) == mint


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_hostile_mark_is_what_the_key_mints(changes: dict[str, Any], seed: int) -> None:
    """A stranger's settings, and images that were searched for on a model, here random ones."""
    spec, tensors = copy.deepcopy(MARK.spec()), MARK.tensors()
    spec["settings"].update(changes)
    tensors["images"] = torch.randint(256, tensors["images"].shape, generator=rng(seed)).to(torch.uint8)
    try:
        mark = TriggerSet.from_parts(spec, tensors)
        minted = remint(KEY, mark)
    except BadInput:
        return
    assert minted.digest() != mark.digest()


def tall(mint: TriggerMint, height: int, width: int) -> TriggerSet:
    images = torch.arange(mint.count).repeat_interleave(height * width).reshape(-1, 1, height, width).to(torch.uint8)
    labels = torch.zeros(mint.count, dtype=torch.int64)
    return TriggerSet(images, labels, 10, mint.labels.null(10), mint.settings())


def test_a_chain_of_tall_images_does_not_hang_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.marks.triggers.chain._orthogonal", lambda matrix: pytest.fail("began to mint"))
    with pytest.raises(BadInput, match="at most 256 rows, got 257"):
        remint(KEY, tall(NoiseChain(10, Uniform()), 257, 1))


def test_a_mark_too_large_to_mint_again_is_refused_unminted(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tall(Noise(10), 4, 4)
    monkeypatch.setattr("earmark.marks.triggers.limits.MOST_VALUES", 160)
    assert len(remint(KEY, mark)) == 10
    monkeypatch.setattr("earmark.marks.triggers.limits.MOST_VALUES", 159)
    monkeypatch.setattr(Noise, "paint", lambda *_: pytest.fail("began to mint"))
    with pytest.raises(BadInput, match=r"at most 159 pixel values, .* 10 images of 1x4x4 have 160; .*to 9 or less"):
        remint(KEY, mark)


def test_a_mark_of_more_triggers_than_any_owner_needs_is_refused_unminted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert required_triggers(0.5, 0.6, 1e-6, 0.999, GRINDING_BITS) < MOST_TRIGGERS
    assert required_triggers(0.1, 0.16, 1e-6, 0.999, GRINDING_BITS) < MOST_TRIGGERS
    monkeypatch.setattr(Noise, "paint", lambda *_: pytest.fail("began to mint"))
    count = MOST_TRIGGERS + 1
    with pytest.raises(BadInput, match=f"at most {MOST_TRIGGERS} triggers, .*got {count}"):
        remint(KEY, distinct(Noise(count)))


def distinct(mint: TriggerMint) -> TriggerSet:
    codes = torch.arange(mint.count)
    images = torch.stack([codes % 256, codes // 256], 1).reshape(-1, 1, 1, 2).to(torch.uint8)
    labels = torch.zeros(mint.count, dtype=torch.int64)
    return TriggerSet(images, labels, 10, mint.labels.null(10), mint.settings())
