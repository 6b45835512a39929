"""F: the paper's formulas, against closed forms and slow references."""

from __future__ import annotations

import copy
import json
import math
import weakref

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data, Images, rng
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
from earmark.models import ThinResNet18, dissect, reinitialised
from earmark.training import CrossEntropy, Settings, fit, head_only, read_all


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


def test_batches_add_up_to_the_whole() -> None:
    """Oracle: the formulas on all features at once, in float64."""
    data = Data(blobs(700), blobs(9, seed=2))
    model, host = seeded(TinyNet, seed=1), seeded(TinyNet, seed=2)
    ours, theirs = (read_all(net, dissect(net, data.train.pixels[:1]), data.train, 256) for net in (model, host))
    for measure in (DeepFidelity(), DeepFidelity().against(host, data)):
        report = measure(model, host, data)
        assert report.ave_pfl == pytest.approx(penultimate_feature_loss(ours.features, theirs.features), rel=1e-9)
        assert report.ave_spl == pytest.approx(softmax_loss(ours.logits, theirs.logits), rel=1e-9)
        scale = float(theirs.features.double().square().sum(dim=1).mean())
        assert report.relative_pfl == pytest.approx((report.ave_pfl or 0) / scale, rel=1e-9)


class _Counting(TinyNet):
    """Knows how many of the features that it made are still held by somebody."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []
        self.most = 0
        self.head.register_forward_pre_hook(self._count)

    def _count(self, _: nn.Module, args: tuple[torch.Tensor]) -> None:
        self.most = max(self.most, 1 + sum(made() is not None for made in self.made))
        self.made.append(weakref.ref(args[0]))


def test_no_more_than_a_batch_or_two_of_features_is_held_at_once() -> None:
    data = Data(blobs(256 * 12), blobs(9, seed=2))
    model, host = _Counting(), _Counting()
    DeepFidelity()(model, host, data)
    assert len(model.made) > 12
    assert max(model.most, host.most) <= 2


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
def test_equal_trunks_have_equal_features_bit_for_bit(shape: tuple[int, int, int]) -> None:
    """In whatever memory layout the two models come, and whatever the last layers are."""
    images = Images(torch.randint(0, 256, (64, *shape), generator=rng(0), dtype=torch.uint8), torch.arange(64) % 3, 3)
    host = reinitialised(ThinResNet18(3, channels=shape[0], width=8), rng(0))
    marked = copy.deepcopy(host)
    fit(marked, images, (CrossEntropy(),), Settings(epochs=1, lr=0.1), rng(1), trainable=head_only)
    strided = copy.deepcopy(marked)
    for parameter in strided.parameters():
        parameter.data = parameter.data.mT.contiguous().mT if parameter.ndim == 4 else parameter.data
    for layout in (torch.contiguous_format, torch.channels_last):
        for model in (marked, strided):
            model.to(memory_format=layout)  # type: ignore[call-overload]
            states = [model_digest(model), [p.stride() for p in model.parameters()]]
            report = DeepFidelity()(model, host, Data(images, images))
            assert report.prototype_change
            assert (report.ave_pfl, report.relative_pfl) == (0.0, 0.0)
            assert [model_digest(model), [p.stride() for p in model.parameters()]] == states


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
