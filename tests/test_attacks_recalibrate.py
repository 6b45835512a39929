"""Recalibrated batch norm holds the moments of what it sees, and nothing else moves."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import PruneChannels, PruneGlobal, PruneLayers, PruneRandom, recalibrated
from earmark.core import Data, Images, rng
from earmark.data import drawn
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.training import predict

STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


class Deep(nn.Module):
    """Batch norm of both ranks, one more that keeps no statistics, one that never runs, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.first = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.two, self.second = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5, momentum=None)
        self.bare, self.idle = nn.BatchNorm2d(5, track_running_stats=False), nn.BatchNorm2d(5)
        self.instance = nn.InstanceNorm2d(5, track_running_stats=True)
        self.drop, self.flat, self.head = nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bare(self.instance(self.second(self.two(self.first(self.one(x)).relu()))))
        logits: Tensor = self.head(self.flat(self.drop(x.relu().mean((2, 3)))))
        return logits


RUNNING = ("first", "second", "flat")


def images_of(count: int) -> Images:
    return blobs(count, seed=7)


@pytest.mark.parametrize("batch_size", [1000, 50, 16, 7, 1])
def test_the_first_layer_holds_mean_and_variance_of_all_activations_in_whatever_batches(batch_size: int) -> None:
    net, images = seeded(Deep), images_of(50)
    with torch.no_grad():
        rows = net.get_submodule("one")(images.pixels.float() / 255).double().transpose(0, 1).flatten(1)
    layer = recalibrated(net, images, batch_size).get_submodule("first")
    torch.testing.assert_close(layer.get_buffer("running_mean").double(), rows.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.get_buffer("running_var").double(), rows.var(1), rtol=1e-5, atol=1e-6)


def test_every_layer_holds_what_training_on_the_one_batch_at_full_momentum_would_leave() -> None:
    net, images = seeded(Deep), images_of(40)
    oracle = copy.deepcopy(net).eval()
    for name in RUNNING:
        layer = oracle.get_submodule(name)
        assert isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)
        layer.momentum = 1.0
        layer.train()
    oracle(images.pixels.float() / 255)
    found = recalibrated(net, images).state_dict()
    for name in RUNNING:
        for what in ("running_mean", "running_var"):
            wanted = oracle.get_submodule(name).get_buffer(what)
            torch.testing.assert_close(found[f"{name}.{what}"], wanted, rtol=1e-4, atol=1e-6)


def test_nothing_but_the_statistics_of_layers_that_ran_changes_and_the_input_not_at_all() -> None:
    net = seeded(Deep).train()
    net.get_submodule("second").eval()
    before, modes = model_digest(net), [module.training for module in net.modules()]
    after = recalibrated(net, images_of(20), batch_size=8)
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, net.state_dict()[name])}
    assert changed == {f"{layer}.{what}" for layer in RUNNING for what in STATISTICS}
    assert model_digest(net) == before
    assert [module.training for module in net.modules()] == [module.training for module in after.modules()] == modes
    assert not any(module._forward_pre_hooks for part in (net, after) for module in part.modules())


def test_the_statistics_are_a_function_of_model_and_images() -> None:
    net = seeded(Deep).train()
    assert model_digest(recalibrated(net, images_of(20))) == model_digest(recalibrated(net, images_of(20)))


def test_a_model_without_batch_norm_stays() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert model_digest(recalibrated(net, images_of(4))) == model_digest(net)


def test_a_convolution_scaled_beforehand_makes_no_difference_afterwards() -> None:
    """Batch norm divides by what it measures, so a scale is what recalibration undoes and old statistics do not."""
    net, images = seeded(TinyNet), images_of(30)
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled.get_parameter("conv.weight").mul_(10)
    one, other = (predict(recalibrated(model, images), images) for model in (net, scaled))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(predict(net, images), predict(scaled, images), rtol=0.1, atol=1e-2)


Prune = Callable[..., PruneGlobal | PruneLayers | PruneRandom | PruneChannels]


@pytest.mark.parametrize("kind", [PruneGlobal, PruneLayers, PruneRandom, PruneChannels])
def test_pruning_recalibrates_on_images_drawn_afterwards_and_only_when_asked(kind: Prune) -> None:
    net, data, shared = seeded(TinyNet), Data(images_of(48), images_of(12)), rng(0)
    plain = kind(0.5)(net, data, shared)
    norms = {f"bn.{what}" for what in STATISTICS}
    assert all(torch.equal(plain.state_dict()[name], net.state_dict()[name]) for name in norms)
    wanted = recalibrated(plain, drawn(data.train, 30, shared))
    assert model_digest(kind(0.5, recalibrate=30)(net, data, rng(0))) == model_digest(wanted)
    assert not any(torch.equal(wanted.state_dict()[name], net.state_dict()[name]) for name in norms)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(BadInput, match="two images or more, got 1"):
        recalibrated(seeded(TinyNet), images_of(1))
    with pytest.raises(BadInput, match="13 images were asked for and there are 12"):
        PruneGlobal(recalibrate=13)(seeded(TinyNet), Data(images_of(12), images_of(12)), rng(0))
    for count in (-1, 1):
        with pytest.raises(BadInput, match=f"recalibrate: expected 0 or at least 2 images, got {count}"):
            PruneGlobal(recalibrate=count)
