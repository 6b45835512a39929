"""A keyed stream: its construction re-implemented by hand, its golden vectors, its laws and its distributions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from earmark import keys
from earmark.errors import BadInput
from earmark.keys import KeyedStream, MarkKey

KEY = MarkKey(bytes(range(32)))


def stream(purpose: str = "golden", context: bytes = b"") -> KeyedStream:
    return KEY.stream(purpose, context)


# ------------------------------------------------------------------------- the construction, once more, by hand


def bytes_by_hand(n: int, purpose: str = "golden", context: bytes = b"") -> bytes:
    parts = (b"earmark/stream/1", bytes(range(32)), purpose.encode(), context)
    prefix = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    blocks = range(n // 4096 + 1)
    return b"".join(hashlib.shake_256(prefix + i.to_bytes(8, "big")).digest(4096) for i in blocks)[:n]


def words_by_hand(n: int) -> list[int]:
    content = bytes_by_hand(8 * n)
    return [int.from_bytes(content[8 * i : 8 * i + 8], "little") for i in range(n)]


def log_by_hand(x: float) -> float:
    m, e = math.frexp(x)
    if m < math.sqrt(0.5):
        m, e = 2 * m, e - 1
    s = (m - 1) / (m + 1)
    square, series = s * s, 1 / 25
    for k in range(23, 0, -2):
        series = series * square + 1 / k
    return e * keys._LN2_HIGH + (2 * s * series + e * keys._LN2_LOW)


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def normal_by_hand(word: int) -> float:
    u = (2 * (word >> 12) + 1) * 2.0**-53
    q = u - 0.5
    if abs(q) <= 0.425:
        x = 0.180625 - q * q
        return q * (polynomial(keys._CENTRE[0], x) / polynomial(keys._CENTRE[1], x))
    r = math.sqrt(-log_by_hand(min(u, 1 - u)))
    (above, below), x = (keys._TAIL, r - 1.6) if r <= 5 else (keys._FAR_TAIL, r - 5)
    return math.copysign(polynomial(above, x) / polynomial(below, x), q)


def test_bytes_are_the_documented_construction() -> None:
    assert stream().read(20_000) == bytes_by_hand(20_000)
    assert stream("labels", b"ctx").read(5000) == bytes_by_hand(5000, "labels", b"ctx")


@pytest.mark.parametrize("bound", [1, 2, 10, 1000, 3 << 61, (1 << 63) - 25, 1 << 63])
def test_integers_are_the_documented_construction(bound: int) -> None:
    limit = (1 << 64) - (1 << 64) % bound
    expected = [word % bound for word in words_by_hand(600) if word < limit][:250]
    assert stream().integers(bound, 250).tolist() == expected


def test_rejection_does_happen_for_the_bound_that_tests_it() -> None:
    assert sum(word >= 3 << 62 for word in words_by_hand(600)) > 100


def test_uniforms_are_the_documented_construction() -> None:
    assert stream().uniforms(1000).tolist() == [(word >> 11) * 2.0**-53 for word in words_by_hand(1000)]


def test_normals_are_the_documented_construction_to_the_last_bit() -> None:
    assert stream().normals(20_000).tolist() == [normal_by_hand(word) for word in words_by_hand(20_000)]


def test_signs_are_the_documented_construction() -> None:
    bits = [octet >> i & 1 for octet in bytes_by_hand(26) for i in range(8)]
    assert stream().signs(205).tolist() == [2 * bit - 1 for bit in bits[:205]]


def test_permutation_and_choice_are_the_documented_construction() -> None:
    words = words_by_hand(500)
    order = sorted(range(500), key=words.__getitem__)
    assert stream().permutation(500).tolist() == order
    assert stream().choice(500, 17).tolist() == order[:17]


def test_a_collision_throws_the_whole_draw_away(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([[5, 7, 5], [9, 9, 9], [30, 10, 20]])
    monkeypatch.setattr(KeyedStream, "_words", lambda self, n: np.array(next(draws), dtype=np.uint64))
    assert stream().permutation(3).tolist() == [1, 2, 0]


# ------------------------------------------------------------------------- golden vectors

GOLDEN: dict[str, tuple[Callable[[KeyedStream], Tensor], list[float], str]] = {
    "integers, 10": (
        lambda s: s.integers(10, 10_000),
        [7, 1, 8, 7, 1],
        "9bfb0cbf1fc3e46a296886b2f6604419f4dfcf356e6a4ac02944e8e3a2419a25",
    ),
    "integers, 3 * 2^61": (
        lambda s: s.integers(3 << 61, 10_000),
        [660618786202845801, 4440701687547125032, 1628140422381154797, 5542769024264042571, 3217314590168794764],
        "1b4be5f416824a8b0d8490bce9645af362b38ab0bd2178d82a3ac12033b79bc8",
    ),
    "uniforms": (
        lambda s: s.uniforms(10_000),
        [float.fromhex(x) for x in ("0x1.a4abf524ce480p-2", "0x1.be83a4031c997p-1", "0x1.3b4115505f72bp-1")],
        "412cbc5aec25ebfac7c9e4a2d50d0bd943ff74ba4e9f5a2952e65cc4644501d1",
    ),
    "normals": (
        lambda s: s.normals(100_000),
        [float.fromhex(x) for x in ("-0x1.cdbbf494ebc1ep-3", "0x1.22e8d1a6e056bp+0", "0x1.2d59b98b1ade9p-2")],
        "cc29927fd5c3319172dee1d8df91ab4485d0aa0e8ba69009774869def29281b0",
    ),
    "signs": (
        lambda s: s.signs(10_000),
        [1, -1, -1, 1, -1],
        "a48b91d63d998c294ed0bbbac57af1f723018c7139352af5e6ceb309ac039602",
    ),
    "permutation": (
        lambda s: s.permutation(10_000),
        [3324, 9657, 1087, 84, 873],
        "c7a1d9dff09a990f231023d4f7463d171165ab1ade0573c53162fa6108e276a7",
    ),
    "choice": (
        lambda s: s.choice(10_000, 100),
        [3324, 9657, 1087, 84, 873],
        "368b0a582278201dba975bd793a54f520735840279d09a963399034b9e84cf72",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    draw, first, sha256 = GOLDEN[name]
    drawn = draw(stream())
    assert drawn[: len(first)].tolist() == first
    assert hashlib.sha256(drawn.numpy().tobytes()).hexdigest() == sha256


def test_golden_bytes() -> None:
    content = stream().read(1_000_000)
    assert content[:32].hex() == "6902923349fd2a69d5ba4c8e01d241df285db92fa88aa09dedb17b8016519816"
    assert hashlib.sha256(content).hexdigest() == "51ee73f105c4826003c9ac3be3058f201628c7f04ff1ba06dc8e50c5ca934dcf"
    assert stream("golden", b"x").read(8).hex() == "1606739fb68959e2"


# ------------------------------------------------------------------------- laws


def test_streams_of_another_key_purpose_or_context_differ() -> None:
    """Among them the pairs that plain concatenation of purpose and context would confuse."""
    other = MarkKey(bytes(31) + b"\x01")
    drawn = [
        k.stream(purpose, context).read(32)
        for k in (KEY, other)
        for purpose, context in (("a", b""), ("", b"a"), ("ab", b"c"), ("a", b"bc"), ("abc", b""), ("a", b"\0"))
    ]
    assert len(set(drawn)) == len(drawn)


def test_streams_of_one_key_do_not_share_a_position() -> None:
    first, second = stream(), stream()
    first.read(100)
    assert second.read(10) == bytes_by_hand(10)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=6))
def test_a_read_split_in_any_way_gives_the_same_bytes(sizes: list[int]) -> None:
    split = stream()
    assert b"".join(split.read(n) for n in sizes) == bytes_by_hand(sum(sizes))


@pytest.mark.parametrize(
    "draw",
    [
        lambda s, n: s.integers(10, n),
        lambda s, n: s.integers(3 << 61, n),
        lambda s, n: s.uniforms(n),
        lambda s, n: s.normals(n),
        lambda s, n: s.signs(8 * n),
    ],
)
@settings(max_examples=20, deadline=None)
@given(a=st.integers(0, 700), b=st.integers(0, 700))
def test_a_draw_split_in_two_gives_the_same_numbers(draw: Callable[[KeyedStream, int], Tensor], a: int, b: int) -> None:
    whole, split = stream(), stream()
    assert torch.equal(draw(whole, a + b), torch.cat([draw(split, a), draw(split, b)]))
    assert whole.read(16) == split.read(16)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_inner_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stream().normals(1500), stream().integers(3 << 61, 1500)
    monkeypatch.setattr(KeyedStream, "_CHUNK", chunk)
    assert torch.equal(stream().normals(1500), expected[0])
    assert torch.equal(stream().integers(3 << 61, 1500), expected[1])


def test_types_shapes_and_empty_draws() -> None:
    s = stream()
    for size in (0, 1, 5):
        assert (s.integers(3, size).dtype, s.integers(3, size).shape) == (torch.int64, (size,))
        assert (s.uniforms(size).dtype, s.uniforms(size).shape) == (torch.float64, (size,))
        assert (s.normals(size).dtype, s.normals(size).shape) == (torch.float64, (size,))
        assert (s.signs(size).dtype, s.signs(size).shape) == (torch.int8, (size,))
        assert (s.permutation(size).dtype, s.permutation(size).shape) == (torch.int64, (size,))
        assert s.choice(5, size).shape == (size,)
    assert s.read(0) == b""


def test_what_is_drawn_can_be_written_to() -> None:
    for drawn in (stream().integers(3, 4), stream().uniforms(4), stream().normals(4), stream().signs(4)):
        drawn += 1
    assert stream().integers(10, 5).tolist() == [7, 1, 8, 7, 1]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 200))
def test_permutations_hold_each_number_once_and_choices_no_number_twice(n: int, k: int) -> None:
    assert sorted(stream().permutation(n).tolist()) == list(range(n))
    if k <= n:
        chosen = stream().choice(n, k).tolist()
        assert len(set(chosen)) == k
        assert set(chosen) <= set(range(n))


@pytest.mark.parametrize(
    ("ask", "names"),
    [
        (lambda s: s.read(-1), "bytes"),
        (lambda s: s.integers(0, 1), "bound"),
        (lambda s: s.integers(-3, 1), "bound"),
        (lambda s: s.integers((1 << 63) + 1, 1), "bound"),
        (lambda s: s.integers(2.0, 1), "bound"),
        (lambda s: s.integers(2, True), "size"),
        (lambda s: s.uniforms(-1), "size"),
        (lambda s: s.normals(1.5), "size"),
        (lambda s: s.signs(-1), "size"),
        (lambda s: s.permutation(-1), "n"),
        (lambda s: s.choice(3, 4), "4 distinct of 3"),
        (lambda s: s.choice(3, -1), "k"),
    ],
)
def test_sizes_and_bounds_that_cannot_be_are_bad_input(ask: Callable[[KeyedStream], object], names: str) -> None:
    with pytest.raises(BadInput, match=names):
        ask(stream())


# ------------------------------------------------------------------------- normal quantile


def quantiles() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Odd multiples of 2^-53 over the whole range that a stream can ask for, both ends included."""
    rng = np.random.default_rng(0)
    odd = 2 * rng.integers(0, 1 << 52, 100_000) + 1
    ends = 2 * np.arange(2000) + 1
    tails = 2 * (2.0 ** rng.uniform(0, 51, 50_000)).astype(np.int64) + 1
    return np.concatenate([odd, ends, (1 << 53) - ends, tails, (1 << 53) - tails]).astype(np.float64) * 2.0**-53


