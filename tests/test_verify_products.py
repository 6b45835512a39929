"""Bits that are signs of private times public scales: no flip of channels changes them, and none puts them there."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from functools import cache

import pytest
import torch
from passported import DATA, NAME, OWNER, SETTINGS, innocent, mark_for, marked, network
from torch import Tensor, nn

from earmark.attacks import (
    DummyChannels,
    FlipScales,
    FlipSigns,
    FoldNorm,
    MarkByFlips,
    PermuteChannels,
    SolvedPassports,
)
from earmark.core import rng
from earmark.embed import PassportLayers, passport_v1
from earmark.errors import BadInput, CannotCarry
from earmark.evidence import Bundle, claim_of, judge
from earmark.evidence.judge import minting_fault
from earmark.keys import MarkKey
from earmark.layers import PassportNorm, find_sites, public_scales
from earmark.marks import PassportMint, Passports
from earmark.training import SignLoss, Step, accuracy, predict
from earmark.verify import PassportTest

MINT = PassportMint(layers=3, signature="(c) A", witnesses=60, scale="product")
NORMS = ("bn", "gn", "resnet")


@cache
def product(norm: str) -> Passports:
    return MINT(OWNER.mark_key(NAME), network(norm), DATA)


@cache
def owned(norm: str) -> nn.Module:
    return PassportLayers(settings=SETTINGS, watch=0)(network(norm), product(norm), DATA, rng(5)).eval()


def share(model: nn.Module, mark: Passports) -> float:
    return float(PassportTest()(model, mark).details["share"])


# ----------------------------------------------------------------------------------------------------------- embedding


@pytest.mark.parametrize("norm", NORMS)
def test_every_bit_is_embedded_and_the_accuracy_is_that_of_private_bits(norm: str) -> None:
    verdict = PassportTest(grinding_bits=64)(owned(norm), product(norm))
    assert verdict.accepted
    assert verdict.details["exact"]
    assert accuracy(owned(norm), DATA.test) >= accuracy(marked(norm), DATA.test) - 0.02
    assert product(norm).text(product(norm).shown(owned(norm)), OWNER.mark_key(NAME)) == "(c) A"


def test_the_sign_loss_is_that_of_products_and_teaches_both_factors() -> None:
    mark = product("bn")
    model = PassportLayers().protected(network("bn"), mark, DATA)
    layers = [
        module for module in (model.get_submodule(s.norm) for s in mark.sites) if isinstance(module, PassportNorm)
    ]
    public: list[Tensor] = [layer.norm.get_parameter("weight") for layer in layers]
    for weight in public:
        nn.init.normal_(weight, generator=rng(1))
    private = torch.cat([layer.affine()[0] for layer in layers])
    loss = SignLoss(tuple(site.norm for site in mark.sites), mark.bits, margin=0.1, ridge=0.0, product=True)
    empty = torch.empty(0)
    value = loss(Step(empty, empty, empty, empty, 0, 1.0, None, model, {}))
    hinges = (0.1 - mark.bits * private * torch.cat(public)).clamp(min=0)
    torch.testing.assert_close(value, hinges.sum())
    slopes = torch.cat(torch.autograd.grad(value, public, retain_graph=True))
    torch.testing.assert_close(slopes, -mark.bits * private * (hinges > 0))
    weights = torch.autograd.grad(value, mark.weights_in(model))
    assert all(bool(slope.any()) for slope in weights)


def test_v1_has_no_public_scale_to_multiply_with() -> None:
    with pytest.raises(BadInput, match="V1 has no public scale"):
        passport_v1()(network("bn"), product("bn"), DATA, rng(1))


# ------------------------------------------------------------------------------------------------------------- attacks


@pytest.mark.parametrize("norm", NORMS)
def test_flipped_signs_leave_every_product_and_half_of_the_private_bits(norm: str) -> None:
    flip = FlipSigns(layers="*")
    assert share(flip(owned(norm), DATA, rng(1)), product(norm)) == 1
    assert 0.35 < share(flip(marked(norm), DATA, rng(1)), mark_for(norm)) < 0.65


@pytest.mark.parametrize("norm", ["bn", "resnet"])
def test_a_norm_folded_into_its_convolution_leaves_the_product_there(norm: str) -> None:
    stolen = FoldNorm(layers="*")(FlipSigns(layers="*")(owned(norm), DATA, rng(1)), DATA, rng(2))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in stolen.modules())
    assert share(stolen, product(norm)) > 0.99


@pytest.mark.parametrize("norm", NORMS)
def test_moved_widened_and_flipped_channels_are_aligned_as_private_ones_are(norm: str) -> None:
    stolen = owned(norm)
    for attack in (PermuteChannels(layers="*"), FlipSigns(layers="*"), DummyChannels(layers="*")):
        stolen = attack(stolen, DATA, rng(3))
    assert not PassportTest()(stolen, product(norm)).accepted
    found = PassportTest(released=owned(norm))(stolen, product(norm))
    assert found.accepted
    assert found.details["share"] == 1


class Negated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


def test_signs_that_are_hidden_between_filter_and_norm_are_found_by_alignment() -> None:
    mark, stolen = product("bn"), copy.deepcopy(owned("bn"))
    with torch.no_grad():
        for weight in mark.weights_in(stolen):
            weight.neg_()
    for site in mark.sites:
        stolen.set_submodule(site.norm, nn.Sequential(Negated(), stolen.get_submodule(site.norm)))
    torch.testing.assert_close(predict(stolen, DATA.test), predict(owned("bn"), DATA.test))
    assert share(stolen, mark) < 0.1
    found = PassportTest(released=owned("bn"))(stolen, mark)
    assert found.accepted
    assert found.details["share"] == 1


def test_a_network_with_other_names_is_read_where_its_norms_are() -> None:
    trunk, mix, head = owned("bn").children()
    renamed = nn.Sequential(trunk, mix, nn.ReLU(), head)
    assert find_sites(renamed, DATA.test.pixels[:1].float() / 255, 1)[0].conv.startswith("0.")
    assert share(FlipSigns()(renamed, DATA, rng(1)), product("bn")) == 1


def test_negated_scales_alone_cost_bits_and_accuracy_together() -> None:
    stolen = FlipScales(0.5)(owned("bn"), DATA, rng(1))
    assert 0.35 < share(stolen, product("bn")) < 0.65
    assert accuracy(stolen, DATA.test) < 0.8


def test_whoever_finds_a_network_cannot_flip_his_products_into_it() -> None:
    """Private bits he can, and behind batch norm all of them. Dates are needed for both, as channels can be moved."""
    theirs = PassportMint(layers=3, witnesses=60)
    private, own = (mint(MarkKey(bytes(32)), owned("bn"), DATA) for mint in (theirs, MINT))
    assert share(MarkByFlips()(owned("bn"), private, DATA, rng(1)), private) == 1
    with pytest.raises(CannotCarry, match="a flip leaves as they are"):
        MarkByFlips()(owned("bn"), own, DATA, rng(1))
    before = own.shown(owned("bn"))
    assert all(torch.equal(own.shown(FlipSigns()(owned("bn"), DATA, rng(seed))), before) for seed in range(3))


def test_solved_passports_are_still_minted_by_no_key() -> None:
    forgery = SolvedPassports().forge(owned("bn"), DATA, rng(2))
    assert minting_fault(forgery.mark, forgery.key) is not None


# ---------------------------------------------------------------------------------------------------------------- null


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_matches_of_networks_that_know_no_key_are_binomial_over_keys(norm: str) -> None:
    """A network with trained scales of both signs, and one whose public scales all are positive."""
    keys = [MarkKey(number.to_bytes(32, "big")) for number in range(60)]
    for suspect in (innocent(norm, 0), FlipScales(0.5, layers="*")(owned(norm), DATA, rng(1))):
        marks = [MINT(key, network(norm), DATA) for key in keys]
        counts = torch.tensor([float((mark.shown(suspect) == mark.bits).sum()) for mark in marks])
        n = len(marks[0])
        assert abs(float(counts.mean()) - n / 2) < 4 * (n / 4 / len(keys)) ** 0.5
        assert 0.6 * n / 4 < float(counts.var()) < 1.6 * n / 4


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("norm", NORMS)
def test_networks_of_others_are_found_neither_way(norm: str, seed: int) -> None:
    found = PassportTest(released=owned(norm))(innocent(norm, seed), product(norm))
    assert found.accepted is False
    assert found.details["alignment"]["share"] < 0.25


# ------------------------------------------------------------------------------------------------------------ evidence


def test_a_judge_mints_products_again_and_finds_them_in_flipped_channels_without_any_release() -> None:
    mark = product("bn")
    bundle = Bundle.seal(mark, OWNER.mark_key(NAME), name=NAME, scheme="deepipr")
    claim = claim_of(OWNER, bundle, host=None, marked=owned("bn"), time=datetime(2024, 5, 1, tzinfo=UTC))
    assert "product of a private and a public scale" in claim.parameters.null.words
    stolen = FlipSigns(layers="*")(owned("bn"), DATA, rng(7))
    assert judge(claim, bundle, stolen).accepted
    assert judge(claim, bundle, innocent("bn", 1)).accepted is False


def test_the_scale_is_bound_to_the_bits_and_private_marks_are_as_they_were() -> None:
    private = PassportMint(layers=3, signature="(c) A", witnesses=60)(OWNER.mark_key(NAME), network("bn"), DATA)
    assert "scale" not in private.settings
    assert product("bn").settings["scale"] == "product"
    assert 0.3 < float((private.bits == product("bn").bits).double().mean()) < 0.7
    assert Passports.from_parts(product("bn").spec(), product("bn").tensors()).digest() == product("bn").digest()


def test_public_scales_are_those_of_the_norms_that_run_behind() -> None:
    example, model = DATA.test.pixels[:1].float() / 255, owned("bn")
    found = public_scales(model, example)
    for site in find_sites(model, example, "*"):
        weight = model.get_submodule(site.norm).weight
        assert isinstance(weight, Tensor)
        torch.testing.assert_close(found[site.conv], weight.detach().double())
    assert public_scales(FoldNorm(layers="*")(model, DATA, rng(1)), example) == {}


# ----------------------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_read_is_refused() -> None:
    mark = product("bn")
    with pytest.raises(BadInput, match="take at least 1"):
        PassportMint(scale="product", witnesses=0)
    with pytest.raises(BadInput, match="did you mean 'product'"):
        PassportMint(scale="prodct")  # type: ignore[arg-type]
    for scale in ("prodct", ["product"], None):
        with pytest.raises(BadInput, match="scale of passports"):
            Passports(mark.sites, mark.pairs, mark.bits, {**mark.settings, "scale": scale}, mark.witnesses)
    with pytest.raises(BadInput, match="give the public scales"):
        mark.read(mark.weights_in(owned("bn")))
    blind = Passports(mark.sites, mark.pairs, mark.bits, mark.settings)
    assert "no witnesses to run" in PassportTest()(owned("bn"), blind).reason
