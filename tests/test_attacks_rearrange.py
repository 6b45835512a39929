"""Changes that keep a network's function and leave the plain reading of its passports at chance."""

from __future__ import annotations

import copy

import pytest
import torch
from passported import DATA, mark_for, marked
from torch import Tensor, nn

from earmark.attacks import (
    PASSPORT_REMOVALS,
    DummyChannels,
    FlipScales,
    FlipSigns,
    FoldNorm,
    PermuteChannels,
    RescaleChannels,
)
from earmark.core import Remove, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import predict
from earmark.verify import PassportTest

CHANCE = (0.35, 0.65)


def shown(network: nn.Module, norm: str) -> float:
    """The share of the owner's bits that a plain reading finds."""
    return float(PassportTest()(network, mark_for(norm)).details["share"])


def kept(attack: Remove, network: nn.Module, seed: int = 1) -> nn.Module:
    """What an attack makes of a network, whose answers must be the same on all test images."""
    before = model_digest(network)
    attacked = attack(network, DATA, rng(seed))
    assert model_digest(network) == before != model_digest(attacked)
    wanted = predict(network, DATA.test)
    assert float((predict(attacked, DATA.test) - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))
    return attacked


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_the_owner_is_found_with_certainty_before_any_attack(norm: str) -> None:
    verdict = PassportTest(grinding_bits=64)(marked(norm), mark_for(norm))
    assert verdict.accepted
    assert verdict.details["exact"]


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_flipped_signs_leave_half_of_the_bits(norm: str) -> None:
    assert CHANCE[0] < shown(kept(FlipSigns(), marked(norm)), norm) < CHANCE[1]


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_permuted_channels_leave_half_of_the_bits(norm: str) -> None:
    attacked = kept(PermuteChannels(), marked(norm))
    assert CHANCE[0] < shown(attacked, norm) < CHANCE[1]
    assert PassportTest()(attacked, mark_for(norm)).accepted is False


def weight(network: nn.Module, name: str) -> Tensor:
    found = network.get_submodule(name).weight
    assert isinstance(found, Tensor)
    return found.detach()


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_rescaled_channels_keep_the_function_and_do_not_erase_the_signs(norm: str) -> None:
    assert 0.85 < shown(kept(RescaleChannels(), marked(norm)), norm) <= 1


def test_folding_the_norm_turns_every_scale_positive_where_it_was_the_passports_own() -> None:
    folded = kept(FoldNorm(), marked("bn", public=False))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert CHANCE[0] < shown(folded, "bn") < CHANCE[1]
    assert shown(kept(FoldNorm(), marked("bn")), "bn") > 0.9


def test_group_norm_cannot_be_folded() -> None:
    with pytest.raises(BadInput, match="FoldNorm: no layer can be changed"):
        FoldNorm()(marked("gn"), DATA, rng(1))


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_dummy_channels_widen_the_layers_so_that_no_bit_is_read(norm: str) -> None:
    attacked = kept(DummyChannels(), marked(norm))
    verdict = PassportTest()(attacked, mark_for(norm))
    assert verdict.accepted is False
    assert verdict.details["unanswered"] == len(mark_for(norm))
    assert "neither by name nor by shape" in verdict.reason


@pytest.mark.parametrize("name", sorted(PASSPORT_REMOVALS))
def test_what_a_removal_makes_follows_from_the_generator_alone(name: str) -> None:
    network, attack = marked("bn"), PASSPORT_REMOVALS[name]()
    with torch.random.fork_rng():
        digests = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            digests.append(model_digest(attack(network, DATA, rng(3))))
    assert digests[0] == digests[1]
    if name != "fold-norm":
        assert model_digest(attack(network, DATA, rng(4))) != digests[0]


def test_attacks_on_a_copy_in_training_mode_leave_the_modes() -> None:
    network = copy.deepcopy(marked("bn")).train()
    network.get_submodule("trunk.1").eval()
    for attack in (FlipSigns(), PermuteChannels(), DummyChannels()):
        attacked = attack(network, DATA, rng(1))
        assert [module.training for module in attacked.modules()] == [module.training for module in network.modules()]


def test_negated_scales_cost_accuracy_and_no_bit() -> None:
    network = marked("bn")
    wanted = predict(network, DATA.test).argmax(1)
    same = [predict(FlipScales(share)(network, DATA, rng(1)), DATA.test).argmax(1) for share in (0.0, 0.5)]
    assert torch.equal(same[0], wanted)
    assert float((same[1] == wanted).double().mean()) < 0.8
    flipped = FlipScales(0.25)(network, DATA, rng(1))
    assert shown(flipped, "bn") == shown(network, "bn")
    signs = [weight(flipped, site.norm) / weight(network, site.norm) for site in mark_for("bn").sites]
    assert int((torch.cat(signs) < 0).sum()) == len(mark_for("bn")) // 4


def test_a_network_without_places_is_refused() -> None:
    with pytest.raises(BadInput, match=r"no nn\.Conv2d"):
        FlipSigns()(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), DATA, rng(1))
