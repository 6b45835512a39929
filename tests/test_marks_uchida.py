"""Projections as a mark: minted from a key for one layer, bound to all they consist of, read by chance elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, kstest
from tiny import Chain, TinyNet, blobs
from torch import Tensor, nn

from earmark.core import Data, rng
from earmark.errors import BadInput, CannotCarry
from earmark.keys import MarkKey
from earmark.marks import Projection, ProjectionMint, mark_from_parts, projection_mint
from earmark.marks.uchida import Layer
from earmark.models import built

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(30, seed=1), blobs(30, seed=2))
HOST = built(lambda: Chain(classes=3), rng(0))
MINT = ProjectionMint("trunk.6", 40, "é")
MARK = MINT(KEY, HOST, DATA)
GOLDEN = "0ac3db113fd12b51653873cce8286912edcb1f14ea7fb1cf2e9a6ef3efb5f064"


def key(number: int) -> MarkKey:
    return MarkKey(number.to_bytes(32, "big"))


# ------------------------------------------------------------------------------------------------------------- minting


def test_a_key_mints_today_what_it_minted_before() -> None:
    assert MARK.digest() == GOLDEN


def test_a_judge_mints_it_again_from_its_own_spec_and_no_other_key_does() -> None:
    assert MINT(KEY, built(lambda: Chain(classes=3), rng(9)), DATA).digest() == MARK.digest()
    again = projection_mint(MARK.settings)
    assert again.remake(KEY, MARK).digest() == MARK.digest()
    other = again.remake(key(1), MARK)
    assert not torch.equal(other.bits, MARK.bits)
    assert not torch.equal(other.projection, MARK.projection)


def test_the_projection_is_standard_normal() -> None:
    drawn = ProjectionMint("trunk.6", 72)(KEY, HOST, DATA).projection
    assert drawn.shape == (72, 72)
    assert kstest(drawn.flatten().double().numpy(), "norm").pvalue > 1e-6


@pytest.mark.parametrize(
    ("build", "name", "size"),
    [
        (lambda: Chain(classes=3), "trunk.3", 72),
        (TinyNet, "mix", 72),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 5), nn.Flatten(), nn.Linear(4, 3)), "0", 15),
        (lambda: nn.Sequential(nn.Conv3d(3, 6, 3, groups=3), nn.Conv2d(4, 4, 5)), "1", 100),
    ],
)
def test_the_convolution_with_the_largest_filters_is_chosen_the_first_of_equals(
    build: Callable[[], nn.Module], name: str, size: int
) -> None:
    mark = ProjectionMint()(KEY, built(build, rng(0)), DATA)
    assert (mark.layer.name, mark.layer.size, len(mark)) == (name, size, 2 * size // 3)


def test_of_wide_layers_the_papers_256_bits_are_taken_and_a_linear_layer_by_name() -> None:
    net = nn.Sequential(nn.Linear(400, 5), nn.Linear(5, 3))
    assert len(ProjectionMint("0")(KEY, net, DATA)) == 256
    assert len(ProjectionMint("0", 400)(KEY, net, DATA)) == 400


@pytest.mark.parametrize(
    ("mint", "net", "says"),
    [
        (ProjectionMint(), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), r"no convolution.*'0' \(4 bits\)"),
        (ProjectionMint(), nn.Sequential(nn.ReLU()), "no convolution and no linear layer"),
        (ProjectionMint("trunk.*"), HOST, r"3 layers are called 'trunk\.\*'.*'trunk\.3' \(72 bits\)"),
        (ProjectionMint("conv9"), HOST, "0 layers are called 'conv9'"),
        (ProjectionMint("trunk.0", 10), HOST, "carries 9, the numbers of one filter"),
        (ProjectionMint(signature="a" * 7), HOST, "56 bits and there is room for 48"),
        (ProjectionMint(), None, "give the host"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(mint: ProjectionMint, net: nn.Module | None, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        mint(KEY, net, DATA)


@pytest.mark.parametrize(
    ("given", "says"),
    [({"layer": 3}, "layer"), ({"bits": 0}, "bits"), ({"bits": 1.5}, "bits"), ({"signature": "\ud800"}, "UTF-8")],
)
def test_settings_out_of_range_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        ProjectionMint(**given)


# ---------------------------------------------------------------------------------------------------------- the content


@pytest.mark.parametrize("text", ["", "é", "abcde"])
def test_the_text_is_read_back_and_says_nothing_to_another_key(text: str) -> None:
    mark = ProjectionMint("trunk.6", 40, text)(KEY, HOST, DATA)
    assert mark.text(mark.bits, KEY) == text
    assert not text or all(mark.text(mark.bits, key(number)) != text for number in range(50))


def test_whatever_text_is_chosen_the_bits_are_fair_coins() -> None:
    for text in ("", "\x00" * 5, "\x7f" * 5):
        mint = ProjectionMint("trunk.6", 40, text)
        bits = torch.stack([mint.make(key(n), MARK.layer, MARK.shape, 3).bits for n in range(200)])
        low, high = binom.interval(1 - 1e-6, bits.numel(), 0.5)
        assert low <= int((bits > 0).sum()) <= high
        low, high = binom.interval(1 - 1e-7, len(bits), 0.5)
        assert all(low <= int(count) <= high for count in (bits > 0).sum(0))


def test_another_text_and_another_layer_draw_all_bits_anew() -> None:
    for mint, layer in (
        (ProjectionMint("trunk.6", 40, "f"), MARK.layer),
        (MINT, Layer("trunk.7", MARK.layer.weight)),
    ):
        changed = int((mint.make(KEY, layer, MARK.shape, 3).bits != MARK.bits).sum())
        assert 5 <= changed <= 35


def test_the_bits_read_are_the_signs_of_the_projected_mean_filter() -> None:
    weight = HOST.state_dict()["trunk.6.weight"]
    mean = torch.stack([weight[o].flatten() for o in range(len(weight))]).mean(0)
    wanted = [1 if float(torch.sigmoid(row @ mean)) >= 0.5 else -1 for row in MARK.projection]
    assert MARK.shown(HOST).tolist() == wanted


def test_an_innocent_networks_matches_are_those_of_coins_over_many_keys() -> None:
    """However unfair its signs are: one weight that is all positive, and a network's own."""
    weight = HOST.state_dict()["trunk.6.weight"]
    for innocent in (weight, torch.ones_like(weight)):
        marks = [MINT.make(key(number), MARK.layer, MARK.shape, 3) for number in range(300)]
        matches = sum(int((mark.read(innocent) == mark.bits).sum()) for mark in marks)
        assert binomtest(matches, 300 * 40, 0.5).pvalue > 1e-6