def test_normal_quantile_is_scipys_within_two_in_a_quadrillion() -> None:
    u = quantiles()
    expected = special.ndtri(u)
    assert np.max(np.abs(keys._normal_quantile(u) - expected) / np.abs(expected)) < 2e-15


def test_normal_quantile_is_odd_and_ascends() -> None:
    u = np.sort(quantiles())
    z = keys._normal_quantile(u)
    assert np.array_equal(keys._normal_quantile(1.0 - u), -z)
    assert np.all(np.diff(z) > -1e-15 * np.abs(z[1:]))
    assert z.min() == keys._normal_quantile(np.array([2.0**-53]))[0] > -8.3


def test_the_logarithm_is_libms_within_two_units_in_the_last_place() -> None:
    x = np.concatenate([quantiles(), np.array([1.0, 0.5, 2.0, math.sqrt(0.5), 1e300, 5e-308])])
    expected = np.log(x)
    assert np.all(np.abs(keys._log(x) - expected) <= 2 * np.spacing(np.abs(expected)))


def test_ln2_in_two_parts_is_ln2() -> None:
    """ln 2 = sum over k of 1 / (k 2^k)."""
    ln2 = sum(Fraction(1, k << k) for k in range(1, 110))
    assert abs(Fraction(keys._LN2_HIGH) + Fraction(keys._LN2_LOW) - ln2) < Fraction(1, 10**25)
    assert Fraction(keys._LN2_HIGH).denominator <= 1 << 33


