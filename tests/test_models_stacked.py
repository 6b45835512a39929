"""Dense layers of K networks at once: against the networks one by one, whatever computes the products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from earmark.core import rng
from earmark.errors import BadInput
from earmark.models import AUTOENCODERS, Autoencoder, Bank, MLPAutoencoder, autoencoder, built, stacked
from earmark.models.stacked import SMALL

SHAPE = (1, 8, 8)
WIDTHS = (SMALL // 64, 16)
"""A first layer that is large enough for oneDNN, and others that are not."""
DENSE = [
    ("mlp", {"widths": WIDTHS}),
    ("mlp", {"widths": (300, 64)}),
    ("mlp", {"widths": ()}),
    ("variational", {"widths": WIDTHS}),
    ("variational", {"widths": ()}),
]


def members(family: str, dtype: torch.dtype = torch.float32, **settings: object) -> list[nn.Module]:
    made = (built(lambda: autoencoder(family, SHAPE, bottleneck=5, **settings), rng(seed)) for seed in range(3))
    return [member.to(dtype).eval() for member in made]


def images(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, *SHAPE, generator=rng(0)).to(dtype)


@pytest.mark.parametrize(("family", "settings"), DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [False, True])
def test_values_and_all_gradients_are_those_of_the_members(
    family: str, settings: dict[str, object], dtype: torch.dtype, apart: bool
) -> None:
    alone = members(family, dtype, **settings)
    bank, seen = Bank(alone).eval(), images(12, dtype).view(3, 4, *SHAPE)
    seen = (seen if apart else seen[0]).requires_grad_()
    code, made = bank.separately(seen) if apart else bank(seen)
    (made.square().sum() + code.sum()).backward()
    found, seen.grad = seen.grad, None
    for at, member in enumerate(alone):
        own_code, own = member(seen[at] if apart else seen)
        torch.testing.assert_close(code[at], own_code, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(made[at], own, rtol=1e-6, atol=1e-6)
        (own.square().sum() + own_code.sum()).backward()
        for name, parameter in member.named_parameters():
            stacked = bank.get_parameter(f"parameter_of_{name.replace('.', '__')}").grad
            assert stacked is not None
            torch.testing.assert_close(stacked[at], parameter.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, seen.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", ["encoder", "decoder", "last"])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_its_own(frozen: str) -> None:
    alone = members("mlp", widths=WIDTHS)
    for member in alone:
        member.get_submodule(frozen).requires_grad_(False)
    bank = Bank(alone)
    bank(images(4)).images.sum().backward()
    for at, member in enumerate(alone):
        member(images(4)).images.sum().backward()
        for name, parameter in member.named_parameters():
            stacked = bank.get_parameter(f"parameter_of_{name.replace('.', '__')}").grad
            assert (stacked is None) == (parameter.grad is None) == name.startswith(frozen)
            if stacked is not None:
                torch.testing.assert_close(stacked[at], parameter.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "settings"), DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("intel", [False, True])
def test_the_halves_join_to_the_members_and_a_shift_moves_what_enters(
    family: str, settings: dict[str, object], dtype: torch.dtype, intel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "INTEL", intel)
    alone = members(family, dtype, **settings)
    halves, seen = Bank(alone).halves(), images(4, dtype)
    assert halves is not None
    move = (0.1 * torch.randn(4, *SHAPE, generator=rng(1))).to(dtype).requires_grad_()
    made = halves.leave(halves.enter(seen) + halves.shift(move))
    (found,) = torch.autograd.grad(made.square().sum(), [move])
    one_by_one = torch.stack([member(seen + move).images for member in alone])
    torch.testing.assert_close(made, one_by_one, rtol=1e-6, atol=1e-6)
    (wanted,) = torch.autograd.grad(one_by_one.square().sum(), [move])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("intel", [False, True])
def test_halves_stay_what_the_bank_was_where_it_learns_on(intel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked, "INTEL", intel)
    bank = Bank(members("mlp", widths=WIDTHS))
    halves, seen = bank.halves(), images(4)
    assert halves is not None
    before = halves.leave(halves.enter(seen))
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(1)
    assert torch.equal(halves.leave(halves.enter(seen)), before)


def test_only_dense_members_have_halves_and_only_images_of_their_form_enter() -> None:
    for family in AUTOENCODERS:
        one = built(lambda family=family: autoencoder(family, SHAPE), rng(0))  # type: ignore[misc]
        assert isinstance(one, Autoencoder)
        assert (Bank([one]).halves() is None) == (not one.dense)
    halves = Bank([MLPAutoencoder(SHAPE, 3)]).halves()
    assert halves is not None
    with pytest.raises(BadInput, match="build one for these images"):
        halves.enter(torch.zeros(2, 3, 8, 8))
