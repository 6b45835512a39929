"""Forged passports: they pass verification as published, and a judge, who mints again, rejects them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from passported import DATA, innocent, mark_for, marked
from torch import Tensor, nn

from earmark.attacks import (
    CERB,
    PASSPORT_FORGERIES,
    FlipSigns,
    PassportForger,
    PassportForgery,
    RandomPassports,
    RetrainedPassports,
    ReverseScales,
    SolvedPassports,
)
from earmark.attacks.ambiguity.passports.learnt import FORGING, LearntAffine
from earmark.attacks.ambiguity.passports.linear import solved, spread
from earmark.core import Verdict, rng
from earmark.errors import BadInput, CannotCarry
from earmark.evidence import commit, judge
from earmark.files import model_digest
from earmark.layers import affine, find_sites, windows
from earmark.marks import Passports
from earmark.training import predict
from earmark.verify import PassportTest, PublishedPassportTest

QUICK = FORGING.but(epochs=8, batch_size=24, lr=0.02)


def judged(forgery: PassportForgery, out: Path) -> Verdict:
    """What a judge says of the forger's claim, signed and opened as any other."""
    claim, evidence = commit(
        forgery.owner,
        forgery.mark,
        name=forgery.name,
        host=None,
        marked=forgery.model,
        scheme="passports",
        out=out,
        check=False,
    )
    return judge(claim, evidence, forgery.model)


