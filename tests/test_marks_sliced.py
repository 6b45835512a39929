"""Marks that open in slices: the tree, the sub-keys, and labels that no trial has to itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from earmark.core import Images
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import (
    Abstract,
    Fused,
    Noise,
    NotTrue,
    OneClass,
    Penetrative,
    Sliced,
    Stamped,
    TriggerMint,
    TriggerSet,
    Unrelated,
    from_settings,
    mark_from_parts,
    remint,
    rooted,
    slicing,
)
from earmark.marks.triggers.merkle import audit_paths, root_from, tree_hash

KEY = MarkKey(bytes(range(32)), bytes(32))
SHAPE = (1, 8, 8)
POOL = Images(Noise(count=60).make(MarkKey(bytes(32)), SHAPE, 10).images, torch.arange(60) % 10, 10, "pool")


def keys(mark: TriggerSet, key: MarkKey = KEY) -> list[MarkKey]:
    return [key.trial_key(index) for index in range(len(mark))]


# ------------------------------------------------------------------------------------------------------------- the tree

LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
PUBLISHED = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""The roots over the first 1 to 8 of these leaves, as the test data of Certificate Transparency has them."""


@pytest.mark.parametrize("count", range(1, 9))
def test_the_tree_is_that_of_certificate_logs(count: int) -> None:
    assert tree_hash(LEAVES[:count]).hex() == PUBLISHED[count - 1]


