"""Passport layers: the oracle is the convolution over the passport, and each path run alone."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Chain
from torch import Tensor, nn

from earmark.core import rng
from earmark.errors import BadInput, CannotCarry
from earmark.layers import Site, affine, expose, find_sites, on_path, passport, passport_norms, protect, windows
from earmark.models import ResNet18, built

IMAGE = torch.rand(1, 1, 8, 8, generator=rng(0))


def drawn(sites: list[Site], seed: int = 3) -> dict[Site, tuple[Tensor, Tensor]]:
    source = rng(seed)
    return {site: tuple(torch.rand(2, 1, *site.inputs, generator=source) * 2 - 1) for site in sites}


def protected(network: nn.Module, layers: str | int = 2, public: bool = True) -> nn.Module:
    return protect(network, drawn(find_sites(network, IMAGE, layers)), IMAGE, public=public)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, (2, 1), "same", "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    groups=st.sampled_from([1, 2, 4]),
    passports=st.integers(1, 3),
)
def test_the_windows_give_what_the_convolution_over_the_passport_averages_to(
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: int | str | tuple[int, int],
    mode: Literal["zeros", "reflect", "circular"],
    groups: int,
    passports: int,
) -> None:
    if padding == "same":  # even kernels make torch warn of a copy
        kernel = (kernel[0] | 1, kernel[1] | 1)
    conv = nn.Conv2d(
        4,
        8,
        kernel,
        1 if padding == "same" else stride,
        padding,
        dilation,
        groups,
        False,
        mode,
        dtype=torch.float64,
    )
    site = find_sites(nn.Sequential(conv, nn.GroupNorm(1, 8, dtype=torch.float64)), torch.zeros(1, 4, 9, 10), 1)[0]
    passport = torch.randn(passports, 4, 9, 10, generator=rng(5), dtype=torch.float64)
    wanted = conv(passport).mean((0, 2, 3))
    means = torch.stack([windows(passport, site), windows(-passport, site)])
    found = affine(conv.weight, means)
    torch.testing.assert_close(found, torch.stack([wanted, -wanted]))
    torch.testing.assert_close(affine(conv.weight.to(memory_format=torch.channels_last), means), found)


def test_gamma_of_twenty_passports_is_right_to_a_millionth_in_single_precision() -> None:
    site = Site("conv", "norm", (256, 8, 8), 256, (3, 3), padding=(1, 1, 1, 1))
    passport, weight = (
        torch.rand(20, 256, 8, 8, generator=rng(1)) * 2 - 1,
        torch.randn(256, 256, 3, 3, generator=rng(2)),
    )
    weight *= (2 / (9 * 256)) ** 0.5
    wanted = F.conv2d(passport, weight, padding=1).mean((0, 2, 3))
    found = affine(weight, windows(passport, site).float().unsqueeze(0))[0]
    assert float((found - wanted).abs().max()) <= 1e-6


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_one_pass_along_both_paths_has_the_outputs_and_gradients_of_two_passes(norm: str) -> None:
    network = protected(built(lambda: Chain(norm), rng(0))).double().train(norm == "gn")
    images = torch.rand(4, 1, 8, 8, generator=rng(2), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3])
    with on_path(network, "both"):
        both = network(images)
        F.cross_entropy(both, labels.repeat(2)).mul(2).backward()  # type: ignore[no-untyped-call]
    shared = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    alone = []
    for path in ("public", "private"):
        with on_path(network, path):
            alone.append(network(images))
            F.cross_entropy(alone[-1], labels).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(both, torch.cat(alone))
    assert set(shared) == {name for name, p in network.named_parameters() if p.grad is not None}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(shared[name], parameter.grad, rtol=1e-6, atol=1e-9)


def test_the_scale_learns_through_the_convolution_that_it_is_made_of() -> None:
    network = protected(built(Chain, rng(0)), public=False)
    (name, layer), *_ = passport_norms(network).items()
    layer.affine()[0].sum().backward()  # type: ignore[no-untyped-call]
    conv = network.get_submodule(find_sites(built(Chain, rng(0)), IMAGE, 2)[0].conv)
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.grad is not None
    assert layer.means is not None
    torch.testing.assert_close(conv.weight.grad, layer.means[0].view(1, 8, 3, 3).expand(8, 8, 3, 3))
    assert name == "trunk.4"


def test_a_pass_and_the_loss_behind_it_share_the_scale_and_its_gradient_until_the_weight_changes() -> None:
    """Oracle: the scale computed twice, once in the pass and once for the loss."""
    network = protected(built(Chain, rng(0)), public=False)
    (_, layer), *_ = passport_norms(network).items()
    weight = layer._weight
    wanted = torch.autograd.grad(network(IMAGE).square().sum() + layer.affine().square().sum(), weight)
    answers, made = network(IMAGE), layer.of_the_pass()
    torch.testing.assert_close(torch.autograd.grad(answers.square().sum() + made.square().sum(), weight), wanted)
    assert torch.equal(layer.of_the_pass(), made)  # taken before, and so computed again
    network(IMAGE)
    assert layer.of_the_pass().grad_fn is not made.grad_fn
    network(IMAGE)
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(layer.of_the_pass(), layer.affine())
    assert not torch.equal(layer.affine(), made)


def test_a_network_can_be_copied_right_after_a_pass() -> None:
    network = protected(built(Chain, rng(0)), public=False)
    network(IMAGE)
    torch.testing.assert_close(copy.deepcopy(network)(IMAGE), network(IMAGE))


def test_a_step_computes_the_scales_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, computed = protected(built(Chain, rng(0)), public=False), list[Tensor]()

    def counted(weight: Tensor, means: Tensor) -> Tensor:
        computed.append(weight)
        return affine(weight, means)

    monkeypatch.setattr(passport, "affine", counted)
    network(IMAGE)
    for layer in passport_norms(network).values():
        layer.of_the_pass()
    assert len(computed) == len(passport_norms(network)) == 2


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_what_is_exposed_is_the_network_itself_again_and_answers_as_its_path_did(norm: str, public: bool) -> None:
    host = built(lambda: Chain(norm), rng(0)).eval()
    network = protected(copy.deepcopy(host), public=public).eval()
    for path in ("public", "private"):
        with on_path(network, path):
            wanted = network(IMAGE)
        plain = expose(network, path)
        assert [type(module) for module in plain.modules()] == [type(module) for module in host.modules()]
        assert plain.state_dict().keys() == host.state_dict().keys()
        assert all(parameter.requires_grad for parameter in plain.parameters())
        assert not any(module._forward_pre_hooks for module in plain.modules())
        torch.testing.assert_close(plain(IMAGE), wanted)


def test_no_secret_is_in_the_state_dict_of_a_protected_network() -> None:
    network = protected(built(Chain, rng(0)))
    secrets = {
        tuple(t.flatten().tolist())
        for layer in passport_norms(network).values()
        for t in layer.buffers()
        if t.ndim == 3
    }
    assert len(secrets) == 2
    assert not secrets & {tuple(t.flatten().tolist()) for t in network.state_dict().values()}


def test_paths_part_at_the_first_passport_layer_where_the_network_allows_it() -> None:
    network, rows = protected(built(Chain, rng(0))), {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, args, name=name: rows.update({name: len(args[0])}))
    with on_path(network, "both"):
        network(IMAGE.expand(4, -1, -1, -1))
    assert rows == {"trunk.0": 4, "trunk.3": 4, "trunk.6": 8}


def test_paths_part_before_the_stage_where_an_identity_shortcut_goes_around_the_first_passport_layer() -> None:
    network = protected(built(lambda: ResNet18(4, channels=1, width=4), rng(0)), 2).eval()
    rows: dict[str, int] = {}
    for name in ("stages.2", "stages.3.0", "stages.3.1"):
        module = network.get_submodule(name)
        module.register_forward_pre_hook(lambda _, args, name=name: rows.update({name: len(args[0])}))
    with on_path(network, "both"):
        assert network(IMAGE.expand(4, -1, -1, -1)).shape == (8, 4)
    assert rows == {"stages.2": 4, "stages.3.0": 4, "stages.3.1": 8}


def test_batch_norm_keeps_the_statistics_of_both_paths_apart() -> None:
    network = protected(built(Chain, rng(0)), 3).train()
    with on_path(network, "both"):
        network(torch.rand(16, 1, 8, 8, generator=rng(1)))
    last = list(passport_norms(network).values())[-1]
    assert isinstance(last.norm, nn.BatchNorm2d)
    assert isinstance(last.other, nn.BatchNorm2d)
    assert last.norm.running_mean is not None
    assert last.other.running_mean is not None
    assert not torch.equal(last.norm.running_mean, last.other.running_mean)


def test_finding_sites_leaves_the_network_as_it_was() -> None:
    network = built(Chain, rng(0)).train()
    before = copy.deepcopy(network.state_dict())
    find_sites(network, IMAGE, "trunk.*")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_site_survives_json() -> None:
    for site in find_sites(built(Chain, rng(0)), IMAGE, "*"):
        assert Site.from_dict(site.to_dict()) == site


@pytest.mark.parametrize(
    ("layers", "said"), [("layer9.*", "there are 'trunk.0'"), (4, "from 1 to 3"), (0, "from 1 to 3")]
)
def test_layers_that_are_not_there_are_one_clear_error(layers: str | int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        find_sites(built(Chain, rng(0)), IMAGE, layers)


def test_a_network_without_convolutions_cannot_be_protected() -> None:
    with pytest.raises(BadInput, match=r"no nn\.Conv2d"):
        find_sites(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), IMAGE, 1)


def test_a_passport_of_another_shape_is_refused() -> None:
    site = find_sites(built(Chain, rng(0)), IMAGE, 1)[0]
    with pytest.raises(BadInput, match=r"is \(N, 8, 8, 8\), got \(1, 8, 4, 4\)"):
        windows(torch.zeros(1, 8, 4, 4), site)


def test_a_norm_without_scale_and_another_network_cannot_carry_passports() -> None:
    sites = find_sites(built(Chain, rng(0)), IMAGE, 1)
    bare = built(Chain, rng(0))
    bare.set_submodule(sites[0].norm, nn.BatchNorm2d(12, affine=False))
    with pytest.raises(CannotCarry, match="affine=True"):
        protect(bare, drawn(sites), IMAGE)
    with pytest.raises(CannotCarry, match="mint for this network"):
        protect(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), drawn(sites), IMAGE)


def test_a_network_that_looks_across_images_is_refused_rather_than_trained_wrongly() -> None:
    class Across(Chain):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head((y := self.trunk(x).mean((2, 3))) - y.mean(0))
            return logits

    with pytest.raises(BadInput, match="answer each image by itself"):
        protected(built(Across, rng(0)))
