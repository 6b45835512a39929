"""The statistics of matches: exact tails, bounds, sample sizes and sequential evidence, all pure functions of counts.

Throughout, X ~ Binomial(n, rate) counts the matches of a suspect that has nothing to do with the key: n trials that
each match with probability `rate` (1/K for uniform labels over K classes). Natural logarithms unless a name says log10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, final

from scipy import special

from earmark.errors import BadInput, probability, whole

__all__ = [
    "GRINDING_BITS",
    "SequentialBinomial",
    "accepts",
    "benjamini_hochberg",
    "calibrated_rate",
    "calibration_error",
    "chernoff_bound",
    "clopper_pearson",
    "critical_count",
    "grind_log10_p",
    "holm",
    "innocents_needed",
    "log_binomial_tail",
    "log_e_value",
    "required_triggers",
]

GRINDING_BITS: Final = 64
"""What a claimant may have tried in secret, before his commitment or after it: 2^64 keys."""

MOST_TRIGGERS: Final = 20_000
LN10: Final = math.log(10)


def _check(n: int, rate: float, alpha: float = 0.5) -> None:
    if n < 0:
        raise BadInput(f"n: expected a count of trials, 0 or more, got {n}")
    probability("rate", rate)
    probability("alpha", alpha)


# -------------------------------------------------------------------------------------------------------- fixed samples


def log_binomial_tail(k: int, n: int, rate: float) -> float:
    """The log of P(X >= k), never underflowing: -inf only where k > n. Relative error of P below 1e-9 to n = 100,000.

    Above the mean, P(X >= k) = b(k) (1 + r_k + r_k r_{k+1} + ...), with b the probability of exactly k and
    r_j = (n - j) rate / ((j + 1) (1 - rate)) < 1; elsewhere log(1 - P(X <= k - 1)), the same sum from the other side.

    >>> round(log_binomial_tail(100, 100, 0.1) / math.log(10), 9)
    -100.0

    Raises:
        BadInput: a negative n, or a rate outside (0, 1).
    """
    _check(n, rate)
    if k <= 0:
        return 0.0
    if k > n:
        return -math.inf
    if k > n * rate:
        return _log_sum_from(k, n, rate)
    below = _log_sum_from(n - k + 1, n, 1.0 - rate)
    return math.log1p(-math.exp(below))


def _log_sum_from(k: int, n: int, rate: float) -> float:
    """The log of P(X >= k) for k above the mean, by the series."""
    odds = rate / (1.0 - rate)
    total = term = 1.0
    for j in range(k, n):
        term *= (n - j) / (j + 1) * odds
        total += term
        if term < 1e-18 * total:
            break
    return min(0.0, _log_pmf(k, n, rate) + math.log(total))


def _log_pmf(k: int, n: int, rate: float) -> float:
    """The log of P(X = k)."""
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return log_choose + k * math.log(rate) + (n - k) * math.log1p(-rate)


def chernoff_bound(share: float, n: int, rate: float, max_lambda: float | None = None) -> float:
    """An upper bound of P(X >= share n): min over lambda >= 0 of (1 - rate + rate e^lambda)^n / e^(n share lambda).

    Li & Wang 2021, Section 4.4. The minimum is exp(-n KL(share || rate)), at lambda* = log(share (1 - rate)) -
    log(rate (1 - share)), and 1 for share <= rate. The paper's Table 1 searched lambda only up to 0.998: give
    `max_lambda=0.998` for its numbers, which are valid but up to 38 orders of magnitude too cautious. The bound
    supposes n independent trials; that paper's own triggers (two stamps, two labels) are nearer to two.

    >>> f"{chernoff_bound(1.0, 60, 0.1):.1e} {chernoff_bound(1.0, 60, 0.1, max_lambda=0.998):.1e}"
    '1.0e-60 1.3e-22'

    Raises:
        BadInput: a share outside [0, 1], a rate outside (0, 1), or a negative n or max_lambda.
    """
    _check(n, rate)
    if not 0 <= share <= 1 or (max_lambda is not None and not max_lambda >= 0):
        raise BadInput(f"expected a share in [0, 1] and max_lambda of at least 0, got {share} and {max_lambda}")
    if share <= rate:
        return 1.0
    best = math.inf if share == 1 else math.log(share) + math.log1p(-rate) - math.log(rate) - math.log1p(-share)
    if max_lambda is None or best <= max_lambda:
        return math.exp(-n * _divergence(share, rate))
    return math.exp(n * ((1 - share) * max_lambda + math.log(rate + (1 - rate) * math.exp(-max_lambda))))


def _divergence(a: float, b: float) -> float:
    """KL(a || b) between coins, in nats: a log(a / b) + (1 - a) log((1 - a) / (1 - b)); b > 0."""
    if b == 1:
        return 0.0 if a == 1 else math.inf
    heads = 0.0 if a == 0 else a * math.log(a / b)
    tails = 0.0 if a == 1 else (1 - a) * (math.log1p(-a) - math.log1p(-b))
    return heads + tails


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided confidence interval of a match rate after k matches in n trials (Clopper & Pearson 1934).

    Low is the rate at which P(X >= k) = (1 - confidence) / 2, high the one at which P(X <= k) is; quantiles of
    Beta(k, n - k + 1) and Beta(k + 1, n - k). (0, 1) where n = 0.

    >>> [round(x, 4) for x in clopper_pearson(10, 10)]
    [0.6915, 1.0]

    Raises:
        BadInput: k outside 0..n, or a confidence outside (0, 1).
    """
    if not 0 <= k <= n or not 0 < confidence < 1:
        raise BadInput(f"expected 0 <= k <= n and a confidence in (0, 1), got k = {k}, n = {n}, {confidence}")
    side = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, side))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - side))
    return low, high


