"""Whether a model fits a task is asked before any work begins, and said in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import AdversarialTriggers, Forger, Grind, ReadOff
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.fidelity import DeepFidelity
from earmark.keys import MarkKey
from earmark.marks import Noise, TriggerSet
from earmark.models import require_fit, require_shape

KEY = MarkKey(bytes(range(32)))
FITS = Data(blobs(30), blobs(30, seed=1))
UNFIT = {
    "more classes": (Data(blobs(30, 5), blobs(30, 5)), r"\(3,\) scores an image, expected 5"),
    "fewer classes": (Data(blobs(30, 2), blobs(30, 2)), r"\(3,\) scores an image, expected 2"),
    "larger images": (Data(*2 * (blobs(30, shape=(1, 9, 9)),)), r"cannot take images \(1, 9, 9\)"),
    "colour": (Data(*2 * (blobs(30, shape=(3, 8, 8)),)), r"cannot take images \(3, 8, 8\)"),
}
FORGERS: dict[str, Forger] = {
    "adversarial": AdversarialTriggers(5),
    "posing": AdversarialTriggers(5, pose_as=Noise()),
    "read-off": ReadOff(5),
    "grind": Grind(Noise(5), keys=2),
}


def net(classes: int = 3) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes)))


def mark_for(images: Images) -> TriggerSet:
    return Noise(5)(KEY, None, Data(images, images))


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("earmark.fidelity.deep.predict", "earmark.fidelity.deep.readings", "earmark.fidelity.deep.accuracy"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("work began"))


@pytest.mark.parametrize("unfit", UNFIT)
@pytest.mark.parametrize("name", FORGERS)
def test_a_forger_says_that_the_data_do_not_fit_the_model(name: str, unfit: str) -> None:
    data, message = UNFIT[unfit]
    with pytest.raises(BadInput, match=f"the model .*{message}"):
        FORGERS[name](net(), data, rng(0))
    assert len(FORGERS[name](net(), FITS, rng(0))) == 5


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("unfit", UNFIT)
def test_fidelity_says_that_the_data_do_not_fit_the_model(unfit: str) -> None:
    data, message = UNFIT[unfit]
    with pytest.raises(BadInput, match=f"the model .*{message}"):
        DeepFidelity()(net(), net(), data)
    with pytest.raises(BadInput, match=f"the host .*{message}"):
        DeepFidelity().against(net(), data)


@pytest.mark.usefixtures("idle")
def test_fidelity_says_that_the_host_does_not_fit() -> None:
    with pytest.raises(BadInput, match=r"the host answers with \(4,\) scores an image, expected 3"):
        DeepFidelity()(net(), net(4), FITS)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("unfit", UNFIT)
def test_fidelity_says_that_the_mark_does_not_fit_the_model(unfit: str) -> None:
    data, message = UNFIT[unfit]
    with pytest.raises(BadInput, match=f"the model .*{message}"):
        DeepFidelity(mark_for(data.train))(net(), net(), FITS)


@pytest.mark.usefixtures("idle")
def test_fidelity_says_that_further_images_do_not_fit_the_model() -> None:
    others = {"near": blobs(6, 7), "odd": blobs(6, shape=(1, 9, 9))}
    with pytest.raises(BadInput, match=r"cannot take images \(1, 9, 9\)"):
        DeepFidelity(others=others)(net(), net(), FITS)


def test_fidelity_takes_marks_and_images_of_any_size_that_the_model_takes() -> None:
    model, larger = seeded(TinyNet), blobs(6, shape=(1, 12, 12))
    report = DeepFidelity(mark_for(larger), {"larger": larger, "of other classes": blobs(6, 7)})(model, model, FITS)
    assert report.agreement == {"test": 1.0, "larger": 1.0, "of other classes": 1.0}


def test_fidelity_leaves_a_model_that_has_not_been_run_alone() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(BadInput, match="not initialised yet"):
        DeepFidelity()(lazy, net(), FITS)
    assert isinstance(lazy[1], nn.LazyLinear)


class Odd(nn.Module):
    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        return self.answer(images)


def leaves(_: Tensor) -> object:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (leaves, r"cannot take images \(1, 8, 8\): SystemExit: 3; check channels and size"),
        (lambda _: {}, "cannot take images .*expected logits"),
        (lambda images: images.flatten(1).argmax(1), r"answers with \(\) scores an image, expected 3"),
        (lambda images: images, r"answers with \(1, 8, 8\) scores an image, expected 3"),
        (lambda _: torch.tensor(1.0), r"answers with \(\) scores an image, expected 3"),
    ],
)
def test_whatever_a_model_does_instead_is_one_sentence(answer: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        require_fit(Odd(answer), FITS)


def test_asking_leaves_the_model_as_it_is() -> None:
    model = seeded(TinyNet).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    require_fit(model, FITS)
    assert require_shape(model, (1, 20, 20)) == (3,)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
