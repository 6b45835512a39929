"""Quantisation: the error is at most half a step, twice is once, and what has no narrow form is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.attacks.removal.quantise import Half, Quantise, round_to_integers
from earmark.core import Data, Images, rng
from earmark.errors import BadInput


@pytest.fixture
def data() -> Data:
    images = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), 2)
    return Data(images, images)


@pytest.fixture
def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(54, 2)
        )


def matrices() -> st.SearchStrategy[Tensor]:
    number = st.floats(-1e4, 1e4, width=32)
    return st.lists(st.lists(number, min_size=3, max_size=3), min_size=1, max_size=4).map(torch.tensor)


@settings(max_examples=200)
@given(matrices(), st.integers(2, 8))
def test_the_error_is_at_most_half_a_step_and_twice_is_once(weight: Tensor, bits: int) -> None:
    rounded = round_to_integers(weight, bits)
    step = weight.double().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    float32_rounding = weight.double().abs() * 2**-24 + 2**-149
    assert ((rounded.double() - weight.double()).abs() <= step / 2 + step * 2**-20 + float32_rounding).all()
    assert torch.equal(round_to_integers(rounded, bits), rounded)


@given(matrices(), st.integers(2, 8))
def test_a_row_takes_at_most_as_many_values_as_the_bits_allow(weight: Tensor, bits: int) -> None:
    scale = weight.double().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels = round_to_integers(weight, bits).double() / torch.where(scale > 0, scale, 1)
    assert levels.abs().max() <= 2 ** (bits - 1) - 1 + 1e-6
    assert torch.allclose(levels, levels.round(), atol=1e-4)


@pytest.mark.parametrize("attack", [Half(), Half("bfloat16"), Quantise(), Quantise(4), Quantise(8, per_channel=False)])
def test_twice_is_once(net: nn.Module, data: Data, attack: Half | Quantise) -> None:
    once = attack(net, data, rng(0))
    twice = attack(once, data, rng(0))
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(once.parameters(), net.parameters(), strict=True))


@pytest.mark.parametrize(("to", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_half_holds_what_a_cast_of_the_whole_model_holds(
    net: nn.Module, data: Data, to: str, dtype: torch.dtype
) -> None:
    halved = Half(to)(net, data, rng(0))  # type: ignore[arg-type]
    for name, tensor in net.state_dict().items():
        wanted = tensor.to(dtype).to(tensor.dtype) if tensor.is_floating_point() else tensor
        assert torch.equal(halved.state_dict()[name], wanted), name


def test_each_output_channel_has_its_own_scale_also_in_a_grouped_transposed_convolution(data: Data) -> None:
    layer = nn.ConvTranspose2d(4, 6, 1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1, 13, dtype=torch.float32).view(4, 3, 1, 1) / 7)
    rounded = Quantise(2)(nn.Sequential(layer), data, rng(0)).get_parameter("0.weight")
    for group in range(2):
        for j in range(3):
            filter_ = layer.weight[2 * group : 2 * group + 2, j].flatten()
            wanted = round_to_integers(filter_.unsqueeze(0), 2).flatten()
            assert torch.equal(rounded[2 * group : 2 * group + 2, j].flatten(), wanted)


def test_integers_touch_neither_norm_layers_nor_biases(net: nn.Module, data: Data) -> None:
    rounded = Quantise(2)(net, data, rng(0)).state_dict()
    kept = {name for name, tensor in net.state_dict().items() if torch.equal(rounded[name], tensor)}
    assert set(rounded) - kept == {"0.weight", "2.weight", "4.weight"}


@pytest.mark.parametrize("where", ["4.weight", "1.running_var"])
def test_a_number_too_large_for_half_is_refused_and_named(net: nn.Module, data: Data, where: str) -> None:
    net.state_dict()[where].fill_(1e5)
    with pytest.raises(BadInput, match=f"{where}.*bfloat16"):
        Half()(net, data, rng(0))
    assert Half("bfloat16")(net, data, rng(0)).state_dict()[where].isfinite().all()


def test_infinity_that_was_there_before_is_no_overflow(net: nn.Module, data: Data) -> None:
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    assert torch.equal(Half()(net, data, rng(0)).get_buffer("mask"), torch.tensor([0.0, float("-inf")]))


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_bits_outside_2_to_8_are_refused(bits: int) -> None:
    with pytest.raises(BadInput, match="bits"):
        Quantise(bits)


def test_an_unknown_narrow_type_is_refused() -> None:
    with pytest.raises(BadInput, match="float16, bfloat16"):
        Half("float8")  # type: ignore[arg-type]
