"""Pruning takes exactly the weights that a sort by magnitude names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.attacks.removal.prune import PruneChannels, PruneGlobal, PruneLayers, PruneRandom, share_of, smallest
from earmark.core import Data, Images, rng
from earmark.errors import BadInput

SHARES = [0.0, 0.2, 0.29, 0.5, 1.0]


class Net(nn.Module):
    """One layer of every kind that pruning knows, and norm layers with statistics that it must not know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.layer_norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer_norm(self.up(self.norm(self.conv(x.expand(-1, 2, -1, -1)))).mean((2, 3))))
        return logits


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Net()
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return model


@pytest.fixture
def data() -> Data:
    images = Images(torch.arange(64, dtype=torch.uint8).view(4, 1, 4, 4), torch.tensor([0, 1, 2, 3]), 5)
    return Data(images, images)


def weights(model: nn.Module, names: tuple[str, ...] = ("conv", "up", "head")) -> list[Tensor]:
    return [model.get_parameter(f"{name}.weight").detach() for name in names]


def by_sorting(values: list[float], k: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda i: (abs(values[i]), i))[:k])


def zeros(tensors: list[Tensor]) -> set[int]:
    return {i for i, value in enumerate(torch.cat([t.flatten() for t in tensors]).tolist()) if value == 0}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_smallest_is_the_head_of_a_stable_sort(scores: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(scores)))
    mask = smallest(torch.tensor(scores, dtype=torch.float32), k)
    assert set(mask.nonzero().flatten().tolist()) == by_sorting([float(score) for score in scores], k)


@given(st.integers(0, 1000), st.integers(0, 10_000))
def test_share_is_floored_as_the_decimal_number_it_prints_as(thousandths: int, count: int) -> None:
    assert share_of(thousandths / 1000, count) == Fraction(thousandths, 1000) * count // 1


@pytest.mark.parametrize("share", SHARES)
def test_global_pruning_zeroes_the_smallest_of_all_weights(net: Net, data: Data, share: float) -> None:
    flat = torch.cat([weight.flatten() for weight in weights(net)]).tolist()
    pruned = PruneGlobal(share)(net, data, rng(0))
    assert zeros(weights(pruned)) == by_sorting(flat, share_of(share, len(flat)))


@pytest.mark.parametrize("share", SHARES)
def test_layer_pruning_zeroes_the_smallest_of_each_layer(net: Net, data: Data, share: float) -> None:
    pruned = PruneLayers(share)(net, data, rng(0))
    for before, after in zip(weights(net), weights(pruned), strict=True):
        assert zeros([after]) == by_sorting(before.flatten().tolist(), share_of(share, before.numel()))


@pytest.mark.parametrize("share", SHARES)
def test_random_pruning_zeroes_the_exact_number_and_another_choice_for_another_seed(
    net: Net, data: Data, share: float
) -> None:
    total = sum(weight.numel() for weight in weights(net))
    one, two = (PruneRandom(share)(net, data, rng(seed)) for seed in (1, 2))
    assert len(zeros(weights(one))) == len(zeros(weights(two))) == share_of(share, total)
    assert (zeros(weights(one)) != zeros(weights(two))) == (0 < share < 1)


def test_equal_weights_are_pruned_from_the_front(net: Net, data: Data) -> None:
    for weight in weights(net):
        weight.fill_(-1)
    total = sum(weight.numel() for weight in weights(net))
    assert zeros(weights(PruneGlobal(0.5)(net, data, rng(0)))) == set(range(total // 2))


@pytest.mark.parametrize("share", SHARES)
def test_channel_pruning_zeroes_the_outputs_of_least_norm(net: Net, data: Data, share: float) -> None:
    pruned = PruneChannels(share)(net, data, rng(0))
    assert isinstance(pruned, Net)
    ones = {"conv": torch.ones(1, 2, 4, 4), "up": torch.ones(1, 6, 4, 4)}
    for name, x in ones.items():
        before, after = net.get_submodule(name), pruned.get_submodule(name)
        silent = {i for i, value in enumerate(after(x).abs().sum((0, 2, 3)).tolist()) if value == 0}
        assert silent == by_sorting(filter_norms(before), share_of(share, len(filter_norms(before))))


def filter_norms(layer: nn.Module) -> list[float]:
    """The slow reference: the L1 norm of an output channel's filter is the sum of |outputs| per unit impulse."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    norms = torch.zeros(layer.out_channels)
    for channel in range(layer.in_channels):
        impulse = torch.zeros(1, layer.in_channels, 7, 7)
        impulse[0, channel, 3, 3] = 1
        silence = layer(torch.zeros_like(impulse))
        norms += (layer(impulse) - silence).detach().abs().sum((0, 2, 3))
    return norms.tolist()


@pytest.mark.parametrize("attack", [PruneGlobal(0.5), PruneLayers(0.5), PruneRandom(0.5), PruneChannels(0.5)])
def test_norm_layers_biases_of_kept_channels_and_buffers_stay(
    net: Net, data: Data, attack: Callable[[nn.Module, Data, torch.Generator], nn.Module]
) -> None:
    pruned = attack(net, data, rng(0)).state_dict()
    for name, before in net.state_dict().items():
        layer, _, what = name.partition(".")
        if layer in ("norm", "layer_norm") or (what == "bias" and layer == "head"):
            assert torch.equal(before, pruned[name]), name


@pytest.mark.parametrize("kind", [PruneGlobal, PruneLayers, PruneRandom, PruneChannels])
def test_an_excluded_head_is_bit_identical(net: Net, data: Data, kind: type[PruneGlobal]) -> None:
    pruned = kind(1.0, exclude_head=True)(net, data, rng(0))
    assert torch.equal(pruned.get_parameter("head.weight"), net.head.weight)
    assert not torch.cat([weight.flatten() for weight in weights(pruned, ("conv", "up"))]).any()


def test_a_head_that_the_search_cannot_tell_is_named(data: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 5), nn.Softmax(1))
    with pytest.raises(BadInput, match="cannot tell"):
        PruneGlobal(1.0, exclude_head=True)(model, data, rng(0))
    pruned = PruneGlobal(1.0, exclude_head=True, head="1")(model, data, rng(0))
    assert [bool(pruned.get_parameter(name).any()) for name in ("1.weight", "2.weight")] == [True, False]


def test_a_weight_that_two_layers_share_counts_once(data: Data) -> None:
    first, second, last = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False), nn.Linear(16, 4)
    second.weight = first.weight
    with torch.no_grad():
        last.weight.fill_(9)
    pruned = PruneGlobal(0.5)(nn.Sequential(nn.Flatten(), first, second, last), data, rng(0))
    assert len(zeros([pruned.get_parameter("1.weight").detach()])) == (16 * 16 + 16 * 4) // 2
    assert pruned.get_parameter("1.weight") is pruned.get_parameter("2.weight")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match="share"):
        PruneGlobal(share)


@pytest.mark.parametrize("kind", [PruneGlobal, PruneChannels])
def test_a_model_without_weights_to_prune_is_refused(kind: type[PruneGlobal], data: Data) -> None:
    with pytest.raises(BadInput, match="convolutions or fully connected"):
        kind()(nn.Flatten(), data, rng(0))


def test_a_computed_weight_is_refused_with_the_way_out(data: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 5)))
    with pytest.raises(BadInput, match="remove_parametrizations"):
        PruneGlobal()(model, data, rng(0))
