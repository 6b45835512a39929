"""Trials in a row: the same images, the last trial's model, a new optimizer; and each can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import FineTune
from earmark.attacks.removal.tuning import saved_trials
from earmark.core import Data, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import Settings, answers
from earmark.training.run import Run

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "lr": 1e-2}


@pytest.fixture
def data() -> Data:
    return Data(blobs(48), blobs(24, seed=1))


@pytest.fixture
def model() -> nn.Module:
    return seeded(TinyNet)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_trials_in_a_row_are_single_calls_in_a_row_that_share_a_generator(
    optimizer: str, model: nn.Module, data: Data
) -> None:
    one = FineTune(optimizer=optimizer, **FAST)  # type: ignore[arg-type]
    stages = [model_digest(stage) for stage in replace(one, trials=3).stages(model, data, rng(4))]
    shared, chained = rng(4), [model]
    for _ in range(3):
        chained.append(one(chained[-1], data, shared))
    assert stages == [model_digest(link) for link in chained[1:]]
    assert len({model_digest(model), *stages}) == 4


def test_a_call_returns_the_last_stage(model: nn.Module, data: Data) -> None:
    attack = FineTune(trials=3, images=20, fresh_head=True, **FAST)
    *_, last = attack.stages(model, data, rng(4))
    assert model_digest(attack(model, data, rng(4))) == model_digest(last)


def test_a_stage_is_a_copy_with_which_the_next_one_has_nothing_to_do(model: nn.Module, data: Data) -> None:
    attack = FineTune(trials=2, **FAST)
    untouched = [model_digest(stage) for stage in attack.stages(model, data, rng(4))]
    seen = []
    for stage in attack.stages(model, data, rng(4)):
        seen.append(model_digest(stage))
        nn.init.zeros_(stage.get_parameter("head.weight"))
    assert seen == untouched


def test_every_trial_sees_the_same_images_as_many_as_asked_for(model: nn.Module, data: Data) -> None:
    trials: list[set[bytes]] = []

    def spy(pixels: Tensor, generator: torch.Generator) -> Tensor:
        trials[-1] |= {image.numpy().tobytes() for image in pixels}
        return pixels

    stages = FineTune(trials=3, images=20, augment=spy, **FAST).stages(model, data, rng(4))
    for _ in range(3):
        trials.append(set())
        next(stages)
    assert len(trials[0]) == 20
    assert trials[0] == trials[1] == trials[2]
    everything = {image.numpy().tobytes() for image in data.train.pixels}
    assert trials[0] < everything


def test_another_generator_draws_other_images(model: nn.Module, data: Data) -> None:
    few = FineTune(images=20, labels="model")
    one, same, other = (few.lessons(model, data, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.labels, answers(model, one))


def test_the_models_own_answers_are_those_of_the_stolen_one_in_every_trial(model: nn.Module, data: Data) -> None:
    own = Data(replace(data.train, labels=answers(model, data.train)), data.test)
    told = FineTune(trials=2, **FAST)(model, own, rng(0))
    assert model_digest(FineTune(labels="model", trials=2, **FAST)(model, data, rng(0))) == model_digest(told)


def test_momentum_and_weight_decay_are_settings_of_the_run() -> None:
    paper = FineTune(optimizer="sgd", momentum=0.5, weight_decay=5e-4, lr=1e-5, epochs=20)
    wanted = {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 5e-4, "lr": 1e-5, "epochs": 20}
    assert paper.training() == Settings(batch_size=32, triggers_per_batch=0, batchnorm="train", **wanted)  # type: ignore[arg-type]


def test_trials_broken_off_go_on_in_the_trial_that_broke(
    model: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = FineTune(trials=3, images=32, fresh_head=True, **{**FAST, "epochs": 2})
    unbroken = model_digest(attack(model, data, rng(0)))
    again = replace(attack, checkpoint=tmp_path / "a[1].checkpoint")
    (tmp_path / "a1.checkpoint.2").write_bytes(b"of another run")
    done: list[tuple[int, int]] = []

    def step(run: Run, order: Tensor, epoch: int, number: int, real: Callable[..., Tensor] = Run.step) -> Tensor:
        done.append((epoch, number))
        if len(done) == 7:
            raise KeyboardInterrupt
        return real(run, order, epoch, number)

    monkeypatch.setattr(Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        again(model, data, rng(0))
    assert model_digest(again(model, data, rng(0))) == unbroken
    assert done[7:] == [(1, 0), (1, 1), *[(epoch, number) for epoch in (0, 1) for number in (0, 1)]]
    assert again.checkpoint is not None
    names = {file.name for file in saved_trials(again.checkpoint)}
    assert names == {"a[1].checkpoint", "a[1].checkpoint.2", "a[1].checkpoint.3"}


def test_more_images_than_there_are_are_refused(model: nn.Module, data: Data) -> None:
    with pytest.raises(BadInput, match="49 images were asked for and there are 48"):
        FineTune(images=49)(model, data, rng(0))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"trials": 0}, "trials"),
        ({"images": 0}, "images"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1}, "we"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        FineTune(**settings)
