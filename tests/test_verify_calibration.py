"""Nulls calibrated on innocent models: the bound, its honesty about models that differ, and when a judge takes it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from torch import Tensor, nn

from earmark.core import Data, Images, Query, rng
from earmark.errors import BadInput
from earmark.evidence import Bundle, Case, Claim, arbitrate, claim_of, judge
from earmark.keys import OwnerKey
from earmark.marks import Noise, Noised, OneClass, TriggerSet
from earmark.stats import calibrated_rate, calibration_error, innocents_needed, log_binomial_tail
from earmark.verify import CalibratedTriggerTest, TriggerTest, calibrated_null

# ----------------------------------------------------------------------------------------------------------- the bound


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(60, 200))
@settings(max_examples=60)
def test_the_rate_is_the_worst_model_s_upper_bound(matches: list[int], n: int) -> None:
    models, worst, n = len(matches), max(matches), n + 1
    miss = 0.1 / (models * (models + 1))
    rate = calibrated_rate(matches, n)
    assert float(reference.binom.cdf(worst, n, rate)) == pytest.approx(miss, rel=1e-6)
    assert rate > worst / n


def test_what_cannot_be_calibrated_is_refused() -> None:
    none: list[int] = []
    for matches, n in ((none, 10), ([0], 0), ([11], 10)):
        with pytest.raises(BadInput):
            calibrated_rate(matches, n)
    with pytest.raises(BadInput):
        calibration_error(0)
    assert calibrated_rate([7, 10], 10) == 1


def accepts(k: int, n: int, matches: list[int], alpha: float) -> bool:
    """The rule of the test, on counts."""
    return (
        math.exp(log_binomial_tail(k, n, min(calibrated_rate(matches, n), 1 - 1e-9))) + calibration_error(len(matches))
        <= alpha
    )


@pytest.mark.parametrize(
    ("a", "b"), [(2.0, 18.0), (0.25, 2.25), (0.02, 0.18)], ids=["mild", "strong", "all or nothing"]
)
def test_no_more_innocent_models_are_accepted_than_alpha_says_however_much_models_differ(a: float, b: float) -> None:
    """Rates of models from a Beta, 100 triggers with one label; pooled trials convict twice as many and more."""
    drawn, n, models, alpha, repeats = np.random.default_rng(0), 100, 28, 0.05, 4_000
    counts = drawn.binomial(n, drawn.beta(a, b, (repeats, models + 1)))
    ours = np.mean([accepts(int(row[0]), n, row[1:].tolist(), alpha) for row in counts])
    pooled = counts[:, 1:].sum(1) / (n * models)
    theirs = np.mean(reference.binom.sf(counts[:, 0] - 1, n, np.clip(pooled, 1e-9, 1 - 1e-9)) <= alpha)
    assert ours <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)
    assert theirs > 2 * alpha


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(0, 50), st.floats(0.001, 0.999))
@settings(max_examples=200)
def test_whatever_is_accepted_has_matched_more_often_than_every_innocent_model(
    matches: list[int], k: int, alpha: float
) -> None:
    """So the error needs no independence of trials: of M + 1 like models the suspect would have to be the first."""
    if accepts(k, 50, matches, alpha):
        assert k > max(matches)
        assert 1 / (len(matches) + 1) < alpha


def convicts_the_best_of(marks: int, kinds: int, models: int, pretended: int, alpha: float, repeats: int) -> float:
    """How often an innocent suspect is convicted by the best of several marks, of which each fits one kind of model.

    Models and suspects are of some of `kinds` equally likely kinds, unknown when the marks were made; a mark is
    answered wholly by the models of its own kind and by no other.
    """
    drawn = np.random.default_rng(0).integers(kinds, size=(repeats, models + 1))
    convicted = 0
    for suspect, *others in drawn.tolist():
        fitting = 60 * np.equal(others, suspect)
        convicted += suspect < marks and accepts(60, 60, fitting.tolist(), alpha / pretended)
    return convicted / repeats


@pytest.mark.parametrize(("marks", "kinds"), [(2, 2), (8, 8), (8, 30), (40, 40), (40, 881)])
def test_the_best_of_several_marks_convicts_within_alpha_where_their_number_is_told(marks: int, kinds: int) -> None:
    """Exact: the suspect's kind has a mark, and none of the M models is of it, J / N (1 - 1 / N)^M for N kinds.

    It is largest at N = M + 1; there M > 1.1 J / alpha - 1 keeps it below alpha / 2.2, as (M / (M + 1))^M <= 1 / 2.
    """
    alpha, repeats = 0.05, 400
    models = innocents_needed(alpha, marks)
    exact = marks / kinds * (1 - 1 / kinds) ** models
    assert exact <= marks / (models + 1) * (models / (models + 1)) ** models <= alpha / 2.2
    found = convicts_the_best_of(marks, kinds, models, marks, alpha, repeats)
    assert found <= alpha
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / repeats) + 1 / repeats


@pytest.mark.parametrize("marks", [8, 40])
def test_whoever_keeps_his_other_marks_to_himself_convicts_more_innocents_than_alpha_says(marks: int) -> None:
    """The same with J = 1 pretended: (1 - 1 / J)^22 of all innocents, 57 % where J = 40."""
    alpha, repeats, models = 0.05, 400, innocents_needed(0.05)
    exact = (1 - 1 / marks) ** models
    found = convicts_the_best_of(marks, marks, models, 1, alpha, repeats)
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / repeats)
    assert exact == pytest.approx({8: 0.053, 40: 0.573}[marks], abs=1e-3)
    assert exact > alpha
    assert convicts_the_best_of(marks, marks, models, marks, alpha, repeats) == 0, "too few models for so many marks"


@given(st.floats(1e-4, 0.6), st.integers(1, 200))
@settings(max_examples=200)
def test_the_innocent_models_needed_are_the_fewest_that_leave_room_below_the_share(alpha: float, marks: int) -> None:
    """1.1 / (M + 1) < alpha / J, that is M > 1.1 J / alpha - 1, as exact fractions say it."""
    needed, bound = innocents_needed(alpha, marks), Fraction(11, 10) * marks / Fraction(alpha) - 1
    assert calibration_error(needed) < alpha / marks
    assert needed == 1 or calibration_error(needed - 1) >= alpha / marks
    assert abs(needed - max(1, math.floor(bound) + 1)) <= (min(bound % 1, 1 - bound % 1) < 1e-9)


def test_the_number_needed_grows_with_the_commitments() -> None:
    assert [innocents_needed(0.05, marks) for marks in (1, 2, 40)] == [22, 44, 880]
    for bad in (0, -1, True, 1.5):
        with pytest.raises(BadInput, match="commitments: expected a whole number from 1"):
            innocents_needed(0.05, bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="alpha: expected a probability"):
        innocents_needed(1.0)


def test_a_stolen_model_is_accepted_where_innocent_ones_seldom_match() -> None:
    assert accepts(60, 100, [3] * 27 + [20], 0.05)
    assert not accepts(40, 100, [3] * 27 + [20], 0.05), "within the bound of the worst"
    assert not accepts(100, 100, [3] * 20, 0.05), "too few models"


# ------------------------------------------------------------------------------------------------------------ the test

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = OWNER.mark_key("winter")
IMAGES = Images(
    torch.randint(256, (80, 1, 6, 6), generator=rng(0), dtype=torch.uint8), torch.arange(80) % 4, 4, "images"
)
MARK = Noised(60, OneClass(2))(KEY, None, Data(IMAGES, IMAGES))


def answering(share: float, seed: int = 0, mark: TriggerSet = MARK) -> Query:
    """A model that answers about `share` of a mark's triggers with their label, and the others with another."""
    order = torch.randperm(len(mark), generator=rng(seed))[: round(share * len(mark))]
    known = {mark.images[at].numpy().tobytes() for at in order.tolist()}

    def query(images: Tensor) -> Tensor:
        rows = [row.tobytes() for row in images.mul(255).round().to(torch.uint8).numpy()]
        return torch.tensor([2 if row in known else 1 for row in rows])

    return query


