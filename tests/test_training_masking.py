"""Masked training and the steps in between: what a step computes with, what it leaves alone, and that it resumes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.core import Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import (
    Checkpoint,
    CrossEntropy,
    Masking,
    Refinement,
    Settings,
    TotalWeightLoss,
    fit,
    trunk_only,
)
from earmark.training.masking import Masks
from earmark.training.run import Run

ONE = Settings(epochs=1, batch_size=16, triggers_per_batch=0, optimizer="sgd", momentum=0.0, lr=0.1)
SOME = Settings(epochs=4, batch_size=8, triggers_per_batch=0, lr=1e-2, weight_decay=0.01)
MASKED = ("conv.weight", "mix.weight", "fc.weight", "head.weight")


def trained(settings: Settings, masking: Masking | None, count: int = 16, **more: Any) -> nn.Module:
    net = seeded(TinyNet, seed=2)
    fit(net, blobs(count), (CrossEntropy(),), settings, rng(0), masking=masking, **more)
    return net


def masks(masking: Masking, model: nn.Module | None = None, epoch: int = 0, step: int = 0) -> Masks:
    drawn = Masks(masking, model or seeded(TinyNet, seed=2), seed=3)
    drawn.draw(epoch, step)
    return drawn


def flat(masks: Masks) -> Tensor:
    return torch.cat([factor.flatten() for factor in masks.factors.values()])


# ------------------------------------------------------------------------------------------------------------ the step


@pytest.mark.parametrize("masking", [Masking(0.01), Masking(0.3), Masking(0.3, by="normal")])
def test_a_step_follows_the_gradient_of_the_masked_and_rescaled_weights_once(
    masking: Masking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: autograd on a copy whose weights are W . M / (1 - p), times M / (1 - p) by the chain rule."""
    seen: list[Masks] = []
    draw = Masks.draw
    monkeypatch.setattr(Masks, "draw", lambda self, *when: seen.append(self) or draw(self, *when))  # type: ignore[func-returns-value,redundant-expr]
    start, net = seeded(TinyNet, seed=2), trained(ONE, masking)
    factors = {name: seen[0].factors[name] if name in MASKED else torch.ones(1) for name, _ in start.named_parameters()}
    copied = copy.deepcopy(start).eval()
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            parameter.mul_(factors[name])
    data = blobs(16)
    F.cross_entropy(copied(data.pixels.float() / 255), data.labels).backward()  # type: ignore[no-untyped-call]
    for name, parameter in start.named_parameters():
        gradient = copied.get_parameter(name).grad
        assert gradient is not None
        step = 0.1 * gradient * factors[name] * (not name.startswith("bn"))
        torch.testing.assert_close(net.get_parameter(name), parameter - step, rtol=1e-4, atol=1e-6)


def test_a_term_on_the_weights_themselves_keeps_its_own_gradient() -> None:
    """d/dW (L(W . M / (1 - p)) + ||W||^2) = L' M / (1 - p) + 2 W, and the weights are what they were."""
    net = seeded(TinyNet, seed=2).eval()
    start, data = copy.deepcopy(net), blobs(8).pixels.float() / 255
    drawn = masks(Masking(0.3), net)
    with drawn.applied() as own:
        for name, factor in drawn.factors.items():
            assert torch.equal(net.get_parameter(name), start.get_parameter(name) * factor)
        alone = torch.autograd.grad(net(data).sum(), [net.get_parameter(name) for name in own])
        (net(data).sum() + sum(weight.square().sum() for weight in own.values())).backward()
    for (name, factor), gradient in zip(drawn.factors.items(), alone, strict=True):
        weight = net.get_parameter(name)
        assert torch.equal(weight, start.get_parameter(name))
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient * factor + 2 * weight)


