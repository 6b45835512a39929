"""Autoencoders of every family and shape, and a bank of them against a loop over its members."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from earmark.core import rng
from earmark.errors import BadInput
from earmark.models import (
    AUTOENCODERS,
    Autoencoder,
    Bank,
    DenoisingAutoencoder,
    MLPAutoencoder,
    VariationalAutoencoder,
    autoencoder,
    built,
)

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 5, 17), (1, 1, 1)]


def fresh(family: str, shape: tuple[int, int, int], seed: int = 0, **settings: int) -> Autoencoder:
    made = built(lambda: autoencoder(family, shape, **settings), rng(seed))
    assert isinstance(made, Autoencoder)
    return made


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", AUTOENCODERS)
def test_images_come_back_as_images(family: str, shape: tuple[int, int, int]) -> None:
    net = fresh(family, shape, bottleneck=4).eval()
    images = torch.rand(3, *shape, generator=rng(0))
    with torch.no_grad():
        code, made = net(images)
    assert code.shape == (3, 8 if family == "variational" else 4)
    assert made.shape == images.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert net.penalty(code).shape == (3,)
    torch.testing.assert_close(net(images).images, made, msg="nothing is drawn in eval mode")


def test_the_papers_network_has_the_papers_layers() -> None:
    """784-512-256-128-3-128-256-512-784, a Tanh after every layer but the last."""
    net = MLPAutoencoder((1, 28, 28), bottleneck=3)
    widths = [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert widths == [512, 256, 128, 3, 128, 256, 512, 784]
    assert sum(isinstance(layer, nn.Tanh) for layer in net.modules()) == 7
    code, _ = net(torch.rand(2, 1, 28, 28, generator=rng(0)))
    torch.testing.assert_close(net.penalty(code), (code**2).sum(1))


def test_the_variational_penalty_is_the_divergence_from_the_standard_normal() -> None:
    net = VariationalAutoencoder((1, 4, 4), bottleneck=2, widths=(8,))
    code = torch.tensor([[0.5, -1.0, math.log(0.25), 0.3]])
    normals = torch.distributions.Normal(code[:, :2], (code[:, 2:] / 2).exp())
    by_torch = torch.distributions.kl_divergence(normals, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(net.penalty(code), by_torch)


@pytest.mark.parametrize("family", ["denoising", "variational"])
def test_noise_is_for_training(family: str) -> None:
    net, images = fresh(family, (1, 8, 8)), torch.rand(2, 1, 8, 8, generator=rng(0))
    with torch.random.fork_rng():
        assert not torch.equal(net.train()(images).images, net(images).images)
    assert torch.equal(net.eval()(images).images, net(images).images)


def test_the_wrong_images_are_refused_by_shape() -> None:
    with pytest.raises(BadInput, match=r"takes images \(1, 8, 8\), got \(3, 8, 8\)"):
        MLPAutoencoder((1, 8, 8))(torch.zeros(1, 3, 8, 8))
    with pytest.raises(BadInput, match="bottleneck"):
        MLPAutoencoder((1, 8, 8), bottleneck=0)
    with pytest.raises(BadInput, match="std"):
        DenoisingAutoencoder(MLPAutoencoder((1, 8, 8)), std=-1.0)
    with pytest.raises(BadInput, match="did you mean 'variational'"):
        autoencoder("variatonal", (1, 8, 8))


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_a_bank_answers_as_its_members_do_one_by_one(family: str) -> None:
    members = [fresh(family, (1, 8, 8), seed, bottleneck=3) for seed in range(3)]
    bank, images = Bank(members).eval(), torch.rand(4, 1, 8, 8, generator=rng(0))
    codes, made = bank(images)
    apart = bank.separately(images.expand(3, -1, -1, -1, -1)).images
    for at, member in enumerate(members):
        code, image = member.eval()(images)
        torch.testing.assert_close(codes[at], code)
        torch.testing.assert_close(made[at], image)
        torch.testing.assert_close(apart[at], image)


def test_the_gradient_of_a_bank_is_that_of_each_member() -> None:
    members = [fresh("mlp", (1, 6, 6), seed, bottleneck=3) for seed in range(2)]
    bank, images = Bank(members), torch.rand(5, 1, 6, 6, generator=rng(0))
    bank(images).images.square().sum().backward()
    for at, member in enumerate(members):
        member(images).images.square().sum().backward()
        for name, parameter in member.named_parameters():
            stacked = bank.get_parameter(f"parameter_of_{name.replace(chr(46), chr(95) * 2)}").grad
            assert stacked is not None
            torch.testing.assert_close(stacked[at], parameter.grad)


def test_members_leave_a_bank_as_they_went_in() -> None:
    members = [fresh("conv", (3, 9, 9), seed) for seed in range(2)]
    bank = Bank(members)
    assert len(bank) == 2
    for member, back in zip(members, bank.members(), strict=True):
        for name, tensor in member.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor)


def test_a_bank_is_of_one_architecture() -> None:
    for members in ([], [MLPAutoencoder((1, 4, 4), 2), MLPAutoencoder((1, 4, 4), 3)]):
        with pytest.raises(BadInput, match="one architecture"):
            Bank(members)


@pytest.mark.parametrize(
    "members",
    [
        [DenoisingAutoencoder(MLPAutoencoder((1, 4, 4), 2), std) for std in (0.0, 5.0)],
        [MLPAutoencoder((1, 4, 4), 2), MLPAutoencoder((1, 2, 8), 2)],
        [MLPAutoencoder((1, 4, 4), 2), MLPAutoencoder((1, 4, 4), 2).double()],
    ],
)
def test_what_no_parameter_holds_is_the_same_in_all_members(members: list[nn.Module]) -> None:
    with pytest.raises(BadInput, match="one architecture"):
        Bank(members)
    with pytest.raises(BadInput, match="have parameters"):
        Bank([nn.Flatten()])


def test_members_may_be_in_different_modes_and_stay_frozen_where_they_are() -> None:
    members = [MLPAutoencoder((1, 4, 4), 2).double() for _ in range(2)]
    for member in members:
        member.encoder.requires_grad_(False)
    members[0].eval()
    bank = Bank(members)
    frozen = {name for name, parameter in bank.named_parameters() if not parameter.requires_grad}
    assert {name.split("_")[2] for name in frozen} == {"encoder"}
    back = bank.members()[1]
    assert next(back.parameters()).dtype == torch.float64
    assert not back.encoder[0].weight.requires_grad  # type: ignore[index,union-attr]
