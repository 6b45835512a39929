"""F: the paper's formulas, against closed forms and slow references."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from tiny import TinyNet, seeded
from torch import nn

from earmark.core import Data, rng
from earmark.data import corrupted, ood
from earmark.errors import BadInput
from earmark.fidelity import (
    DeepFidelity,
    agreement,
    penultimate_feature_loss,
    prototype_change,
    softmax_loss,
    total_weight_loss,
)
from earmark.files import model_digest


def test_a_host_is_faithful_to_itself(tiny_net: nn.Module, tiny_data: Data) -> None:
    report = DeepFidelity(others={"ood": ood(tiny_data.test, rng(0))})(copy.deepcopy(tiny_net), tiny_net, tiny_data)
    assert (report.twl, report.ave_pfl, report.ave_spl, report.prototype_change, report.relative_pfl) == (0, 0, 0, 0, 0)
    assert report.val_acc == report.host_val_acc
    assert report.agreement == {"test": 1.0, "ood": 1.0}
    assert report.trig_acc is None


def test_formulas_against_slow_references(tiny_data: Data) -> None:
    model, host = seeded(TinyNet, seed=1).eval(), seeded(TinyNet, seed=2).eval()
    caught: list[torch.Tensor] = []
    for net in (model, host):
        net.get_submodule("head").register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    pfl = spl = 0.0
    with torch.no_grad():
        for i in range(len(tiny_data.train)):
            image = tiny_data.train.pixels[i : i + 1].float() / 255
            p, q = host(image).double().softmax(1)[0], model(image).double().softmax(1)[0]
            spl += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))
            pfl += float((caught[-1] - caught[-2]).double().pow(2).sum())
            caught.clear()
    report = DeepFidelity()(model, host, tiny_data)
    assert report.ave_pfl == pytest.approx(pfl / len(tiny_data.train), rel=1e-4)
    assert report.ave_spl == pytest.approx(spl / len(tiny_data.train), rel=1e-4)
    squares = [(p - q).double().pow(2).sum() for p, q in zip(model.parameters(), host.parameters(), strict=True)]
    assert report.twl == pytest.approx(float(torch.stack(squares).sum().detach()))
    difference = model.get_parameter("head.weight") - host.get_parameter("head.weight")
    assert report.prototype_change == pytest.approx(float(difference.detach().double().pow(2).sum()))


def test_closed_forms() -> None:
    ones, zeros = torch.ones(5, 3), torch.zeros(5, 3)
    assert penultimate_feature_loss(ones, zeros) == 3
    assert softmax_loss(zeros, torch.tensor([[100.0, 0.0, 0.0]])) == pytest.approx(math.log(3))
    assert agreement(torch.eye(4), torch.eye(4).roll(1, 0)) == 0
    assert agreement(torch.eye(4)[:2], torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])) == 0.5
    linear, moved = nn.Linear(2, 2), nn.Linear(2, 2)
    moved.load_state_dict({name: value + 1 for name, value in linear.state_dict().items()})
    assert prototype_change(moved, linear) == pytest.approx(4)
    assert total_weight_loss(moved, linear) == pytest.approx(6)


def test_batch_norm_statistics_are_no_weights(tiny_net: nn.Module) -> None:
    other = copy.deepcopy(tiny_net)
    other.get_buffer("bn.running_mean").add_(7)
    assert total_weight_loss(other, tiny_net) == 0


def test_another_architecture_has_no_weight_distance(tiny_data: Data) -> None:
    report = DeepFidelity()(seeded(TinyNet, features=6), seeded(TinyNet, features=4), tiny_data)
    assert (report.twl, report.ave_pfl, report.prototype_change, report.relative_pfl) == (None, None, None, None)
    assert report.ave_spl > 0


def test_agreement_shows_what_accuracy_hides(tiny_net: nn.Module, tiny_data: Data) -> None:
    """Two models of equal accuracy on the test images can answer apart on corrupted ones; the report says so."""
    other = copy.deepcopy(tiny_net)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(torch.tensor([0.5, 0.0, -0.5]))
    others = {"corrupted": corrupted(tiny_data.test, "gaussian-noise", 5, rng(0))}
    report = DeepFidelity(others=others)(other, tiny_net, tiny_data)
    assert set(report.agreement) == {"test", "corrupted"}
    assert min(report.agreement.values()) < 1


def test_outputs_computed_once_are_the_outputs(tiny_data: Data) -> None:
    model, host = seeded(TinyNet, seed=1), seeded(TinyNet, seed=2)
    measure = DeepFidelity()
    assert measure.against(host, tiny_data)(model, host, tiny_data) == measure(model, host, tiny_data)
    stale = measure.against(model, tiny_data)
    assert stale(model, host, tiny_data) == measure(model, host, tiny_data)


def test_measuring_changes_nothing(tiny_data: Data) -> None:
    model, host = seeded(TinyNet, seed=1).train(), seeded(TinyNet, seed=2).train()
    digests, state = [model_digest(m) for m in (model, host)], torch.get_rng_state()
    DeepFidelity()(model, host, tiny_data)
    assert [model_digest(m) for m in (model, host)] == digests
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_report_is_json(tiny_net: nn.Module, tiny_data: Data) -> None:
    report = DeepFidelity()(tiny_net, tiny_net, tiny_data).to_dict()
    assert json.loads(json.dumps(report))["agreement"] == {"test": 1.0}


def test_a_broken_model_is_not_called_faithful(tiny_net: nn.Module, tiny_data: Data) -> None:
    broken = copy.deepcopy(tiny_net)
    with torch.no_grad():
        broken.get_parameter("head.bias").fill_(torch.nan)
    with pytest.raises(BadInput, match="not finite"):
        DeepFidelity()(broken, tiny_net, tiny_data)
