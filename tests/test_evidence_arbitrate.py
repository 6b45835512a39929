from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.evidence import Bundle, Case, arbitrate, claim_of, commit
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet


class Memory(nn.Module):
    """A classifier that carries marks by heart: the label of the nearest trigger, and class 0 for all other images."""

    def __init__(self, *marks: TriggerSet) -> None:
        super().__init__()
        self.register_buffer("images", torch.cat([mark.images.flatten(1) / 255 for mark in marks]))
        self.register_buffer("labels", torch.cat([mark.labels for mark in marks]))

    def forward(self, images: Tensor) -> Tensor:
        near, which = torch.cdist(images.flatten(1), self.get_buffer("images")).min(1)
        return nn.functional.one_hot(torch.where(near < 0.01, self.get_buffer("labels")[which], 0), 10).float()


def owner(seed: int) -> OwnerKey:
    return OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def minted(key: OwnerKey, name: str = "m") -> TriggerSet:
    return Noise(count=60).make(key.mark_key(name), (1, 6, 6), 10)


ADA, EVE, BOB = owner(1), owner(2), owner(3)
ADAS, EVES, BOBS = minted(ADA), minted(EVE), minted(BOB)
SOON = datetime(2024, 1, 1, tzinfo=UTC)
LATE, LATER = SOON + timedelta(days=100), SOON + timedelta(days=200)
SEEN = SOON + timedelta(days=300)
HERS, BOTH = Memory(ADAS), Memory(ADAS, EVES)


def case(
    name: str, key: OwnerKey, mark: TriggerSet, marked: nn.Module, before: datetime | None, *, shown: bool = True
) -> Case:
    bundle = Bundle.seal(mark, key.mark_key("m"), name="m", scheme="x")
    claim = claim_of(key, bundle, host=None, marked=marked, time=SOON)
    return Case(name, claim, bundle, before, marked if shown else None)


def outcome(*cases: Case, suspect: nn.Module = BOTH) -> dict[str, bool | None]:
    rulings = arbitrate(cases, suspect, suspect_known_since=SEEN)
    swapped = arbitrate(cases[::-1], suspect, suspect_known_since=SEEN)
    found = {ruling.claimant: ruling.verdict.accepted for ruling in rulings}
    assert found == {ruling.claimant: ruling.verdict.accepted for ruling in swapped}, "the order of cases decided"
    return found


def test_each_mark_alone_is_accepted_on_the_overwritten_model() -> None:
    rulings = arbitrate([case("Ada", ADA, ADAS, HERS, SOON), case("Eve", EVE, EVES, BOTH, LATE)], BOTH)
    assert [ruling.alone.accepted for ruling in rulings] == [True, True]


def test_an_overwriting_thief_loses_to_the_owner() -> None:
    found = outcome(case("Ada", ADA, ADAS, HERS, SOON), case("Eve", EVE, EVES, BOTH, LATE))
    assert found == {"Ada": True, "Eve": False}


@pytest.mark.parametrize("before", [None, LATER])
def test_overwriting_is_seen_without_dates_and_against_them(before: datetime | None) -> None:
    found = outcome(case("Ada", ADA, ADAS, HERS, before), case("Eve", EVE, EVES, BOTH, SOON))
    assert found == {"Ada": True, "Eve": False}


def test_where_no_model_is_shown_the_earlier_commitment_wins() -> None:
    ada = case("Ada", ADA, ADAS, HERS, SOON, shown=False)
    assert outcome(ada, case("Eve", EVE, EVES, BOTH, LATE, shown=False)) == {"Ada": True, "Eve": False}


@pytest.mark.parametrize(("first", "second"), [(SOON, LATE), (LATE, SOON), (None, None)])
def test_where_neither_model_carries_the_other_mark_dates_decide_nothing(
    first: datetime | None, second: datetime | None
) -> None:
    eve = case("Eve", EVE, EVES, Memory(EVES), second)
    assert outcome(case("Ada", ADA, ADAS, HERS, first), eve) == {"Ada": None, "Eve": None}


class Mute(Memory):
    """The same weights in code that does not answer."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("no")


class Cut(Memory):
    """The same weights in code that drops a class."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :9]


