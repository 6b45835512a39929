"""The soft nearest neighbour loss against a slow double loop, its temperatures, and what the term does to a model."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.core import Data, rng
from earmark.embed import entangled
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Patched, TriggerSet
from earmark.models import dissect
from earmark.training import HOST, CrossEntropy, Entanglement, Step, Temperatures, head_only, read_all, train_host
from earmark.training.entangling import LEARNT, layers_watched, soft_nearest_neighbour, squared_distances


def slowly(points: Tensor, labels: Tensor, temperature: float, among: Tensor | None = None) -> float:
    """Frosst et al. 2019, eq. (1), as it stands there: two loops, over the points that have another of their label."""
    terms = []
    for i in range(len(points)):
        near = far = 0.0
        for j in range(len(points)):
            if j == i or (among is not None and among[i] != among[j]):
                continue
            closeness = math.exp(-float((points[i] - points[j]).square().sum()) / temperature)
            far += closeness
            near += closeness * bool(labels[i] == labels[j])
        if near:
            terms.append(-math.log(near / far))
    return sum(terms) / max(1, len(terms))


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.3, 30.0), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_loss_is_that_of_the_double_loop(n: int, labels: int, seed: int, temperature: float, apart: bool) -> None:
    drawn = rng(seed)
    points = torch.randn(n, 3, generator=drawn, dtype=torch.float64)
    y = torch.randint(labels, (n,), generator=drawn)
    among = torch.randint(2, (n,), generator=drawn) if apart else None
    found = soft_nearest_neighbour(squared_distances(points), y, temperature, among)
    assert float(found) == pytest.approx(slowly(points, y, temperature, among), rel=1e-9, abs=1e-12)


def test_distances_are_squared_ones_wherever_the_points_lie() -> None:
    points = torch.randn(20, 7, generator=rng(0)) + 1e3
    wanted = torch.cdist(points.double(), points.double()).square().float()
    torch.testing.assert_close(squared_distances(points), wanted, rtol=1e-3, atol=1e-3)


def test_limits_of_the_loss() -> None:
    """Two tight clusters: near 0 where labels follow them, the log of the odds where labels ignore them."""
    points = torch.cat([torch.zeros(50, 2), torch.full((50, 2), 9.0)]) + 0.01 * torch.randn(100, 2, generator=rng(0))
    distances, apart, mixed = squared_distances(points), torch.arange(100) // 50, torch.arange(100) % 2
    assert float(soft_nearest_neighbour(distances, apart, 1.0)) < 1e-6
    assert float(soft_nearest_neighbour(distances, mixed, 1.0)) == pytest.approx(math.log(49 / 24), rel=0.02)
    assert float(soft_nearest_neighbour(distances, apart, 1e9)) == pytest.approx(math.log(99 / 49), rel=1e-3)
    assert float(soft_nearest_neighbour(distances[:1, :1], apart[:1], 1.0)) == 0


def test_the_gradient_is_that_of_the_formula() -> None:
    points = torch.randn(7, 3, generator=rng(1), dtype=torch.float64, requires_grad=True)
    heat = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 1, 2, 0])

    def loss(p: Tensor, t: Tensor) -> Tensor:
        return soft_nearest_neighbour(squared_distances(p), labels, t)

    assert torch.autograd.gradcheck(loss, (points, heat))


# ------------------------------------------------------------------------------------------------------------- the term


def step(model: nn.Module, features: Tensor, targets: list[int], clean: int, **layers: Tensor) -> Step:
    rows = torch.empty(len(targets), 1), features, features, torch.tensor(targets), clean, float(clean)
    return Step(*rows, None, model, {}, {}, layers)


def test_the_term_is_the_loss_of_triggers_and_images_of_their_class_turned_round() -> None:
    features = torch.randn(9, 4, generator=rng(2))
    targets = [0, 1, 2, 1, 0, 0, 1, 1, 0]  # five images, then triggers of the classes 1 and 0; class 2 has none
    found = Entanglement()(step(nn.Linear(1, 1), features, targets, 5))
    kept = [0, 1, 3, 4, 5, 6, 7, 8]
    points, of = features[kept].double(), torch.tensor(targets)[kept]
    unit = float(torch.cdist(points, points).square().mean())
    marked = torch.tensor(kept) < 5
    assert float(found) == pytest.approx(-slowly(points, marked, unit, of), rel=1e-4)


def test_named_layers_are_summed_each_at_its_own_temperature() -> None:
    model, targets = nn.Linear(1, 1), [0, 0, 0, 0]
    a, b = (torch.randn(4, 2, 3, generator=rng(seed)) for seed in (3, 4))
    with Temperatures(2, 0.5).applied(model):
        both = Entanglement(("a", "b"))(step(model, torch.zeros(4, 1), targets, 2, a=a, b=b))
        model.get_parameter(LEARNT).data = torch.tensor([0.0, 9.0])
        hot = Entanglement(("a", "b"))(step(model, torch.zeros(4, 1), targets, 2, a=a, b=b))
    marked, expected, heated = torch.arange(4) < 2, 0.0, 0.0
    for output, later in ((a, 1.0), (b, math.exp(9.0))):
        points = output.flatten(1).double()
        unit = float(torch.cdist(points, points).square().mean())
        expected -= slowly(points, marked, 0.5 * unit)
        heated -= slowly(points, marked, later * unit)
    assert float(both.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(hot.detach()) == pytest.approx(heated, rel=1e-3)
    assert not hasattr(model, LEARNT)


def test_temperatures_go_down_the_loss_that_layers_go_up() -> None:
    model, marked = nn.Linear(1, 1), torch.arange(10) < 5
    features = torch.randn(10, 3, generator=rng(5), requires_grad=True)
    distances = squared_distances(features.detach())
    with Temperatures().applied(model):
        learnt = model.get_parameter(LEARNT)
        value = Entanglement()(step(model, features, [0] * 10, 5))
        value.backward()  # type: ignore[no-untyped-call]
        assert learnt.grad is not None
        assert features.grad is not None

        def loss(log_heat: float, moved: Tensor) -> float:
            return float(
                soft_nearest_neighbour(squared_distances(moved), marked, distances.mean() * math.exp(log_heat))
            )

        still = loss(0.0, features.detach())
        assert loss(-1e-2 * float(learnt.grad.sign()), features.detach()) < still
        assert loss(0.0, features.detach() - 1e-2 * features.grad / features.grad.norm()) > still


# ---------------------------------------------------------------------------------------------------------- on a model

DATA = Data(blobs(240, 4, (1, 8, 8), 1), blobs(80, 4, (1, 8, 8), 2))


@pytest.fixture(scope="module")
def host() -> nn.Module:
    how = HOST.but(epochs=4, batch_size=16, lr=1e-2, milestones=())
    return train_host(seeded(TinyNet, classes=4, features=8), DATA, rng(0), how)


@pytest.fixture(scope="module")
def mark() -> TriggerSet:
    return Patched(16, group=2, teaching=64)(MarkKey(bytes(32)), None, DATA)


QUICK: dict[str, Any] = {"epochs": 12, "batch_size": 48, "triggers_per_batch": 24, "lr": 5e-3, "watch": 0}


def entanglement(model: nn.Module, mark: TriggerSet) -> float:
    """The loss at the mean distance over all images and lessons, in the penultimate feature."""
    anatomy = dissect(model, DATA.train.pixels[:1])
    seen = [read_all(model, anatomy, images).features for images in (DATA.train, mark.lessons)]
    of = torch.cat([DATA.train.labels, mark.lessons.labels])
    distances = squared_distances(torch.cat(seen))
    return float(soft_nearest_neighbour(distances, torch.arange(len(of)) < len(DATA.train), distances.mean(), of))


def test_the_mark_is_more_entangled_with_the_term_than_without(host: nn.Module, mark: TriggerSet) -> None:
    with_it, without = (entangled(weight).but(**QUICK)(host, mark, DATA, rng(1)) for weight in (5.0, 0.0))
    assert entanglement(with_it, mark) > entanglement(without, mark) + 0.02


def test_a_weight_of_zero_is_plain_fine_tuning(host: nn.Module, mark: TriggerSet) -> None:
    short = {**QUICK, "epochs": 1}
    method = entangled(0.0).but(**short)
    plain = method.but(terms=(CrossEntropy(),), surgery=None)
    ours, theirs = (how(host, mark, DATA, rng(2)) for how in (method, plain))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


def test_convolutions_can_be_entangled_and_the_model_comes_back_plain(host: nn.Module, mark: TriggerSet) -> None:
    short = {**QUICK, "epochs": 1}
    before = copy.deepcopy(host.state_dict())
    one, other = (entangled(1.0, layers).but(**short)(host, mark, DATA, rng(3)) for layers in (("conv", "mix"), ()))
    assert one.state_dict().keys() == before.keys()
    assert model_digest(one) != model_digest(other)
    assert not any(module._forward_hooks for module in one.modules())
    with pytest.raises(BadInput, match="no layer is called 'cnov'"):
        entangled(1.0, ("cnov",)).but(**short)(host, mark, DATA, rng(3))


def test_a_head_alone_can_be_trained_with_a_watched_layer(host: nn.Module, mark: TriggerSet) -> None:
    """Where features are constants they are looked up, but not what a watched layer gives out."""
    method = entangled(1.0, ("fc",)).but(**{**QUICK, "epochs": 1}, trainable=head_only, batchnorm="frozen")
    marked = method(host, mark, DATA, rng(4))
    assert torch.equal(marked.get_parameter("conv.weight"), host.get_parameter("conv.weight"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_any_precision_can_be_entangled(dtype: torch.dtype, host: nn.Module, mark: TriggerSet) -> None:
    model = copy.deepcopy(host).to(dtype)
    marked = entangled(layers=("conv",)).but(**{**QUICK, "epochs": 1})(model, mark, DATA, rng(6))
    assert {parameter.dtype for parameter in marked.parameters()} == {dtype}


def test_a_killed_run_goes_on_with_its_temperatures(host: nn.Module, mark: TriggerSet, tmp_path: Any) -> None:
    whole = entangled().but(**{**QUICK, "epochs": 4})(host, mark, DATA, rng(5))
    path = tmp_path / "checkpoint"

    class Killed(Exception):
        pass

    calls = []

    def kill(model: nn.Module) -> float:
        calls.append(0)
        if len(calls) == 3:
            raise Killed
        return 0.0

    def harmless(model: nn.Module) -> float:
        return 0.0

    kill.__qualname__ = harmless.__qualname__ = "measure"
    with pytest.raises(Killed):
        entangled().but(**{**QUICK, "epochs": 4}, checkpoint=path, measures={"x": kill})(host, mark, DATA, rng(5))
    resumed = entangled().but(**{**QUICK, "epochs": 4}, checkpoint=path, measures={"x": harmless})
    assert model_digest(resumed(host, mark, DATA, rng(5))) == model_digest(whole)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Entanglement(weight=-1.0), "weight of the entanglement"),
        (lambda: Temperatures(start=0.0), "above 0"),
        (lambda: entangled(build=lambda: nn.Linear(1, 1)), "give fresh=True as well"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make()


def test_watched_layers_are_let_go(host: nn.Module) -> None:
    host.eval()
    with layers_watched(host, ("fc",)) as seen:
        host(torch.zeros(2, 1, 8, 8))
    assert seen["fc"].shape == (2, 8)
    assert not host.get_submodule("fc")._forward_hooks
