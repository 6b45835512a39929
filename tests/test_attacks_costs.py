"""What attacks need, and what they took: measured without any change of what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_attacks_laws import FORGERS, ROWS, fingerprint
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import (
    ATTACKS,
    EVASIONS,
    FORGERIES,
    PASSPORT_FORGERIES,
    PASSPORT_REMOVALS,
    PROJECTION_FORGERIES,
    Chain,
    Extract,
    Needs,
    attack,
    forger,
    measured,
    needs_of,
    washer,
)
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.suspects import as_query

DATA = Data(blobs(48), blobs(24, seed=1))
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "milestones": ()}
TUNED = {"epochs": 1, "batch_size": 16}

SAMPLES: dict[str, tuple[Callable[[], Any], int, int, bool]] = {
    "all training images, nothing asked": (lambda: attack("fine-tune-ftal", **TUNED), 48, 0, True),
    "some": (lambda: attack("fine-tune-ftal", images=10, **TUNED), 10, 0, True),
    "the model labels them": (lambda: attack("fine-tune-ftal", images=10, labels="model", **TUNED), 10, 10, True),
    "nothing": (lambda: attack("prune-global"), 0, 0, True),
    "some to prune by and to mend with": (lambda: attack("fine-prune", images=10, **TUNED), 10 + 1, 0, True),
    "some to search with": (lambda: attack("cleanse", images=10, steps=1, **TUNED), 10, 0, True),
    "one shows the head": (lambda: attack("prune-structured"), 1, 0, True),
    "statistics": (lambda: attack("prune-global", recalibrate=12), 12, 0, True),
    "answers to all": (lambda: attack("extract-soft", **FAST), 48, 48, False),
    "answers to some": (lambda: attack("extract-hard", images=20, **FAST), 20, 20, False),
    "at zero strength": (lambda: attack("extract-soft", epochs=0), 0, 0, False),
    "a forger": (lambda: forger("adversarial", count=6, steps=1), 6, 2, True),
    "a forger who asks": (lambda: forger("read-off", count=6), 6, 6 + 2, False),
}
"""What to run, the images that it takes, those that the model is asked about, and whether it needs the weights.

`require_fit` asks about two grey images.
"""


@pytest.mark.parametrize("name", SAMPLES)
def test_an_attack_is_told_the_images_that_it_takes_and_asks_about(name: str) -> None:
    make, samples, queries, weights = SAMPLES[name]
    _, spent = measured(make(), seeded(TinyNet), DATA, rng(0))
    assert (spent.samples, spent.queries, spent.weights) == (samples, queries, weights)
    assert 0 < spent.seconds < 60


@pytest.mark.parametrize("name", [name for name in SAMPLES if "forger" not in name])
def test_watching_changes_nothing(name: str) -> None:
    by, model = SAMPLES[name][0](), seeded(TinyNet)
    watched, _ = measured(by, model, DATA, rng(0))
    assert model_digest(watched) == model_digest(by(model, DATA, rng(0)))
    assert not any(module._forward_hooks for module in (*watched.modules(), *model.modules()))


@pytest.mark.parametrize("name", [*ROWS, *FORGERS])
def test_every_attack_ends_the_same_when_it_is_watched(name: str) -> None:
    by: Any = ROWS[name][0] if name in ROWS else FORGERS[name]
    data, model = Data(blobs(24, shape=(3, 8, 8)), blobs(12, shape=(3, 8, 8))), seeded(TinyNet, 3)
    watched, spent = measured(by, model, data, rng(1))
    assert fingerprint(watched) == fingerprint(by(model, data, rng(1)))
    assert spent.weights == needs_of(by).weights
    assert 0 <= spent.share <= 1


def test_a_query_is_counted_as_a_module_is() -> None:
    net = seeded(TinyNet)

    def asking(model: Any, data: Data, rng: torch.Generator) -> list[Tensor]:
        images = data.train.subset(torch.arange(5)).pixels.float() / 255
        return [model(images), model(images[:2])]

    for model in (net, as_query(net)):
        _, spent = measured(asking, model, DATA, rng(0))
        assert (spent.samples, spent.queries, spent.weights) == (5, 7, None)


def test_questions_to_copies_are_no_questions_to_the_model() -> None:
    def copying(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        copy = seeded(TinyNet)
        copy.load_state_dict(model.state_dict())
        copy(data.train.pixels.float() / 255)
        return copy

    assert measured(copying, seeded(TinyNet), DATA, rng(0))[1].queries == 0


def test_the_model_is_no_longer_watched_after_an_attack_that_failed() -> None:
    def failing(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        raise BadInput("no")

    before = len(torch.nn.modules.module._global_forward_hooks)
    with pytest.raises(BadInput):
        measured(failing, seeded(TinyNet), DATA, rng(0))
    assert len(torch.nn.modules.module._global_forward_hooks) == before


def test_watched_images_are_images() -> None:
    seen: list[Images] = []

    def looking(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        seen.extend((data.train, data.train.sample(3), data.test.subset(torch.tensor([True] * 2 + [False] * 22))))
        assert (len(data.train), data.shape, data.classes) == (48, (1, 8, 8), 3)
        return model

    _, spent = measured(looking, seeded(TinyNet), DATA, rng(0))
    assert (spent.samples, spent.share) == (5, 3 / 48)
    assert torch.equal(seen[1].pixels, DATA.train.sample(3).pixels)
    assert torch.equal(seen[2].labels, DATA.test.labels[:2])
    assert torch.equal(seen[0].pixels, DATA.train.pixels)


# ----------------------------------------------------------------------------------------------------------- the needs


TABLES = (ATTACKS, EVASIONS, FORGERIES, PASSPORT_FORGERIES, PASSPORT_REMOVALS, PROJECTION_FORGERIES)


@pytest.mark.parametrize("table", TABLES)
def test_every_named_attack_states_what_its_thief_needs(table: Any) -> None:
    for name, made in table.items():
        kind = getattr(made, "func", made)
        assert hasattr(kind, "needs"), name


def test_needs_follow_the_settings() -> None:
    assert needs_of(attack("fine-tune-ftal")) == Needs(True, "labelled images")
    assert needs_of(attack("fine-tune-ftal", labels="model")) == Needs(True, "images")
    assert needs_of(attack("extract-hard")) == Needs(False, "images", "classes", "the architecture")
    assert needs_of(Extract(build=TinyNet)) == Needs(False, "images", "scores")
    assert needs_of(Chain((washer("blur"), washer("autoencoder")))) == Needs(False, "images", "classes")


def test_an_attack_that_states_no_needs_is_refused() -> None:
    with pytest.raises(BadInput, match="object does not say what its thief needs"):
        needs_of(object())
