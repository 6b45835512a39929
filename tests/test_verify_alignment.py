"""Alignment: what a thief does to channels at no cost is undone before passports are read; innocents stay innocent."""

from __future__ import annotations

import copy

import pytest
import torch
from passported import DATA, innocent, mark_for, marked
from torch import nn

from earmark.attacks import DummyChannels, FineTune, FlipSigns, FoldNorm, PermuteChannels, PruneGlobal, RescaleChannels
from earmark.core import Remove, rng
from earmark.files import model_digest
from earmark.verify import PassportTest
from earmark.verify.alignment import ALIGNED
from earmark.verify.matching import merged

NORMS = ("bn", "gn", "resnet")


@pytest.mark.parametrize("attack", [FlipSigns(layers="*"), PermuteChannels(layers="*"), DummyChannels(layers="*")])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_whose_channels_were_changed_at_no_cost_is_found_with_the_released_one(
    norm: str, attack: Remove
) -> None:
    mark, released = mark_for(norm), marked(norm)
    stolen = attack(released, DATA, rng(7))
    assert not PassportTest()(stolen, mark).accepted
    found = PassportTest(released=released)(stolen, mark)
    assert found.accepted
    assert found.details["share"] == 1
    assert found.details["reading"] == "aligned"
    assert found.null == ALIGNED
    assert "matched to the released network's" in found.reason


@pytest.mark.parametrize("norm", NORMS)
def test_all_at_once_is_undone_to_the_last_bit(norm: str) -> None:
    mark, stolen = mark_for(norm), marked(norm, public=False)
    for attack in (FlipSigns(), PermuteChannels(), RescaleChannels(), DummyChannels()):
        stolen = attack(stolen, DATA, rng(3))
    if norm != "gn":
        stolen = FoldNorm()(stolen, DATA, rng(3))
    found = PassportTest(released=marked(norm, public=False))(stolen, mark)
    assert found.accepted
    assert found.details["share"] > 0.99
    assert found.details["alignment"]["cosine"] > 0.999


def test_channels_that_were_split_into_several_are_one_again() -> None:
    weight = torch.randn(4, 3, 9, generator=rng(1), dtype=torch.float64)
    read = torch.rand(3, 50, generator=rng(2), dtype=torch.float64)
    split = torch.cat([weight * torch.tensor([1.0, 4.0, 1.0]).view(1, 3, 1), -1.5 * weight[:, 1:2]], 1)
    found = merged(split, torch.cat([read, 2 * read[1:2]]))
    torch.testing.assert_close(found[:, :3], weight)
    assert not found[:, 3].any()


@pytest.mark.parametrize("attack", [RescaleChannels(layers="*"), FoldNorm(layers="*")])
def test_what_the_plain_reading_survives_needs_no_alignment(attack: Remove) -> None:
    found = PassportTest(released=marked("bn"))(attack(marked("bn"), DATA, rng(7)), mark_for("bn"))
    assert found.accepted
    assert found.details["reading"] == "plain"


def test_flipped_moved_and_then_trained_on_or_pruned_is_found_as_well() -> None:
    mark, released = mark_for("bn"), marked("bn")
    hidden = PermuteChannels(layers="*")(FlipSigns(layers="*")(released, DATA, rng(1)), DATA, rng(2))
    for attack in (FineTune(epochs=2, lr=1e-3), PruneGlobal(0.4)):
        assert PassportTest(released=released)(attack(hidden, DATA, rng(3)), mark).accepted


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("norm", NORMS)
def test_networks_of_others_stay_far_below_chance_when_aligned(norm: str, seed: int) -> None:
    mark, released = mark_for(norm), marked(norm)
    found = PassportTest(released=released)(innocent(norm, seed), mark)
    assert found.accepted is False
    assert found.details["alignment"]["share"] < 0.25
    assert found.details["alignment"]["cosine"] < 0.4


def test_two_readings_cost_a_factor_of_two() -> None:
    mark, released = mark_for("gn"), marked("gn")
    one, two = PassportTest()(released, mark), PassportTest(released=released)(released, mark)
    assert one.log10_p is not None
    assert two.log10_p == pytest.approx(one.log10_p + 0.30103, abs=1e-4)


def test_both_networks_are_left_as_they_are() -> None:
    mark, released = mark_for("bn"), marked("bn")
    stolen = FlipSigns(layers="*")(released, DATA, rng(7)).train()
    before = [model_digest(released), model_digest(stolen)]
    PassportTest(released=released)(stolen, mark)
    assert [model_digest(released), model_digest(stolen)] == before
    assert stolen.training
    assert not any(module._forward_hooks for network in (released, stolen) for module in network.modules())


@pytest.mark.parametrize(
    "other", [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())]
)
def test_a_suspect_that_cannot_be_aligned_is_rejected_with_the_reason(other: nn.Module) -> None:
    found = PassportTest(released=marked("bn"))(other, mark_for("bn"))
    assert found.accepted is False
    assert isinstance(found.details["alignment"], str)


def test_a_suspect_of_nan_is_rejected() -> None:
    broken = copy.deepcopy(marked("bn"))
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(float("nan"))
    assert PassportTest(released=marked("bn"))(broken, mark_for("bn")).accepted is False
