"""What every attack owes its caller, row by row: a new attack is one more row in `ROWS`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny import blobs
from torch import Tensor, nn

from earmark.attacks import ATTACKS, FORGERIES, Forger, Overwrite, attack, forger
from earmark.core import Data, Images, Remove, rng
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise, TriggerSet
from earmark.models import PlainCNN, logits_of
from earmark.training import Settings, fit
from earmark.training.terms import CrossEntropy

# ---------------------------------------------------------------------------------------------------- the table of rows


@dataclass(frozen=True)
class Embedder:
    """The shortest E: some epochs on the triggers alone."""

    epochs: int

    def __call__(self, host: nn.Module, mark: TriggerSet, data: Data, rng: torch.Generator) -> nn.Module:
        marked = copy.deepcopy(host)
        if self.epochs:
            settings = Settings(epochs=self.epochs, lr=1e-3, triggers_per_batch=0)
            fit(marked, Images(mark.images, mark.labels, mark.classes), (CrossEntropy(),), settings, rng)
        return marked


def overwriting(epochs: int) -> Overwrite[TriggerSet]:
    return Overwrite(Noise(8), Embedder(epochs), MarkKey(bytes(32)))


TUNING: dict[str, Any] = {"epochs": 1, "batch_size": 8}
IMITATING: dict[str, Any] = {**TUNING, "milestones": ()}

ELSEWHERE = Data(*(blobs(n, classes=12, shape=(3, 12, 13), seed=n) for n in (36, 24)))
"""Another task, with as many classes as any model here and images of another size."""

ROWS: dict[str, tuple[Remove, Remove | None]] = {
    "fine-tune-ftll": (attack("fine-tune-ftll", **TUNING), attack("fine-tune-ftll", epochs=0)),
    "fine-tune-ftal": (attack("fine-tune-ftal", **TUNING), attack("fine-tune-ftal", epochs=0)),
    "fine-tune-rtll": (attack("fine-tune-rtll", **TUNING), attack("fine-tune-rtll", epochs=0)),
    "fine-tune-rtal": (attack("fine-tune-rtal", labels="model", **TUNING), attack("fine-tune-rtal", epochs=0)),
    "fine-tune-ftal thrice": (
        attack("fine-tune-ftal", trials=3, images=16, optimizer="sgd", **TUNING),
        attack("fine-tune-ftal", trials=3, images=16, epochs=0),
    ),
    "transfer": (attack("transfer", data=ELSEWHERE, trials=2, **TUNING), attack("transfer", data=ELSEWHERE, epochs=0)),
    "transfer to a new head": (attack("transfer", data=ELSEWHERE, trials=1, fresh_head=True, **TUNING), None),
    "extract-soft": (attack("extract-soft", **TUNING), attack("extract-soft", epochs=0)),
    "extract-hard": (attack("extract-hard", images=16, **TUNING), attack("extract-hard", epochs=0)),
    "extract-noise": (attack("extract-noise", **TUNING), attack("extract-noise", epochs=0)),
    "knockoff": (
        attack("knockoff", data=ELSEWHERE, images=16, **IMITATING),
        attack("knockoff", data=ELSEWHERE, epochs=0),
    ),
    "knockoff of classes": (attack("knockoff", data=ELSEWHERE, answers="hard", **IMITATING), None),
    "distil": (attack("distil", **IMITATING), attack("distil", epochs=0)),
    "distil with labels": (attack("distil", alpha=0.5, start="stolen", **IMITATING), None),
    "prune-global": (attack("prune-global", share=0.5), attack("prune-global", share=0)),
    "prune-layer": (attack("prune-layer", share=0.5), attack("prune-layer", share=0)),
    "prune-random": (attack("prune-random", share=0.5), attack("prune-random", share=0)),
    "prune-structured": (attack("prune-structured", share=0.5), attack("prune-structured", share=0)),
    "prune-random and recalibrate": (attack("prune-random", share=0.5, recalibrate=16), None),
    "fine-prune": (attack("fine-prune", **TUNING), attack("fine-prune", share=0, epochs=0)),
    "fine-prune twice": (attack("fine-prune", labels="model", trials=2, share=0.9, **TUNING), None),
    "fine-prune alone": (attack("fine-prune", epochs=0), None),
    "shift-weights": (attack("shift-weights", **TUNING), attack("shift-weights", shift=0, noise=0, epochs=0)),
    "shift-weights alone": (attack("shift-weights", epochs=0), None),
    "smooth-labels": (attack("smooth-labels", **TUNING), attack("smooth-labels", epochs=0)),
    "adversarial-training": (
        attack("adversarial-training", iterations=2, **TUNING),
        attack("adversarial-training", epochs=0),
    ),
    "cleanse": (attack("cleanse", steps=2, **TUNING), attack("cleanse", epochs=0)),
    "cleanse all": (attack("cleanse", steps=2, classes="all", images=20, **TUNING), None),
    "half": (attack("half"), None),
    "bfloat16": (attack("bfloat16"), None),
    "int8": (attack("int8"), None),
    "int4": (attack("int4", per_channel=False), None),
    "overwrite": (overwriting(1), overwriting(0)),
    "stack": (
        attack("stack", attacks=[attack("prune-global"), attack("fine-tune-ftal", **TUNING), attack("half")]),
        attack("stack", attacks=[attack("prune-global", share=0), attack("extract-soft", epochs=0)]),
    ),
    "stack in a stack": (attack("stack", attacks=[attack("stack", attacks=[attack("half")]), attack("int8")]), None),
}
"""The attack, and the same attack at zero strength where it has one: quantisation does not."""

FORGERS: dict[str, Forger] = {
    "adversarial": forger("adversarial", count=6, steps=3),
    "adversarial as noise": forger("adversarial", steps=3, pose_as=Noise(6)),
    "adversarial to class 0": forger("adversarial", count=6, steps=3, labels=(0,)),
    "read-off": forger("read-off", count=6),
    "read-off as noise": forger("read-off", pose_as=Noise(6)),
    "grind": forger("grind", mint=Noise(6), keys=3),
    "false-claim": forger("false-claim", count=6, steps=3, epochs=1, surrogates=2),
    "false-claim as noise": forger("false-claim", steps=3, epochs=1, surrogates=1, pose_as=Noise(6)),
}

# ------------------------------------------------------------------------------------------------------ models and data


class Tied(nn.Module):
    """Two names for one convolution and two layers on one weight."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        self.same = self.one
        self.twin = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        self.twin.weight = self.one.weight
        self.head = nn.Linear(shape[0] * shape[1] * shape[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.twin(self.same(self.one(x)).relu()).relu().flatten(1))
        return logits


def mixed_modes(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """In train mode with one layer in eval mode, some parameters frozen, and dropout that would betray a wrong mode."""
    model = nn.Sequential(PlainCNN(shape, 6, width=4, features=8), nn.Dropout(0.5), nn.Linear(6, classes))
    next(model.modules()).train()
    model[0].eval()
    next(model.parameters()).requires_grad_(False)
    return model


def plain(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return PlainCNN(shape, classes, width=4, features=8).eval()


BUILDERS: dict[str, tuple[Callable[[tuple[int, int, int], int], nn.Module], tuple[int, int, int], int]] = {
    "grey, 2 classes": (plain, (1, 8, 8), 2),
    "colour, 11 classes": (plain, (3, 8, 8), 11),
    "tied weights": (Tied, (3, 8, 8), 3),
    "mixed modes": (mixed_modes, (3, 8, 8), 4),
}


@pytest.fixture(params=list(BUILDERS))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Data]:
    builder, shape, classes = BUILDERS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = builder(shape, classes)
        for buffer in (b for b in model.buffers() if b.is_floating_point()):
            buffer.uniform_(0.5, 1.5)
    generator = rng(6)
    sets = [
        Images(
            torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8), torch.arange(n) % classes, classes
        )
        for n in (24, 12)
    ]
    return model, Data(*sets)


def state(model: nn.Module) -> tuple[Any, ...]:
    """Everything about a model that an attack on it must leave alone."""
    parameters = [(name, p.requires_grad, p.device, p.dtype, id(p), p.grad) for name, p in model.named_parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    modes = [(name, m.training) for name, m in model.named_modules()]
    return model_digest(model), parameters, modes, hooks


def logits(model: nn.Module, data: Data) -> Tensor:
    with torch.no_grad():
        return logits_of(model.eval()(data.test.pixels.float() / 255))


def storages(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}


# ------------------------------------------------------------------------------------------------------------- the laws


def test_every_named_attack_and_forgery_has_a_row() -> None:
    """An ensemble is a network of another form: its laws are with its tests."""
    assert {name.split(" ")[0] for name in ROWS} == set(ATTACKS) - {"ensemble"}
    assert {name.split(" ")[0] for name in FORGERS} == set(FORGERIES)


@pytest.mark.parametrize("name", ROWS)
def test_an_attack_returns_a_new_model_of_the_same_form_and_leaves_its_input(
    name: str, case: tuple[nn.Module, Data]
) -> None:
    model, data = case
    before, images = state(model), data.train.pixels.clone()
    attacked = ROWS[name][0](model, data, rng(1))
    assert state(model) == before
    assert torch.equal(data.train.pixels, images)
    assert not storages(attacked) & storages(model)
    assert len(storages(attacked)) == len(storages(model)), "a weight that was shared is shared no more"
    assert [(m.training, type(m)) for m in attacked.modules()] == [(m.training, type(m)) for m in model.modules()]
    assert [(k, v.shape, v.dtype) for k, v in attacked.state_dict().items()] == [
        (k, v.shape, v.dtype) for k, v in model.state_dict().items()
    ]
    assert [p.requires_grad for p in attacked.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in attacked.parameters())
    assert model_digest(attacked) != model_digest(model)
    assert logits(attacked, data).shape == (len(data.test), data.classes)
    assert logits(attacked, data).isfinite().all()


@pytest.mark.parametrize("name", [name for name, (_, nothing) in ROWS.items() if nothing is not None])
def test_at_zero_strength_every_answer_is_bit_identical(name: str, case: tuple[nn.Module, Data]) -> None:
    model, data = case
    nothing = ROWS[name][1]
    assert nothing is not None
    unchanged = nothing(model, data, rng(1))
    assert unchanged is not model
    assert not storages(unchanged) & storages(model)
    assert model_digest(unchanged) == model_digest(model)
    assert torch.equal(logits(unchanged, data), logits(model, data))


@pytest.mark.parametrize("name", [*ROWS, *FORGERS])
def test_the_result_is_a_function_of_the_generator_and_the_global_random_state_has_no_part(
    name: str, case: tuple[nn.Module, Data]
) -> None:
    model, data = case
    verb: Callable[..., object] = ROWS[name][0] if name in ROWS else FORGERS[name]
    results = []
    with torch.random.fork_rng():
        for seed in (11, 12):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(fingerprint(verb(model, data, rng(1))))
            assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


def fingerprint(result: object) -> str:
    if isinstance(result, TriggerSet):
        return result.digest()
    assert isinstance(result, nn.Module)
    return model_digest(result)


@pytest.mark.parametrize("name", FORGERS)
def test_a_forger_returns_a_mark_that_fits_and_leaves_the_model(name: str, case: tuple[nn.Module, Data]) -> None:
    model, data = case
    before = state(model)
    mark = FORGERS[name](model, data, rng(1))
    assert state(model) == before
    assert (mark.shape, mark.classes, len(mark)) == (data.shape, data.classes, 6)
    assert mark.images.dtype == torch.uint8
    assert TriggerSet.from_parts(mark.spec(), mark.tensors()).digest() == mark.digest()


@pytest.mark.parametrize("name", FORGERS)
def test_another_generator_gives_another_mark_and_another_key(name: str, case: tuple[nn.Module, Data]) -> None:
    model, data = case
    one, other = (FORGERS[name].forge(model, data, rng(seed)) for seed in (9, 10))
    assert one.mark.digest() != other.mark.digest()
    assert one.key != other.key