def grind_log10_p(log10_p: float, bits: float) -> float:
    """log10 of min(1, 2^bits p): the p-value left to a claimant who may have tried 2^bits keys (union bound).

    >>> grind_log10_p(-100.0, 64) < -80 < grind_log10_p(-10.0, 64) == 0.0
    True

    Raises:
        BadInput: negative bits.
    """
    if not bits >= 0:
        raise BadInput(f"grinding bits: expected 0 or more, got {bits}")
    return min(0.0, log10_p + bits * math.log10(2))


def accepts(log10_p: float, alpha: float) -> bool:
    """Whether a p-value convicts at `alpha`: p <= alpha. The one place where the comparison is made.

    Raises:
        BadInput: alpha outside (0, 1).
    """
    return log10_p <= math.log10(probability("alpha", alpha))


def critical_count(n: int, rate: float, alpha: float, bits: float = 0) -> int:
    """The least k with 2^bits P(X >= k) <= alpha, or n + 1 where even n matches are too few.

    The test "at least that many matches" has exact size <= alpha, and no larger test by counts has.

    >>> critical_count(100, 0.1, 1e-6), critical_count(100, 0.1, 1e-9), critical_count(5, 0.1, 1e-6)
    (28, 33, 6)

    Raises:
        BadInput: a negative n or bits, or a rate or alpha outside (0, 1).
    """
    _check(n, rate, alpha)
    low, high = 0, n + 1
    while low < high:
        k = (low + high) // 2
        low, high = (low, k) if _enough(k, n, rate, alpha, bits) else (k + 1, high)
    return low


def _enough(k: int, n: int, rate: float, alpha: float, bits: float) -> bool:
    return accepts(grind_log10_p(log_binomial_tail(k, n, rate) / LN10, bits), alpha)


def required_triggers(rate: float, surviving: float, alpha: float, power: float, bits: float = 0) -> int:
    """The least n from which on, for every larger n too, the test at `alpha` accepts with probability >= `power`.

    Each trigger of a stolen copy is taken to match with probability `surviving`, independently. The power of an exact
    test does not ascend steadily in n (it falls wherever the critical count steps up), hence "from which on". Beyond
    some N it stays above `power` by Chernoff's bound on both errors: with a such that n KL(a || rate) = log(2^bits /
    alpha), the critical count is at most ceil(n a), so a miss has probability at most exp(-n KL(a || surviving)), and
    that falls in n. From N the power is computed downward, n by n, to the first that falls short.

    >>> required_triggers(rate=0.1, surviving=0.9, alpha=1e-6, power=0.99)
    13

    Raises:
        BadInput: rate, alpha or power out of range, `surviving` not above `rate`, or more than 20,000 triggers needed.
    """
    _check(1, rate, alpha)
    if not rate < surviving <= 1 or not 0 < power < 1:
        raise BadInput(
            f"expected rate < surviving <= 1 and 0 < power < 1, got rate {rate}, surviving {surviving}, power {power}"
        )
    n = _chernoff_size(rate, surviving, power, evidence=bits * math.log(2) - math.log(alpha))
    critical = critical_count(n, rate, alpha, bits)
    while _power(critical, n, surviving) >= power:
        n -= 1
        if _enough(critical - 1, n, rate, alpha, bits):
            critical -= 1  # with n it falls by one or by none, since X does
    return n + 1


def _power(critical: int, n: int, surviving: float) -> float:
    if surviving == 1:
        return float(critical <= n)
    return math.exp(log_binomial_tail(critical, n, surviving))


