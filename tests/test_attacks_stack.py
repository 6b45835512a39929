"""Attacks made of attacks: one after the other, or several copies side by side that answer together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.attacks import Averaged, Ensemble, Extract, FineTune, Half, Needs, PruneGlobal, Stack, measured, needs_of
from earmark.core import Data, Remove, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise
from earmark.suspects import as_query
from earmark.training import predict
from earmark.verify import TriggerTest

DATA = Data(blobs(48), blobs(24, seed=1))
TUNED = FineTune(epochs=1, batch_size=16, lr=1e-2)


@pytest.fixture
def model() -> nn.Module:
    return seeded(TinyNet)


def test_a_stack_is_its_attacks_in_order_with_one_generator(model: nn.Module) -> None:
    generator, by = rng(3), (PruneGlobal(0.5), TUNED, TUNED)
    stolen = model
    for attack in by:
        stolen = attack(stolen, DATA, generator)
    assert model_digest(Stack(by)(model, DATA, rng(3))) == model_digest(stolen)
    assert model_digest(Stack(list(by))(model, DATA, rng(3))) == model_digest(stolen)
    assert model_digest(Stack(by[::-1])(model, DATA, rng(3))) != model_digest(stolen)


def test_a_stack_takes_any_function_that_is_an_attack(model: nn.Module) -> None:
    def zeroed(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        return PruneGlobal(1.0)(model, data, rng)

    stack = Stack([zeroed, Half()])
    assert not any(bool(weight.any()) for weight in (stack(model, DATA, rng(0)).get_parameter("conv.weight"),))
    with pytest.raises(BadInput, match="function does not say"):
        needs_of(stack)


def test_a_stack_needs_what_its_attacks_need_and_spends_what_they_spend(model: nn.Module) -> None:
    stack = Stack((Extract(epochs=1, milestones=(), images=20), PruneGlobal(0.5), TUNED))
    assert needs_of(stack) == Needs(True, "labelled images", "scores", "the architecture")
    assert measured(stack, model, DATA, rng(0))[1].queries == 20


@pytest.mark.parametrize("given", [(), "prune-global", None, PruneGlobal(0.5)])
def test_a_stack_of_nothing_is_refused(given: Any) -> None:
    with pytest.raises(BadInput, match="expected one attack or more"):
        Stack(given)


def test_what_is_no_attack_is_refused_by_its_place() -> None:
    with pytest.raises(BadInput, match="attack 2: expected an attack"):
        Stack((Half(), "half"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ ensembles


def test_an_ensemble_answers_with_the_mean_probability() -> None:
    nets = [seeded(TinyNet, seed=seed).eval() for seed in range(3)]
    wanted = torch.stack([predict(net, DATA.test).softmax(1) for net in nets]).mean(0)
    torch.testing.assert_close(predict(Averaged(*nets), DATA.test).softmax(1), wanted)


def test_the_laws_of_an_attack_hold_for_an_ensemble(model: nn.Module) -> None:
    before, state = model_digest(model), torch.get_rng_state()
    one, again, other = (Ensemble(attack=TUNED)(model, DATA, rng(seed)) for seed in (0, 0, 1))
    assert model_digest(one) == model_digest(again) != model_digest(other)
    assert model_digest(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(one, Averaged)
    assert len(one.members) == 3
    assert len({model_digest(member) for member in one.members}) == 3
    assert predict(one, DATA.test).shape == (24, 3)
    assert [module.training for module in one.modules()] == [True] * len(list(one.modules()))
    assert not any(module.training for module in Ensemble(attack=TUNED)(model.eval(), DATA, rng(0)).modules())


@pytest.mark.parametrize("nothing", [FineTune(epochs=0), PruneGlobal(0.0)])
def test_copies_that_come_out_equal_are_one_so_that_zero_strength_changes_no_statistic(
    nothing: Remove, model: nn.Module
) -> None:
    same = Ensemble(attack=nothing)(model, DATA, rng(0))
    assert model_digest(same) == model_digest(model)
    mark, test = Noise(40)(MarkKey(bytes(32)), None, DATA), TriggerTest()
    assert test(as_query(same), mark) == test(as_query(model), mark)


def test_images_are_dealt_out_each_to_one_copy() -> None:
    seen: list[torch.Tensor] = []

    def looking(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        seen.append(data.train.pixels)
        assert torch.equal(data.test.pixels, DATA.test.pixels)
        return model

    Ensemble(copies=5, attack=looking)(seeded(TinyNet), DATA, rng(0))
    assert sorted(map(len, seen)) == [9, 9, 10, 10, 10]
    assert sorted(torch.cat(seen).flatten(1).tolist()) == sorted(DATA.train.pixels.flatten(1).tolist())
    seen.clear()
    Ensemble(copies=2, attack=looking, apart=False)(seeded(TinyNet), DATA, rng(0))
    assert [len(pixels) for pixels in seen] == [48, 48]


def test_what_is_no_ensemble_is_refused(model: nn.Module) -> None:
    with pytest.raises(BadInput, match="copies"):
        Ensemble(copies=1)
    with pytest.raises(BadInput, match="attack: expected an attack"):
        Ensemble(attack="half")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="48 images cannot be dealt out to 49 copies"):
        Ensemble(copies=49)(model, DATA, rng(0))
