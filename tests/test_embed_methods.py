"""E: every method of the paper on a tiny host, all laws on each row."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data, rng
from earmark.embed import METHODS, Backdoor, FromModel, method, polytope, prototypes
from earmark.errors import BadInput, CannotCarry
from earmark.fidelity import DeepFidelity
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise, NotTrue, Stamped, TriggerSet
from earmark.suspects import as_query
from earmark.training import HOST, Record, Settings, accuracy, train_host
from earmark.verify import TriggerTest

QUICK: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 16,
    "triggers_per_batch": 12,
    "lr": 1e-2,
    "enough": 1.0,
    "watch": 0,
    "optimizer": "adam",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "fixll+spl": {"gamma": 1.0},
    "polytope": {"shape": "simplex"},
}


def quick(name: str, **changes: Any) -> Backdoor:
    return method(name, **SETTINGS.get(name, {})).but(**{**QUICK, **changes})


@pytest.fixture(scope="module")
def host(tiny_data: Data) -> nn.Module:
    settings = Settings(epochs=4, batch_size=16, lr=1e-2, batchnorm="train", triggers_per_batch=0)
    return train_host(seeded(TinyNet, features=8), tiny_data, rng(0), settings)


@pytest.fixture(scope="module")
def mark(tiny_data: Data) -> TriggerSet:
    return minted("ftal", tiny_data)


def minted(name: str, data: Data, secret: bytes = bytes(32)) -> TriggerSet:
    """A mark that the method takes: one that shows classes for the one method that needs such."""
    shows = name == "function-coupled-plus"
    mint = Stamped(count=36, labels=NotTrue(), carrier="train", size=0.6, opacity=1.0) if shows else Noise(count=24)
    return mint(MarkKey(secret), None, data)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("ftll", "function-coupled-plus")])
def test_v_accepts_after_e_and_rejects_before(name: str, host: nn.Module, tiny_data: Data) -> None:
    mark = minted(name, tiny_data)
    marked = quick(name)(host, mark, tiny_data, rng(1))
    test = TriggerTest(alpha=1e-6)
    assert test(as_query(marked), mark).accepted is True
    assert test(as_query(host), mark).accepted is False
    another = minted(name, tiny_data, b"x" * 32)
    assert test(as_query(marked), another).accepted is False
    assert accuracy(marked, tiny_data.test) > 0.8


@pytest.mark.parametrize("name", METHODS)
def test_e_leaves_the_host_and_the_world_alone_and_is_repeatable(name: str, host: nn.Module, tiny_data: Data) -> None:
    mark = minted(name, tiny_data)
    host.train()
    before, state = model_digest(host), torch.get_rng_state()
    short = quick(name, epochs=1)
    first, second, other = (short(host, mark, tiny_data, rng(seed)) for seed in (1, 1, 2))
    assert model_digest(host) == before
    assert host.training
    assert torch.equal(torch.get_rng_state(), state)
    assert model_digest(first) == model_digest(second) != model_digest(other)
    assert first.state_dict().keys() == host.state_dict().keys()
    assert all(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if "fixll" in name])
def test_a_fixed_last_layer_is_bit_equal(name: str, host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    marked = quick(name, epochs=2)(host, mark, tiny_data, rng(1))
    for part in ("weight", "bias"):
        assert torch.equal(marked.get_parameter(f"head.{part}"), host.get_parameter(f"head.{part}"))


def test_fine_tuning_the_last_layer_changes_nothing_else(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    marked = quick("ftll", epochs=2)(host, mark, tiny_data, rng(1))
    report = DeepFidelity(mark)(marked, host, tiny_data)
    assert report.ave_pfl == 0
    changed = {name for name, value in marked.state_dict().items() if not torch.equal(value, host.state_dict()[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("shape", ["simplex", "cube", "orthoplex", "fan"])
def test_polytope_classifiers_keep_their_prototypes(
    shape: str, host: nn.Module, mark: TriggerSet, tiny_data: Data
) -> None:
    marked = polytope(shape).but(**{**QUICK, "epochs": 1})(host, mark, tiny_data, rng(1))
    torch.testing.assert_close(marked.get_parameter("head.weight"), prototypes(shape, 3, 8).float())
    assert not marked.get_parameter("head.bias").any()


def test_pfl_and_spl_need_no_labels(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    """Released code: with these two the clean labels are never used."""
    shuffled = Data(blobs(96, seed=1), tiny_data.test)
    shuffled.train.labels[:] = shuffled.train.labels.roll(1)
    unlabelled = Data(blobs(96, seed=1), tiny_data.test)
    unlabelled.train.labels[:] = 0
    for name in ("fixll+pfl", "fixll+spl"):
        assert not method(name).needs_labels
        ours, *theirs = (quick(name, epochs=1)(host, mark, d, rng(1)) for d in (tiny_data, shuffled, unlabelled))
        assert {model_digest(model) for model in theirs} == {model_digest(ours)}
    assert method("fixll").needs_labels
    with pytest.raises(BadInput, match="no training image of class 1, 2"):
        quick("fixll", epochs=1)(host, mark, unlabelled, rng(1))


def test_deep_fidelity_is_what_the_paper_says_it_is(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    """The ordering of Table 4: PFL of FixLL+PFL far below FTAL's, at the same trigger accuracy."""
    plain, deep = (
        DeepFidelity(mark)(quick(name, lr=3e-3, epochs=200)(host, mark, tiny_data, rng(1)), host, tiny_data)
        for name in ("ftal", "fixll+pfl")
    )
    assert plain.trig_acc == deep.trig_acc == 1
    assert plain.ave_pfl is not None
    assert deep.ave_pfl is not None
    assert deep.ave_pfl < plain.ave_pfl
    assert deep.prototype_change == 0


