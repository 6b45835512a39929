"""Extraction learns what the stolen model answers, from nothing but its answers, asked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import Extract
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import CrossEntropy, Settings, accuracy, answers, fit, predict
from earmark.training.run import Run

CLASSES = 3
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 16, "milestones": (), "lr": 1e-2}


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))


class Answering(nn.Module):
    """A stolen model behind a function of its logits, which counts how many images it was asked about."""

    def __init__(self, inner: nn.Module, say: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.say, self.asked = inner, say, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.say(self.inner(x))


def plainly(logits: Tensor) -> Tensor:
    return logits


def classes(logits: Tensor) -> Tensor:
    return logits.argmax(1)


@pytest.fixture(scope="module")
def data() -> Data:
    """More images than a linear model of 4 x 4 pixels has weights."""
    pixels = torch.randint(256, (96, 1, 4, 4), generator=rng(1), dtype=torch.uint8)
    images = Images(pixels, torch.arange(96) % CLASSES, CLASSES)
    return Data(images, images)


@pytest.fixture
def teacher() -> nn.Module:
    """A linear model with logits up to a few units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = linear()
    with torch.no_grad():
        model.get_parameter("1.weight").mul_(3)
    return model


@pytest.fixture
def picture() -> Data:
    return Data(blobs(48), blobs(24, seed=1))


@pytest.mark.parametrize("say", [plainly, torch.nn.Softmax(1)])
@pytest.mark.parametrize(("loss", "lr"), [("mse", 0.5), ("kl", 1.0)])
def test_a_linear_model_is_recovered_from_its_scores(
    loss: Any, lr: float, say: Callable[[Tensor], Tensor], teacher: nn.Module, data: Data
) -> None:
    """Oracle: both losses are convex here, with the stolen weights as their minimum (kl: up to one logit)."""
    attack = Extract(loss=loss, lr=lr, epochs=150, batch_size=96, milestones=(), build=linear)
    stolen = predict(attack(Answering(teacher, say), data, rng(0)), data.test)
    if loss == "mse" and say is plainly:
        torch.testing.assert_close(stolen, predict(teacher, data.test), rtol=0.01, atol=0.01)
    torch.testing.assert_close(stolen.softmax(1), predict(teacher, data.test).softmax(1), rtol=0.01, atol=0.01)


def test_hard_labels_are_the_stolen_models_answers(teacher: nn.Module, data: Data) -> None:
    images, reading = Extract(answers="hard").lessons(teacher, data, rng(0))
    assert reading is None
    assert torch.equal(images.labels, answers(teacher, data.train))
    assert torch.equal(images.pixels, data.train.pixels)