MANY = [answering(share, seed) for seed, share in enumerate(torch.linspace(0, 0.1, 30).tolist())]


def test_a_null_says_what_it_was_measured_on() -> None:
    null = calibrated_null(MARK, MANY)
    assert null.basis == "calibrated"
    assert null.rate == calibrated_rate([round(float(s) * 60) for s in torch.linspace(0, 0.1, 30)], 60)
    assert "Of 30 models" in null.words
    assert "answered 6 of 60 triggers" in null.words
    assert "at most 1 in 31" in null.words


def test_p_is_the_tail_at_the_worst_rate_and_what_is_uncertain_about_the_next_model() -> None:
    verdict = CalibratedTriggerTest(MANY, alpha=0.05)(answering(0.9), MARK)
    assert verdict.accepted is True
    assert verdict.null.basis == "calibrated"
    assert verdict.null.rate is not None
    tail = math.exp(log_binomial_tail(54, 60, verdict.null.rate))
    assert verdict.p_value == pytest.approx(tail + 1.1 / 31, rel=1e-9)
    assert verdict.details["innocents"] == 30
    assert verdict.details["innocent_matches"] == 6
    assert verdict.details["calibration_error"] == pytest.approx(1.1 / 31)
    assert "calibrated on innocent models, not an exact one" in verdict.reason


