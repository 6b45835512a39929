"""False accepts, simulated: innocent suspects as skewed as they come, over many keys, with marks drawn as owners do."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from earmark.core import Images, Null, Query
from earmark.keys import MarkKey
from earmark.marks import Noise, NotTrue, TriggerSet
from earmark.stats import clopper_pearson, critical_count, log_binomial_tail
from earmark.verify import SequentialTriggerTest, TriggerTest

ALPHA, CLASSES, COUNT, KEYS = 0.01, 10, 24, 400


def keys(purpose: str) -> list[MarkKey]:
    return [MarkKey(hashlib.sha256(f"{purpose} {i}".encode()).digest()) for i in range(KEYS)]


@pytest.fixture(scope="module")
def marks() -> list[TriggerSet]:
    mint = Noise(count=COUNT)
    return [mint.make(key, (1, 3, 3), CLASSES) for key in keys("mark")]


def constant(images: Tensor) -> Tensor:
    return torch.full((len(images),), 7)


def two_class(images: Tensor) -> Tensor:
    return torch.where(images.mean((1, 2, 3)) > 0.5, 2, 5)


def brightness(images: Tensor) -> Tensor:
    return (images.mean((1, 2, 3)) * 25).long() % CLASSES


def first_pixel(images: Tensor) -> Tensor:
    return (images[:, 0, 0, 0] * 255).long() % CLASSES


def copies_its_first_answer(images: Tensor) -> Tensor:
    """Answers that depend on each other as far as they can: all as the first image of the batch."""
    return first_pixel(images)[:1].expand(len(images))


def network(images: Tensor) -> Tensor:
    weights = MarkKey(bytes(32)).stream("innocent network").normals(9 * CLASSES).float().reshape(9, CLASSES)
    return images.flatten(1) @ weights


INNOCENT: list[Query] = [constant, two_class, brightness, first_pixel, copies_its_first_answer, network]


@pytest.mark.parametrize("suspect", INNOCENT, ids=lambda suspect: str(suspect.__name__))
def test_no_innocent_suspect_is_convicted_more_often_than_alpha(suspect: Query, marks: list[TriggerSet]) -> None:
    """And its matches are binomial at every count: P(X >= k) lies in the interval of the share that had k or more."""
    verdicts = [TriggerTest(alpha=ALPHA)(suspect, mark) for mark in marks]
    assert clopper_pearson(sum(verdict.accepted is True for verdict in verdicts), KEYS)[0] <= ALPHA
    for k in range(1, 8):
        low, high = clopper_pearson(sum(verdict.statistic >= k for verdict in verdicts), KEYS, confidence=0.9999)
        assert low <= math.exp(log_binomial_tail(k, COUNT, 1 / CLASSES)) <= high


@pytest.mark.parametrize("suspect", [constant, two_class, network])
def test_nor_by_the_sequential_test(suspect: Query, marks: list[TriggerSet]) -> None:
    test = SequentialTriggerTest(alpha=ALPHA, batch_size=COUNT)
    accepted = sum(test(suspect, mark).accepted is True for mark in marks)
    assert clopper_pearson(accepted, KEYS)[0] <= ALPHA


def test_the_simulation_has_teeth() -> None:
    """Labels that are not drawn from the key, under a null that says they are: the constant predictor is convicted."""
    null = Null("exact", 1 / CLASSES, "a lie")
    images = (torch.arange(COUNT * 9) % 251).to(torch.uint8).reshape(COUNT, 1, 3, 3)
    mark = TriggerSet(images, torch.full((COUNT,), 7), CLASSES, null, {})
    assert TriggerTest(alpha=ALPHA)(constant, mark).accepted is True


def test_labels_that_avoid_the_true_class_keep_their_bound() -> None:
    """Suspects that know the carriers' classes: one answers them, one avoids them, so guesses among the other nine."""
    labels, accepted = NotTrue(), {"knows": 0, "avoids": 0}
    null = labels.null(CLASSES)
    images = (torch.arange(COUNT * 9) % 251).to(torch.uint8).reshape(COUNT, 1, 3, 3)
    true = torch.arange(COUNT) % CLASSES
    carriers = Images(images, true, CLASSES)
    for key in keys("not true"):
        drawn = labels.draw(key.stream("labels"), COUNT, CLASSES, true)
        mark = TriggerSet(images, drawn, CLASSES, null, {}, carriers)
        assert not bool((drawn == true).any())
        accepted["knows"] += TriggerTest(alpha=ALPHA)(lambda batch: true, mark).accepted is True
        accepted["avoids"] += TriggerTest(alpha=ALPHA)(lambda batch: (true + 1) % CLASSES, mark).accepted is True
    assert accepted["knows"] == 0
    assert clopper_pearson(accepted["avoids"], KEYS)[0] <= ALPHA


def test_random_networks_are_not_convicted(marks: list[TriggerSet]) -> None:
    """One key, many models: 200 networks with random weights, biased towards some classes as untrained ones are."""
    mark, accepted = marks[0], 0
    for seed in range(200):
        weights = MarkKey(hashlib.sha256(f"model {seed}".encode()).digest()).stream("weights").normals(100).float()
        model = nn.Linear(9, CLASSES)
        with torch.no_grad():
            model.weight.copy_(weights[:90].reshape(CLASSES, 9))
            model.bias.copy_(3 * weights[90:])
        accepted += TriggerTest(alpha=ALPHA)(nn.Sequential(nn.Flatten(), model), mark).accepted is True
    assert clopper_pearson(accepted, 200)[0] <= ALPHA


def test_the_simulated_tests_can_convict() -> None:
    assert critical_count(COUNT, 1 / CLASSES, ALPHA) <= COUNT // 2
