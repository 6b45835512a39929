"""Forged trigger sets win a plain trigger test, look like honest claims, and are not what their key mints."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.attacks import AdversarialTriggers, FineTune, Forger, Forgery, Grind, ReadOff
from earmark.attacks.ambiguity.forgery import draw_owner
from earmark.core import Data, Images, rng
from earmark.data import open_data
from earmark.errors import BadInput
from earmark.evidence import commit, judge
from earmark.files import model_digest
from earmark.marks import Noise, OneClass, TriggerSet, Uniform, remint
from earmark.models import PlainCNN
from earmark.suspects import as_query
from earmark.training import answers, predict
from earmark.verify import TriggerTest

CLASSES = 10


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def model(data: Data) -> nn.Module:
    """A stranger's model, which learned to read digits and has never seen a trigger."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = PlainCNN(data.shape, CLASSES, width=8, features=32).eval()
    return FineTune(epochs=4, lr=4e-3, batch_size=64)(net, data, rng(2))


def as_images(mark: TriggerSet) -> Images:
    return Images(mark.images, mark.labels, mark.classes)


def matches(model: nn.Module, mark: TriggerSet, batch_size: int = 256) -> int:
    return int(mark.matches(answers(model, as_images(mark), batch_size)).sum())


FORGERS: dict[str, Forger] = {
    "adversarial": AdversarialTriggers(40),
    "adversarial as noise": AdversarialTriggers(pose_as=Noise(40)),
    "adversarial to class 0": AdversarialTriggers(40, labels=(0,)),
    "read-off": ReadOff(40),
    "read-off as noise": ReadOff(pose_as=Noise(40)),
}


@pytest.mark.parametrize("name", FORGERS)
def test_a_forgery_wins_a_plain_test_on_a_model_that_was_never_touched(name: str, model: nn.Module, data: Data) -> None:
    before = model_digest(model)
    mark = FORGERS[name](model, data, rng(3))
    assert model_digest(model) == before
    verdict = TriggerTest(alpha=1e-12)(as_query(model), mark)
    assert verdict.accepted is True
    assert verdict.null == Uniform().null(CLASSES)


@pytest.mark.parametrize("name", [name for name in FORGERS if name.endswith("noise")])
def test_a_posed_forgery_reads_like_an_honest_claim_and_its_key_mints_another_mark(
    name: str, model: nn.Module, data: Data
) -> None:
    forgery = FORGERS[name].forge(model, data, rng(3))
    honest = Noise(40)(forgery.key, model, data)
    assert forgery.mark.spec() == honest.spec()
    assert forgery.mark.null == honest.null
    assert remint(forgery.key, honest).digest() == honest.digest()
    assert remint(forgery.key, forgery.mark).digest() == honest.digest() != forgery.mark.digest()


@pytest.mark.parametrize("name", ["adversarial", "adversarial to class 0", "read-off"])
def test_a_forgery_that_does_not_pose_cannot_be_minted_again(name: str, model: nn.Module, data: Data) -> None:
    forgery = FORGERS[name].forge(model, data, rng(3))
    with pytest.raises(BadInput, match="forged"):
        remint(forgery.key, forgery.mark)


def test_adversarial_noise_stays_within_its_budget(model: nn.Module, data: Data) -> None:
    for epsilon in (0, 3, 20):
        forgery = AdversarialTriggers(epsilon=epsilon, step=2, pose_as=Noise(40)).forge(model, data, rng(3))
        base = Noise(40)(forgery.key, model, data)
        moved = (forgery.mark.images.int() - base.images.int()).abs()
        assert int(moved.max()) <= epsilon
        assert (int(moved.max()) > 0) == (epsilon > 0)
        assert torch.equal(forgery.mark.labels, base.labels)


def test_with_no_steps_the_base_images_come_back(model: nn.Module, data: Data) -> None:
    forgery = AdversarialTriggers(steps=0, pose_as=Noise(40)).forge(model, data, rng(3))
    assert forgery.mark.digest() == Noise(40)(forgery.key, model, data).digest()


def lead(model: nn.Module, mark: TriggerSet, batch_size: int = 256) -> Tensor:
    """The logit of each trigger's label minus the largest other."""
    logits = predict(model, as_images(mark), batch_size)
    rest = logits.scatter(1, mark.labels.unsqueeze(1), float("-inf")).amax(1)
    return logits.gather(1, mark.labels.unsqueeze(1)).squeeze(1) - rest


def test_the_wanted_label_leads_by_the_margin_on_the_uint8_images_in_any_batching(model: nn.Module, data: Data) -> None:
    mark = AdversarialTriggers(pose_as=Noise(40), margin=0.5, epsilon=255, steps=300)(model, data, rng(3))
    assert lead(model, mark, batch_size=7).min() > 0.499
    assert matches(model, mark, batch_size=1) == matches(model, mark) == 40


def test_an_image_that_never_gets_there_stays_where_it_came_closest(model: nn.Module, data: Data) -> None:
    coarse = AdversarialTriggers(pose_as=Noise(40), margin=1e9, epsilon=255, step=60)
    leads = [lead(model, replace(coarse, steps=steps)(model, data, rng(3))) for steps in range(6)]
    assert all((later >= earlier - 1e-3).all() for earlier, later in itertools.pairwise(leads))
    assert (leads[-1] > leads[0] + 1).all()


def test_more_triggers_than_one_batch_are_all_forged(model: nn.Module, data: Data) -> None:
    mark = AdversarialTriggers(pose_as=Noise(150), epsilon=255)(model, data, rng(3))
    assert matches(model, mark) > 140


