"""Transfer: the target's classes become the model's, one to one, and its images take the model's shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.attacks import FineTune, Transfer
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import accuracy

CLASSES = 3


@pytest.fixture
def data() -> Data:
    return Data(blobs(48), blobs(24, seed=1))


@pytest.fixture
def model() -> nn.Module:
    return seeded(TinyNet)


def greys(classes: int, each: int = 4, shape: tuple[int, int, int] = (3, 12, 13)) -> Data:
    """Images whose one grey level is ten times their class, so that any image tells where it comes from."""
    labels = torch.arange(each * classes) % classes
    pixels = (10 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *shape).contiguous()
    return Data(Images(pixels, labels, classes), Images(pixels[:-1], labels[:-1], classes))


def classes_of(images: Images) -> list[tuple[int, int]]:
    """(old class, new class) of every image."""
    assert torch.equal(images.pixels.amin((1, 2, 3)), images.pixels.amax((1, 2, 3)))
    return list(zip((images.pixels[:, 0, 0, 0] // 10).tolist(), images.labels.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_relabelling_is_a_bijection_of_the_classes_drawn_and_the_same_for_train_and_test(seed: int, data: Data) -> None:
    target = Transfer(data=greys(20)).target(data, rng(seed))
    pairs = set(classes_of(target.train))
    assert len(pairs) == len({old for old, _ in pairs}) == CLASSES
    assert {new for _, new in pairs} == set(range(CLASSES))
    assert set(classes_of(target.test)) == pairs
    assert (target.shape, target.classes) == (data.shape, CLASSES)
    assert len(target.train) == 4 * CLASSES


def test_other_generators_draw_other_classes_until_all_were_drawn(data: Data) -> None:
    targets = [Transfer(data=greys(5)).target(data, rng(seed)) for seed in range(12)]
    drawn = {tuple(sorted({old for old, _ in classes_of(target.train)})) for target in targets}
    assert len(drawn) > 3
    assert {old for classes in drawn for old in classes} == set(range(5))


def test_a_target_with_as_many_classes_keeps_its_labels(data: Data) -> None:
    target = Transfer(data=greys(CLASSES)).target(data, rng(3))
    assert {old == new for old, new in classes_of(target.train)} == {True}
    same = Transfer(data=data).target(data, rng(3))
    assert torch.equal(same.test.pixels, data.test.pixels)
    assert torch.equal(same.test.labels, data.test.labels)


@pytest.mark.parametrize(("channels", "task"), [(1, (3, 8, 8)), (3, (1, 8, 8)), (1, (1, 16, 5))])
def test_images_take_the_size_and_the_channels_of_the_models_task(channels: int, task: tuple[int, int, int]) -> None:
    own = Data(blobs(12, shape=task), blobs(12, shape=task))
    assert Transfer(data=greys(4, shape=(channels, 8, 8))).target(own, rng(0)).shape == task


def test_a_call_is_fine_tuning_on_the_target(model: nn.Module, data: Data) -> None:
    settings: dict[str, Any] = {"epochs": 1, "trials": 2, "images": 10, "fresh_head": True, "lr": 1e-3}
    transfer, shared = Transfer(data=greys(7, each=6), **settings), rng(0)
    tuned = FineTune(**settings)(model, transfer.target(data, shared), shared)
    assert model_digest(transfer(model, data, rng(0))) == model_digest(tuned)


def test_the_other_task_is_learnt_in_ten_trials(model: nn.Module, data: Data) -> None:
    other = Data(*(blobs(n, classes=6, shape=(3, 12, 12), seed=n) for n in (96, 60)))
    transfer = Transfer(data=other, epochs=2, lr=1e-2)
    task = transfer.target(data, rng(0))
    reached = [accuracy(stage, task.test) for stage in transfer.stages(model, data, rng(0))]
    assert len(reached) == 10
    assert accuracy(model, task.test) < 0.7
    assert reached[-1] == 1.0


def test_a_target_that_cannot_take_the_place_of_the_models_task_is_refused(model: nn.Module, data: Data) -> None:
    with pytest.raises(BadInput, match="target has 2 classes and the model's task 3"):
        Transfer(data=greys(2))(model, data, rng(0))
    hollow = greys(CLASSES).train
    lacking = hollow.subset((hollow.labels != 1).nonzero().flatten())
    with pytest.raises(BadInput, match="no training image of class 1"):
        Transfer(data=replace(greys(CLASSES), train=lacking))(model, data, rng(0))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_with_a_fresh_head_the_target_keeps_all_of_its_classes(classes: int, model: nn.Module, data: Data) -> None:
    elsewhere = Data(blobs(70, classes), blobs(35, classes))
    attack = Transfer(data=elsewhere, trials=1, lr=1e-2, epochs=8, fresh_head=True, all_classes=True)
    before = model_digest(model)
    tuned, target = attack(model, data, rng(0)), attack.target(data, rng(0))
    assert target.classes == classes
    assert tuned.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, classes)
    assert accuracy(tuned, target.test) > 1.5 / classes
    assert model_digest(model) == before
    assert model_digest(attack(model, data, rng(0))) == model_digest(tuned)


def test_all_classes_under_the_old_head_are_refused(data: Data) -> None:
    with pytest.raises(BadInput, match="give fresh_head as well"):
        Transfer(data=data, all_classes=True)