def test_a_step_that_fails_leaves_the_weights_whole() -> None:
    net = seeded(TinyNet, seed=2)
    before = model_digest(net)
    wrong = torch.zeros(2, 3, 8, 8)
    with pytest.raises(RuntimeError), masks(Masking(0.3), net).applied():
        net(wrong)
    assert model_digest(net) == before


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw"])
def test_momentum_and_weight_decay_leave_dropped_weights_alone(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[bool] = []
    step = Run.step

    def watched(run: Run, order: Tensor, epoch: int, number: int) -> Tensor:
        before = {name: run.model.get_parameter(name).detach().clone() for name in MASKED}
        values = step(run, order, epoch, number)
        assert run._masks is not None
        for name in MASKED:
            dropped = run._masks.factors[name] == 0
            same = run.model.get_parameter(name) == before[name]
            assert bool(same[dropped].all())
            moved.append(not bool(same[~dropped].all()))
        return values

    monkeypatch.setattr(Run, "step", watched)
    trained(SOME.but(optimizer=optimizer), Masking(0.3, every=1), count=40)
    assert len(moved) == 4 * 5 * 4
    assert sum(moved) > 70


def test_nothing_dropped_is_plain_training() -> None:
    assert model_digest(trained(SOME, Masking(0.0))) == model_digest(trained(SOME, None))


def test_what_is_measured_and_held_near_the_start_are_the_true_weights() -> None:
    net = seeded(TinyNet, seed=2)
    before = model_digest(net)
    far = Settings(epochs=1, steps=1, batch_size=16, triggers_per_batch=0, lr=1e-9)
    history = fit(net, blobs(16), (CrossEntropy(), TotalWeightLoss(1.0)), far, rng(0), masking=Masking(0.5),
                  monitor=lambda model: {"far": _distance(model, seeded(TinyNet, seed=2))})  # fmt: skip
    assert history[0]["twl"] == 0.0
    assert history[0]["far"] < 1e-6
    assert list(net.state_dict()) == list(seeded(TinyNet, seed=2).state_dict())
    assert model_digest(net) != before
    for name, value in seeded(TinyNet, seed=2).state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=1e-7)


def _distance(model: nn.Module, other: nn.Module) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_fixed_layer_is_not_masked() -> None:
    net = seeded(TinyNet, seed=2)
    net.head.weight.requires_grad_(False)  # type: ignore[union-attr]
    assert set(masks(Masking(0.5), net).factors) == set(MASKED) - {"head.weight"}
    head = seeded(TinyNet, seed=2).head
    tuned = trained(SOME, Masking(0.5), trainable=trunk_only)
    assert torch.equal(tuned.head.weight, head.weight)  # type: ignore[union-attr,arg-type]