class Void(Memory):
    """The same weights in code that answers with no number."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.nan


@pytest.mark.parametrize("broken", [Mute, Cut, Void])
def test_a_released_model_that_does_not_answer_counts_as_hidden(broken: type[Memory]) -> None:
    eve = replace(case("Eve", EVE, EVES, BOTH, SOON), released=broken(ADAS, EVES))
    assert outcome(case("Ada", ADA, ADAS, HERS, LATE), eve) == {"Ada": None, "Eve": None}
    late = replace(case("Eve", EVE, EVES, BOTH, LATE), released=broken(ADAS, EVES))
    assert outcome(case("Ada", ADA, ADAS, HERS, SOON), late) == {"Ada": True, "Eve": False}


@pytest.mark.parametrize(("first", "second"), [(None, None), (SOON, None), (None, LATE), (SOON, SOON)])
def test_without_two_trusted_times_nobody_wins(first: datetime | None, second: datetime | None) -> None:
    ada = case("Ada", ADA, ADAS, HERS, first, shown=False)
    assert outcome(ada, case("Eve", EVE, EVES, BOTH, second, shown=False)) == {"Ada": None, "Eve": None}


def test_who_hides_his_model_does_not_win_by_time_against_who_shows_hers() -> None:
    eve = case("Eve", EVE, EVES, BOTH, SOON, shown=False)
    assert outcome(case("Ada", ADA, ADAS, HERS, LATE), eve) == {"Ada": None, "Eve": None}


def test_a_model_that_is_not_the_committed_one_counts_as_hidden() -> None:
    eve = replace(case("Eve", EVE, EVES, BOTH, SOON), released=Memory(EVES))
    assert outcome(case("Ada", ADA, ADAS, HERS, LATE), eve) == {"Ada": None, "Eve": None}


def test_a_claim_that_fails_alone_does_not_compete() -> None:
    found = outcome(case("Ada", ADA, ADAS, HERS, SOON), case("Bob", BOB, BOBS, Memory(BOBS), None))
    assert found == {"Ada": True, "Bob": False}


def test_two_marks_of_one_owner_do_not_compete() -> None:
    other = minted(ADA, "n")
    bundle = Bundle.seal(other, ADA.mark_key("n"), name="n", scheme="x")
    both = Memory(ADAS, other)
    second = Case("Ada, n", claim_of(ADA, bundle, host=None, marked=both, time=SOON), bundle)
    assert outcome(case("Ada, m", ADA, ADAS, HERS, None), second, suspect=both) == {"Ada, m": True, "Ada, n": True}


def test_of_three_the_first_wins_against_all() -> None:
    three = Memory(ADAS, EVES, BOBS)
    found = outcome(
        case("Bob", BOB, BOBS, three, LATER),
        case("Ada", ADA, ADAS, HERS, SOON),
        case("Eve", EVE, EVES, BOTH, LATE),
        suspect=three,
    )
    assert found == {"Ada": True, "Eve": False, "Bob": False}


def test_a_ruling_says_against_whom_and_why() -> None:
    ada, eve = arbitrate([case("Ada", ADA, ADAS, HERS, SOON), case("Eve", EVE, EVES, BOTH, LATE)], BOTH)
    why = "the model that Eve committed to already carries Ada's mark, not the reverse"
    assert ada.verdict.details["against"] == {"Eve": why}
    assert eve.verdict.details["against"] == {"Ada": why}
    assert why in ada.verdict.reason
    assert why in eve.verdict.reason
    assert ada.verdict.details["step"] == "arbitration"
    assert ada.verdict.log10_p == ada.alone.log10_p


def test_a_ruling_tells_every_fact_that_was_weighed_and_which_decided() -> None:
    hidden = case("Eve", EVE, EVES, BOTH, LATE, shown=False)
    shown = case("Eve", EVE, EVES, BOTH, LATE)
    ada = case("Ada", ADA, ADAS, HERS, SOON)
    for rival, decided, in_theirs in (
        (shown, "which mark is in which model", "found"),
        (hidden, "time", "cannot be told: no model that answers was shown"),
        (replace(hidden, committed_before=None), "nothing: the facts leave it open", "cannot be told: no model"),
    ):
        first, second = (one.verdict.details["weighed"] for one in arbitrate([ada, rival], BOTH))
        facts, theirs = first["Eve"], second["Ada"]
        assert facts["decided_by"] == theirs["decided_by"] == decided
        assert facts["own_mark_in_the_others_model"].startswith(in_theirs)
        assert facts["the_others_mark_in_own_model"] == theirs["own_mark_in_the_others_model"] == "not found"
        assert facts["own_time"] == "a source that the judge trusts, by 2024-01-01T00:00:00Z"
        assert facts["the_others_time"] == theirs["own_time"]
        assert theirs["own_time"].startswith("the owner's word") == (rival.committed_before is None)


def test_a_ruling_says_at_which_step_a_rival_fell() -> None:
    bob = case("Bob", BOB, BOBS, Memory(BOBS), None)
    assert isinstance(bob.evidence, Bundle)
    forged = Bundle.seal(EVES, BOB.mark_key("m"), name="m", scheme="x")
    claim = claim_of(BOB, forged, host=None, marked=BOTH, time=SOON)
    for rival, step in ((bob, "suspect"), (replace(bob, claim=claim, evidence=forged), "re-minting")):
        ada, fell = arbitrate([case("Ada", ADA, ADAS, HERS, SOON), rival], BOTH)
        assert (ada.verdict.accepted, fell.verdict.accepted) == (True, False)
        assert ada.verdict.details["against"] == {
            "Bob": f"the claim of Bob is rejected by itself, at the step {step!r}"
        }
        assert ada.verdict.details["weighed"] == {}
        assert fell.verdict.details["step"] == step


def test_a_broken_file_is_named_and_costs_only_its_claimant(tmp_path: Path) -> None:
    paths = commit(EVE, EVES, name="m", host=None, marked=BOTH, scheme="x", out=tmp_path / "c", time=SOON, check=False)
    ada, eve = case("Ada", ADA, ADAS, HERS, LATE), Case("Eve", *paths, SOON, BOTH)
    assert outcome(ada, eve) == {"Ada": True, "Eve": False}
    paths[0].write_bytes(paths[0].read_bytes().replace(b'"mark": "m"', b'"mark": "n"'))
    for broken in (eve, replace(eve, evidence=tmp_path / "evidence.json"), replace(eve, claim=tmp_path / "claim.json")):
        first, second = arbitrate([broken, ada], BOTH)
        assert (first.verdict.accepted, second.verdict.accepted) == (False, True)
        assert first.verdict.details["step"] == "files"
        assert ".json" in first.verdict.reason
        assert json.loads(first.verdict.to_json())["n"] == 0
        fell = "the claim of Eve is rejected by itself, at the step 'files'"
        assert second.verdict.details["against"] == {"Eve": fell}


def test_arguments_of_the_judge_are_still_refused() -> None:
    with pytest.raises(BadInput, match="alpha"):
        arbitrate([case("Ada", ADA, ADAS, HERS, None)], BOTH, alpha=2)


def test_cases_without_names_of_their_own_are_refused() -> None:
    ada = case("Ada", ADA, ADAS, HERS, SOON)
    for cases in ([], [ada, ada]):
        with pytest.raises(BadInput, match="a name of its own"):
            arbitrate(cases, BOTH)


@pytest.mark.parametrize("rival", [False, True])
def test_a_judge_is_told_which_model_was_shown_and_whether_it_counts(rival: bool) -> None:
    ada = case("Ada", ADA, ADAS, HERS, SOON)
    others = [case("Eve", EVE, EVES, BOTH, LATE)] if rival else []
    for shown, says, counts in (
        (None, "not shown", True),
        (HERS, "the model that the claim commits to", True),
        (Memory(EVES), "not the model that the claim commits to, so it does not count", False),
    ):
        first = arbitrate([replace(ada, released=shown), *others], BOTH)[0]
        for verdict in (first.alone, first.verdict):
            assert verdict.details["released"] == says
            assert (says in verdict.reason) is not counts


def test_a_sequential_arbitration_comes_to_the_same_outcome_with_fewer_questions() -> None:
    cases = [case("Ada", ADA, ADAS, HERS, SOON), case("Eve", EVE, EVES, BOTH, LATE)]
    whole, short = (arbitrate(cases, BOTH, sequential=asked) for asked in (False, True))
    assert [o.verdict.accepted for o in whole] == [o.verdict.accepted for o in short] == [True, False]
    assert all(few.alone.n < all_.alone.n for few, all_ in zip(short, whole, strict=True))