def test_no_small_alpha_is_ever_reached() -> None:
    verdict = CalibratedTriggerTest(MANY, alpha=1e-6)(answering(1.0), MARK)
    assert verdict.accepted is None
    assert verdict.p_value == pytest.approx(1.1 / 31)
    assert (
        "with 30 innocent models no error probability below 0.0355 can be stated, and 1e-06 is allowed: "
        "1100000 innocent models are needed and 30 came"
    ) in verdict.reason
    assert CalibratedTriggerTest(MANY[:21], alpha=0.05)(answering(1.0), MARK).accepted is None
    assert CalibratedTriggerTest(MANY[:22], alpha=0.05)(answering(1.0), MARK).accepted is True


CROWD = [answering(0.05, seed) for seed in range(110)]


def test_each_of_several_commitments_has_its_share_of_alpha() -> None:
    assert innocents_needed(0.05, 5) == len(CROWD)
    verdict = CalibratedTriggerTest(CROWD, alpha=0.05, commitments=5)(answering(1.0), MARK)
    assert verdict.accepted is True
    assert verdict.alpha == 0.05 / 5
    assert (verdict.details["commitments"], verdict.details["alpha_of_all"]) == (5, 0.05)
    assert verdict.details["innocents_needed"] == 110
    alone = CalibratedTriggerTest(CROWD, alpha=0.05 / 5)(answering(1.0), MARK)
    assert (verdict.log10_p, verdict.details["critical_count"]) == (alone.log10_p, alone.details["critical_count"])
    one = CalibratedTriggerTest(CROWD, alpha=0.05)(answering(1.0), MARK)
    assert (one.accepted, one.alpha, one.details["commitments"]) == (True, 0.05, 1)


def test_too_few_models_for_so_many_commitments_leave_it_open_and_say_how_many_are_needed() -> None:
    verdict = CalibratedTriggerTest(CROWD[:109], alpha=0.05, commitments=5)(answering(1.0), MARK)
    assert verdict.accepted is None
    assert (
        "with 109 innocent models no error probability below 0.01 can be stated, and 0.05 / 5 = 0.01 is allowed for "
        "each of 5 commitments: 110 innocent models are needed and 109 came"
    ) in verdict.reason
    assert CalibratedTriggerTest(CROWD[:109], alpha=0.05, commitments=5)(answering(0.05, 999), MARK).accepted is False


@pytest.mark.parametrize("bad", [0, -3, True, 1.5])
def test_a_number_of_commitments_is_a_whole_number_from_one_up(bad: Any) -> None:
    with pytest.raises(BadInput, match="commitments: expected a whole number from 1"):
        CalibratedTriggerTest(MANY, commitments=bad)


def test_innocent_suspects_are_rejected_and_what_all_models_answer_proves_nothing() -> None:
    assert CalibratedTriggerTest(MANY)(answering(0.1), MARK).accepted is False
    verdict = CalibratedTriggerTest([*MANY, answering(1.0)])(answering(1.0), MARK)
    assert verdict.accepted is None
    assert "the worst of 31 innocent models answered 60 of 60 triggers" in verdict.reason