def _chernoff_size(rate: float, surviving: float, power: float, evidence: float) -> int:
    """An n from which on both of Chernoff's bounds hold, within 1/8 of the least such n."""
    n = 1
    while n <= MOST_TRIGGERS:
        share = _share_with_divergence(evidence / n, rate, surviving)
        if share < surviving and n * _divergence(share, surviving) >= -math.log1p(-power):
            return n
        n += 1 + n // 8
    raise BadInput(
        f"more than {MOST_TRIGGERS} triggers are needed to tell a match rate of {surviving} from {rate}; "
        "ask for more survivors, less power or a larger alpha"
    )


def _share_with_divergence(nats: float, rate: float, most: float) -> float:
    """The a in (rate, most] with KL(a || rate) = nats, rounded up; `most` where it lies beyond."""
    low, high = rate, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _divergence(middle, rate) >= nats else (middle, high)
    return high


# --------------------------------------------------------------------------------------------------------- calibration


MISSED: Final = 10
"""The bounds of all measured rates together may fail a tenth as often as the next model may be worse than all."""


def calibration_error(models: int) -> float:
    """How often a test on `calibrated_rate` of so many models goes wrong before a suspect is asked: 1.1 / (M + 1).

    Where an innocent suspect is drawn as the M innocent models were, each of the M + 1 is the one that matches most
    with the same probability, so the suspect does so with 1 / (M + 1) (less where rates can be equal); with a tenth of
    that some model's rate is above its bound. No number of trials makes either smaller: what is uncertain is the next
    model. Pooling the trials of all models instead would treat their answers as independent, which those of one model
    are not.

    >>> round(calibration_error(21), 6), calibration_error(22) < 0.05
    (0.05, True)

    Raises:
        BadInput: no model.
    """
    if models < 1:
        raise BadInput(f"a null is calibrated on at least one innocent model, got {models}")
    return (1 + 1 / MISSED) / (models + 1)


def innocents_needed(alpha: float, commitments: int = 1) -> int:
    """The fewest innocent models M with which a claim can be accepted at `alpha`, shared among J commitments.

    Each of them has alpha / J (Bonferroni), which 1.1 / (M + 1) has to leave room below: M > 1.1 J / alpha - 1. So any
    of J claims is accepted of an innocent suspect with a probability of at most J alpha / J, however they hang together
    (Boole's inequality; Dunn 1961, Journal of the American Statistical Association 56(293), 52-64).

    >>> innocents_needed(0.05), innocents_needed(0.05, commitments=40)
    (22, 880)

    Raises:
        BadInput: alpha outside (0, 1), or no commitment.
    """
    share = probability("alpha", alpha) / whole("commitments", commitments, low=1)
    models = max(1, math.floor((1 + 1 / MISSED) / share))
    while models > 1 and calibration_error(models - 1) < share:
        models -= 1
    while calibration_error(models) >= share:
        models += 1
    return models


def calibrated_rate(matches: Sequence[int], n: int) -> float:
    """An upper bound of the match rates of innocent models that had so many matches each in n trials.

    The largest of the models' one-sided bounds of Clopper & Pearson 1934, each at an error of 1 / (10 M (M + 1)), so
    that all hold at once but with probability 1 / (10 (M + 1)). 1 where a model matched all.

    >>> round(calibrated_rate([3, 12, 7], 100), 4), calibrated_rate([100, 0], 100)
    (0.2189, 1.0)

    Raises:
        BadInput: no model, no trial, or more matches than trials.
    """
    models = len(matches)
    if models < 1 or n < 1:
        raise BadInput(f"expected at least one innocent model and one trial, got {models} and {n}")
    each = 1 / (MISSED * models * (models + 1))
    return clopper_pearson(max(matches), n, 1 - 2 * each)[1]


# ---------------------------------------------------------------------------------------------------- several questions


def holm(log10_ps: Sequence[float]) -> list[float]:
    """log10 of Holm's adjusted p-values: reject those at most alpha, and any false rejection has probability <= alpha.

    With p_(1) <= ... <= p_(m), the i-th is max over j <= i of min(1, (m - j + 1) p_(j)). It holds however the questions
    hang together (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    >>> [round(10**p, 3) for p in holm([math.log10(p) for p in (0.01, 0.04, 0.03)])]
    [0.03, 0.06, 0.06]

    Raises:
        BadInput: a p-value above 1, or none.
    """
    return _adjusted(log10_ps, lambda rank, m: m - rank, descending=False)