# ------------------------------------------------------------------------- distributions


@pytest.mark.parametrize("bound", [2, 10, 1000])
def test_integers_are_uniform(bound: int) -> None:
    counts = np.bincount(stream().integers(bound, 200_000).numpy(), minlength=bound)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_bound_that_remainders_would_bias_is_not_biased() -> None:
    """Without rejection, w mod 3 * 2^61 would fall below 2^62 three times in four instead of two in three."""
    below = int((stream().integers(3 << 61, 30_000) < 1 << 62).sum())
    assert abs(below - 20_000) < 5 * math.sqrt(30_000 * 2 / 9)


def test_uniforms_and_normals_follow_their_laws() -> None:
    assert stats.kstest(stream().uniforms(100_000).numpy(), "uniform").pvalue > 1e-4
    z = stream().normals(100_000).numpy()
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.02


def test_signs_are_fair_and_independent() -> None:
    signs = stream().signs(80_000).double()
    assert abs(float(signs.sum())) < 5 * math.sqrt(80_000)
    assert abs(float((signs[:-8] * signs[8:]).sum())) < 5 * math.sqrt(80_000)


def test_every_order_of_four_is_equally_likely() -> None:
    s = stream()
    orders = [tuple(s.permutation(4).tolist()) for _ in range(6000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4
