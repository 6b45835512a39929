"""Fine-tuning touches the layers that its name says, starts where it says, and learns from the labels it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from earmark.attacks import FineTune, attack
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.models import PlainCNN
from earmark.training import accuracy, answers
from earmark.training.run import Run

CLASSES = 3


@pytest.fixture
def data() -> Data:
    """Three brightnesses, learnt in no time."""
    labels = torch.arange(48) % CLASSES
    noise = torch.randint(40, (48, 1, 8, 8), generator=rng(1))
    images = Images((100 * labels.view(-1, 1, 1, 1) + noise).clamp(max=255).to(torch.uint8), labels, CLASSES)
    return Data(images, images.subset(torch.arange(24)))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return PlainCNN((1, 8, 8), CLASSES, width=4, features=8)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    return {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after.state_dict()[name])}


@pytest.mark.parametrize("name", ["fine-tune-ftll", "fine-tune-rtll"])
def test_last_layer_attacks_leave_all_else_bit_for_bit(name: str, model: nn.Module, data: Data) -> None:
    assert changed(model, attack(name, epochs=2)(model, data, rng(0))) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["fine-tune-ftal", "fine-tune-rtal"])
def test_all_layer_attacks_change_every_parameter_and_statistic(name: str, model: nn.Module, data: Data) -> None:
    assert changed(model, attack(name, epochs=2)(model, data, rng(0))) == set(model.state_dict())


def test_frozen_batch_norm_keeps_statistics_and_affine_parameters(model: nn.Module, data: Data) -> None:
    tuned = attack("fine-tune-ftal", epochs=2, batchnorm="frozen")(model, data, rng(0))
    norms = {f"{n}.{t}" for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) for t in m.state_dict()}
    assert changed(model, tuned) == set(model.state_dict()) - norms


@pytest.mark.parametrize(("name", "fresh"), [("ftll", False), ("ftal", False), ("rtll", True), ("rtal", True)])
def test_re_training_starts_from_another_head_and_fine_tuning_from_this_one(
    name: str, fresh: bool, model: nn.Module, data: Data
) -> None:
    tuned = attack(f"fine-tune-{name}", epochs=1, lr=1e-9)(model, data, rng(0))
    before, after = model.get_parameter("head.weight"), tuned.get_parameter("head.weight")
    assert torch.allclose(before, after, atol=1e-6) is not fresh
    assert after.abs().max() <= 8**-0.5 + 1e-6
    trunk = [torch.allclose(a, b, atol=1e-6) for a, b in zip(model.parameters(), tuned.parameters(), strict=True)]
    assert all(trunk[:-2])


@pytest.mark.parametrize("settings", [{}, {"fresh_head": True}, {"optimizer": "sgd"}, {"optimizer": "adamw"}])
def test_the_thief_reaches_full_accuracy_on_an_easy_task(
    settings: dict[str, object], model: nn.Module, data: Data
) -> None:
    tuned = attack("fine-tune-ftal", **{"epochs": 20, "lr": 2e-2, "batch_size": 12, **settings})(model, data, rng(0))
    assert accuracy(model, data.test) < 0.7
    assert accuracy(tuned, data.test) == 1.0


def test_with_the_models_own_labels_the_true_ones_have_no_part(model: nn.Module, data: Data) -> None:
    swapped = Data(replace(data.train, labels=(data.train.labels + 1) % CLASSES), data.test)
    for labels, blind in (("model", True), ("true", False)):
        one, two = (attack("fine-tune-ftal", labels=labels, epochs=1)(model, d, rng(0)) for d in (data, swapped))
        assert (model_digest(one) == model_digest(two)) is blind


def test_labels_that_are_all_class_0_are_labels(model: nn.Module, data: Data) -> None:
    zeros = Data(replace(data.train, labels=torch.zeros_like(data.train.labels)), data.test)
    tuned = attack("fine-tune-rtal", epochs=10, lr=1e-2)(model, zeros, rng(0))
    assert not answers(tuned, data.test).any()


def test_a_head_that_the_search_cannot_tell_is_named(data: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES), nn.Linear(CLASSES, CLASSES), nn.Softmax(1))
    with pytest.raises(BadInput, match="cannot tell"):
        attack("fine-tune-rtll", epochs=1)(model, data, rng(0))
    assert changed(model, attack("fine-tune-rtll", epochs=1, head="1")(model, data, rng(0))) == {"1.weight", "1.bias"}


def test_an_augmentation_is_what_the_model_sees(model: nn.Module, data: Data) -> None:
    def black(pixels: Tensor, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(pixels)

    blind: Callable[[Data], nn.Module] = lambda d: attack("fine-tune-ftal", epochs=1, augment=black)(model, d, rng(0))  # noqa: E731
    inverted = Data(replace(data.train, pixels=255 - data.train.pixels), data.test)
    assert model_digest(blind(data)) == model_digest(blind(inverted))


@pytest.mark.parametrize("name", ["ftll", "ftal", "rtll", "rtal"])
def test_an_attack_broken_off_goes_on_and_ends_as_an_unbroken_one(
    name: str, model: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 4, "batch_size": 12, "labels": "model"}
    unbroken = model_digest(attack(f"fine-tune-{name}", **settings)(model, data, rng(0)))
    again = attack(f"fine-tune-{name}", **settings, checkpoint=tmp_path / "attack.checkpoint")
    steps: list[tuple[int, int]] = []

    def step(run: Run, order: Tensor, epoch: int, number: int, real: Callable[..., Tensor] = Run.step) -> Tensor:
        steps.append((epoch, number))
        if len(steps) == 11:
            raise KeyboardInterrupt
        return real(run, order, epoch, number)

    monkeypatch.setattr(Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        again(model, data, rng(0))
    assert model_digest(again(model, data, rng(0))) == unbroken
    assert steps[10:12] == [(2, 2), (2, 0)], "the second run begins with the epoch in which the first one broke off"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"layers": "first"}, "layers"),
        ({"labels": "guessed"}, "labels"),
        ({"epochs": -1}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "rprop"}, "optimizer"),
        ({"batchnorm": "sometimes"}, "batchnorm"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        FineTune(**settings)  # type: ignore[arg-type]
