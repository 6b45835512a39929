"""Models of other floating types than float32: trained, marked, committed, judged and attacked as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import TinyNet, seeded
from torch import nn

from earmark.attacks import ATTACKS, FORGERIES, attack, forger
from earmark.core import Data, rng
from earmark.embed import METHODS
from earmark.errors import BadInput, Diverged
from earmark.evidence import commit, judge
from earmark.fidelity import DeepFidelity
from earmark.keys import OwnerKey
from earmark.marks import Noise
from earmark.models import as_input, dtype_of
from earmark.training import (
    HOST,
    CrossEntropy,
    Distillation,
    LogitLoss,
    Masking,
    PenultimateFeatureLoss,
    Refinement,
    Settings,
    SoftmaxLoss,
    TotalWeightLoss,
    accuracy,
    fit,
    train_host,
)

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TYPES = (torch.float64, torch.bfloat16, torch.float16)
ATTACK_SETTINGS = {"fine": {"epochs": 1}, "extract": {"epochs": 1}, "prune": {"recalibrate": 20}}


def floating(model: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}


def trained(dtype: torch.dtype, data: Data, features: int = 4) -> nn.Module:
    return train_host(seeded(TinyNet, features=features).to(dtype), data, rng(0), HOST.but(epochs=6, lr=5e-3))


@pytest.fixture(scope="module")
def knowing(tiny_data: Data) -> nn.Module:
    return trained(torch.float32, tiny_data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_host_learns_in_its_own_type(dtype: torch.dtype, tiny_data: Data) -> None:
    host = trained(dtype, tiny_data)
    assert floating(host) == {dtype}
    assert accuracy(host, tiny_data.test) > 0.9


def test_a_float64_model_learns_what_a_float32_one_does(tiny_data: Data) -> None:
    net = seeded(TinyNet)
    wide = copy.deepcopy(net).double()
    for model in (net, wide):
        fit(model, tiny_data.train, (CrossEntropy(),), Settings(epochs=1, triggers_per_batch=0), rng(0))
    for ours, theirs in zip(net.parameters(), wide.parameters(), strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-4)
    assert any(not torch.equal(theirs, theirs.float().double()) for theirs in wide.parameters())


def test_the_path_from_host_to_verdict_in_float64(tiny_data: Data, tmp_path: Path) -> None:
    host = trained(torch.float64, tiny_data, features=32)
    mark = Noise(120)(OWNER.mark_key("wide"), None, tiny_data)
    method = METHODS["ftal"]().but(epochs=150, lr=3e-3, triggers_per_batch=32, batchnorm="train", watch=0, enough=0.95)
    marked = method(host, mark, tiny_data, rng(0))
    assert floating(marked) == {torch.float64}
    report = DeepFidelity(mark)(marked, host, tiny_data)
    assert report.val_acc > 0.9
    assert report.trig_acc == accuracy(marked, mark.as_images())
    out = tmp_path / "commitment"
    claim, evidence = commit(OWNER, mark, name="wide", host=host, marked=marked, scheme="s", out=out)
    assert judge(claim, evidence, marked).accepted
    assert not judge(claim, evidence, host).accepted
    tuned = attack("fine-tune-ftll", epochs=1)(marked, tiny_data, rng(0))
    assert judge(claim, evidence, tuned).accepted


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("method", ["ftll", "ftal+twl", "fixll+pfl", "fixll+spl", "scratch", "polytope"])
def test_every_kind_of_embedding_keeps_the_type(method: str, dtype: torch.dtype, tiny_data: Data) -> None:
    mark = Noise(8)(OWNER.mark_key("m"), None, tiny_data)
    host = seeded(TinyNet).to(dtype)
    for augment in (None, lambda pixels, _: pixels):
        marked = METHODS[method]().but(epochs=1, augment=augment)(host, mark, tiny_data, rng(0))
        assert floating(marked) == {dtype}


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_refinements_and_augmented_hosts_keep_the_type(dtype: torch.dtype, tiny_data: Data) -> None:
    model, terms = seeded(TinyNet).to(dtype), (CrossEntropy(), TotalWeightLoss())
    settings = Settings(epochs=1, triggers_per_batch=0, batchnorm="train")
    masked = {"masking": Masking(0.1), "refinement": Refinement()}
    fit(model, tiny_data.train, terms, settings, rng(0), **masked)  # type: ignore[arg-type]
    assert floating(model) == {dtype}


def test_a_host_of_another_type_may_be_compared_with(tiny_data: Data) -> None:
    wide = seeded(TinyNet).double()
    for augment in (None, lambda pixels, _: pixels):
        model, terms = seeded(TinyNet, seed=1), (PenultimateFeatureLoss(), SoftmaxLoss(), Distillation(), LogitLoss())
        settings = Settings(epochs=1, triggers_per_batch=0)
        fit(model, tiny_data.train, terms, settings, rng(0), host=wide, augment=augment)
        assert floating(model) == {torch.float32}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"overwrite", "transfer"}))
def test_every_attack_takes_every_type(name: str, dtype: torch.dtype, tiny_data: Data) -> None:
    stolen = seeded(TinyNet).to(dtype)
    given: dict[str, Any] = {"knockoff": {"data": tiny_data}, "stack": {"attacks": [attack("prune-global", share=0.5)]}}
    settings = {**ATTACK_SETTINGS.get(name.split("-")[0], {}), **given.get(name, {})}
    assert floating(attack(name, **settings)(stolen, tiny_data, rng(0))) == {dtype}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_every_forger_takes_every_type(name: str, dtype: torch.dtype, knowing: nn.Module, tiny_data: Data) -> None:
    settings = {"mint": Noise(10), "keys": 2} if name == "grind" else {"count": 10}
    model = copy.deepcopy(knowing).to(dtype)
    forged = forger(name, **settings)(model, tiny_data, rng(0))
    if name in ("adversarial", "read-off"):  # the others do not look at the model's weights or answers
        assert accuracy(model, forged.as_images()) > 0.9
    assert len(forged) == 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_mixed_precision_is_for_models_that_it_mixes(dtype: torch.dtype, tiny_data: Data) -> None:
    settings = Settings(epochs=1, triggers_per_batch=0, precision="bf16-mixed")
    with pytest.raises(BadInput, match=f"the model computes in {dtype}; give 32-true"):
        fit(seeded(TinyNet).to(dtype), tiny_data.train, (CrossEntropy(),), settings, rng(0))


def test_numbers_that_float16_cannot_hold_are_a_run_that_diverged(tiny_data: Data) -> None:
    settings = Settings(epochs=2, lr=1e4, triggers_per_batch=0, optimizer="sgd", batchnorm="train")
    with pytest.raises(Diverged, match=r"lower the learning rate.*: train as float32 or bfloat16"):
        fit(seeded(TinyNet).half(), tiny_data.train, (CrossEntropy(),), settings, rng(0))


@pytest.mark.parametrize("dtype", [torch.float32, *TYPES])
def test_a_model_of_any_type_sees_what_a_judge_shows(dtype: torch.dtype) -> None:
    model, pixels = seeded(TinyNet).to(dtype), torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    shown = as_input(pixels, model)
    assert shown.dtype == dtype == dtype_of(model)
    assert torch.equal(shown, (pixels.float() / 255).to(dtype))
    assert torch.equal(as_input(pixels.float() / 255, model), shown)
    assert int(pixels[0, 0, 15, 15]) == 255
