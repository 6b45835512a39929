"""Settings as text: what they accept, what they become, and that every mistake is reported."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.attacks import (
    ATTACKS,
    FORGERIES,
    AdversarialTriggers,
    Ensemble,
    Grind,
    Half,
    Knockoff,
    Overwrite,
    Stack,
    Transfer,
    attack,
    forger,
)
from earmark.cli.methods import embedding
from earmark.cli.settings import Form, pairs
from earmark.data import digits
from earmark.embed import METHODS
from earmark.errors import BadInput
from earmark.marks import MINTS, Abstract, Noise, NotTrue, OneClass, Penetrative, Sliced
from earmark.training import Settings

KINDS = {f"mint {name}": mint for name, mint in MINTS.items() if mint is not Sliced}
"""Slices are of another kind: on the command line they are a flag beside it."""
PLAIN = {**ATTACKS, **FORGERIES, "training": Settings, **KINDS}


NEEDY = (Grind, Knockoff, Overwrite, Stack, Transfer)
"""What has settings without a default."""


@pytest.mark.parametrize("name", sorted(name for name, made in PLAIN.items() if made not in (*NEEDY, Penetrative)))
def test_a_default_given_in_words_changes_nothing(name: str) -> None:
    make: Any = PLAIN[name]
    form, usual = Form.of(name, make), make()
    names = [field.name for field in fields(usual) if field.name in form.types]
    assert names
    values = {name: getattr(usual, name) for name in names if value_is_json(getattr(usual, name))}
    assert form.fill([f"{name}={json.dumps(value)}" for name, value in values.items()], make) == usual


def value_is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_method_takes_the_settings_of_training(name: str) -> None:
    form, build = embedding(name)
    backdoor = form.fill(["epochs=3", "lr=1e-3", "milestones=[1, 2]", "optimizer=sgd", "enough=0.9"], build)
    assert backdoor.settings == METHODS[name]().settings.but(
        epochs=3, lr=1e-3, milestones=(1, 2), optimizer="sgd", triggers_per_batch=backdoor.settings.triggers_per_batch
    )
    assert backdoor.enough == 0.9
    assert {"terms", "trainable", "start", "name", "build", "checkpoint"}.isdisjoint(form.types)


@dataclass(frozen=True)
class Example:
    size: int = 1
    share: float = 0.5
    name: str | None = None
    kind: Literal["all", "last"] = "all"
    on: bool = False

    def __post_init__(self) -> None:
        if self.size < 0:
            raise BadInput(f"size: expected 0 or more, got {self.size}")
        if self.share > 1:
            raise BadInput(f"share: expected at most 1, got {self.share}")


FORM = Form.of("settings", Example)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("size=7", Example(size=7)),
        ("share=1", Example(share=1.0)),
        ("name=null", Example()),
        ("name=none", Example()),
        ('name="none"', Example(name="none")),
        ("name=layer 4", Example(name="layer 4")),
        ("name=0", Example(name="0")),
        ('name="0.5"', Example(name="0.5")),
        ("name=a=b", Example(name="a=b")),
        ("kind=last", Example(kind="last")),
        ("on=true", Example(on=True)),
    ],
)
def test_a_value_is_json_or_else_text(text: str, becomes: Example) -> None:
    assert FORM.fill([text], Example) == becomes


@pytest.mark.parametrize(
    "text",
    [
        "size=1.5",
        "size=true",
        "size=",
        "share=NaN",
        "share=Infinity",
        "share=1e999",
        "share=half",
        "kind=first",
        "on=1",
        "on=yes",
    ],
)
def test_a_value_of_another_type_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match=f"settings: {text.partition('=')[0]}: input should be"):
        FORM.fill([text], Example)


def test_every_mistake_is_reported_whatever_its_sort() -> None:
    with pytest.raises(BadInput) as caught:
        FORM.fill(["sise=2", "size=-1", "share=3", "kind=first"], Example)
    for part in ("did you mean 'size'?", "size: expected 0 or more", "share: expected at most 1", "kind: input"):
        assert part in str(caught.value)


@pytest.mark.parametrize("texts", [["size"], ["=3"], [""], ["size=1", "size=1"]])
def test_what_is_no_pair_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadInput, match=r"expected NAME=VALUE|given twice"):
        pairs(texts)


WORDS = st.one_of(
    st.text(max_size=12), st.integers(), st.floats(), st.sampled_from(["null", "[]", "{}", '{"a": 1}', "[[1]]"])
)


REQUIRED: dict[Any, dict[str, Any]] = {
    Grind: {"mint": Noise()},
    Transfer: {"data": digits()},
    Knockoff: {"data": digits()},
    Stack: {"attacks": [Half()]},
}


@pytest.mark.parametrize("name", sorted(name for name, made in PLAIN.items() if made is not Overwrite))
@settings(max_examples=60, deadline=None)
@given(data=st.data(), word=WORDS)
def test_no_text_breaks_a_form(name: str, data: st.DataObject, word: Any) -> None:
    make: Any = PLAIN[name]
    form = Form.of(name, make, without=["count"])
    given_name = data.draw(st.sampled_from(sorted({*form.types, "sise"})))
    required = REQUIRED.get(make, {})
    with contextlib.suppress(BadInput):
        form.fill([f"{given_name}={word}"], lambda **values: make(**{**required, **values}))


def test_mints_and_label_policies_have_short_names_and_objects() -> None:
    forger = Form.of("adversarial", AdversarialTriggers).fill(["pose_as=abstract"], AdversarialTriggers)
    assert forger.pose_as == Abstract()
    whole = 'pose_as={"mint": "noise", "std": 0.5}'
    assert Form.of("adversarial", AdversarialTriggers).fill([whole], AdversarialTriggers).pose_as == Noise(std=0.5)
    labels = Form.of("noise", Noise)
    assert labels.fill(["labels=not-true"], Noise).labels == NotTrue()
    assert labels.fill(['labels={"policy": "one-class", "target": 3}'], Noise).labels == OneClass(3)


def test_another_task_is_data_by_its_short_text() -> None:
    form = Form.of("transfer", Transfer)
    given = form.fill(["data=digits", "trials=2", "images=none"], Transfer)
    assert (given.data.shape, given.trials) == ((1, 8, 8), 2)
    for text, says in (("data=digit", "did you mean 'digits'"), ("data=3", "expected data such as digits or idx:DIR")):
        with pytest.raises(BadInput, match=says):
            form.fill([text], lambda **values: attack("transfer", **values))
        with pytest.raises(BadInput) as told:
            form.fill([text, "trials=0"], lambda **values: attack("transfer", **values))
        assert "transfer needs data" not in str(told.value)
    with pytest.raises(BadInput, match=r"trials: .*; transfer needs data"):
        form.fill(["trials=many"], lambda **values: attack("transfer", **values))
    with pytest.raises(BadInput, match="transfer needs data"):
        form.fill(["trials=2"], lambda **values: attack("transfer", **values))


@pytest.mark.parametrize("text", ["pose_as=3", "pose_as=[1]", "pose_as=nois", 'pose_as={"mint": 3}'])
def test_what_is_no_mint_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="noise"):
        Form.of("adversarial", AdversarialTriggers).fill([text], AdversarialTriggers)


def test_none_is_the_value_of_what_may_be_left_out_and_of_nothing_else() -> None:
    assert Form.of("training", Settings).fill(["clip=none"], Settings(clip=1.0).but).clip is None
    assert Form.of("adversarial", AdversarialTriggers).fill(["pose_as=none"], AdversarialTriggers).pose_as is None
    with pytest.raises(BadInput, match="lr: input should be a valid number, got 'none'"):
        Form.of("training", Settings).fill(["lr=none"], Settings)


def test_what_no_text_can_give_is_no_setting() -> None:
    assert "augment" not in Form.of("fine-tune", ATTACKS["fine-tune-ftal"]).types
    assert set(Form.of("partial", partial(Example, size=3)).types) == {"size", "share", "name", "kind", "on"}


def test_a_wrong_value_is_named_where_another_setting_is_required() -> None:
    form = Form.of("grind", FORGERIES["grind"])
    with pytest.raises(BadInput, match="keys: expected a whole number from 1"):
        form.fill(["keys=0", "mint=noise"], lambda **values: forger("grind", **values))
    with pytest.raises(BadInput, match="grind needs mint"):
        form.fill(["keys=3"], lambda **values: forger("grind", **values))


def test_an_attack_of_attacks_is_named_or_described_and_checked_by_its_own_types() -> None:
    form = Form.of("ensemble", Ensemble)
    assert form.fill(["attack=half"], Ensemble).attack == Half()
    described = form.fill(['attack={"attack": "fine-tune-rtal", "epochs": 3, "milestones": [1, 2]}'], Ensemble)
    assert described.attack == attack("fine-tune-rtal", epochs=3, milestones=(1, 2))
    for text, says in (('{"epochs": 3}', "expected an attack"), ('{"attack": "half", "to": 3}', "to")):
        with pytest.raises(BadInput, match=says):
            form.fill([f"attack={text}"], Ensemble)
