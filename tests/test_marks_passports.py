"""Passports as a mark: minted from a key, bound to all that they consist of, and read by chance alone elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from math import comb
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare
from tiny import Chain, blobs
from torch import Tensor, nn

from earmark.core import Data, rng
from earmark.errors import BadInput, CannotCarry
from earmark.keys import MarkKey
from earmark.layers import Site
from earmark.marks import PassportMint, Passports, mark_from_parts, passport_mint
from earmark.models import built
from earmark.training import CrossEntropy, Settings, fit

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(90, seed=1), blobs(60, seed=2))
HOST = built(lambda: Chain(classes=3), rng(0))
MINT = PassportMint(layers=2, signature="é", witnesses=10)
MARK = MINT(KEY, HOST, DATA)
GOLDEN = "4f7c08d074db614fb1b48a956d3adbaef4e1c3e9aebbbcaffa89309e69aad113"
How = Literal["random", "image", "shuffle", "mix"]
MADE: tuple[How, ...] = ("image", "shuffle", "mix")


def key(number: int) -> MarkKey:
    return MarkKey(number.to_bytes(32, "big"))


@lru_cache
def trained() -> nn.Module:
    """HOST, trained: its feature maps may be passports."""
    net = copy.deepcopy(HOST)
    run = Settings(epochs=8, batch_size=15, lr=1e-2, batchnorm="train")
    fit(net, DATA.train, (CrossEntropy(),), run, rng(0))
    return net


def minted(how: How, **changes: Any) -> Passports:
    return PassportMint(layers=2, passports=how, images=12, witnesses=0, **changes)(KEY, trained(), DATA)


# ------------------------------------------------------------------------------------------------------------- minting


def test_a_key_mints_today_what_it_minted_before() -> None:
    assert MARK.digest() == GOLDEN


def test_the_same_key_mints_the_same_mark_and_another_key_another() -> None:
    assert MINT(KEY, HOST, DATA).digest() == MARK.digest()
    assert MINT(KEY, trained(), DATA).digest() == MARK.digest()
    other = MINT(key(1), HOST, DATA)
    assert not torch.equal(other.bits, MARK.bits)
    assert not torch.equal(other.pairs[0][0], MARK.pairs[0][0])
    assert other.witnesses is not None
    assert MARK.witnesses is not None
    assert not torch.equal(other.witnesses.pixels, MARK.witnesses.pixels)


@pytest.mark.parametrize("how", ["random", *MADE])
def test_a_judge_mints_each_kind_again_from_its_own_spec(how: How) -> None:
    mark = minted(how, signature="ab")
    assert minted(how, signature="ab").digest() == mark.digest()
    assert passport_mint(mark.settings).remake(KEY, mark).digest() == mark.digest()
    assert passport_mint(mark.settings).remake(key(1), mark).digest() != mark.digest()


def test_random_passports_are_uniform_between_minus_one_and_one_and_all_different() -> None:
    net = nn.Sequential(nn.Conv2d(1, 20, 3, padding=1), nn.GroupNorm(2, 20), nn.Conv2d(20, 8, 3), nn.GroupNorm(1, 8))
    mark = PassportMint(2, witnesses=0)(KEY, net, DATA)
    (a, b), (c, d) = mark.pairs
    assert a.shape == b.shape == (1, 1, 8, 8)
    assert c.shape == d.shape == (1, 20, 8, 8)
    drawn = torch.cat([part.flatten() for part in (a, b, c, d)])
    assert len(set(drawn.tolist())) > 0.99 * len(drawn)
    counts = torch.histc(drawn, bins=20, min=-1, max=1)
    assert int(counts.sum()) == len(drawn)
    assert chisquare(counts.numpy()).pvalue > 1e-6


def test_feature_maps_are_what_the_trained_network_has_at_the_layers() -> None:
    """The oracle runs the layers before each site by hand, on every test image."""
    host = copy.deepcopy(trained()).eval()
    assert isinstance(host, Chain)
    with torch.no_grad():
        maps = [host.trunk[:upto](DATA.test.pixels.float() / 255) for upto in (3, 6)]
    for how in ("image", "shuffle"):
        for pair, every in zip(minted(how).pairs, maps, strict=True):
            for passport in pair:
                assert float((every - passport).abs().amax((1, 2, 3)).min()) < 1e-5
    for pair, every in zip(minted("mix").pairs, maps, strict=True):
        for passport in pair:
            from_images, of_channels = set(), []
            for channel in passport[0]:
                apart = (every - channel).abs().amax((2, 3))
                if float(channel.abs().max()) > 0:
                    assert float(apart.min()) < 1e-5
                    at = int(apart.argmin())
                    from_images.add(at // every.shape[1])
                    of_channels.append(at % every.shape[1])
            assert len(from_images) > 1
            assert len(set(of_channels)) == len(of_channels)


def test_minting_feature_maps_leaves_the_network_as_it_was() -> None:
    host = copy.deepcopy(trained()).train()
    before = copy.deepcopy(host.state_dict())
    PassportMint(2, passports="mix", images=3)(KEY, host, DATA)
    assert host.training
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())
    assert not any(module._forward_pre_hooks for module in host.modules())


@pytest.mark.parametrize("how", MADE)
def test_an_untrained_network_is_refused_for_feature_maps(how: How) -> None:
    with pytest.raises(BadInput, match="need a trained network"):
        PassportMint(2, passports=how, images=2)(KEY, built(lambda: Chain(classes=3), rng(4)), DATA)


def test_a_network_that_always_names_the_most_frequent_class_has_learnt_nothing() -> None:
    class Blind(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + torch.tensor([0.0, 1.0, 0.0])

    frequent = Data(DATA.train.subset(DATA.train.labels.clamp(1).sort().indices[:50]), DATA.test)
    with pytest.raises(BadInput, match="need a trained network"):
        PassportMint(1, passports="image")(KEY, Blind(classes=3), frequent)


def test_a_network_of_two_classes_that_is_right_two_times_in_three_is_trained() -> None:
    class TwoInThree(Chain):
        def forward(self, x: Tensor) -> Tensor:
            known = torch.arange(len(x)) % 3 > 0
            right = nn.functional.one_hot((x[:, 0, 0, 0] < 0.4).long() ^ ~known, 2).float()
            return super().forward(x) * 0 + right

    two = Data(blobs(90, 2), blobs(60, 2))
    assert len(PassportMint(1, passports="image")(KEY, TwoInThree(classes=2), two)) == 12


# ---------------------------------------------------------------------------------------------------------- the content


@pytest.mark.parametrize("text", ["", "é", "ab", "\x00\x00"])
def test_the_text_is_read_back(text: str) -> None:
    mark = PassportMint(2, text, witnesses=0)(KEY, HOST, DATA)
    assert mark.text(mark.bits, KEY) == text


def test_one_wrong_bit_spoils_one_letter_or_none() -> None:
    mark, spoilt = PassportMint(2, "ab", witnesses=0)(KEY, HOST, DATA), []
    for at in range(len(mark)):
        bits = mark.bits.clone()
        bits[at] *= -1
        spoilt.append(sum(a != b for a, b in zip(mark.text(bits, KEY), "ab", strict=True)))
    assert sorted(spoilt) == [0] * 4 + [1] * 16


def test_the_text_says_nothing_to_another_key() -> None:
    mark = PassportMint(2, "ab", witnesses=0)(KEY, HOST, DATA)
    assert all(mark.text(mark.bits, key(number)) != "ab" for number in range(50))


def test_whatever_text_is_chosen_the_bits_are_fair_coins() -> None:
    """A text of nothing but zeros or ones shifts neither the share of +1 nor that of any channel."""
    for text in ("", "\x00" * 2, "\x7f" * 2):
        bits = torch.stack([PassportMint(2, text).make(key(n), MARK.sites).bits for n in range(300)])
        low, high = binom.interval(1 - 1e-6, bits.numel(), 0.5)
        assert low <= int((bits > 0).sum()) <= high
        low, high = binom.interval(1 - 1e-7, len(bits), 0.5)
        assert all(low <= int(count) <= high for count in (bits > 0).sum(0))


def test_another_text_another_pixel_and_another_site_draw_all_bits_anew() -> None:
    """Agreement with the bits before is that of coins: every channel changes in about half of the cases."""
    mint = PassportMint(2, "ab", passports="image", witnesses=0)
    site, last = MARK.sites
    changes: list[Callable[[int], Passports]] = [
        lambda n: PassportMint(2, chr(97 + n % 20) + chr(98 + n // 20), "image", witnesses=0).make(
            KEY, MARK.sites, MARK.pairs
        ),
        lambda n: mint.make(KEY, MARK.sites, (MARK.pairs[0], _nudged(MARK.pairs[1], n))),
        lambda n: mint.make(KEY, (_named(site, n), last), MARK.pairs),
    ]
    own = mint.make(KEY, MARK.sites, MARK.pairs).bits
    for change in changes:
        changed = torch.stack([change(n).bits != own for n in range(1, 201)])
        low, high = binom.interval(1 - 1e-6, changed.numel(), 0.5)
        assert low <= int(changed.sum()) <= high
        assert bool(changed.any(0).all())
        assert not bool(changed.all(0).any())


def _nudged(pair: tuple[Tensor, Tensor], number: int) -> tuple[Tensor, Tensor]:
    shift = pair[1].clone()
    shift.view(-1)[number] += 2**-20
    return pair[0], shift


def _named(site: Site, number: int) -> Site:
    return Site(**{**site.__dict__, "norm": f"norm{number}"})


def test_an_innocent_networks_matches_are_those_of_coins_over_many_keys() -> None:
    """However unfair its signs are: here nearly all scales of one network are positive."""
    net = built(lambda: Chain(classes=3), rng(7))
    kernel = net.get_submodule("trunk.6").weight
    assert isinstance(kernel, Tensor)
    for weights in ([net.get_submodule("trunk.3").weight, kernel], [torch.ones(8, 8, 3, 3), torch.ones(12, 8, 3, 3)]):
        matches = []
        for number in range(400):
            mark = MINT.make(key(number), MARK.sites)
            matches.append(int((mark.read(weights) == mark.bits).sum()))  # type: ignore[arg-type]
        middle = torch.tensor(matches).clamp(6, 14) - 6
        rates = [comb(20, k) / 2**20 for k in range(21)]
        expected = [400 * rate for rate in (sum(rates[:7]), *rates[7:14], sum(rates[14:]))]
        assert chisquare(torch.bincount(middle, minlength=9).tolist(), expected).pvalue > 1e-6


def test_a_scale_of_nothing_and_no_number_is_no_bit() -> None:
    weights = [torch.zeros(8, 8, 3, 3), torch.full((12, 8, 3, 3), float("nan"))]
    assert not bool(MARK.read(weights).any())


def test_the_signs_read_are_those_of_the_averaged_convolution() -> None:
    net = built(lambda: Chain(classes=3), rng(9))
    convs = [net.get_submodule(site.conv) for site in MARK.sites]
    wanted = torch.cat([conv(pair[0]).mean((0, 2, 3)).sign() for conv, pair in zip(convs, MARK.pairs, strict=True)])
    assert torch.equal(MARK.read(MARK.weights_in(net)), wanted.to(torch.int8))


def test_a_renamed_network_is_read_by_shape_and_others_are_refused() -> None:
    renamed = nn.ModuleDict({"a": nn.Conv2d(1, 8, 3), "b": nn.Conv2d(8, 8, 3), "c": nn.Conv2d(8, 12, 3)})
    found = MARK.weights_in(renamed)
    assert [tuple(weight.shape) for weight in found] == [site.weight for site in MARK.sites]
    for other in (nn.Linear(3, 3), Chain(width=4), nn.Sequential(nn.Conv2d(8, 8, 3), *[nn.Conv2d(8, 12, 3)] * 1)[:1]):
        with pytest.raises(CannotCarry, match="neither by name nor by shape"):
            MARK.weights_in(other)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_signature_as_long_as_the_capacity_fits_and_a_longer_one_is_refused() -> None:
    assert MARK.capacity == 20
    assert len(PassportMint(2, "ab")(KEY, HOST, DATA)) == 20
    with pytest.raises(BadInput, match="24 bits and there is room for 20"):
        PassportMint(2, "abc")(KEY, HOST, DATA)
    assert len(PassportMint(3, "abc")(KEY, HOST, DATA)) == 28


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"passports": "shufle"}, "did you mean 'shuffle'"),
        ({"layers": 0}, "layers"),
        ({"layers": 1.5}, "layers"),
        ({"signature": "\ud800"}, "UTF-8"),
        ({"signature": b"ab"}, "signature"),
        ({"images": 0}, "images"),
        ({"witnesses": -1}, "witnesses"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_settings_out_of_range_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        PassportMint(**given)


def test_a_host_and_enough_test_images_are_needed() -> None:
    with pytest.raises(BadInput, match="give the host"):
        MINT(KEY, None, DATA)
    with pytest.raises(BadInput, match="need 120 test images, got 60"):
        PassportMint(2, passports="mix", images=60)(KEY, trained(), DATA)


def test_nothing_secret_is_shown() -> None:
    shown = repr(MARK) + str(MARK) + repr(PassportMint(2)) + repr(MARK.witnesses)
    assert repr(MARK) == "Passports(20 bits in 2 layers)"
    for secret in ("tensor", "-1", KEY.secret.hex()):
        assert secret not in shown


# ---------------------------------------------------------------------------------------------------------- from files


def parts(mark: Passports = MARK) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return mark.spec(), {name: tensor.clone() for name, tensor in mark.tensors().items()}


@pytest.mark.parametrize("how", ["random", *MADE])
def test_parts_to_mark_is_the_identity(how: How) -> None:
    for mark in (minted(how), MARK):
        again = mark_from_parts("passports", *parts(mark))
        assert isinstance(again, Passports)
        assert again.digest() == mark.digest()
        assert again.sites == mark.sites
        assert again.null == mark.null


def test_a_mark_cannot_be_changed_through_what_it_hands_out() -> None:
    before = MARK.digest()
    spec = MARK.spec()
    spec["settings"]["tolerance"] = 99
    spec["sites"][0]["conv"] = "x"
    assert MARK.digest() == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2, 3, 8, 20, 1 << 20, 1 << 21, 1 << 62, 10**30, 0.5, float("nan"), float("inf")])
    | st.sampled_from(["", "random", "image", "zeros", "reflect", "circular", "passports", "trunk.3", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["conv", "tolerance"]), inner),
    max_leaves=5,
)
PLACES = [
    ("sites",),
    ("settings",),
    ("classes",),
    *(("sites", at) for at in (0, 1)),
    *(("sites", at, name) for at in (0, 1) for name in MARK.sites[0].to_dict()),
    *(("sites", 0, name, at) for name in ("inputs", "kernel", "stride", "dilation", "padding") for at in (0, 1)),
    *(("settings", name) for name in MARK.settings),
    ("settings", "more"),
    ("more",),
]
TENSORS: list[Callable[[Tensor], Tensor]] = [
    lambda t: t.double(),
    lambda t: t.to(torch.uint8),
    lambda t: t[:0],
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: t * 0,
    lambda t: (t.float() * float("nan")).to(t.dtype),
    lambda t: torch.zeros(()),
    lambda t: t[..., :1],
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=3),
    st.lists(st.tuples(st.sampled_from([*MARK.tensors(), "scale.2", "more"]), st.sampled_from(TENSORS)), max_size=2),
)
def test_hostile_parts_are_a_sound_mark_or_bad_input(
    changed: list[tuple[tuple[Any, ...], Any]], tensors: list[tuple[str, Callable[[Tensor], Tensor]]]
) -> None:
    """And all that a judge asks of a mark that could be read: its passports, text, bits and tolerance."""
    spec, held = parts()
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
        mark = mark_from_parts("passports", spec, held)
        assert isinstance(mark, Passports)
        mark.digest()
        mark.read([torch.ones(site.weight) for site in mark.sites])
        assert 0 <= mark.tolerance <= 100
        assert len(passport_mint(mark.settings).remake(KEY, mark)) == len(mark)
        mark.text(mark.bits, KEY)
    except BadInput:
        return
    assert len(mark) == 20


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": [11, 3]},
        {"kernel": [1 << 20, 1 << 20]},
        {"padding": [1 << 20] * 4},
        {"dilation": [1 << 20, 1]},
        {"padding_mode": "reflect", "padding": [8, 8, 8, 8]},
        {"padding_mode": "circular", "padding": [9, 0, 0, 0]},
        {"groups": 3},
    ],
)
def test_a_site_whose_convolution_cannot_be_computed_is_refused_before_it_is(changes: dict[str, Any]) -> None:
    spec, held = parts()
    spec["sites"][0] |= changes
    with pytest.raises(BadInput, match="passports"):
        mark_from_parts("passports", spec, held)
