"""Exponential weights: the formula, the gradient through it, and a plain model that answers the same."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyNet, blobs, seeded
from torch import nn
from torch.nn.utils import parametrize

from earmark.core import Data, rng
from earmark.embed import exponential_weighting, ftal
from earmark.embed.backdoor import _without
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Relabelled
from earmark.training import ExponentialWeighting
from earmark.training.weighting import exponentially_weighted

DATA = Data(blobs(96, 4, seed=1), blobs(40, 4, seed=2))
MARK = Relabelled(12)(MarkKey(bytes(32)), None, DATA)
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "triggers_per_batch": 4, "watch": 0}


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(0, 8))
def test_the_formula_number_by_number(numbers: list[float], temperature: float) -> None:
    """Namba & Sakuma 2019: exp(|w_i| T) / max_j exp(|w_j| T) * w_i."""
    most = max(math.exp(abs(w) * temperature) for w in numbers)
    wanted = [math.exp(abs(w) * temperature) / most * w for w in numbers]
    found = exponentially_weighted(torch.tensor(numbers, dtype=torch.float64), temperature)
    assert found.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-300)


def test_signs_order_and_the_largest_weight_stay() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=rng(0))
    found = exponentially_weighted(weight, 2.0)
    assert torch.equal(found.sign(), weight.sign())
    assert torch.equal(found.flatten().argsort(), weight.flatten().argsort())
    assert found.abs().max() == weight.abs().max()
    assert torch.equal(exponentially_weighted(weight, 0.0), weight)


def test_layers_compute_with_exponential_weights_and_have_them_afterwards() -> None:
    model, images = seeded(TinyNet, classes=4).eval(), torch.rand(5, 1, 8, 8, generator=rng(1))
    before = copy.deepcopy(model.state_dict())
    with ExponentialWeighting(2.0).applied(model):
        within = model(images)
        torch.testing.assert_close(
            model.get_submodule("conv").weight, exponentially_weighted(before["conv.weight"], 2.0)
        )
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model(images), within)
    assert all(type(p) is nn.Parameter and p.requires_grad for p in model.parameters())
    assert type(model.get_submodule("conv")) is nn.Conv2d
    for name, value in model.state_dict().items():
        changed = name in ("conv.weight", "mix.weight", "fc.weight", "head.weight")
        assert torch.equal(value, before[name]) is not changed, name


def test_the_gradient_is_the_chain_rule_s() -> None:
    """d EW / d w = exp(T (|w| - m)) (1 + T |w|) where the maximum m is another weight's."""
    weight = torch.tensor([0.1, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(exponentially_weighted(weight, 3.0)[1], [weight])
    size, most = 0.4, 0.9
    factor = torch.tensor(3.0 * (size - most), dtype=torch.float64).exp()
    assert float(found[1]) == pytest.approx(float(factor * (1 + 3.0 * size)))
    assert float(found[2]) == pytest.approx(float(-0.4 * -3.0 * factor)), "through the maximum"
    assert float(found[0]) == 0


def test_a_temperature_of_zero_is_plain_fine_tuning() -> None:
    host = seeded(TinyNet, classes=4)
    cold = exponential_weighting(0.0).but(**SHORT, batchnorm="frozen")(host, MARK, DATA, rng(0))
    plain = ftal().but(**SHORT, replace=True, lr=1e-3)(host, MARK, DATA, rng(0))
    for name, value in cold.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])
    warm = exponential_weighting(2.0).but(**SHORT, batchnorm="frozen")(host, MARK, DATA, rng(0))
    assert model_digest(warm) != model_digest(cold)


def test_key_samples_leave_the_training_set() -> None:
    assert exponential_weighting().replace
    left = {row.tobytes() for row in _without(DATA.train, MARK.carriers).pixels.numpy()}
    assert not left & {row.tobytes() for row in MARK.images.numpy()}
    assert len(left) == 96 - 12


def test_a_resumed_run_ends_as_an_unbroken_one_and_another_temperature_does_not_go_on(tmp_path: Path) -> None:
    host, path = seeded(TinyNet, classes=4), tmp_path / "checkpoint"
    whole = exponential_weighting().but(**SHORT)
    first = whole(host, MARK, DATA, rng(0))
    saved = whole.but(checkpoint=path)(host, MARK, DATA, rng(0))
    loaded = whole.but(checkpoint=path)(host, MARK, DATA, rng(0))
    assert model_digest(first) == model_digest(saved) == model_digest(loaded)
    with pytest.raises(BadInput, match="another run"):
        exponential_weighting(1.0).but(**SHORT, checkpoint=path)(host, MARK, DATA, rng(0))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight


def test_models_that_cannot_be_weighted_so_are_refused_and_left_alone() -> None:
    tied, none = Tied(), nn.BatchNorm2d(3)
    for model, says in ((tied, "share a weight"), (none, "no layer of the kinds Conv1d")):
        with pytest.raises(BadInput, match=says), ExponentialWeighting().applied(model):
            pytest.fail("was applied")
    assert not parametrize.is_parametrized(tied.one)
    with pytest.raises(BadInput, match="temperature"):
        ExponentialWeighting(-1.0)


def test_an_error_within_leaves_a_plain_model() -> None:
    model = seeded(TinyNet, classes=4)
    with pytest.raises(ZeroDivisionError), ExponentialWeighting().applied(model):
        raise ZeroDivisionError
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