# ------------------------------------------------------------------------------------------------- the linear equations


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "reflect"]),
    size=st.sampled_from([(5, 4), (3, 3), (2, 2)]),
)
def test_what_is_solved_for_gives_the_wanted_scales_and_is_the_nearest_that_does(
    kernel: int, stride: int, groups: int, mode: str, size: tuple[int, int]
) -> None:
    conv = nn.Conv2d(12, 4, kernel, stride, kernel // 2, 1, groups, False, mode)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(torch.randn(conv.weight.shape, generator=rng(1)))
    site = find_sites(nn.Sequential(conv, nn.GroupNorm(1, 4)), torch.zeros(1, 12, *size), 1)[0]
    start, target = torch.rand(2, 12, *size, generator=rng(2)), torch.randn(2, 4, generator=rng(3))
    found = solved(conv.weight, site, start, target)
    means = torch.stack([windows(passport.unsqueeze(0), site) for passport in found])
    torch.testing.assert_close(affine(conv.weight.double(), means), target.double(), rtol=1e-6, atol=1e-6)
    other = solved(conv.weight, site, start + torch.rand(start.shape, generator=rng(4)), target)
    assert float((found - start).norm()) <= float((other - start).norm())


def test_the_spread_gives_the_windows_of_every_passport() -> None:
    conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    site = find_sites(nn.Sequential(conv, nn.GroupNorm(1, 4)), torch.zeros(1, 3, 20, 17), 1)[0]
    passport = torch.randn(1, 3, 20, 17, generator=rng(1), dtype=torch.float64)
    wanted = windows(passport, site).view(3, 9)
    torch.testing.assert_close(passport.view(3, -1) @ spread(site).t(), wanted)


# ------------------------------------------------------------------------------------------------------------ forgeries


@pytest.mark.parametrize(("norm", "public"), [("bn", True), ("bn", False), ("gn", True)])
@pytest.mark.parametrize("flips", [True, False])
def test_solved_passports_pass_the_published_test_with_exact_fidelity(norm: str, public: bool, flips: bool) -> None:
    forgery = SolvedPassports(flips=flips).forge(marked(norm, public), DATA, rng(2))
    verdict = PublishedPassportTest()(forgery.model, forgery.mark)
    assert verdict.accepted
    assert verdict.details["exact"]
    assert verdict.details["fidelity"]["public"] == verdict.details["fidelity"]["private"]
    torch.testing.assert_close(
        predict(forgery.model, DATA.test), predict(marked(norm, public), DATA.test), rtol=1e-3, atol=1e-3
    )


def test_behind_batch_norm_the_forger_chooses_every_bit_and_the_owners_are_gone() -> None:
    marks = [SolvedPassports().forge(marked("bn"), DATA, rng(seed)) for seed in (2, 3)]
    for forgery in marks:
        assert 0.35 < float((forgery.mark.bits > 0).double().mean()) < 0.65
        assert PassportTest()(forgery.model, mark_for("bn")).accepted is False
    assert 0.35 < float((marks[0].mark.bits == marks[1].mark.bits).double().mean()) < 0.65


@pytest.mark.parametrize("norm", ["bn", "gn"])
@pytest.mark.parametrize("forger", [ReverseScales(settings=QUICK), CERB(settings=QUICK.but(epochs=60))])
def test_scales_that_were_learnt_give_passports_that_pass_the_published_test(forger: PassportForger, norm: str) -> None:
    forgery = forger.forge(marked(norm), DATA, rng(2))
    assert PublishedPassportTest()(forgery.model, forgery.mark).accepted
    assert 0.35 < float((forgery.mark.bits == mark_for(norm).bits).double().mean()) < 0.65
    assert model_digest(forgery.model) == model_digest(marked(norm))


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_an_insider_trains_the_owners_passports_to_other_bits(norm: str) -> None:
    mark = mark_for(norm)
    forger = RetrainedPassports(mark=mark, share=0.5, settings=QUICK.but(clip=2.0, epochs=40, lr=0.1))
    forgery = forger.forge(marked(norm), DATA, rng(2))
    assert PublishedPassportTest()(forgery.model, forgery.mark).accepted
    assert 0.25 < float((forgery.mark.bits != mark.bits).double().mean()) <= 0.55
    assert forgery.mark.sites == mark.sites
    still = RetrainedPassports(mark=mark, share=0.0, settings=QUICK.but(clip=2.0, epochs=1)).forge(
        marked(norm), DATA, rng(2)
    )
    assert float((still.mark.bits == mark.bits).double().mean()) > 0.95


def test_too_few_images_and_passports_of_another_network_are_refused() -> None:
    with pytest.raises(BadInput, match="training images are none"):
        CERB(images=0.001)(marked("bn"), DATA, rng(1))
    with pytest.raises(CannotCarry):
        RetrainedPassports(mark=mark_for("resnet"), settings=QUICK)(marked("bn"), DATA, rng(1))


@pytest.mark.parametrize("passports", ["random", "mix"])
def test_random_passports_show_their_bits_and_answer_by_chance(passports: str) -> None:
    forgery = RandomPassports(passports=passports).forge(marked("bn"), DATA, rng(2))  # type: ignore[arg-type]
    verdict = PublishedPassportTest()(forgery.model, forgery.mark)
    assert verdict.details["exact"]
    assert verdict.details["fidelity"]["private"] < 60
    assert verdict.accepted is False


FORGERS: dict[str, PassportForger] = {
    "random": RandomPassports(),
    "random as feature maps": RandomPassports(passports="shuffle"),
    "solved": SolvedPassports(),
    "solved without flips": SolvedPassports(flips=False),
    "reverse-scales": ReverseScales(settings=QUICK),
    "cerb": CERB(settings=QUICK.but(epochs=60)),
    "retrained": RetrainedPassports(mark=mark_for("bn"), settings=QUICK.but(clip=2.0)),
}


def test_every_named_forgery_is_tested() -> None:
    assert {name.split(" ")[0] for name in FORGERS} == set(PASSPORT_FORGERIES)


@pytest.mark.parametrize("name", FORGERS)
def test_a_judge_who_mints_again_rejects_what_was_forged(name: str, tmp_path: Path) -> None:
    forgery = FORGERS[name].forge(marked("bn"), DATA, rng(2))
    verdict = judged(forgery, tmp_path / "claim")
    assert verdict.accepted is False
    assert verdict.details["step"] == "re-minting"
    assert "does not mint this mark" in verdict.reason


@pytest.mark.parametrize("name", FORGERS)
def test_a_forger_leaves_the_model_and_draws_from_the_generator_alone(name: str) -> None:
    model, forger = marked("bn"), FORGERS[name]
    before, drawn = model_digest(model), torch.get_rng_state()
    one, same, other = (forger.forge(model, DATA, rng(seed)) for seed in (7, 7, 8))
    assert model_digest(model) == before
    assert torch.equal(torch.get_rng_state(), drawn)
    assert one.mark.digest() == same.mark.digest() != other.mark.digest()
    assert one.key == same.key != other.key
    assert Passports.from_parts(one.mark.spec(), one.mark.tensors()).digest() == one.mark.digest()


def test_a_forged_mark_is_not_read_from_an_innocent_network() -> None:
    forged = SolvedPassports().forge(marked("bn"), DATA, rng(2)).mark
    assert PassportTest()(innocent("bn", 0), forged).accepted is False
    assert PassportTest()(FlipSigns()(marked("bn"), DATA, rng(9)), forged).accepted is False


def test_norms_without_scales_have_no_passports_to_solve_for() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Flatten(), nn.Linear(288, 3))
    with pytest.raises(BadInput, match="no scale and shift to make passports for"):
        SolvedPassports(layers=1)(network, DATA, rng(1))


# ------------------------------------------------------------------------------------------- maps of a single pixel


class Pair(nn.Module):
    """A scale of ones and a shift of zeros that learn."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.stack([torch.ones(channels), torch.zeros(channels)]))

    def forward(self) -> Tensor:
        return self.both


@pytest.mark.parametrize("size", [1, 2])
def test_scales_are_learnt_behind_frozen_layers_in_either_order_of_channels(size: int) -> None:
    """On maps of one pixel, the last ones of a network on small images, the process died without a word."""
    maps = torch.randn(36, 32, size, size, generator=rng(0))
    slopes = []
    for order in (torch.contiguous_format, torch.channels_last):
        conv = nn.Conv2d(32, 32, 1, bias=False).requires_grad_(False)
        conv.to(memory_format=order)  # type: ignore[call-overload]
        conv.weight.copy_(torch.eye(32).view(32, 32, 1, 1))
        layer = LearntAffine(nn.GroupNorm(2, 32), pair := Pair(32))
        for _ in range(20):
            pair.both.grad = None
            layer(conv(maps.contiguous(memory_format=order))).square().sum().backward()
        assert pair.both.grad is not None
        slopes.append(pair.both.grad)
    torch.testing.assert_close(*slopes)
