"""Teaching what shadow autoencoders make of the triggers, and training without the images that these are made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.core import Data, Images, rng
from earmark.embed import ShadowViews, ftal, scratch
from earmark.embed import backdoor as embedding
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Listed, Noise, Penetrative, TriggerSet
from earmark.models import Bank, MLPAutoencoder, built
from earmark.schemes import SCHEMES, penetrative, scheme_of
from earmark.training import History

SHAPE = (1, 8, 8)
DATA = Data(blobs(60, shape=SHAPE), blobs(20, shape=SHAPE, seed=1))
KEY = MarkKey(bytes(range(32)))


def shadows(count: int = 2) -> Bank:
    return Bank([built(lambda: MLPAutoencoder(SHAPE, 4, (8,)), rng(seed)) for seed in range(count)])


def stamped(**changes: object) -> TriggerSet:
    given = {"count": 6, "group": 2, "teaching": 9, "search": None, **changes}
    return Penetrative(**given)(KEY, None, DATA)  # type: ignore[arg-type]


class Seen:
    """Stands in for `fit`, and keeps what it was given."""

    def __init__(self) -> None:
        self.data, self.triggers = DATA.train, DATA.train

    def __call__(self, model: nn.Module, data: Images, *rest: object, triggers: Images, **more: object) -> History:
        self.data, self.triggers = data, triggers
        return []


def test_each_lesson_is_taught_as_it_is_and_as_each_shadow_gives_it_back() -> None:
    bank, lessons = shadows(), stamped().lessons
    views = ShadowViews(bank)(lessons)
    assert len(views) == 3 * len(lessons)
    assert torch.equal(views.pixels[: len(lessons)], lessons.pixels)
    for at, member in enumerate(bank.members(), start=1):
        with torch.no_grad():
            made = (member.eval()(lessons.pixels.float() / 255).images * 255).round().to(torch.uint8)
        torch.testing.assert_close(views.pixels[at * len(lessons) : (at + 1) * len(lessons)], made, rtol=0, atol=1)
    assert torch.equal(views.labels, lessons.labels.repeat(3))


def test_views_join_the_lessons_and_never_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, mark, host = Seen(), stamped(), seeded(TinyNet)
    monkeypatch.setattr(embedding, "fit", seen)
    ftal()(host, mark, DATA, rng(0))
    assert seen.triggers is mark.lessons
    ftal().but(views=ShadowViews(shadows()))(host, mark, DATA, rng(0))
    assert len(seen.triggers) == 3 * len(mark.lessons)


def test_equation_8_trains_without_the_carriers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, mark, host = Seen(), stamped(count=6, group=3, teaching=0, labels=Listed((0, 2))), seeded(TinyNet)
    monkeypatch.setattr(embedding, "fit", seen)
    scratch()(host, mark, DATA, rng(0))
    assert seen.data is DATA.train, "added, unless it is said"
    scratch().but(replace=True)(host, mark, DATA, rng(0))
    assert mark.carriers is not None
    assert len(seen.data) == 60 - 6
    assert not rows(seen.data.pixels) & rows(mark.carriers.pixels[:6])
    assert rows(seen.data.pixels) | rows(mark.carriers.pixels[:6]) == rows(DATA.train.pixels)
    noise = Noise(4)(KEY, None, DATA)
    scratch().but(replace=True)(host, noise, DATA, rng(0))
    assert seen.data is DATA.train, "noise is made from nothing"


def rows(pixels: Tensor) -> set[bytes]:
    return {row.tobytes() for row in pixels.numpy()}


def test_a_class_that_has_nothing_left_is_named() -> None:
    few = Data(DATA.train.subset(torch.arange(15)), DATA.test)
    mark = replace(stamped(), carriers=few.train)
    with pytest.raises(BadInput, match="class"):
        ftal().but(replace=True)(seeded(TinyNet), mark, Data(few.train, DATA.test), rng(0))


def test_shadows_of_other_images_or_without_sense_are_refused() -> None:
    lessons = stamped().lessons
    with pytest.raises(BadInput, match="build one for these images"):
        ShadowViews(Bank([MLPAutoencoder((3, 8, 8), 2, (4,))]))(lessons)
    broken = shadows(1)
    for parameter in broken.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(BadInput, match="not finite"):
        ShadowViews(broken)(lessons)


def test_the_scheme_is_known_by_its_own_triggers() -> None:
    mint = Penetrative(count=6, group=2, teaching=9, search=None)
    scheme = penetrative(mint, ftal().but(epochs=1, watch=0))
    mark = scheme.mint(KEY, None, DATA)
    assert scheme_of(mark) == scheme.name == "penetrative"
    assert SCHEMES[scheme.name] is penetrative
    marked = scheme.embed(seeded(TinyNet), mark, DATA, rng(0))
    assert scheme.verify(marked, mark).n == 3
    forged, _ = scheme.invert(marked, DATA, rng(0)), scheme.fidelity(marked, seeded(TinyNet), DATA)
    assert forged is not None
