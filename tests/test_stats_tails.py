"""Exact tails, bounds, intervals and sample sizes against exact enumeration, scipy and a paper's table."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from earmark.errors import BadInput
from earmark.stats import (
    GRINDING_BITS,
    accepts,
    chernoff_bound,
    clopper_pearson,
    critical_count,
    grind_log10_p,
    log_binomial_tail,
    required_triggers,
)

LN10 = math.log(10)


def exact_tails(n: int, rate: Fraction) -> list[Fraction]:
    """P(X >= k) for k = 0..n+1, by adding integers."""
    above, below = rate.numerator, rate.denominator - rate.numerator
    ways = [math.comb(n, k) * above**k * below ** (n - k) for k in range(n, -1, -1)]
    return [Fraction(way, rate.denominator**n) for way in list(accumulate(ways))[::-1]] + [Fraction(0)]


def exact_log(x: Fraction) -> float:
    return math.log(x.numerator) - math.log(x.denominator)


# ----------------------------------------------------------------------------------------------- tails


@settings(deadline=None)
@given(n=st.integers(0, 40), rate=st.fractions(Fraction(1, 1000), Fraction(999, 1000), max_denominator=1000))
def test_tail_is_the_enumerated_one(n: int, rate: Fraction) -> None:
    for k, tail in enumerate(exact_tails(n, Fraction(float(rate)))[:-1]):
        assert log_binomial_tail(k, n, float(rate)) == pytest.approx(exact_log(tail), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction(1, 1000), Fraction(1, 7)])
@pytest.mark.parametrize("k", [1, 9, 10, 11, 50, 1000, 1500, 5000, 9999, 10_000])
def test_tail_of_ten_thousand_trials_is_exact_and_never_underflows(k: int, rate: Fraction) -> None:
    """In double precision the smallest of these is 10^-30000; exact integers are the oracle."""
    n, odds = 10_000, rate.denominator - rate.numerator
    ways = odds ** (n - k) * math.comb(n, k)
    total, term = ways, ways
    for j in range(k, min(n, k + 1500)):
        term = term * (n - j) // (j + 1) // odds
        total += term
    if k > 1.2 * n * rate:
        expected = math.log(total) - n * math.log(rate.denominator)
        assert log_binomial_tail(k, n, float(rate)) == pytest.approx(expected, rel=1e-12, abs=1e-9)
    else:
        expected = float(scipy_stats.binom.sf(k - 1, n, float(rate)))
        assert math.exp(log_binomial_tail(k, n, float(rate))) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(1e-6, 0.999), st.floats(0, 1))
def test_tail_is_scipys_where_scipys_does_not_underflow(n: int, rate: float, share: float) -> None:
    k = round(share * n)
    expected = float(scipy_stats.binom.sf(k - 1, n, rate))
    if expected > 1e-280:
        assert math.exp(log_binomial_tail(k, n, rate)) == pytest.approx(expected, rel=1e-8)


@settings(deadline=None)
@given(st.integers(0, 3000), st.floats(1e-9, 1 - 1e-9))
def test_tail_descends_from_one_to_nothing(n: int, rate: float) -> None:
    tails = [log_binomial_tail(k, n, rate) for k in sorted({-1, 0, 1, n // 3, n // 2, n, n + 1})]
    assert tails[0] == 0.0
    assert tails[-1] == -math.inf
    assert all(a >= b for a, b in pairwise(tails))
    if n:
        assert log_binomial_tail(n, n, rate) == pytest.approx(n * math.log(rate), rel=1e-12)


# ----------------------------------------------------------------------------------------------- Chernoff's bound

# Li & Wang 2021, Table 1: accuracy on 60 triggers -> the printed bound, the true minimum, the exact tail P(X >= k), k.
TABLE_1 = {
    1.0: (1.3e-22, 1.000e-60, 1.000e-60, 60),
    0.98: (4.3e-22, 5.009e-57, 5.410e-58, 59),
    0.94: (4.7e-21, 2.236e-51, 3.224e-51, 56),
    0.89: (9.4e-20, 2.125e-45, 1.874e-45, 53),
    0.21: (0.04, 4.203e-02, 5.681e-03, 13),
    0.19: (0.11, 1.112e-01, 3.421e-02, 11),
    0.15: (0.48, 4.799e-01, 1.416e-01, 9),
    0.13: (0.76, 7.582e-01, 2.484e-01, 8),
    0.12: (0.88, 8.815e-01, 3.935e-01, 7),
    0.11: (0.97, 9.681e-01, 3.935e-01, 7),
}


@pytest.mark.parametrize("share", TABLE_1)
def test_the_papers_table_is_the_bound_with_lambda_up_to_0_998(share: float) -> None:
    printed, true_minimum, tail, k = TABLE_1[share]
    capped = chernoff_bound(share, 60, 0.1, max_lambda=0.998)
    digits = 2 if share < 0.5 else None
    assert printed == (round(capped, digits) if digits else float(f"{capped:.1e}"))
    assert chernoff_bound(share, 60, 0.1) == pytest.approx(true_minimum, rel=1e-3)
    assert math.exp(log_binomial_tail(k, 60, 0.1)) == pytest.approx(tail, rel=1e-3)


@settings(deadline=None)
@given(
    share=st.floats(0, 1),
    n=st.integers(0, 200),
    rate=st.floats(0.01, 0.99),
    most=st.one_of(st.none(), st.floats(0, 30)),
)
def test_chernoffs_bound_is_the_minimum_of_its_definition(
    share: float, n: int, rate: float, most: float | None
) -> None:
    def at(x: float) -> float:
        return n * (math.log(1 - rate + rate * math.exp(x)) - share * x)

    bound = chernoff_bound(share, n, rate, max_lambda=most)
    lambdas = [i / 400 * (most if most is not None else 30) for i in range(401)]
    searched = min(at(x) for x in lambdas)
    assert bound <= math.exp(searched) * (1 + 1e-9) + 1e-300
    assert math.log(bound or 1e-320) >= log_binomial_tail(math.ceil(share * n - 1e-9), n, rate) - 1e-6


def test_a_huge_cap_is_no_cap() -> None:
    for share in (0.5, 0.99):
        assert chernoff_bound(share, 60, 0.1, max_lambda=1e6) == chernoff_bound(share, 60, 0.1)
    assert chernoff_bound(1.0, 60, 0.1, max_lambda=1e6) == pytest.approx(1e-60)
    assert chernoff_bound(0.9, 60, 0.1, max_lambda=0.0) == 1.0


# ----------------------------------------------------------------------------------------------- intervals


@settings(deadline=None)
@given(n=st.integers(1, 300), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_the_ends_of_the_interval_are_where_its_tails_are_small(n: int, share: float, confidence: float) -> None:
    k, side = round(share * n), (1 - confidence) / 2
    low, high = clopper_pearson(k, n, confidence)
    assert 0 <= low <= k / n <= high <= 1
    if k:
        assert math.exp(log_binomial_tail(k, n, low)) == pytest.approx(side, rel=1e-6)
    if k < n:
        assert math.exp(log_binomial_tail(n - k, n, 1 - high)) == pytest.approx(side, rel=1e-6)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (0, 7), (7, 7), (3, 10), (95, 100)])
def test_the_interval_is_scipys(k: int, n: int) -> None:
    if n == 0:
        assert clopper_pearson(0, 0) == (0.0, 1.0)
        return
    expected = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_the_interval_covers_as_often_as_it_says(rate: float) -> None:
    n = 25
    covering = [k for k in range(n + 1) if clopper_pearson(k, n)[0] <= rate <= clopper_pearson(k, n)[1]]
    assert sum(float(scipy_stats.binom.pmf(k, n, rate)) for k in covering) >= 0.95


# ----------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.01, 1e-3, 2.0**-10, 1e-6, 1e-12])
def test_exact_size_is_at_most_alpha_for_every_n_and_k_and_no_test_is_larger(alpha: float) -> None:
    """Every n up to 45, every K up to 20, in exact arithmetic; alpha itself to one part in a billion."""
    for classes in range(2, 21):
        for n in range(46):
            tails = exact_tails(n, Fraction(1, classes))
            critical = critical_count(n, 1 / classes, alpha)
            assert 1 <= critical <= n + 1
            assert tails[critical] <= Fraction(alpha) * Fraction(1_000_000_001, 1_000_000_000)
            assert tails[critical - 1] > Fraction(alpha) * Fraction(999_999_999, 1_000_000_000)


@pytest.mark.parametrize(
    ("n", "alpha", "needed"), [(100, 1e-6, 28), (100, 1e-9, 33), (60, 1e-6, 20), (60, 1e-9, 24), (90, 1e-6, 26)]
)
def test_known_critical_counts_for_ten_classes(n: int, alpha: float, needed: int) -> None:
    assert critical_count(n, 0.1, alpha) == needed


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(2, 1000), st.floats(1e-12, 0.4), st.integers(0, 80))
def test_critical_count_and_corrected_p_value_decide_alike(n: int, classes: int, alpha: float, bits: int) -> None:
    critical = critical_count(n, 1 / classes, alpha, bits)
    for k in {max(0, critical - 1), min(critical, n)}:
        log10_p = grind_log10_p(log_binomial_tail(k, n, 1 / classes) / LN10, bits)
        assert accepts(log10_p, alpha) == (k >= critical)


def test_grinding_is_a_union_bound_capped_at_one() -> None:
    assert grind_log10_p(-6.0, 0) == -6.0
    assert 10 ** grind_log10_p(-6.0, 10) == pytest.approx(1024e-6)
    assert grind_log10_p(-6.0, GRINDING_BITS) == 0.0
    assert grind_log10_p(-math.inf, 64) == -math.inf


def test_known_p_values_leave_room_for_grinding() -> None:
    """Ten classes, 100 triggers: 100, 50 and 40 matches."""
    for k, p in ((100, 1e-100), (50, 6e-24), (40, 3e-15)):
        assert 10 ** (log_binomial_tail(k, 100, 0.1) / LN10) == pytest.approx(p, rel=0.2)
    assert critical_count(100, 0.1, 1e-6, bits=64) <= 55


# ----------------------------------------------------------------------------------------------- sample sizes


def power(n: int, rate: float, surviving: float, alpha: float, bits: int) -> float:
    return float(scipy_stats.binom.sf(critical_count(n, rate, alpha, bits) - 1, n, surviving))


@pytest.mark.parametrize(
    ("rate", "surviving", "alpha", "wanted", "bits"),
    [
        (0.1, 0.9, 1e-6, 0.99, 0),
        (0.1, 0.9, 1e-6, 0.99, 64),
        (0.1, 1.0, 1e-6, 0.999, 0),
        (0.1, 1.0, 1e-6, 0.5, 64),
        (0.5, 0.8, 1e-3, 0.9, 0),
        (0.01, 0.3, 1e-9, 0.8, 8),
        (0.2, 0.35, 0.01, 0.05, 0),
    ],
)
def test_required_triggers_is_the_least_size_from_which_power_holds(
    rate: float, surviving: float, alpha: float, wanted: float, bits: int
) -> None:
    n = required_triggers(rate, surviving, alpha, wanted, bits)
    assert power(n - 1, rate, surviving, alpha, bits) < wanted
    assert all(power(m, rate, surviving, alpha, bits) >= wanted for m in range(n, 4 * n + 200))


def test_power_does_dip_below_sizes_that_reached_it() -> None:
    """Why the answer is "from which on": at some smaller n the power was already there, and was lost again."""
    n = required_triggers(0.1, 0.5, 1e-6, 0.95)
    assert any(power(m, 0.1, 0.5, 1e-6, 0) >= 0.95 for m in range(1, n - 1))


def test_every_trigger_surviving_needs_only_enough_digits() -> None:
    assert required_triggers(0.1, 1.0, 0.9e-5, 0.999) == 6
    assert required_triggers(0.5, 1.0, 0.9 * 2.0**-20, 0.999) == 21


# ----------------------------------------------------------------------------------------------- bad input


def test_numbers_that_cannot_be_are_bad_input() -> None:
    calls: list[Callable[[], object]] = [
        lambda: log_binomial_tail(1, -1, 0.1),
        lambda: log_binomial_tail(1, 5, 0.0),
        lambda: log_binomial_tail(1, 5, 1.0),
        lambda: log_binomial_tail(1, 5, math.nan),
        lambda: chernoff_bound(1.1, 5, 0.1),
        lambda: chernoff_bound(math.nan, 5, 0.1),
        lambda: chernoff_bound(0.5, 5, 0.1, max_lambda=-1.0),
        lambda: clopper_pearson(6, 5),
        lambda: clopper_pearson(-1, 5),
        lambda: clopper_pearson(1, 5, 1.0),
        lambda: critical_count(5, 0.1, 0.0),
        lambda: critical_count(5, 0.1, 1.0),
        lambda: critical_count(5, 0.1, 0.1, bits=-1),
        lambda: grind_log10_p(-6.0, -0.5),
        lambda: grind_log10_p(-6.0, math.nan),
        lambda: required_triggers(0.1, 0.1, 1e-6, 0.9),
        lambda: required_triggers(0.1, 1.1, 1e-6, 0.9),
        lambda: required_triggers(0.1, 0.9, 1e-6, 1.0),
        lambda: required_triggers(0.1, 0.9, 0.0, 0.9),
    ]
    for call in calls:
        with pytest.raises(BadInput, match="expected"):
            call()


def test_a_hopeless_sample_size_says_what_to_change() -> None:
    with pytest.raises(BadInput, match="more survivors"):
        required_triggers(0.1, 0.1001, 1e-6, 0.99)