def test_a_projection_of_nothing_and_no_number_is_no_bit() -> None:
    for value in (0.0, float("nan")):
        assert not bool(MARK.read(torch.full((12, 8, 3, 3), value)).any())


def test_a_renamed_network_is_read_by_the_layers_place_and_others_are_refused() -> None:
    alike = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1))
    mark = ProjectionMint("1", 20)(KEY, alike, DATA)
    assert (mark.layer.place, mark.layer.alike) == (1, 2)
    renamed = nn.ModuleDict({name: alike[at] for at, name in enumerate("abc")})
    assert mark.name_in(renamed) == "b"
    assert torch.equal(mark.shown(renamed), mark.shown(alike))
    for other in (nn.Linear(3, 3), Chain(width=4), nn.ModuleDict({"a": alike[0]})):
        with pytest.raises(CannotCarry, match="neither by name nor by shape"):
            mark.shown(other)


def test_nothing_secret_is_shown() -> None:
    assert repr(MARK) == str(MARK) == "Projection(40 bits in one layer)"


# ---------------------------------------------------------------------------------------------------------- from files


def test_parts_to_mark_is_the_identity() -> None:
    again = mark_from_parts("projection", MARK.spec(), MARK.tensors())
    assert isinstance(again, Projection)
    assert again.digest() == MARK.digest()
    assert (again.layer, again.shape, again.classes, again.null) == (MARK.layer, MARK.shape, 3, MARK.null)


def test_a_mark_cannot_be_changed_through_what_it_hands_out() -> None:
    before, spec = MARK.digest(), MARK.spec()
    spec["settings"]["bits"] = 9
    spec["layer"]["weight"][0] = 1
    assert MARK.digest() == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2, 3, 8, 40, 72, 1 << 14, 1 << 24, 1 << 62, 10**30, 0.5, float("nan")])
    | st.sampled_from(["", "projection", "trunk.3", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "bits"]), inner),
    max_leaves=5,
)
PLACES = [
    *((name,) for name in (*MARK.spec(), "more")),
    *(("layer", name) for name in (*MARK.layer.to_dict(), "more")),
    *(("layer", "weight", at) for at in range(4)),
    *(("shape", at) for at in range(3)),
    *(("settings", name) for name in (*MARK.settings, "more")),
]
TENSORS: list[Callable[[Tensor], Tensor]] = [
    lambda t: t.double(),
    lambda t: t[:0],
    lambda t: t[:1],
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: t * 0,
    lambda t: (t.float() * float("nan")).to(t.dtype),
    lambda t: torch.zeros(()),
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=3),
    st.lists(st.tuples(st.sampled_from(["bits", "projection", "more"]), st.sampled_from(TENSORS)), max_size=2),
)
def test_hostile_parts_are_a_sound_mark_or_bad_input(
    changed: list[tuple[tuple[Any, ...], Any]], tensors: list[tuple[str, Callable[[Tensor], Tensor]]]
) -> None:
    """And all that a judge asks of a mark that could be read: its text, its bits, and to be minted again."""
    spec, held = MARK.spec(), {name: tensor.clone() for name, tensor in MARK.tensors().items()}
    for (*above, last), value in changed:
        parent: Any = spec
        try:
            for name in above:
                parent = parent[name]
            parent[last] = value
        except (KeyError, TypeError, IndexError, AttributeError):
            continue
    for name, change in tensors:
        held[name] = change(MARK.tensors().get(name, MARK.bits))
    try:
        mark = mark_from_parts("projection", spec, held)
        assert isinstance(mark, Projection)
        mark.digest()
        mark.read(torch.ones(3, mark.layer.size))
        mark.text(mark.bits, KEY)
        projection_mint(mark.settings).remake(KEY, mark)
    except BadInput:
        return
    assert len(mark) == len(mark.projection)


@pytest.mark.parametrize("shape", [[1 << 24] * 3, [3, 1 << 13, 1 << 13], [2, 8, 8], [3, 8], [0, 8, 8], "388"])
def test_images_that_no_network_takes_are_refused(shape: Any) -> None:
    with pytest.raises(BadInput, match="image"):
        mark_from_parts("projection", {**MARK.spec(), "shape": shape}, MARK.tensors())


def test_a_judge_is_kept_busy_by_no_file() -> None:
    wide = Layer("a", (1, 1 << 24))
    with pytest.raises(BadInput, match=r"at most 2\^25 numbers, got 256 x 16777216"):
        ProjectionMint().make(KEY, wide, (1, 8, 8), 3)
