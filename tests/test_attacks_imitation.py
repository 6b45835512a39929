"""Knockoffs learn from images of another kind, distillation from softened answers and labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.attacks import Distil, Extract, Knockoff, measured
from earmark.core import Data, Images, rng
from earmark.data import channels_to, resized
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.models import Reading
from earmark.training import Step, predict

CLASSES = 3
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 16, "milestones": ()}


def noise(count: int, classes: int, shape: tuple[int, int, int], seed: int = 1) -> Images:
    pixels = torch.randint(256, (count, *shape), generator=rng(seed), dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % classes, classes)


OWN = Data(noise(30, CLASSES, (1, 4, 4)), noise(60, CLASSES, (1, 4, 4), seed=2))
OTHER = Data(*(noise(160, 7, (3, 5, 6), seed) for seed in (3, 4)))
"""Another task: more classes, colour, another size."""


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))


@pytest.fixture
def teacher() -> nn.Module:
    """A linear model with logits up to a few units."""
    model = seeded(linear, seed=3)
    with torch.no_grad():
        model.get_parameter("1.weight").mul_(3)
    return model


def test_a_linear_model_is_recovered_from_its_answers_to_other_images(teacher: nn.Module) -> None:
    """Oracle: the loss is convex, and its minimum are the stolen weights up to one logit."""
    others = Data(*(noise(160, 7, (1, 4, 4), seed) for seed in (5, 6)))
    by = Knockoff(data=others, epochs=300, lr=1.0, batch_size=160, milestones=(), momentum=0.9, build=linear)
    stolen, spent = measured(by, teacher, OWN, rng(0))
    torch.testing.assert_close(
        predict(stolen, OWN.test).softmax(1), predict(teacher, OWN.test).softmax(1), rtol=0.02, atol=0.02
    )
    assert (spent.samples, spent.queries) == (0, 160)


def test_the_transfer_set_is_the_other_data_in_the_models_shape(teacher: nn.Module) -> None:
    images, reading = Knockoff(data=OTHER).lessons(teacher, OWN, rng(0))
    assert reading is not None
    assert torch.equal(images.pixels, resized(channels_to(OTHER.train.pixels, 1), 4, 4))
    assert (images.shape, images.classes, len(images)) == (OWN.shape, CLASSES, 160)
    assert torch.equal(reading.logits, predict(teacher, images))
    budget, none = Knockoff(data=OTHER, images=20, answers="hard").lessons(teacher, OWN, rng(0))
    assert none is None
    assert len(budget) == 20
    assert torch.equal(budget.labels, predict(teacher, budget).argmax(1))


def test_the_other_datas_labels_and_the_own_images_have_no_part(teacher: nn.Module) -> None:
    swapped = Data(replace(OTHER.train, labels=(OTHER.train.labels + 1) % 7), OTHER.test)
    blank = Data(replace(OWN.train, pixels=torch.zeros_like(OWN.train.pixels)), OWN.test)
    copies = [
        Knockoff(data=other, build=linear, **FAST)(teacher, own, rng(0))
        for other, own in ((OTHER, OWN), (swapped, OWN), (OTHER, blank))
    ]
    assert len(set(map(model_digest, copies))) == 1


def test_more_queries_than_the_other_data_has_images_are_refused(teacher: nn.Module) -> None:
    with pytest.raises(BadInput, match="161 images were asked for and there are 160"):
        Knockoff(data=OTHER, images=161)(teacher, OWN, rng(0))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_objective_is_hintons(alpha: float) -> None:
    generator = rng(0)
    ours, theirs = (torch.randn(8, CLASSES, generator=generator) for _ in range(2))
    labels = torch.arange(8) % CLASSES
    soft = (F.softmax(theirs / 4, 1) * (F.log_softmax(theirs / 4, 1) - F.log_softmax(ours / 4, 1))).sum(1).mean()
    wanted = alpha * 16 * soft + (1 - alpha) * F.cross_entropy(ours, labels)
    reading = Reading(torch.empty(8, 0), theirs)
    step = Step(torch.empty(8, 1, 4, 4), torch.empty(8, 4), ours, labels, 8, 8, reading, nn.Identity(), {})
    terms = Distil(temperature=4, alpha=alpha).terms()
    torch.testing.assert_close(sum(term.weight * term(step) for term in terms), wanted)


def test_answers_alone_hold_stolen_weights_where_they_are_and_labels_move_them(teacher: nn.Module) -> None:
    """Of a linear model, which has no statistics: the gradient of KL(f || f) is zero."""
    settings: dict[str, Any] = {"start": "stolen", "epochs": 5, "lr": 0.1, "milestones": ()}
    held, moved = (Distil(alpha=alpha, **settings)(teacher, OWN, rng(0)) for alpha in (1.0, 0.5))
    before = predict(teacher, OWN.test)
    torch.testing.assert_close(predict(held, OWN.test), before, rtol=1e-4, atol=1e-4)
    assert float((predict(moved, OWN.test) - before).abs().max()) > 0.1


def test_labels_have_a_part_below_one_and_none_at_one(teacher: nn.Module) -> None:
    swapped = Data(replace(OWN.train, labels=(OWN.train.labels + 1) % CLASSES), OWN.test)
    for alpha, same in ((1.0, True), (0.9, False)):
        one, other = (Distil(alpha=alpha, **FAST)(teacher, data, rng(0)) for data in (OWN, swapped))
        assert (model_digest(one) == model_digest(other)) == same


def test_at_temperature_one_and_without_labels_distillation_is_extraction() -> None:
    data, net = Data(blobs(48), blobs(24, seed=1)), seeded(TinyNet)
    distilled, extracted = (by(net, data, rng(0)) for by in (Distil(temperature=1.0, **FAST), Extract(**FAST)))
    assert model_digest(distilled) == model_digest(extracted)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"alpha": 1.1}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"start": "new"}, "start"),
        ({"start": "stolen", "build": linear}, "starts fresh"),
        ({"images": 0}, "images"),
    ],
)
def test_settings_of_a_distillation_out_of_range_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        Distil(**settings)


def test_settings_of_a_knockoff_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput, match="answers"):
        Knockoff(data=OTHER, answers="all")  # type: ignore[arg-type]