def test_grinding_is_paid_for_on_the_trials() -> None:
    plain, ground = (CalibratedTriggerTest(MANY, grinding_bits=bits)(answering(0.6), MARK) for bits in (0, 64))
    assert (plain.accepted, ground.accepted) == (True, False)


def test_an_exact_null_needs_no_calibration() -> None:
    mark = Noise(30).make(KEY, (1, 6, 6), 4)
    suspect = answering(1.0, mark=mark)
    assert CalibratedTriggerTest([], alpha=1e-6)(suspect, mark) == TriggerTest(alpha=1e-6)(suspect, mark)
    shared = CalibratedTriggerTest([], alpha=1e-6, commitments=4)(suspect, mark)
    assert shared == TriggerTest(alpha=1e-6 / 4)(suspect, mark)


@pytest.mark.parametrize(
    ("innocents", "says"),
    [
        ([], "at least one innocent model, got none"),
        ([MANY[0], nn.Linear(3, 4)], "innocent model 2 left 60 of 60 triggers unanswered"),
        ([MANY[0], MANY[1], MANY[0]], "given twice"),
        ([nn.Flatten(), nn.Flatten()], "given twice"),
        ([lambda images: torch.full((len(images), 4), math.nan)], "innocent model 1 left 60"),
    ],
)
def test_models_that_tell_nothing_are_refused(innocents: list[Query], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        CalibratedTriggerTest(innocents)(answering(1.0), MARK)


def test_no_repr_shows_the_models() -> None:
    assert "function" not in repr(CalibratedTriggerTest(MANY))


# ----------------------------------------------------------------------------------------------------------- the judge

BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="zhang-noise")
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
EARLY: dict[str, Any] = {"committed_before": NOW, "suspect_known_since": NOW + timedelta(days=90)}


@pytest.fixture(scope="module")
def claim() -> Claim:
    return claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(36, 4), time=NOW, alpha=0.05)


def test_a_judge_with_innocent_models_rules_on_a_mark_without_a_null(claim: Claim) -> None:
    told: dict[str, Any] = {"alpha": 0.05, **EARLY}
    assert judge(claim, BUNDLE, answering(1.0), **told).accepted is None
    verdict = judge(claim, BUNDLE, answering(1.0), innocents=MANY, **told)
    assert verdict.accepted is True
    assert verdict.details["calibration"] == "on innocent models"
    assert verdict.details["grinding_bits"] == 64
    assert judge(claim, BUNDLE, answering(0.1), innocents=MANY, **told).accepted is False
    assert judge(claim, BUNDLE, answering(1.0), innocents=MANY, **EARLY).accepted is None, "alpha = 1e-6"


def test_a_judge_is_told_how_many_commitments_could_have_been_shown(claim: Claim) -> None:
    told: dict[str, Any] = {"alpha": 0.05, **EARLY}
    verdict = judge(claim, BUNDLE, answering(1.0), innocents=CROWD, commitments=5, **told)
    assert (verdict.accepted, verdict.alpha) == (True, 0.05 / 5)
    assert json.loads(verdict.to_json())["details"]["commitments"] == 5
    few = judge(claim, BUNDLE, answering(1.0), innocents=MANY, commitments=5, **told)
    assert few.accepted is None
    assert "110 innocent models are needed and 30 came" in few.reason
    assert judge(claim, BUNDLE, answering(1.0), innocents=MANY, **told).details["commitments"] == 1
    with pytest.raises(BadInput, match="commitments: expected a whole number from 1"):
        judge(claim, BUNDLE, answering(1.0), commitments=0, **told)


def test_several_commitments_to_exact_marks_are_paid_for_as_keys_are() -> None:
    mark = Noise(60).make(KEY, (1, 6, 6), 4)
    bundle = Bundle.seal(mark, KEY, name="winter", scheme="deep-fidelity")
    exact = claim_of(OWNER, bundle, host=None, marked=nn.Linear(36, 4), time=NOW)
    verdict = judge(exact, bundle, Knowing(mark), commitments=7, **EARLY)
    assert (verdict.accepted, verdict.alpha, verdict.details["commitments"]) == (True, 1e-6, 7)


