from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.suspects import as_query


class Net(nn.Module):
    """A small classifier with everything that eval mode and inference change: dropout and batch norm."""

    def __init__(self, wrap: Any = lambda logits: logits) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 4 * 4, 5)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.head(self.drop(self.norm(images)).flatten(1)))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def test_a_query_answers_like_the_module_in_eval_mode(net: Net, images: Tensor) -> None:
    net.train()
    answers = as_query(net)(images)
    with torch.no_grad():
        assert torch.equal(answers, net.eval()(images))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 256])
def test_the_batch_size_does_not_change_the_answers(net: Net, images: Tensor, batch_size: int) -> None:
    torch.testing.assert_close(as_query(net, batch_size)(images), as_query(net)(images))


@pytest.mark.parametrize(
    "wrap",
    [lambda x: SimpleNamespace(logits=x), lambda x: (torch.zeros(1), x), lambda x: [x]],
    ids=["object", "tuple", "list"],
)
def test_every_usual_form_of_output_is_read(net: Net, images: Tensor, wrap: Any) -> None:
    expected = as_query(net)(images)
    net.wrap = wrap
    assert torch.equal(as_query(net)(images), expected)


def test_a_query_leaves_the_module_as_it_was(net: Net, images: Tensor) -> None:
    net.train()
    net.drop.eval()
    before, state = model_digest(net), torch.random.get_rng_state()
    as_query(net)(images)
    assert model_digest(net) == before
    assert [m.training for m in (net, net.norm, net.drop, net.head)] == [True, True, False, True]
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_modes_come_back_when_the_module_fails(net: Net) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        as_query(net)(torch.rand(2, 3, 9, 9))
    assert net.training
    assert net.norm.training


def test_a_module_in_half_precision_answers_in_float32(net: Net, images: Tensor) -> None:
    answers = as_query(net.to(torch.bfloat16))(images)
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers, as_query(net.float())(images), atol=0.1, rtol=0.1)


def test_labels_pass_through_as_whole_numbers(net: Net, images: Tensor) -> None:
    expected = as_query(net)(images).argmax(1)
    net.wrap = lambda logits: logits.argmax(1)
    answers = as_query(net)(images)
    assert answers.dtype == torch.int64
    assert torch.equal(answers, expected)


def test_answers_can_be_used_in_later_gradients(net: Net, images: Tensor) -> None:
    weight = torch.ones(5, requires_grad=True)
    (as_query(net)(images) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_no_images_get_no_answers(net: Net) -> None:
    assert as_query(net)(torch.rand(0, 3, 4, 4)).shape == (0, 5)


def test_a_module_without_parameters_is_a_suspect_too(images: Tensor) -> None:
    assert as_query(nn.Flatten())(images).shape == (10, 48)


def test_wrong_arguments_are_named(net: Net, images: Tensor) -> None:
    with pytest.raises(BadInput, match="batch size of at least 1, got 0"):
        as_query(net, 0)
    with pytest.raises(BadInput, match=r"\(3, 4, 4\); add the batch dimension"):
        as_query(net)(images[0])
    net.wrap = lambda logits: "cat"
    with pytest.raises(BadInput, match="got str"):
        as_query(net)(images)
