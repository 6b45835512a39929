"""Any classifier's head and penultimate feature, found by hooks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TinyNet, seeded
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.models import (
    PlainCNN,
    ThinResNet18,
    WideResNet,
    dissect,
    evaluating,
    frozen_batchnorm,
    logits_of,
    normalised,
)


def transformers_net(kind: str) -> nn.Module:
    transformers: Any = pytest.importorskip("transformers")
    if kind == "resnet":
        config = transformers.ResNetConfig(
            num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        )
        net = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, num_labels=5,
        )  # fmt: skip
        net = transformers.ViTForImageClassification(config)
    assert isinstance(net, nn.Module)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], str]] = {
    "thin resnet": (lambda: ThinResNet18(5, 3, width=4), (3, 16, 16), "out"),
    "wide resnet": (lambda: WideResNet(5, depth=10, widen=1), (3, 16, 16), "out"),
    "plain cnn": (lambda: PlainCNN((1, 12, 20), 5), (1, 12, 20), "head"),
    "normalised": (lambda: normalised(ThinResNet18(5, 2, width=4), channels=3), (1, 16, 16), "model.out"),
    "transformers resnet": (lambda: transformers_net("resnet"), (3, 16, 16), "classifier.1"),
    "transformers vit": (lambda: transformers_net("vit"), (3, 16, 16), "classifier"),
}


@pytest.mark.parametrize("name", NETS)
def test_the_head_times_the_feature_is_the_logits(name: str) -> None:
    build, shape, head = NETS[name]
    with torch.random.fork_rng(devices=[]):
        net = build().eval()
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    anatomy = dissect(net, images)
    assert anatomy.head == head
    assert anatomy.classes == 5
    with torch.no_grad():
        reading = anatomy.read(net, images)
        rebuilt = anatomy.linear(net)(reading.features)
    assert reading.features.shape == (4, anatomy.features)
    torch.testing.assert_close(rebuilt, reading.logits)
    torch.testing.assert_close(reading.logits, logits_of(net(images)).detach())


def test_looking_changes_nothing() -> None:
    net = seeded(TinyNet)
    net.train()
    net.get_submodule("bn").eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    dissect(net, torch.rand(2, 1, 8, 8))
    assert net.training
    assert not net.get_submodule("bn").training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return torch.softmax(self.left(x) + self.right(x), dim=1)


def test_where_it_cannot_tell_it_names_the_candidates() -> None:
    with pytest.raises(BadInput, match=r"'left', 'right'.*head="):
        dissect(_TwoHeads(), torch.rand(2, 1, 2, 2))
    assert dissect(_TwoHeads(), torch.rand(2, 1, 2, 2), head="right").head == "right"
    with pytest.raises(BadInput, match=r"'middle'.*'left', 'right'"):
        dissect(_TwoHeads(), torch.rand(2, 1, 2, 2), head="middle")


def test_a_model_without_a_linear_layer_says_so() -> None:
    with pytest.raises(BadInput, match="takes part in what the model answers"):
        dissect(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(2, 3, 4, 4))


def test_logits_are_found_in_tensors_objects_and_tuples() -> None:
    logits = torch.rand(2, 3)
    for output in (logits, SimpleNamespace(logits=logits), (torch.rand(2, 9), logits), [logits]):
        assert logits_of(output) is logits
    with pytest.raises(BadInput, match="dict"):
        logits_of({"scores": logits})


def test_the_papers_parameter_counts() -> None:
    """Measured on the released code: 702,374 for d = 2, 702,513 for d = 3, 710,992 for d = 64."""
    counts = [sum(p.numel() for p in ThinResNet18(10, d).parameters()) for d in (2, 3, 64)]
    assert counts == [702_374, 702_513, 710_992]


def test_modes_come_back_submodule_by_submodule() -> None:
    net = seeded(TinyNet).train()
    net.get_submodule("fc").eval()
    modes = [module.training for module in net.modules()]
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == modes


def test_frozen_batch_norm_stays_frozen_through_train() -> None:
    net = seeded(TinyNet).train()
    before = {name: value.clone() for name, value in net.get_submodule("bn").state_dict().items()}
    with frozen_batchnorm(net):
        net.train()
        net(torch.rand(4, 1, 8, 8)).sum().backward()
        assert all(parameter.grad is None for parameter in net.get_submodule("bn").parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.get_submodule("bn").state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert net.get_submodule("bn").training


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 2), ((3, 11, 17), 11), ((1, 28, 28), 1000)])
def test_the_plain_net_takes_any_shape(shape: tuple[int, int, int], classes: int) -> None:
    assert PlainCNN(shape, classes)(torch.rand(2, *shape)).shape == (2, classes)


def test_normalisation_belongs_to_the_model() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)

    normalised(Spy(), mean=[0.25], std=[0.5], channels=3)(torch.full((1, 1, 2, 2), 0.75))
    assert torch.equal(seen[0], torch.ones(1, 3, 2, 2))
    with pytest.raises(BadInput, match="std"):
        normalised(Spy(), mean=[0.5], std=[0.0])


class _Softmaxed(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class _Turned(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def test_logits_are_what_the_model_answers_and_never_probabilities() -> None:
    net, images = seeded(_Turned).eval(), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(dissect(net, images).read(net, images).logits, net(images))
    with pytest.raises(BadInput, match="leave out the softmax"):
        dissect(seeded(_Softmaxed), images)


def test_models_of_half_precision_are_read_in_their_own_type() -> None:
    net = seeded(TinyNet).to(torch.bfloat16)
    assert dissect(net, torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).classes == 3


def test_layers_that_are_not_initialised_are_refused() -> None:
    with pytest.raises(BadInput, match="not initialised"):
        dissect(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), torch.rand(1, 1, 8, 8))