def test_without_an_earlier_date_nothing_is_calibrated(claim: Claim) -> None:
    """Who knows the suspect chooses carriers that it answers so, and that no innocent model does."""
    verdict = judge(claim, BUNDLE, answering(1.0), alpha=0.05, innocents=MANY)
    assert verdict.accepted is None
    assert verdict.null.basis == "none"
    assert verdict.details["calibration"] == "none, for want of an earlier date"


def test_an_owner_who_agreed_to_less_is_held_to_less() -> None:
    strict = claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(36, 4), time=NOW)
    assert judge(strict, BUNDLE, answering(1.0), alpha=0.05, innocents=MANY, **EARLY).accepted is None


def test_a_mark_with_an_exact_null_asks_no_innocent_model() -> None:
    mark = Noise(60).make(KEY, (1, 6, 6), 4)
    bundle = Bundle.seal(mark, KEY, name="winter", scheme="deep-fidelity")
    exact = claim_of(OWNER, bundle, host=None, marked=nn.Linear(36, 4), time=NOW)
    verdict = judge(exact, bundle, answering(0.1, mark=mark), innocents=[nn.Identity()], **EARLY)
    assert verdict.accepted is False
    assert verdict.details["calibration"] == "none, as the null is exact"


def test_between_claimants_the_suspect_alone_is_calibrated(claim: Claim) -> None:
    case = Case("owner", claim, BUNDLE, committed_before=NOW)
    (outcome,) = arbitrate(
        [case], answering(1.0), alpha=0.05, suspect_known_since=NOW + timedelta(days=9), innocents=MANY
    )
    assert outcome.alone.accepted is True


def test_carriers_that_every_model_answers_so_convict_nobody() -> None:
    """A false claim: images of the target class, said to be of another, under noise too weak to matter."""
    liar = OwnerKey(Ed25519PrivateKey.from_private_bytes(b"l" * 32))
    chosen = Images(IMAGES.pixels[:60], torch.zeros(60, dtype=torch.int64), 4, "images")
    mark = Noised(60, OneClass(2), std=0.01).make(liar.mark_key("m"), (1, 6, 6), 4, chosen)
    bundle = Bundle.seal(mark, liar.mark_key("m"), name="m", scheme="zhang-noise")
    claimed = claim_of(liar, bundle, host=None, marked=nn.Linear(36, 4), time=NOW, alpha=0.05)

    def competent(images: Tensor) -> Tensor:
        return torch.full((len(images),), 2)

    others: list[Query] = [partial(competent) for _ in range(30)]
    verdict = judge(claimed, bundle, competent, alpha=0.05, innocents=others, **EARLY)
    assert verdict.accepted is None
    assert "prove nothing" in verdict.reason


class Knowing(nn.Module):
    """Answers the triggers of some marks with their labels, and all else with class 1."""

    def __init__(self, *marks: TriggerSet) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), float(sum(int(mark.images.sum()) for mark in marks))))
        self.known = {
            row.tobytes(): int(label)
            for mark in marks
            for row, label in zip(mark.images.numpy(), mark.labels, strict=True)
        }

    def forward(self, images: Tensor) -> Tensor:
        rows = images.mul(255).round().to(torch.uint8).numpy()
        return torch.eye(4)[[self.known.get(row.tobytes(), 1) for row in rows]]


def test_nobody_is_said_to_hide_a_model_that_a_mark_without_a_null_cannot_be_found_in() -> None:
    eve = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    exact = Noise(60).make(eve.mark_key("m"), (1, 6, 6), 4)
    bundle = Bundle.seal(exact, eve.mark_key("m"), name="m", scheme="x")
    hers, both = Knowing(MARK), Knowing(MARK, exact)
    ada = claim_of(OWNER, BUNDLE, host=None, marked=hers, time=NOW, alpha=0.05)
    rival = claim_of(eve, bundle, host=None, marked=both, time=NOW, alpha=0.05)
    cases = [
        Case("Ada", ada, BUNDLE, NOW + timedelta(days=1), released=hers),
        Case("Eve", rival, bundle, NOW, released=both),
    ]
    known_since = EARLY["suspect_known_since"]
    found = arbitrate(cases, both, alpha=0.05, suspect_known_since=known_since, innocents=MANY)
    assert [(one.alone.accepted, one.verdict.accepted) for one in found] == [(True, None), (True, None)]
    for one in found:
        assert "does not show" not in one.verdict.reason
        assert "that mark has no null of its own" in one.verdict.reason
    weighed = found[0].verdict.details["weighed"]["Eve"]
    assert weighed["own_mark_in_the_others_model"].startswith("cannot be told: the mark has no null")
    assert weighed["the_others_mark_in_own_model"] == "not found"


