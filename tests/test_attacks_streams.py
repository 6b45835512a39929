"""Streams: who writes and reads the same channels, found by running, and a residual stream put in another order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from passported import DATA, NAME, OWNER, SETTINGS, Chain
from tiny import blobs
from torch import Tensor, nn

from earmark.attacks import FlipSigns, PermuteChannels
from earmark.attacks.removal.streams import Stream, streams
from earmark.core import Data, rng
from earmark.embed import PassportLayers
from earmark.errors import BadInput
from earmark.marks import PassportMint, Passports
from earmark.models import ResNetP, built
from earmark.training import predict
from earmark.verify import PassportTest

COLOUR = Data(blobs(60, shape=(3, 16, 16), seed=1), blobs(40, shape=(3, 16, 16), seed=2))


def resnet_p(norm: str = "bn") -> nn.Module:
    return ResNetP(3, channels=1, width=8, norm=norm, blocks=(1, 1, 1, 2))


def from_transformers(kind: str) -> nn.Module:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type=kind, num_labels=3
    )
    net: nn.Module = transformers.ResNetForImageClassification(config)
    return net


class Squeezed(nn.Module):
    """A residual stream that is multiplied by gates made of itself, through linear layers, and activated in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Linear(12, 3), nn.Linear(3, 12)
        self.more, self.second = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.stem(x), inplace=True)
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(self.first(x).mean((2, 3))))))
        x = torch.relu_(x * gates[:, :, None, None] + self.second(self.more(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Widening(nn.Module):
    """A stream that begins with the image, one that grows by concatenation, a depthwise layer, and one run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.zeroth = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.stem, self.first = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grow, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.each, self.third = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.twice, self.fourth = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.last, self.fifth = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.stem(x + self.zeroth(self.image(x)))))
        x = torch.relu(self.third(self.each(torch.cat([x, self.second(self.grow(x))], 1))))
        x = torch.relu(self.fourth(self.twice(self.twice(x))))
        logits: Tensor = self.head(self.fifth(self.last(x)).mean((2, 3)))
        return logits


NETS: dict[str, tuple[Callable[[], nn.Module], Data]] = {
    "resnet-p": (resnet_p, DATA),
    "resnet-p with group norm": (lambda: resnet_p("gn"), DATA),
    "basic blocks of transformers": (lambda: from_transformers("basic"), COLOUR),
    "bottlenecks of transformers": (lambda: from_transformers("bottleneck"), COLOUR),
    "squeeze and excitation": (Squeezed, DATA),
    "chain": (Chain, DATA),
    "chain of group norm": (lambda: Chain("gn"), DATA),
}


def lively(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network whose norms tell channels apart, so that a wrong order shows."""
    model = built(build, rng(seed)).eval()
    for module in model.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module, name, None)
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and isinstance(tensor, Tensor):
                tensor.data.uniform_(0.5, 1.5, generator=rng(seed + tensor.numel()))
    return model


@pytest.mark.parametrize("name", NETS)
def test_every_writer_of_every_stream_is_moved_and_no_answer_changes(name: str) -> None:
    build, data = NETS[name]
    model = lively(build)
    moved = PermuteChannels()(model, data, rng(1))
    wanted, found = predict(model, data.test), predict(moved, data.test)
    assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))
    for stream in streams(model, data.test.pixels[:1]):
        for writer in stream.writers:
            assert not torch.equal(moved.get_parameter(f"{writer}.weight"), model.get_parameter(f"{writer}.weight"))


def test_a_residual_stream_is_all_that_adds_to_it_and_all_that_reads_the_sum() -> None:
    found = streams(resnet_p(), DATA.test.pixels[:1])
    last = ("stages.3.0.second", "stages.3.0.shortcut", "stages.3.1.second")
    wanted = Stream(
        tuple(f"{name}.0" for name in last), tuple(f"{name}.1" for name in last), ("stages.3.1.first.0", "head")
    )
    assert wanted in found
    assert Stream(("stages.3.1.first.0",), ("stages.3.1.first.1",), ("stages.3.1.second.0",)) in found
    assert found[0].writers[0] == "stem.0"
    assert "head" not in {name for stream in found for name in stream.writers}


def test_gates_and_what_they_multiply_are_one_stream() -> None:
    found = streams(built(Squeezed, rng(0)), DATA.test.pixels[:1])
    stream = Stream(("stem", "excite", "more"), ("first", "second"), ("squeeze", "more", "head"))
    assert found == [stream, Stream(("squeeze",), (), ("excite",))]


def test_channels_that_are_not_alike_for_all_who_have_them_stay() -> None:
    model = lively(Widening)
    moved = PermuteChannels()(model, DATA, rng(1))
    before, after = model.state_dict(), moved.state_dict()
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"last", "fifth", "head"}
    torch.testing.assert_close(predict(moved, DATA.test), predict(model, DATA.test), rtol=1e-5, atol=1e-5)
    with pytest.raises(BadInput, match="PermuteChannels: no layer can be changed"):
        PermuteChannels(layers="stem")(model, DATA, rng(1))


def test_finding_streams_leaves_the_network_as_it_is() -> None:
    model = built(Squeezed, rng(0)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    streams(model, DATA.test.pixels[:1])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ------------------------------------------------------------------------------------------------------------ alignment


@cache
def mark_of(scale: Any) -> Passports:
    return PassportMint(layers=5, witnesses=60, scale=scale)(OWNER.mark_key(NAME), built(resnet_p, rng(4)), DATA)


@cache
def owned(scale: Any) -> nn.Module:
    run = PassportLayers(settings=SETTINGS, watch=0)
    return run(built(resnet_p, rng(4)), mark_of(scale), DATA, rng(5)).eval()


@pytest.mark.parametrize("scale", ["private", "product"])
def test_a_residual_network_in_another_order_shows_half_of_the_bits_and_all_of_them_when_aligned(scale: str) -> None:
    mark, released = mark_of(scale), owned(scale)
    assert PassportTest()(released, mark).details["exact"]
    stolen = PermuteChannels(layers="stages.3.*.second.0")(released, DATA, rng(1))
    stolen = PermuteChannels(layers="*")(FlipSigns(layers="*")(stolen, DATA, rng(2)), DATA, rng(3))
    wanted = predict(released, DATA.test)
    assert float((predict(stolen, DATA.test) - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))
    plain = PassportTest()(stolen, mark)
    assert plain.accepted is False
    assert all(0.25 < share < 0.75 for share in plain.details["layers"])
    assert 0.4 < plain.details["share"] < 0.6
    aligned = PassportTest(released=released)(stolen, mark)
    assert aligned.accepted
    assert aligned.details["share"] == 1
    other = PassportTest(released=released)(built(resnet_p, rng(9)), mark)
    assert other.accepted is False
    assert other.details["alignment"]["share"] < 0.25