# ----------------------------------------------------------------------------------------------------------- the mask


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 64, 5), nn.Linear(300, 300)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("drop", [0.001, 0.01, 0.015, 0.02, 0.2, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p_and_the_rest_is_rescaled(drop: float) -> None:
    drawn = flat(masks(Masking(drop), seeded(Wide)))
    size, share = len(drawn), float((drawn == 0).double().mean())
    assert size == 64 * 8 * 25 + 300 * 300
    assert abs(share - drop) < 5 * (drop * (1 - drop) / size) ** 0.5 + 2**-16
    assert set(drawn.tolist()) == {0.0, drawn.max().item()}
    assert drawn.max().item() == pytest.approx(1 / (1 - drop))
    assert float(flat(masks(Masking(drop, rescale=False), seeded(Wide))).max()) == 1.0


@pytest.mark.parametrize("drop", [0.1, 0.5])
def test_normal_factors_have_the_mean_and_the_variance_of_a_mask(drop: float) -> None:
    drawn = flat(masks(Masking(drop, by="normal"), seeded(Wide))).double()
    variance = drop / (1 - drop)
    assert float(drawn.mean()) == pytest.approx(1, abs=5 * (variance / len(drawn)) ** 0.5)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.03)
    assert float(((drawn - 1).abs() < variance**0.5).double().mean()) == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(("drop", "by"), [(0.01, "random"), (0.3, "random"), (0.3, "normal")])
def test_masks_are_drawn_anew_when_the_settings_say_so_and_alike_again(drop: float, by: Any) -> None:
    def sequence(every: int | None, times: list[tuple[int, int]]) -> list[Tensor]:
        drawn, seen = Masks(Masking(drop, every, by), seeded(Wide), seed=3), []
        for when in times:
            drawn.draw(*when)
            seen.append(flat(drawn).clone())
        return seen

    times = [(epoch, step) for epoch in (0, 1) for step in range(4)]
    for every, changes in ((1, 7), (2, 3), (3, 3), (None, 1)):
        seen = sequence(every, times)
        assert sum(not torch.equal(a, b) for a, b in itertools.pairwise(seen)) == changes
        assert torch.equal(seen[-1], sequence(every, times[-1:])[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_by_magnitude_the_smallest_weights_go(scope: Any, layout: torch.memory_format) -> None:
    net = seeded(TinyNet, seed=2).to(memory_format=layout)  # type: ignore[call-overload]
    factors = masks(Masking(0.3, by="magnitude", scope=scope), net).factors
    weights = {name: net.get_parameter(name).detach().abs() for name in MASKED}
    for names in [MASKED] if scope == "global" else [(name,) for name in MASKED]:
        sizes = torch.cat([weights[name].flatten() for name in names])
        kept = torch.cat([factors[name].flatten() for name in names]) > 0
        assert int((~kept).sum()) == round(0.3 * len(sizes))
        assert sizes[~kept].max() < sizes[kept].min()


def test_the_released_code_s_zeros_are_written_and_may_grow_again() -> None:
    net = seeded(TinyNet, seed=2)
    how = Masking(0.3, every=2, lasting=True)
    drawn = masks(how, net)
    assert not drawn.live
    weights = torch.cat([net.get_parameter(name).detach().flatten() for name in MASKED])
    assert abs(float((weights == 0).double().mean()) - 0.3) < 0.05
    assert torch.equal(flat(drawn), torch.ones(len(weights)))
    after = trained(SOME, how, count=40)
    assert 0 < float((torch.cat([after.get_parameter(name).flatten() for name in MASKED]) == 0).double().mean()) < 0.3


def test_biases_norms_and_buffers_are_never_masked() -> None:
    assert set(masks(Masking(0.5)).factors) == set(MASKED)
    assert set(masks(Masking(0.5, layers=(nn.Conv2d,))).factors) == {"conv.weight", "mix.weight"}
    with pytest.raises(BadInput, match="no layer of the kinds Conv3d"):
        masks(Masking(0.5, layers=(nn.Conv3d,)))


# ------------------------------------------------------------------------------------------------------- in between


def test_a_refinement_is_one_plain_gradient_step_on_clean_images() -> None:
    """Oracle: with a first step that changes nothing, what is left is W - eta' grad of the mean cross entropy."""
    extra = blobs(12, seed=7)
    still = ONE.but(lr=1e-30)
    net = trained(still, None, refinement=Refinement(lr=0.05, images=12, data=extra))
    by_hand = seeded(TinyNet, seed=2).eval()
    F.cross_entropy(by_hand(extra.pixels.float() / 255), extra.labels).backward()  # type: ignore[no-untyped-call]
    for name, parameter in by_hand.named_parameters():
        assert parameter.grad is not None
        step = 0.05 * parameter.grad * (not name.startswith("bn"))
        torch.testing.assert_close(net.get_parameter(name), (parameter - step).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("every", "expected"), [(None, 1), (1, 5), (2, 2), (5, 1), (6, 0)])
def test_refinements_come_when_they_are_due(every: int | None, expected: int) -> None:
    assert sum(Refinement(every=every).due(step, 5) for step in range(5)) == expected


def test_refinements_are_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start, seen = seeded(TinyNet, seed=2), list[Masks]()
    draw = Masks.draw
    monkeypatch.setattr(Masks, "draw", lambda self, *when: seen.append(self) or draw(self, *when))  # type: ignore[func-returns-value,redundant-expr]
    net = trained(ONE.but(lr=1e-30), Masking(0.4), refinement=Refinement(lr=0.1, images=16))
    for name in MASKED:
        dropped, weight = seen[0].factors[name] == 0, start.get_parameter(name)
        assert torch.equal(net.get_parameter(name)[dropped], weight[dropped])
        assert not torch.equal(net.get_parameter(name)[~dropped], weight[~dropped])


@pytest.mark.parametrize("data", [blobs(8, shape=(3, 8, 8)), blobs(8, classes=4), blobs(0)])
def test_images_that_are_no_training_images_are_refused(data: Images) -> None:
    with pytest.raises(BadInput, match=r"refinement: expected images \(1, 8, 8\) of 3 classes"):
        trained(ONE, None, refinement=Refinement(data=data))


# ---------------------------------------------------------------------------------------------------------- resumption


@pytest.mark.parametrize(
    "masking",
    [
        Masking(0.3),
        Masking(0.01, every=2),
        Masking(0.3, every=3, by="magnitude"),
        Masking(0.2, every=2, by="normal"),
        Masking(0.2, every=2, lasting=True),
    ],
)
def test_a_masked_run_broken_off_again_and_again_ends_bit_for_bit(
    masking: Masking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(checkpoint: Checkpoint | None = None) -> Mapping[str, Tensor]:
        more = {"refinement": Refinement(every=2), "checkpoint": checkpoint}
        return trained(SOME.but(batchnorm="train"), masking, count=40, **more).state_dict()

    unbroken = attempt()
    left, step, kills = itertools.cycle([True, True, False]), Run.step, 0
    monkeypatch.setattr(Run, "step", lambda *case: step(*case) if next(left) else _killed())
    while kills < 40:
        try:
            state = attempt(Checkpoint(tmp_path / "run.safetensors", 0.0))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 4
    assert all(torch.equal(value, state[name]) for name, value in unbroken.items())


def _killed() -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", [{"masking": Masking(0.2)}, {"refinement": Refinement()}, {}])
def test_a_checkpoint_of_another_masking_or_refinement_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    first: dict[str, Any] = {"masking": Masking(0.1), "refinement": Refinement(lr=1e-3)}
    trained(ONE, checkpoint=tmp_path / "run.safetensors", **first)
    other = {**first, **changed} if changed else {"masking": None}
    with pytest.raises(BadInput, match="another run"):
        trained(ONE, checkpoint=tmp_path / "run.safetensors", **other)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Masking, {"drop": 1.0}, "below 1, got 1"),
        (Masking, {"drop": -0.1}, "drop: expected a number from 0 to 1, got -0.1"),
        (Masking, {"drop": float("nan")}, "got nan"),
        (Masking, {"drop": "0.1"}, "got '0.1'"),
        (Masking, {"every": 0}, "every: expected a whole number"),
        (Masking, {"every": 1.5}, "got 1.5"),
        (Masking, {"by": "size"}, "random or magnitude or normal"),
        (Masking, {"by": "normal", "lasting": True}, "normal factors are none"),
        (Masking, {"scope": "net"}, "global or layer"),
        (Refinement, {"lr": 0.0}, "finite number above 0"),
        (Refinement, {"lr": float("inf")}, "finite number above 0"),
        (Refinement, {"images": 0}, "images: expected a whole number"),
        (Refinement, {"images": 2.5}, "got 2.5"),
        (Refinement, {"every": 0}, "every: expected a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: type[Any], values: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        kind(**values)


@pytest.mark.parametrize("drop", [0.01, 0.4])
def test_weights_that_are_slices_are_masked_in_room_of_their_own(drop: float) -> None:
    """A slice spans memory that is not its own; no factor of one layer lies in another's."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 40), nn.Linear(40, 30))
    for at in (1, 2):
        layer = net[at]
        assert isinstance(layer, nn.Linear)
        layer.weight = nn.Parameter(torch.randn(2 * layer.out_features, 2 * layer.in_features)[::2, ::2])
    drawn = masks(Masking(drop, every=1), net)
    drawn.draw(0, 1)
    gone = [float((factor == 0).double().mean()) for factor in drawn.factors.values()]
    assert all(abs(share - drop) < 0.05 for share in gone)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with drawn.applied():
        net(torch.rand(2, 3, 4, 4)).sum().backward()
    assert all(torch.equal(parameter, old) for parameter, old in zip(net.parameters(), before, strict=True))