@pytest.mark.parametrize("wanted", [(0,), (4, 0), (1, 2, 3)])
def test_labels_named_by_the_forger_are_repeated(wanted: tuple[int, ...], model: nn.Module, data: Data) -> None:
    mark = AdversarialTriggers(7, steps=1, labels=wanted)(model, data, rng(3))
    assert mark.labels.tolist() == [wanted[i % len(wanted)] for i in range(7)]


def test_the_count_overrules_the_posed_mints(model: nn.Module, data: Data) -> None:
    mark = ReadOff(9, pose_as=Noise(40))(model, data, rng(3))
    assert len(mark) == 9
    assert mark.settings["count"] == 9


def stubborn(answer: int) -> nn.Module:
    """A model that gives one answer to all images."""
    head = nn.Linear(64, CLASSES)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(CLASSES) == answer)
    return nn.Sequential(nn.Flatten(), head)


@pytest.mark.parametrize("answer", [0, 3])
def test_a_read_off_mark_matches_whatever_the_model_is(answer: int, data: Data) -> None:
    mark = ReadOff(30)(stubborn(answer), data, rng(4))
    assert mark.labels.tolist() == [answer] * 30
    assert matches(stubborn(answer), mark) == 30


@pytest.mark.parametrize("policy", [None, OneClass(0)])
def test_grinding_finds_what_trying_every_key_finds(policy: OneClass | None, model: nn.Module, data: Data) -> None:
    mint = Noise(12) if policy is None else Noise(12, policy)
    owner = draw_owner(rng(8))
    keys = [owner.mark_key(f"forged {at}") for at in range(16)]
    scores = [matches(model, mint(key, model, data)) for key in keys]
    forgery = Grind(mint, keys=16).forge(model, data, rng(8))
    assert forgery.key == keys[scores.index(max(scores))]
    assert matches(model, forgery.mark) == max(scores)


def test_a_ground_mark_is_honestly_minted_so_only_the_number_of_keys_can_stop_it(data: Data) -> None:
    model = stubborn(0)
    forgery = Grind(Noise(12), keys=2**6).forge(model, data, rng(12))
    assert remint(forgery.key, forgery.mark).digest() == forgery.mark.digest()
    assert TriggerTest(alpha=0.05, grinding_bits=0)(as_query(model), forgery.mark).accepted is True
    assert TriggerTest(alpha=0.05, grinding_bits=6)(as_query(model), forgery.mark).accepted is False


def committed(forgery: Forgery, model: nn.Module, out: Path, check: bool = False) -> tuple[Path, Path]:
    owner, name = forgery.owner, forgery.name
    how: Any = {"host": None, "marked": model, "scheme": "any", "out": out, "check": check}
    return commit(owner, forgery.mark, name=name, **how)


def test_a_committed_ground_mark_passes_every_step_and_fails_by_the_keys_that_may_have_been_tried(
    data: Data, tmp_path: Path
) -> None:
    model = stubborn(0)
    forgery = Grind(Noise(40), keys=2**6).forge(model, data, rng(12))
    verdict = judge(*committed(forgery, model, tmp_path / "forged"), model, alpha=0.05)
    assert (verdict.accepted, verdict.details["step"]) == (False, "suspect")
    assert verdict.details["log10_p_before_grinding"] < math.log10(0.05), "without the correction it would be accepted"
    assert verdict.log10_p == 0


@pytest.mark.parametrize("name", [name for name in FORGERS if name.endswith("noise")])
def test_any_other_committed_forgery_is_rejected_as_not_minted(
    name: str, model: nn.Module, data: Data, tmp_path: Path
) -> None:
    forgery = FORGERS[name].forge(model, data, rng(3))
    assert forgery.key.owner == forgery.owner.public
    files = committed(forgery, model, tmp_path / "forged", check=False)
    assert judge(*files, model).details["step"] == "re-minting"


def test_a_forger_is_another_owner_under_another_seed_and_the_same_under_the_same(data: Data) -> None:
    first, again, other = (ReadOff(9).forge(stubborn(0), data, rng(seed)).owner.fingerprint for seed in (3, 3, 4))
    assert first == again != other


def test_the_key_shows_in_no_repr(model: nn.Module, data: Data) -> None:
    forgery = ReadOff(9).forge(model, data, rng(3))
    assert forgery.key.secret.hex() not in repr(forgery)
    assert str(list(forgery.key.secret)[:3])[1:-1] not in repr(forgery)


def test_more_triggers_than_test_images_are_refused(model: nn.Module, data: Data) -> None:
    with pytest.raises(BadInput, match="1 to 359"):
        ReadOff(360)(model, data, rng(3))


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"steps": -1}, "steps"), ({"step": 0.5}, "step"), ({"epsilon": -1}, "epsilon"), ({"labels": ()}, "labels")],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        replace(AdversarialTriggers(), **settings)  # type: ignore[arg-type]


def test_a_label_that_is_no_class_is_refused(model: nn.Module, data: Data) -> None:
    with pytest.raises(BadInput, match="0 to 9"):
        AdversarialTriggers(5, labels=(CLASSES,))(model, data, rng(3))


def test_no_keys_are_refused() -> None:
    with pytest.raises(BadInput, match="keys"):
        Grind(Noise(), keys=0)


def test_gradients_reach_no_parameter(model: nn.Module, data: Data) -> None:
    seen: list[Tensor | None] = []
    AdversarialTriggers(5, steps=2)(model, data, rng(3))
    seen += [parameter.grad for parameter in model.parameters()]
    assert seen
    assert all(gradient is None for gradient in seen)
