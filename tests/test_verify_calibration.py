"""Nulls calibrated on innocent models: the bound, its honesty about models that differ, and when a judge takes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
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
from earmark.stats import calibrated_rate, calibration_error, log_binomial_tail
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


def test_the_error_is_that_of_one_commitment_and_a_share_of_alpha_pays_for_several() -> None:
    """Models of 8 kinds, all equally likely, and for each a mark that only its kind answers as the mark has it.

    Nobody knew the 10 models or the suspect when the marks were made: what convicts is that the fitting one is shown.
    """
    kinds, alpha, repeats = 8, 0.11, 400
    models = np.random.default_rng(0).integers(kinds, size=(repeats, 11))
    fixed = np.mean([accepts(60 * (row[0] == 0), 60, (60 * (row[1:] == 0)).tolist(), alpha) for row in models])
    shown = [(60 * (row[1:] == row[0])).tolist() for row in models]
    assert fixed <= alpha
    assert np.mean([accepts(60, 60, matches, alpha) for matches in shown]) > 2 * alpha
    assert not any(accepts(60, 60, matches, alpha / kinds) for matches in shown)


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
    assert "with 30 innocent models no error probability below 0.0355 can be stated: ask 1100000" in verdict.reason
    assert CalibratedTriggerTest(MANY[:21], alpha=0.05)(answering(1.0), MARK).accepted is None
    assert CalibratedTriggerTest(MANY[:22], alpha=0.05)(answering(1.0), MARK).accepted is True


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