def test_soft_lessons_are_the_stolen_models_logits(teacher: nn.Module, data: Data) -> None:
    images, reading = Extract(images=40).lessons(teacher, data, rng(0))
    assert reading is not None
    assert len(images) == 40
    assert torch.equal(reading.logits, predict(teacher, images))
    asked = Answering(teacher, torch.nn.Softmax(1))
    _, whole = Extract(build=linear).lessons(asked, data, rng(0))
    assert whole is not None
    torch.testing.assert_close(whole.logits, predict(teacher, data.train).log_softmax(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["soft", "hard"])
def test_a_copy_of_a_model_that_answers_probabilities_needs_a_network_of_its_own(how: Any, picture: Data) -> None:
    stolen = torch.nn.Sequential(seeded(TinyNet), torch.nn.Softmax(1))
    with pytest.raises(BadInput, match="give build="):
        Extract(answers=how, **FAST)(stolen, picture, rng(0))
    Extract(answers=how, build=TinyNet, **FAST)(stolen, picture, rng(0))


@pytest.mark.parametrize("how", ["soft", "hard"])
def test_the_images_own_labels_have_no_part(how: Any, picture: Data) -> None:
    swapped = Data(replace(picture.train, labels=(picture.train.labels + 1) % CLASSES), picture.test)
    one, two = (Extract(answers=how, **FAST)(seeded(TinyNet), d, rng(0)) for d in (picture, swapped))
    assert model_digest(one) == model_digest(two)


def test_of_the_stolen_weights_nothing_is_left(picture: Data) -> None:
    """Two stolen models with the same answers leave the same copy, and statistics start anew as weights do."""
    one, two = seeded(TinyNet), seeded(TinyNet)
    with torch.no_grad():
        two.get_parameter("head.weight").mul_(2)
        two.get_parameter("head.bias").mul_(2)
        two.get_submodule("bn").get_buffer("num_batches_tracked").add_(5)
    attack = Extract(answers="hard", **FAST)
    assert model_digest(attack(one, picture, rng(0))) == model_digest(attack(two, picture, rng(0)))


@pytest.mark.parametrize("augment", [None, lambda pixels, generator: pixels.flip(3)])
@pytest.mark.parametrize("settings", [{}, {"answers": "hard"}, {"noise": 0.1, "loss": "mse"}])
def test_the_stolen_model_is_asked_once_about_each_image(
    settings: dict[str, Any], augment: Any, teacher: nn.Module, data: Data
) -> None:
    asked = Answering(teacher, plainly)
    Extract(**settings, **FAST, augment=augment, build=linear)(asked, data, rng(0))
    assert asked.asked == len(data.train)


def test_a_model_that_answers_classes_serves_hard_labels(teacher: nn.Module, data: Data) -> None:
    attack = Extract(answers="hard", build=linear, **FAST)
    told, shown = (attack(Answering(teacher, say), data, rng(0)) for say in (classes, plainly))
    assert model_digest(told) == model_digest(shown)
    for wrong in (replace(attack, answers="soft"), replace(attack, build=None)):
        with pytest.raises(BadInput, match="take hard answers, and give build="):
            wrong(Answering(teacher, classes), data, rng(0))


def test_noise_is_drawn_once_and_the_answers_are_those_to_the_noisy_images(teacher: nn.Module, data: Data) -> None:
    grey = replace(data.train, pixels=torch.full((96, 1, 32, 32), 128, dtype=torch.uint8))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(1024, CLASSES))
    noisy, _ = Extract(noise=0.1).lessons(constant, Data(grey, grey), rng(0))
    moved = noisy.pixels.double() - 128
    assert float(moved.std()) == pytest.approx(25.5, rel=0.01)
    assert abs(float(moved.mean())) < 0.5
    seen, reading = Extract(noise=0.5).lessons(teacher, data, rng(0))
    assert reading is not None
    assert torch.equal(reading.logits, predict(teacher, seen))
    assert {int(seen.pixels.min()), int(seen.pixels.max())} == {0, 255}


def test_a_network_of_another_architecture_can_learn(picture: Data) -> None:
    def other() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))

    victim = seeded(TinyNet)
    fit(victim, picture.train, (CrossEntropy(),), Settings(epochs=8, batch_size=16, lr=1e-2), rng(0))
    stolen = Extract(build=other, **{**FAST, "epochs": 20})(victim.eval(), picture, rng(0))
    assert len(stolen) == 4  # type: ignore[arg-type]
    assert not any(module.training for module in stolen.modules())
    assert accuracy(victim, picture.test) == accuracy(stolen, picture.test) == 1.0


def test_a_frozen_model_leaves_a_copy_that_learned_with_all_its_weights(picture: Data) -> None:
    frozen = seeded(TinyNet).requires_grad_(False)
    still = Extract(**{**FAST, "lr": 1e-12})(frozen, picture, rng(0))
    learned = Extract(**FAST)(frozen, picture, rng(0))
    assert not any(parameter.requires_grad for parameter in learned.parameters())
    for one, other in zip(still.parameters(), learned.parameters(), strict=True):
        assert not torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"answers": "hard"}, {"noise": 0.1, "loss": "mse"}])
def test_an_extraction_broken_off_goes_on_and_ends_as_an_unbroken_one(
    settings: dict[str, Any], picture: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Extract(**settings, **FAST, images=32)
    unbroken = model_digest(attack(seeded(TinyNet), picture, rng(0)))
    again = replace(attack, checkpoint=tmp_path / "attack.checkpoint")
    steps: list[tuple[int, int]] = []

    def step(run: Run, order: Tensor, epoch: int, number: int, real: Callable[..., Tensor] = Run.step) -> Tensor:
        steps.append((epoch, number))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(run, order, epoch, number)

    monkeypatch.setattr(Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        again(seeded(TinyNet), picture, rng(0))
    assert model_digest(again(seeded(TinyNet), picture, rng(0))) == unbroken
    assert steps[4:] == [(1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"answers": "noise"}, "answers"),
        ({"loss": "ce"}, "loss"),
        ({"temperature": 0.0}, "temperature"),
        ({"noise": -0.1}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"images": 0}, "images"),
        ({"epochs": -1}, "epochs"),
        ({"milestones": (3, 2)}, "milestones"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        Extract(**settings)


def test_more_images_than_there_are_are_refused(teacher: nn.Module, data: Data) -> None:
    with pytest.raises(BadInput, match="97 images were asked for and there are 96"):
        Extract(images=97)(teacher, data, rng(0))