def test_nothing_of_the_mark_is_in_the_marked_model(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    """Every module holds what the host's holds, under the same names and in the same shapes: no trigger among it."""

    def content(model: nn.Module) -> dict[str, Any]:
        held: dict[str, Any] = {}
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                tensors = value.items() if isinstance(value, dict) else [("", value)]
                held |= {f"{name}.{key}.{at}": getattr(tensor, "shape", None) for at, tensor in tensors}
        return held

    assert content(quick("ftal", epochs=1)(host, mark, tiny_data, rng(1))) == content(host)


def test_a_host_that_cannot_carry_the_mark_is_an_error(host: nn.Module, tiny_data: Data) -> None:
    more = Data(blobs(40, classes=4), blobs(8, classes=4))
    with pytest.raises(CannotCarry, match=r"4 classes and the host answers 3"):
        quick("ftal")(host, Noise(count=12)(MarkKey(bytes(32)), None, more), more, rng(0))
    wide = Data(blobs(40, shape=(1, 8, 9)), blobs(8, shape=(1, 8, 9)))
    with pytest.raises(CannotCarry, match="mint for this data"):
        quick("ftal")(host, Noise(count=12)(MarkKey(bytes(32)), None, wide), tiny_data, rng(0))


def test_mistakes_are_named(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    with pytest.raises(BadInput, match=r"25 triggers per batch.*24"):
        quick("ftal", triggers_per_batch=25)(host, mark, tiny_data, rng(0))
    kept = tiny_data.train.labels != 1
    gap = Data(tiny_data.train.subset(kept.nonzero().flatten()), tiny_data.test)
    with pytest.raises(BadInput, match="no training image of class 1"):
        quick("ftal")(host, mark, gap, rng(0))
    with pytest.raises(BadInput, match="did you mean 'fixll\\+pfl'"):
        method("fixll+pf")
    with pytest.raises(BadInput, match="select"):
        Backdoor("x", (), select="first")


@pytest.mark.parametrize(("channels", "classes"), [(3, 2), (1, 11)])
def test_any_channel_and_class_count(channels: int, classes: int) -> None:
    shape = (channels, 12, 11)
    data = Data(blobs(44, classes, shape), blobs(22, classes, shape))
    net = seeded(TinyNet, channels, classes, 5, seed=3)
    mark = Noise(count=20)(MarkKey(bytes(32)), None, data)
    marked = quick("fixll+pfl", epochs=80, batch_size=8, triggers_per_batch=20)(net, mark, data, rng(0))
    assert float(mark.matches(as_query(marked)(mark.images.float() / 255).argmax(1)).double().mean()) > 0.8


@pytest.mark.parametrize("changed", [{"enough": 1.0}, {"patience": 1}, {"select": "best"}, {"watch": 5}])
def test_a_checkpoint_of_another_way_to_stop_or_select_is_refused(
    changed: dict[str, Any], host: nn.Module, mark: TriggerSet, tiny_data: Data, tmp_path: Path
) -> None:
    first = quick("ftal", epochs=1, enough=0.01, checkpoint=tmp_path / "run.safetensors")
    first(host, mark, tiny_data, rng(1))
    with pytest.raises(BadInput, match="checkpoint of another run"):
        first.but(**changed)(host, mark, tiny_data, rng(1))


def test_a_host_s_checkpoint_knows_the_images_that_chose_its_epoch(tiny_data: Data, tmp_path: Path) -> None:
    settings, file = HOST.but(epochs=1), tmp_path / "host.safetensors"
    host = train_host(seeded(TinyNet), tiny_data, rng(0), settings, checkpoint=file)
    assert model_digest(train_host(seeded(TinyNet), tiny_data, rng(0), settings, checkpoint=file)) == model_digest(host)
    with pytest.raises(BadInput, match="checkpoint of another run"):
        train_host(seeded(TinyNet), Data(tiny_data.train, blobs(8, seed=9)), rng(0), settings, checkpoint=file)


def test_patience_counts_from_the_first_time_and_survives_a_resumption(
    host: nn.Module, mark: TriggerSet, tiny_data: Data, tmp_path: Path
) -> None:
    told: list[Record] = []
    patient = quick("ftal", patience=2, measures={"epochs": lambda _: 0.0}, on_history=told.extend)
    marked = patient(host, mark, tiny_data, rng(1))
    reached = [record["trig_acc"] == 1 for record in told].index(True)
    assert len(told) == reached + 3
    measured = itertools.count()

    def breaks_off_once(_: nn.Module) -> float:
        if next(measured) == reached + 1:
            raise KeyboardInterrupt
        return 0.0

    told.clear()
    broken = patient.but(checkpoint=tmp_path / "run.safetensors", measures={"epochs": breaks_off_once})
    with pytest.raises(KeyboardInterrupt):
        broken(host, mark, tiny_data, rng(1))
    assert model_digest(broken(host, mark, tiny_data, rng(1))) == model_digest(marked)
    assert len(told) == reached + 3


def test_building_from_scratch_draws_from_the_rng_alone(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    def run(noise: int) -> str:
        torch.manual_seed(noise)
        built = method("scratch", build=lambda: TinyNet(features=8)).but(**{**QUICK, "epochs": 1})
        return model_digest(built(host, mark, tiny_data, rng(1)))

    assert run(1) == run(2)


def test_settings_of_methods_are_checked() -> None:
    with pytest.raises(BadInput, match="did you mean 'alpha'"):
        method("ftal+twl", alfa=1)


def test_embedding_goes_on_from_a_model_that_has_learned_the_triggers(
    host: nn.Module, mark: TriggerSet, tiny_data: Data
) -> None:
    """One step from a marked model keeps its triggers, and the host stays what the model is held to."""
    first = quick("fixll+spl")(host, mark, tiny_data, rng(0))
    learned = accuracy(first, mark.as_images())
    assert learned > accuracy(host, mark.as_images())
    before, records = model_digest(first), list[Record]()
    step = quick(
        "fixll+spl", epochs=1, steps=1, enough=None, lr=1e-6, start=FromModel(first), on_history=records.extend
    )
    second = step(host, mark, tiny_data, rng(0))
    assert model_digest(first) == before != model_digest(second)
    assert accuracy(second, mark.as_images()) == learned
    assert records[0]["spl"] > 0


def test_a_model_of_another_architecture_is_no_start(host: nn.Module, mark: TriggerSet, tiny_data: Data) -> None:
    other = seeded(TinyNet, features=4)
    with pytest.raises(BadInput, match="marked copy of it"):
        quick("ftal", start=FromModel(other))(host, mark, tiny_data, rng(0))