def slow_root(leaves: Sequence[bytes]) -> bytes:
    """The definition, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = max(2**power for power in range(20) if 2**power < len(leaves))
    return hashlib.sha256(b"\1" + slow_root(leaves[:split]) + slow_root(leaves[split:])).digest()


@pytest.mark.parametrize("count", [*range(1, 35), 100, 127, 128, 129])
def test_every_leaf_has_a_path_to_the_root_and_to_no_other_place(count: int) -> None:
    leaves = [bytes([place, 1]) for place in range(count)]
    root = slow_root(leaves)
    assert tree_hash(leaves) == root
    for place, path in enumerate(audit_paths(leaves, range(count))):
        assert root_from(leaves[place], place, count, path) == root
        for other in {0, place - 1, place + 1, count - 1, count} - {place}:
            assert root_from(leaves[place], other, count, path) != root


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_no_damaged_path_leads_to_the_root(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    leaves = [bytes([place]) for place in range(count)]
    place = data.draw(st.integers(0, count - 1))
    (path,) = audit_paths(leaves, [place])
    given_ = data.draw(st.lists(st.sampled_from([*path, *map(slow_root, ([b"x"], leaves))]), max_size=len(path) + 2))
    found = root_from(leaves[place], place, count, given_)
    assert (found == tree_hash(leaves)) == (given_ == path)


def test_a_tree_of_nothing_and_a_place_outside_are_refused() -> None:
    with pytest.raises(BadInput, match="at least one leaf"):
        tree_hash([])
    for places in ([2], [-1]):
        with pytest.raises(BadInput, match="places from 0 to 1"):
            audit_paths([b"a", b"b"], places)


# ------------------------------------------------------------------------------------------------------------- the mint

MINTS: dict[str, TriggerMint] = {
    "noise": Noise(count=30),
    "abstract": Abstract(count=6),
    "stamped": Stamped(count=20, text="A"),
    "uniform labels": Stamped(count=20, labels=NotTrue()),
    "stamped art": Stamped(count=4, carrier="abstract"),
    "unrelated": Unrelated(count=20, source=POOL),
}


def minted(name: str, key: MarkKey = KEY) -> TriggerSet:
    mint = Sliced(of=MINTS[name])
    carriers = POOL.subset(torch.arange(mint.count)) if mint.has_carriers else None
    return mint.make(key, SHAPE, 10, carriers)


@pytest.mark.parametrize("name", MINTS)
def test_a_sliced_mark_is_minted_again_whole_from_its_key_and_from_its_file(name: str) -> None:
    mark = minted(name)
    assert remint(KEY, mark).digest() == mark.digest()
    assert mark_from_parts("triggers", mark.spec(), mark.tensors()).digest() == mark.digest()
    assert from_settings(mark.settings).settings() == mark.settings
    assert remint(MarkKey(bytes(32), bytes(32)), mark).digest() != mark.digest()


@pytest.mark.parametrize("name", MINTS)
def test_some_trials_are_minted_again_from_their_own_keys_alone(name: str) -> None:
    mark, mint = minted(name), slicing(minted(name))
    assert mint is not None
    places = [3, 0, 2]
    at = torch.tensor(places)
    carriers = None if mark.carriers is None else mark.carriers.subset(at)
    part = TriggerSet(mark.images[at], mark.labels[at], 10, mark.null, mark.settings, carriers)
    root = rooted(mark, keys(mark))
    again = mint.remake([KEY.trial_key(place) for place in places], places, root, part)
    assert again.digest() == part.digest()
    assert mint.remake([KEY.trial_key(place) for place in places], [3, 0, 1], root, part).images.equal(part.images)
    with pytest.raises(BadInput, match="one key and one place"):
        mint.remake([KEY.trial_key(0)], places, root, part)


def test_a_trial_is_what_the_sliced_mint_makes_of_its_key_alone() -> None:
    mark = minted("noise")
    for place in (0, 7, 29):
        alone = Noise(count=1).make(KEY.trial_key(place), SHAPE, 10)
        assert torch.equal(mark.images[place], alone.images[0])


def test_sub_keys_differ_by_trial_by_secret_and_from_their_key() -> None:
    secrets = {MarkKey(bytes([secret]) * 32).trial_key(place).secret for secret in range(4) for place in range(50)}
    assert len(secrets | {bytes([secret]) * 32 for secret in range(4)}) == 204
    assert KEY.trial_key(3).owner == KEY.owner


def test_the_root_depends_on_everything_that_is_minted() -> None:
    base = minted("stamped")
    carriers = base.carriers
    assert carriers is not None
    swapped = Images(carriers.pixels.flip(0), carriers.labels, 10, "pool")
    others = [
        Sliced(of=MINTS["stamped"]).make(KEY, SHAPE, 10, swapped),
        Sliced(of=MINTS["stamped"]).make(MarkKey(KEY.secret, bytes([1]) * 32), SHAPE, 10, carriers),
        Sliced(of=replace(MINTS["stamped"], opacity=0.5)).make(KEY, SHAPE, 10, carriers),  # type: ignore[call-arg]
    ]
    roots = [rooted(mark, keys(mark)) for mark in (base, *others)]
    assert len({*roots}) == len(roots)


def test_one_changed_trial_draws_the_labels_of_all_anew() -> None:
    """A claimant who picks the carrier of one trial cannot keep the labels of the others: he tries whole marks."""
    carriers = POOL.subset(torch.arange(40))
    mint = Sliced(of=Unrelated(count=40))
    labels = []
    for value in range(60):
        pixels = carriers.pixels.clone()
        pixels[0, 0, 0, 0] = value
        labels.append(mint.make(KEY, SHAPE, 10, Images(pixels, carriers.labels, 10, "pool")).labels)
    pairs = torch.stack(labels)
    same = int((pairs[1:, 1:] == pairs[:-1, 1:]).sum())
    assert binomtest(same, 59 * 39, 0.1).pvalue > 1e-4
    for column in pairs.T:
        assert len(column.unique()) > 4, "no trial's label is its own"


@pytest.mark.parametrize("favourite", [0, 7])
def test_an_answer_that_never_changes_matches_at_the_rate_of_the_null(favourite: int) -> None:
    drawn = torch.cat([minted("noise", MarkKey(bytes([seed]) * 32)).labels for seed in range(100)])
    assert binomtest(int((drawn == favourite).sum()), len(drawn), 0.1).pvalue > 1e-3
    assert chisquare(torch.bincount(drawn, minlength=10).numpy()).pvalue > 1e-3


def test_labels_avoid_what_the_carrier_shows_where_they_should() -> None:
    mark = minted("uniform labels")
    assert mark.carriers is not None
    assert not bool((mark.labels == mark.carriers.labels).any())
    assert mark.null.rate == 1 / 9


@pytest.mark.parametrize("mint", [Fused(), Penetrative(search=None), Sliced()], ids=lambda mint: mint.name)
def test_triggers_that_need_one_another_are_not_sliced(mint: TriggerMint) -> None:
    with pytest.raises(BadInput, match="separable"):
        Sliced(of=mint)


def test_labels_that_no_key_draws_and_contradictions_are_refused() -> None:
    with pytest.raises(BadInput, match="uniform or not-true"):
        Sliced(of=Noise(labels=OneClass(1)))
    with pytest.raises(BadInput, match="leave them out"):
        Sliced(count=3, of=Noise(count=4))
    for of in (3, None, Sliced(of=Noise(count=4)).settings()):
        with pytest.raises(BadInput, match="the mint that is sliced"):
            from_settings({"mint": "sliced", "of": of})
    assert Sliced().count == Noise().count


def test_a_sliced_mark_shows_nothing_of_itself() -> None:
    assert repr(minted("noise")) == "TriggerSet(30 images 1x8x8, 10 classes)"
