"""The test of passports: when it accepts, exactly how often by chance, and that no suspect escapes by breaking it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import binom, binomtest
from tiny import Chain, blobs, written
from torch import Tensor, nn

from earmark import stats
from earmark.core import Data, rng
from earmark.embed import passport_v1, passport_v2
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import PassportMint, Passports
from earmark.models import built
from earmark.suspects import as_query
from earmark.training import Settings
from earmark.verify import PassportTest
from earmark.verify.passports import presented

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(96, seed=1), blobs(60, seed=2))
SHORT = Settings(epochs=12, batch_size=16, lr=0.02, optimizer="sgd", batchnorm="train", triggers_per_batch=0)


def network(norm: str = "bn", width: int = 16, seed: int = 0) -> nn.Module:
    return built(lambda: Chain(norm, classes=3, width=width), rng(seed))


MARK = PassportMint(2, witnesses=60)(KEY, network(), DATA)


@cache
def marked(scheme: str, norm: str) -> nn.Module:
    embed = (passport_v1() if scheme == "V1" else passport_v2()).but(settings=SHORT, sign=1.0, watch=0)
    return embed(network(norm), MARK, DATA, rng(1))


# ------------------------------------------------------------------------------------------------------------- verdicts


def test_a_network_that_carries_the_bits_is_accepted_and_innocent_ones_are_not() -> None:
    verdict = PassportTest()(written(network(), MARK), MARK)
    assert verdict.accepted is True
    assert (verdict.statistic, verdict.n) == (40, 40)
    assert verdict.log10_p == pytest.approx(-40 * math.log10(2))
    assert (verdict.details["exact"], verdict.details["hamming"], verdict.details["layers"]) == (True, 0, (1, 1))
    for seed in range(20):
        assert PassportTest()(network(seed=seed), MARK).accepted is False


def test_another_keys_passports_are_not_in_it() -> None:
    suspect = written(network(), MARK)
    for number in range(20):
        other = PassportMint(2, witnesses=0)(MarkKey(number.to_bytes(32, "big")), network(), DATA)
        assert PassportTest()(suspect, other).accepted is False


@pytest.mark.parametrize("wrong", range(0, 40, 3))
def test_bits_are_counted_one_by_one_up_to_the_critical_count(wrong: int) -> None:
    verdict = PassportTest()(written(network(), MARK, wrong), MARK)
    assert verdict.details["matches"] == 40 - wrong
    assert verdict.details["hamming"] == wrong
    assert verdict.details["exact"] is (wrong == 0)
    assert verdict.accepted is bool(40 - wrong >= stats.critical_count(40, 0.5, 1e-6))
    assert verdict.details["layers"] == pytest.approx((1 - min(wrong, 16) / 16, 1 - max(0, wrong - 16) / 24))


@pytest.mark.parametrize("alpha", [0.3, 0.01, 1e-4])
@pytest.mark.parametrize("grinding", [0, 3])
def test_the_chance_of_a_false_accept_is_at_most_alpha_by_enumeration(alpha: float, grinding: int) -> None:
    test, rejected = PassportTest(alpha, grinding), 0
    chance = 0.0
    for matches in range(41):
        shown = MARK.bits.clone()
        shown[matches:] *= -1
        verdict = test.judged(shown, MARK, None)
        p = binom.sf(matches - 1, 40, 0.5)
        assert verdict.log10_p is not None
        assert 10**verdict.log10_p == pytest.approx(min(1.0, 2**grinding * p))
        assert verdict.accepted is bool(2**grinding * p <= alpha)
        chance += binom.pmf(matches, 40, 0.5) if verdict.accepted else 0
        rejected += not verdict.accepted
    assert chance <= alpha / 2**grinding
    assert 0 < rejected < 41


def test_innocent_networks_are_accepted_as_often_as_alpha_says_over_many_keys() -> None:
    """However unfair their signs are: one network whose kernels are all positive, and one that is random."""
    alpha, mint, accepted = 0.05, PassportMint(2), 0
    exact = float(binom.sf(stats.critical_count(40, 0.5, alpha) - 1, 40, 0.5))
    positive = network()
    for weight in MARK.weights_in(positive):
        weight.data.abs_()
    for suspect in (positive, network(seed=3)):
        for number in range(400):
            mark = mint.make(MarkKey(number.to_bytes(32, "big")), MARK.sites)
            accepted += PassportTest(alpha)(suspect, mark).accepted is True
    assert binomtest(accepted, 800, exact).pvalue > 1e-5


def test_too_few_bits_are_inconclusive_whatever_they_show() -> None:
    few = PassportMint("trunk.0", witnesses=0)(KEY, network(), DATA)
    assert len(few) == 16
    for suspect in (written(network(), few), network()):
        verdict = PassportTest()(suspect, few)
        assert verdict.accepted is None
        assert "protect more layers" in verdict.reason
    assert PassportTest(alpha=1e-4)(written(network(), few), few).accepted is True
    assert PassportTest(grinding_bits=stats.GRINDING_BITS)(written(network(), MARK), MARK).accepted is None


# ------------------------------------------------------------------------------------------------------- odd suspects


def test_a_suspect_that_only_answers_queries_is_rejected_and_told_why() -> None:
    verdict = PassportTest()(as_query(written(network(), MARK)), MARK)
    assert verdict.accepted is False
    assert "only answers queries" in verdict.reason
    assert verdict.details["unanswered"] == 40


def hooked() -> nn.Module:
    class Secretive(Chain):
        def named_modules(self, *args: Any, **settings: Any) -> Any:
            raise KeyError("no")

    return built(lambda: Secretive(classes=3, width=16), rng(0))


def on_meta() -> nn.Module:
    return network().to("meta")


def without_numbers() -> nn.Module:
    suspect = written(network(), MARK)
    for parameter in suspect.parameters():
        parameter.data.fill_(float("nan"))
    return suspect


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        lambda: network(width=8),
        lambda: nn.Sequential(*[nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)]),
        without_numbers,
        on_meta,
        hooked,
    ],
)
def test_a_suspect_without_these_layers_or_without_numbers_is_rejected(build: Callable[[], nn.Module]) -> None:
    verdict = PassportTest()(build(), MARK)
    assert verdict.accepted is False
    assert verdict.statistic == 0
    assert verdict.log10_p == 0


def test_a_suspect_that_breaks_when_it_runs_is_read_nevertheless() -> None:
    class Broken(Chain):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("no")

    broken = built(lambda: Broken(classes=3, width=16), rng(0))
    broken.load_state_dict(written(network(), MARK).state_dict())
    verdict = PassportTest()(broken, MARK)
    assert verdict.accepted is True
    assert verdict.details["fidelity"] is None
    assert PassportTest(strict=True)(broken, MARK).accepted is False


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_types_are_read(dtype: torch.dtype) -> None:
    verdict = PassportTest()(written(network(), MARK).to(dtype), MARK)
    assert verdict.accepted is True
    assert verdict.details["fidelity"] is not None


def test_the_suspect_is_left_as_it_was() -> None:
    suspect = written(network(), MARK).train()
    before, state = copy.deepcopy(suspect.state_dict()), torch.get_rng_state()
    PassportTest()(suspect, MARK)
    assert suspect.training
    assert all(torch.equal(value, before[name]) for name, value in suspect.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------------------------------- fidelity


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_what_v1_releases_is_what_it_is_with_its_passports(norm: str) -> None:
    for strict in (False, True):
        verdict = PassportTest(strict=strict)(marked("V1", norm), MARK)
        assert verdict.accepted is True
        told = verdict.details["fidelity"]
        assert told["public"] == pytest.approx(told["private"])
        assert told["holds"] is True
    own = presented(marked("V1", norm), MARK, DATA.test)[0]
    with torch.no_grad():
        images = DATA.test.pixels.float() / 255
        torch.testing.assert_close(own.eval()(images), marked("V1", norm).eval()(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_what_v2_releases_answers_as_well_with_its_passports(norm: str) -> None:
    verdict = PassportTest()(marked("V2", norm), MARK)
    assert verdict.accepted is True
    assert verdict.details["fidelity"]["private"] >= verdict.details["fidelity"]["public"] - 10


def test_a_public_path_that_is_broken_is_told_and_decides_only_where_it_is_asked_to() -> None:
    suspect = copy.deepcopy(marked("V1", "gn"))
    norm = suspect.get_submodule(MARK.sites[-1].norm)
    assert isinstance(norm, nn.GroupNorm)
    norm.weight.data.zero_()
    norm.bias.data.zero_()
    verdict, strict = (PassportTest(strict=each)(suspect, MARK) for each in (False, True))
    assert verdict.details["fidelity"]["public"] == pytest.approx(100 / 3, abs=1)
    assert verdict.details["fidelity"]["holds"] is False
    assert "not within 3 points" in verdict.reason
    assert (verdict.accepted, strict.accepted) == (True, False)
    assert verdict.log10_p == strict.log10_p


def test_statistics_that_lag_behind_do_not_count_against_a_network() -> None:
    """With batch norm, the reading that is nearer to the public accuracy counts: fresh statistics may do better."""
    suspect = copy.deepcopy(marked("V1", "bn"))
    norms = [module for module in suspect.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean.add_(torch.linspace(-9, 9, len(norm.running_mean)))
    told = PassportTest()(suspect, MARK).details["fidelity"]
    assert told["public"] < 80
    assert told["private"] == pytest.approx(told["public"])
    assert told["holds"] is True


def test_epsilon_is_the_owners_from_before() -> None:
    suspect = copy.deepcopy(marked("V1", "gn"))
    for parameter in suspect.get_submodule(MARK.sites[-1].norm).parameters():
        parameter.data.zero_()
    lax = Passports(MARK.sites, MARK.pairs, MARK.bits, {**MARK.settings, "tolerance": 100.0}, MARK.witnesses)
    assert PassportTest(strict=True)(suspect, lax).accepted is True


def test_without_witnesses_or_with_other_images_fidelity_is_not_measured() -> None:
    suspect = written(network(), MARK)
    bare = Passports(MARK.sites, MARK.pairs, MARK.bits, MARK.settings)
    colour = Passports(MARK.sites, MARK.pairs, MARK.bits, MARK.settings, blobs(12, shape=(3, 8, 8)))
    for mark in (bare, colour):
        verdict = PassportTest()(suspect, mark)
        assert verdict.accepted is True
        assert verdict.details["fidelity"] is None
        assert "cannot be measured" in verdict.reason


@pytest.mark.parametrize("given", [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": float("nan")}, {"grinding_bits": -1}])
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        PassportTest(**given)