def benjamini_hochberg(log10_ps: Sequence[float]) -> list[float]:
    """log10 of Benjamini & Hochberg's adjusted p-values: of those at most alpha, a share of alpha is false on average.

    With p_(1) <= ... <= p_(m), the i-th is min over j >= i of min(1, m / j p_(j)). It holds for questions that are
    independent or hang together positively (Benjamini & Hochberg 1995, Journal of the Royal Statistical Society B
    57(1), 289-300; Benjamini & Yekutieli 2001, Annals of Statistics 29(4)).

    >>> [round(10**p, 3) for p in benjamini_hochberg([math.log10(p) for p in (0.01, 0.04, 0.03)])]
    [0.03, 0.04, 0.04]

    Raises:
        BadInput: a p-value above 1, or none.
    """
    return _adjusted(log10_ps, lambda rank, m: m / (rank + 1), descending=True)


def _adjusted(log10_ps: Sequence[float], factor: Callable[[int, int], float], descending: bool) -> list[float]:
    """Each p times the factor of its rank, made monotone from the smallest up, or from the largest down."""
    if not all(p <= 0 for p in log10_ps):
        raise BadInput("log10 p: expected numbers of at most 0")
    m = len(log10_ps)
    order = sorted(range(m), key=lambda at: log10_ps[at])
    scaled = [min(0.0, log10_ps[at] + math.log10(factor(rank, m))) for rank, at in enumerate(order)]
    running = list(accumulate(reversed(scaled), min))[::-1] if descending else list(accumulate(scaled, max))
    out = [0.0] * m
    for at, value in zip(order, running, strict=True):
        out[at] = value
    return out


# -------------------------------------------------------------------------------------------------- sequential samples


def log_e_value(k: int, n: int, rate: float) -> float:
    """The log of the evidence that k matches in n trials give against every match rate <= `rate`, at any time.

    e(k, n) is the likelihood ratio of a uniform mixture of match rates t on (rate, 1) to `rate`,

        e(k, n) = 1 / (1 - rate) * integral over (rate, 1) of (t / rate)^k ((1 - t) / (1 - rate))^(n - k) dt
                = P(Y <= k) / ((n + 1) (1 - rate) P(X = k)),        Y ~ Binomial(n + 1, rate), X ~ Binomial(n, rate).

    It is a test supermartingale. For one t, the next trial multiplies by t / rate (a match, probability p) or by
    (1 - t) / (1 - rate); since t > rate the expected factor, p t / rate + (1 - p) (1 - t) / (1 - rate), ascends in p
    and is 1 at p = rate. So for any p <= rate, even one that depends on all that went before, it is at most 1; a
    mixture keeps that, and e(0, 0) = 1. By Ville's inequality P(e >= 1 / alpha at any time) <= alpha: a judge may look
    after each query and stop when he likes. (Ville 1939; Robbins 1970; Ramdas et al. 2023, Statistical Science 38(4).)

    >>> [round(math.exp(log_e_value(n, n, 0.1))) for n in (0, 2, 7)]
    [1, 37, 1388889]

    Raises:
        BadInput: k outside 0..n, or a rate outside (0, 1).
    """
    _check(n, rate)
    if not 0 <= k <= n:
        raise BadInput(f"expected 0 <= k <= n, got k = {k}, n = {n}")
    log_mixture = log_binomial_tail(n + 1 - k, n + 1, 1.0 - rate)
    return log_mixture - math.log(n + 1) - math.log1p(-rate) - _log_pmf(k, n, rate)


@final
@dataclass
class SequentialBinomial:
    """Evidence against "every trial matches with probability at most `rate`", trial by trial: see `log_e_value`.

    p = 1 / max e so far is valid at every stopping time: under the null P(p <= alpha at any time) <= alpha.

    >>> evidence = SequentialBinomial(rate=0.1)
    >>> logs = [evidence.update(match=True) for _ in range(7)]
    >>> evidence.matches, evidence.trials, evidence.p_value < 1e-6
    (7, 7, True)

    Attributes:
        rate: the null's match rate.
        matches: matches so far.
        trials: trials so far.
        log_e_max: the largest log e-value so far; 0 at the start.
    """

    rate: float
    matches: int = field(default=0, init=False)
    trials: int = field(default=0, init=False)
    log_e_max: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        _check(0, self.rate)

    def update(self, match: bool) -> float:
        """Count one trial; the log e-value after it."""
        self.matches += bool(match)
        self.trials += 1
        log_e = log_e_value(self.matches, self.trials, self.rate)
        self.log_e_max = max(self.log_e_max, log_e)
        return log_e

    def attainable(self, more: int) -> float:
        """The largest log e-value that `more` trials can lead to: now, or with all of them matches (each raises e)."""
        return max(self.log_e_max, log_e_value(self.matches + more, self.trials + more, self.rate))

    @property
    def log10_p(self) -> float:
        """log10 of `p_value`, which does not underflow."""
        return -self.log_e_max / LN10

    @property
    def p_value(self) -> float:
        """min(1, 1 / max e)."""
        return math.exp(-self.log_e_max)
