"""Sequential evidence: the mixture by exact integration, its expectation and Ville's bound by enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import BadInput
from earmark.stats import SequentialBinomial, log_e_value

RATES = [Fraction(1, 2), Fraction(1, 10), Fraction(1, 3), Fraction(1, 1000), Fraction(4, 5)]


@cache
def e_value(k: int, n: int, rate: Fraction) -> Fraction:
    """The mixture of likelihood ratios, integrated term by term in exact arithmetic: no tails, no logarithms."""
    misses = n - k
    integral = Fraction(0)
    for j in range(misses + 1):  # t^k (1 - t)^misses = sum over j of C(misses, j) (-1)^j t^(k + j)
        power = k + j + 1
        integral += Fraction(math.comb(misses, j) * (-1) ** j, power) * (1 - rate**power)
    return integral / (1 - rate) / (rate**k * (1 - rate) ** misses)


@pytest.mark.parametrize("rate", RATES)
def test_the_closed_form_is_the_integral(rate: Fraction) -> None:
    for n in range(26):
        for k in range(n + 1):
            exact = e_value(k, n, rate)
            expected = math.log(exact.numerator) - math.log(exact.denominator)
            assert log_e_value(k, n, float(rate)) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("rate", RATES)
def test_the_next_e_value_is_expected_to_be_no_larger_whatever_happened(rate: Fraction) -> None:
    """Exactly equal at the null's rate and no larger below it: a supermartingale, step by step."""
    for n in range(20):
        for k in range(n + 1):
            now, hit, miss = e_value(k, n, rate), e_value(k + 1, n + 1, rate), e_value(k, n + 1, rate)
            assert rate * hit + (1 - rate) * miss == now
            for lower in (Fraction(0), rate / 3, rate * Fraction(99, 100)):
                assert lower * hit + (1 - lower) * miss < now
            assert hit > now > miss


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("share_of_rate", [Fraction(1), Fraction(1, 2), Fraction(0)])
def test_the_expectation_over_all_sequences_is_at_most_one(rate: Fraction, share_of_rate: Fraction) -> None:
    p = rate * share_of_rate
    for n in range(9):
        expectation = Fraction(0)
        for sequence in itertools.product((0, 1), repeat=n):
            k = sum(sequence)
            expectation += p**k * (1 - p) ** (n - k) * e_value(k, n, rate)
        assert expectation == 1 if p == rate else expectation <= 1


def most_ever(rate: float, alpha: float, horizon: int) -> float:
    """The largest probability that p <= alpha within `horizon` trials, over all suspects, scheming ones included.

    A suspect may choose each trial's match probability up to `rate` by all that went before; the best choice follows
    by dynamic programming over (matches, trials), backwards.
    """
    threshold = -math.log(alpha)
    later = [0.0] * (horizon + 2)
    for n in range(horizon, -1, -1):
        now = []
        for k in range(n + 1):
            if log_e_value(k, n, rate) >= threshold:
                now.append(1.0)
            elif n == horizon:
                now.append(0.0)
            else:
                now.append(max(later[k], rate * later[k + 1] + (1 - rate) * later[k]))
        later = now
    return later[0]


@pytest.mark.parametrize(("rate", "alpha"), [(0.1, 0.05), (0.1, 1e-3), (0.5, 0.05), (0.01, 0.01), (0.5, 1e-6)])
def test_no_suspect_ever_convicts_itself_more_often_than_alpha(rate: float, alpha: float) -> None:
    assert 0 < most_ever(rate, alpha, horizon=120) <= alpha


def test_ville_by_enumeration_of_every_sequence() -> None:
    rate, alpha, n = 0.3, 0.05, 12
    convicted = 0.0
    for sequence in itertools.product((False, True), repeat=n):
        evidence = SequentialBinomial(rate)
        for match in sequence:
            evidence.update(match)
        if evidence.p_value <= alpha:
            convicted += rate ** sum(sequence) * (1 - rate) ** (n - sum(sequence))
    assert 0 < convicted <= alpha


def test_seven_matches_of_seven_convict_at_one_in_a_million_for_ten_classes() -> None:
    evidence = SequentialBinomial(0.1)
    p_values = []
    for _ in range(7):
        evidence.update(match=True)
        p_values.append(evidence.p_value)
    assert p_values[5] > 1e-6 >= p_values[6]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.floats(0.01, 0.9))
def test_the_p_value_only_falls_and_is_one_over_the_best_e_value(matches: list[bool], rate: float) -> None:
    evidence, best, last = SequentialBinomial(rate), 0.0, 1.0
    for match in matches:
        best = max(best, evidence.update(match))
        assert evidence.p_value <= last
        last = evidence.p_value
    assert (evidence.trials, evidence.matches) == (len(matches), sum(matches))
    assert last == pytest.approx(math.exp(-best))
    assert evidence.log10_p == pytest.approx(-best / math.log(10))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.lists(st.booleans(), max_size=15))
def test_what_is_attainable_bounds_what_comes(past: list[bool], future: list[bool]) -> None:
    evidence = SequentialBinomial(0.1)
    for match in past:
        evidence.update(match)
    most = evidence.attainable(len(future))
    for match in future:
        evidence.update(match)
    assert evidence.log_e_max <= most + 1e-12


def test_ten_thousand_trials_neither_underflow_nor_overflow() -> None:
    for k in (0, 1, 5000, 9999, 10_000):
        assert math.isfinite(log_e_value(k, 10_000, 0.001))
    assert log_e_value(10_000, 10_000, 0.001) > 69_000
    assert log_e_value(0, 10_000, 0.001) < 0


def test_numbers_that_cannot_be_are_bad_input() -> None:
    for call in (
        lambda: SequentialBinomial(0.0),
        lambda: SequentialBinomial(1.0),
        lambda: log_e_value(3, 2, 0.1),
        lambda: log_e_value(-1, 2, 0.1),
    ):
        with pytest.raises(BadInput, match="expected"):
            call()