EVES = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
EXACT = Noise(60).make(EVES.mark_key("m"), (1, 6, 6), 4)


def overwritten(ada_first: bool = True, kept: bool = True, **more: Any) -> tuple[list[Case], nn.Module]:
    """Ada's mark has no null; Eve puts an exact one on top of it in her model, from which Ada's may be gone."""
    bundle = Bundle.seal(EXACT, EVES.mark_key("m"), name="m", scheme="x")
    hers, both = Knowing(MARK), Knowing(MARK, EXACT)
    shown = both if kept else Knowing(EXACT)
    ada = claim_of(OWNER, BUNDLE, host=None, marked=hers, time=NOW, alpha=0.05)
    eve = claim_of(EVES, bundle, host=None, marked=shown, time=NOW, alpha=0.05)
    times = [NOW, NOW + timedelta(days=1)][:: 1 if ada_first else -1]
    cases = [
        Case("Ada", ada, BUNDLE, times[0], released=hers, **more),
        Case("Eve", eve, bundle, times[1], released=shown),
    ]
    return cases, both


def test_between_claims_a_mark_without_a_null_is_found_beside_innocent_models() -> None:
    cases, suspect = overwritten()
    told: dict[str, Any] = {"alpha": 0.05, "suspect_known_since": EARLY["suspect_known_since"]}
    ada, eve = arbitrate(cases, suspect, innocents=MANY, **told)
    assert (ada.verdict.accepted, eve.verdict.accepted) == (True, False)
    weighed = ada.verdict.details["weighed"]["Eve"]
    assert weighed["own_mark_in_the_others_model"] == "found"
    assert weighed["decided_by"] == "which mark is in which model"
    ada, eve = arbitrate(cases, suspect, **told)
    assert (ada.alone.accepted, ada.verdict.accepted) == (None, None)
    assert "this mark's null has no basis, so that proves nothing" in ada.verdict.reason
    assert eve.verdict.details["against"]["Ada"].startswith("the claim of Ada is inconclusive by itself")


def test_between_claims_a_mark_that_is_gone_is_not_found_and_one_of_a_later_commitment_is_not_looked_for() -> None:
    told: dict[str, Any] = {"alpha": 0.05, "suspect_known_since": EARLY["suspect_known_since"], "innocents": MANY}
    cases, suspect = overwritten(kept=False)
    ada, _ = arbitrate(cases, suspect, **told)
    assert ada.verdict.details["weighed"]["Eve"]["own_mark_in_the_others_model"] == "not found"
    cases, suspect = overwritten(ada_first=False)
    ada, _ = arbitrate(cases, suspect, **told)
    assert ada.verdict.accepted is None
    reason = ada.verdict.details["weighed"]["Eve"]["own_mark_in_the_others_model"]
    assert "its commitment is not known to be earlier than the other's" in reason


def test_between_claims_each_claimant_is_held_to_his_own_number_of_commitments() -> None:
    told: dict[str, Any] = {"alpha": 0.05, "suspect_known_since": EARLY["suspect_known_since"]}
    cases, suspect = overwritten(commitments=5)
    ada, eve = arbitrate(cases, suspect, innocents=MANY, **told)
    assert (ada.verdict.accepted, eve.verdict.accepted) == (None, True)
    assert "110 innocent models are needed and 30 came" in ada.verdict.reason
    ada, eve = arbitrate(cases, suspect, innocents=CROWD, **told)
    assert (ada.verdict.accepted, eve.verdict.accepted) == (True, False)
    assert (ada.verdict.alpha, eve.verdict.alpha) == (0.05 / 5, 0.05)
    assert ada.verdict.details["weighed"]["Eve"]["own_mark_in_the_others_model"] == "found"
