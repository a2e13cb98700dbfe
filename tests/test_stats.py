"""Statistics against numbers made by hand, and against formulas written here that share no code with scipy's."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import t

from pellucid.stats import (
    Estimate,
    Survival,
    benjamini_hochberg,
    fewer,
    hits_by_chance,
    holm,
    js_divergence,
    kendall,
    mcnemar,
    non_inferior,
    paired_difference,
    paired_p,
    survival,
)

pytestmark = pytest.mark.filterwarnings("error")

Z = 1.959963984540054
NAN, INF = math.nan, math.inf
drawn = settings(max_examples=60, deadline=None, derandomize=True)
shares = st.floats(0, 1, allow_subnormal=False)


def tail(least: int, n: int, share: float = 0.5) -> float:
    """P(at least `least` of n), term by term."""
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(max(least, 0), n + 1))


def two_sided(a: int, b: int) -> float:
    """Exact sign test: twice the smaller tail, which is right because one half is symmetric."""
    return min(1.0, 2 * tail(max(a, b), a + b))


# McNemar


def test_eight_against_two() -> None:
    """2 (45 + 10 + 1) / 1024; Clopper and Pearson's interval of 8 in 10 is 0.4439 to 0.9748."""
    found = mcnemar(8, 2)
    assert found.p == pytest.approx(112 / 1024, abs=1e-12)
    assert found.odds_ratio == pytest.approx(4.0, abs=1e-12)
    assert found.interval == pytest.approx((0.4439 / 0.5561, 0.9748 / 0.0252), rel=2e-3)


@pytest.mark.parametrize(("a", "b"), [(8, 2), (2, 8), (5, 5), (1, 0), (0, 9), (30, 11), (400, 350)])
def test_mcnemar_is_the_sign_test_and_its_ends_leave_a_fortieth(a: int, b: int) -> None:
    found, n = mcnemar(a, b), a + b
    assert found.p == pytest.approx(two_sided(a, b), rel=1e-9, abs=0)
    low, high = (1.0 if math.isinf(odds) else odds / (1 + odds) for odds in found.interval)
    assert low == 0 if a == 0 else tail(a, n, low) == pytest.approx(0.025, abs=1e-9)
    assert high == 1 if b == 0 else 1 - tail(a + 1, n, high) == pytest.approx(0.025, abs=1e-9)


def test_outcomes_change_sides_and_odds_turn_over() -> None:
    one, other = mcnemar(30, 11), mcnemar(11, 30)
    assert one.p == pytest.approx(other.p, abs=1e-15)
    assert one.odds_ratio == pytest.approx(1 / other.odds_ratio, rel=1e-12)
    assert one.interval == pytest.approx((1 / other.interval[1], 1 / other.interval[0]), rel=1e-9)


def test_pairs_on_one_side_only_and_none_at_all() -> None:
    found = mcnemar(6, 0)
    assert (found.p, found.odds_ratio, found.interval[1]) == (pytest.approx(2 / 64), INF, INF)
    assert mcnemar(0, 6).odds_ratio == mcnemar(0, 6).interval[0] == 0
    none = mcnemar(0, 0)
    assert (none.p, none.interval) == (1.0, (0.0, INF))
    assert math.isnan(none.odds_ratio)
    with pytest.raises(ValueError, match="-1 and 3"):
        mcnemar(-1, 3)


# Flip curves


def area(curve: Survival) -> float:
    return float((curve.share[:-1] * np.diff(curve.x)).sum())


def log_log(share: float, variance: float) -> tuple[float, float]:
    """Kalbfleisch and Prentice's interval: log(-log S) is normal, with Greenwood's variance."""
    half = Z * math.sqrt(variance) / math.log(share)
    return share ** math.exp(-half), share ** math.exp(half)


def test_three_flips_and_one_that_never_does() -> None:
    """4 at risk lose 1 at 0.2, then 3 lose 2 at 0.4; Greenwood: 1/(4·3), then 1/12 + 2/(3·1)."""
    found = survival([0.4, 0.2, 0.9, 0.4], [True, True, False, True])
    assert found.x.tolist() == [0.0, 0.2, 0.4, 1.0]
    assert found.share == pytest.approx([1.0, 0.75, 0.25, 0.25], abs=1e-12)
    assert (found.restricted_mean, found.never, found.n) == (pytest.approx(0.5, abs=1e-12), 0.25, 4)
    bands = [(1.0, 1.0), log_log(0.75, 1 / 12), *[log_log(0.25, 1 / 12 + 2 / 3)] * 2]
    assert found.low == pytest.approx([low for low, _ in bands], abs=1e-9)
    assert found.high == pytest.approx([high for _, high in bands], abs=1e-9)


def test_a_flip_at_the_very_end_is_not_a_never() -> None:
    found = survival([1.0, 0.5, 1.0], [True, True, False])
    assert found.x.tolist() == [0.0, 0.5, 1.0]
    assert found.share == pytest.approx([1.0, 2 / 3, 1 / 3], abs=1e-12)
    assert (found.restricted_mean, found.never) == (pytest.approx(2.5 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("n", [1, 2, 20])
def test_where_none_or_all_have_flipped_the_band_is_exact(n: int) -> None:
    """No one in n: up to 1 - 0.025^(1/n); the curve itself would claim certainty from one text."""
    never = survival([0.3] * n, [False] * n)
    assert (never.x.tolist(), never.share.tolist()) == ([0, 1], [1, 1])
    assert (never.restricted_mean, never.never, never.n) == (1.0, 1.0, n)
    assert never.low == pytest.approx([1.0, 0.025 ** (1 / n)], abs=1e-9)
    assert never.high.tolist() == [1, 1]
    always = survival([0.3] * n, [True] * n)
    assert (always.x.tolist(), always.share.tolist()) == ([0, 0.3, 1], [1, 0, 0])
    assert (always.restricted_mean, always.never) == (pytest.approx(0.3), 0.0)
    assert always.low.tolist() == [1, 0, 0]
    assert always.high == pytest.approx([1.0, *[1 - 0.025 ** (1 / n)] * 2], abs=1e-9)


def test_no_texts_no_curve() -> None:
    found = survival([], [])
    assert [len(a) for a in (found.x, found.share, found.low, found.high)] == [0] * 4
    assert math.isnan(found.restricted_mean)
    assert math.isnan(found.never)
    assert found.n == 0


@pytest.mark.parametrize("wrong", [1.5, -0.1, NAN])
def test_fractions_are_fractions(wrong: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        survival([0.5, wrong], [True, True])
    assert survival([0.5, wrong], [True, False]).restricted_mean == 0.75
    with pytest.raises(ValueError, match="1 fractions, but 2 marks"):
        survival([0.5], [True, False])


@drawn
@given(st.lists(st.tuples(st.integers(0, 12).map(lambda k: k / 12), st.booleans()), min_size=1, max_size=30))
def test_flip_curves_fall_and_their_area_is_the_mean(texts: list[tuple[float, bool]]) -> None:
    found = survival(*zip(*texts, strict=True))
    assert (found.x[0], found.x[-1]) == (0, 1)
    assert (np.diff(found.x) > 0).all()
    for falling in (found.share, found.low, found.high):
        assert (np.diff(falling) <= 1e-12).all()
    assert ((found.low <= found.share + 1e-12) & (found.share <= found.high + 1e-12)).all()
    assert (found.low >= 0).all()
    assert (found.high <= 1).all()
    ends = [x if flipped else 1.0 for x, flipped in texts]
    held = [np.mean([not flipped or end > x for end, (_, flipped) in zip(ends, texts, strict=True)]) for x in found.x]
    assert found.share == pytest.approx(held, abs=1e-12)
    assert area(found) == pytest.approx(np.mean(ends), abs=1e-12)
    assert found.restricted_mean == pytest.approx(np.mean(ends), abs=1e-12)


# Pairs


def test_wins_ties_and_losses() -> None:
    a = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, NAN, 0.1, INF]
    b = [0.2, 0.3, 0.4, 0.4, 0.5 + 1e-13, 0.1, 0.1, NAN, INF]
    found = fewer(a, b)
    assert (found.wins, found.ties, found.losses, found.n) == (3, 2, 1, 6)
    assert found.share == pytest.approx(4 / 6, abs=1e-12)
    assert found.p == pytest.approx(two_sided(3, 1), abs=1e-12)
    assert two_sided(3, 1) == pytest.approx(10 / 16)
    assert found.interval is not None
    assert found.interval[0] < found.share < found.interval[1]
    assert (fewer([0.0], [1e-11]).wins, fewer([1e-11], [0.0]).losses) == (1, 1)


def test_where_all_pairs_agree_the_interval_is_exact() -> None:
    found = fewer([0.1] * 10, [0.2] * 10)
    assert (found.share, found.p) == (1.0, pytest.approx(2 / 1024))
    assert found.interval == pytest.approx((0.025**0.1, 1.0), abs=1e-9)
    tied = fewer([0.1] * 10, [0.1] * 10)
    assert (tied.share, tied.p, tied.ties) == (0.5, 1.0, 10)


def test_few_pairs_and_none() -> None:
    one = fewer([1], [2])
    assert (one.share, one.interval, one.p, one.n) == (1.0, None, 1.0, 1)
    none = fewer([NAN], [2])
    assert (none.interval, none.p, none.wins, none.ties, none.losses, none.n) == (None, 1.0, 0, 0, 0, 0)
    assert math.isnan(none.share)
    assert paired_difference([], []) == Estimate(None, None, 0)
    assert paired_difference([3.0], [1.0]) == Estimate(2.0, None, 1, 1)


@pytest.mark.parametrize("compare", [fewer, paired_difference])
def test_pairs_are_pairs(compare: Callable[..., object]) -> None:
    """One number would otherwise be compared with every one."""
    with pytest.raises(ValueError, match="1 and 3"):
        compare([0.5], [0.1, 0.2, 0.3])


@drawn
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_sides_change_and_the_share_turns_over(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    one, other = fewer(a, b), fewer(b, a)
    assert (one.wins, one.ties, one.losses, one.p) == (other.losses, other.ties, other.wins, other.p)
    assert (one.wins, one.losses) == (sum(x < y for x, y in pairs), sum(x > y for x, y in pairs))
    assert one.p == pytest.approx(two_sided(one.wins, one.losses) if one.wins + one.losses else 1.0)
    if pairs:
        assert one.share == pytest.approx(1 - other.share, abs=1e-12)


def test_the_seed_moves_the_interval_only() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 9, 101).tolist(), rng.integers(0, 9, 101).tolist()
    for compare in (fewer, paired_difference):
        assert compare(a, b, seed=1) == compare(a, b, seed=1)
        assert len({compare(a, b, seed=k).interval for k in range(12)}) > 1
    assert fewer(a, b, seed=1).p == fewer(a, b, seed=2).p
    assert paired_difference(a, b, seed=1).value == paired_difference(a, b, seed=2).value


def test_the_mean_difference_leaves_out_broken_pairs() -> None:
    found = paired_difference([1.0, 5.0, NAN, 2.0, INF], [0.5, 2.0, 9.0, NAN, INF])
    assert (found.value, found.n, found.interval) == (1.75, 2, (0.5, 3.0))


def covers(interval: tuple[float, float] | None, true: float) -> bool:
    assert interval is not None
    return interval[0] <= true <= interval[1]


def test_coverage_of_fewer_with_ties() -> None:
    """200 data sets of 40 pairs, a of 0..3 and b of 0..4; the true share is counted over all 20 cases."""
    cases = list(itertools.product(range(4), range(5)))
    true = sum((x < y) + (x == y) / 2 for x, y in cases) / len(cases)
    assert true == pytest.approx((4 + 3 + 2 + 1 + 2) / 20)
    rng = np.random.default_rng(7)
    found = [fewer(rng.integers(0, 4, 40).tolist(), rng.integers(0, 5, 40).tolist(), seed=k) for k in range(200)]
    assert 0.89 <= np.mean([covers(f.interval, true) for f in found]) <= 0.985
    assert np.mean([f.share for f in found]) == pytest.approx(true, abs=0.02)


def test_the_sign_test_keeps_its_level_and_has_power() -> None:
    rng = np.random.default_rng(8)
    same, less = [], []
    for k in range(200):
        a, b = rng.normal(size=30), rng.normal(size=30)
        same.append(fewer(a.tolist(), b.tolist(), seed=k).p)
        less.append(fewer((a - 1.5).tolist(), b.tolist(), seed=k).p)
    assert 0.005 <= np.mean(np.array(same) <= 0.05) <= 0.08
    assert np.mean(np.array(less) <= 0.05) > 0.9


def test_coverage_of_paired_differences() -> None:
    """200 data sets of 40 texts, which differ from each other ten times as much as the two numbers of a text do."""
    rng, covered, wide = np.random.default_rng(9), 0, []
    for k in range(200):
        text = 10 * rng.normal(size=40)
        a, b = (text + shift + rng.normal(size=40) for shift in (0.3, 0.0))
        found = paired_difference(a.tolist(), b.tolist(), seed=k)
        covered += covers(found.interval, 0.3)
        assert found.interval is not None
        wide.append(found.interval[1] - found.interval[0])
    assert 0.89 <= covered / 200 <= 0.985
    assert np.mean(wide) == pytest.approx(2 * Z * math.sqrt(2 / 40), rel=0.06)


@pytest.mark.parametrize(("high", "verdict"), [(0.04, True), (0.05, True), (0.0501, False)])
def test_the_upper_end_decides(high: float, verdict: bool) -> None:
    assert non_inferior(Estimate(-0.2, (-0.4, high), 9), 0.05) is verdict


def test_without_an_interval_nothing_is_shown() -> None:
    assert non_inferior(Estimate(-0.2, None, 1), 0.05) is False
    assert non_inferior(Estimate(None, None, 0), 0.05) is False


# Many p-values

FIFTEEN = (
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0
)  # fmt: skip
"""The example of Benjamini & Hochberg 1995, section 3.2."""


def test_the_published_example() -> None:
    """There Bonferroni finds three, and their own procedure four."""
    assert (holm(FIFTEEN) <= 0.05).sum() == 3
    assert (benjamini_hochberg(FIFTEEN) <= 0.05).sum() == 4
    assert holm(FIFTEEN)[3] == pytest.approx(12 * 0.0095)
    assert benjamini_hochberg(FIFTEEN)[3] == pytest.approx(15 / 4 * 0.0095)


def test_four_by_hand() -> None:
    """Holm: 4·0.01, 3·0.02, then 2·0.03 and 0.04 may not fall below; in the order they came."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06], abs=1e-12)
    assert benjamini_hochberg([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.04] * 4, abs=1e-12)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_was_not_tested_does_not_count(adjust: Callable[[Sequence[float]], np.ndarray]) -> None:
    found = adjust([NAN, 0.01, NAN, 0.04])
    assert np.isnan(found).tolist() == [True, False, True, False]
    assert found[[1, 3]] == pytest.approx([0.02, 0.04], abs=1e-12)
    assert np.isnan(adjust([NAN, NAN])).all()
    assert adjust([]).shape == (0,)
    with pytest.raises(ValueError, match=r"between 0 and 1|\[0, 1\]|range"):
        adjust([0.5, 1.5])
    with pytest.raises(ValueError, match=r"between 0 and 1|\[0, 1\]|range"):
        adjust([0.5, -INF])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_maps_keep_their_shape(adjust: Callable[[np.ndarray], np.ndarray]) -> None:
    p = np.random.default_rng(0).random((3, 4)) ** 3
    p[1, 2] = NAN
    found = adjust(p)
    assert found.shape == (3, 4)
    np.testing.assert_array_equal(found.ravel(), adjust(p.ravel()))


@drawn
@given(st.lists(shares, min_size=1, max_size=12))
def test_adjusted_p_by_their_definitions(p: list[float]) -> None:
    """Each from all p-values at or below, or at or above, its own; Holm never below, both in the given order."""
    by_holm, by_bh, n = holm(p), benjamini_hochberg(p), len(p)
    for own, h, f in zip(p, by_holm, by_bh, strict=True):
        below = [min(1.0, sum(y >= x for y in p) * x) for x in p if x <= own]
        above = [min(1.0, n * x / sum(y <= x for y in p)) for x in p if x >= own]
        assert h == pytest.approx(max(below), abs=1e-12)
        assert f == pytest.approx(min(above), abs=1e-12)
        assert own <= h <= 1
        assert own - 1e-12 <= f <= h + 1e-12
    order = np.argsort(p)
    assert (np.diff(by_holm[order]) >= 0).all()
    assert (np.diff(by_bh[order]) >= -1e-15).all()


# Hits


def enumerated(least: int, chances: Sequence[float]) -> float:
    """Over all outcomes, one by one."""
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=len(chances)):
        if sum(outcome) >= least:
            total += math.prod(c if o else 1 - c for o, c in zip(outcome, chances, strict=True))
    return total


def test_three_unlike_texts_by_hand() -> None:
    """At least 2 of chances 1/2, 1/3, 1/4: 1/24 all, and 3/24, 2/24, 1/24 for each pair."""
    assert hits_by_chance(2, [1 / 2, 1 / 3, 1 / 4]) == pytest.approx(7 / 24, abs=1e-12)
    assert hits_by_chance(3, [1 / 2, 1 / 3, 1 / 4]) == pytest.approx(1 / 24, abs=1e-12)
    assert hits_by_chance(1, [1 / 2, 1 / 3, 1 / 4]) == pytest.approx(1 - 6 / 24, abs=1e-12)
    assert hits_by_chance(0, [1 / 2, 1 / 3, 1 / 4]) == 1.0


def test_shared_hits_are_rounded_down_but_not_by_rounding_errors() -> None:
    chances = [1 / 2, 1 / 3, 1 / 4]
    assert hits_by_chance(2.999, chances) == hits_by_chance(2, chances)
    assert sum([0.1] * 10) < 1
    assert hits_by_chance(sum([0.1] * 10), [0.5]) == 0.5
    assert hits_by_chance(2, [1 + 2**-52, 0.25, -(2**-60)]) == pytest.approx(0.25, abs=1e-12)
    assert hits_by_chance(0.9, chances) == 1.0


def test_small_p_are_exact_and_never_zero() -> None:
    """One minus the rest would be 0, or the rounding of 1."""
    assert hits_by_chance(100, [0.5] * 100) == pytest.approx(2.0**-100, rel=1e-9, abs=0)
    assert hits_by_chance(80, [0.1] * 200) == pytest.approx(tail(80, 200, 0.1), rel=1e-9, abs=0)
    assert 0 < tail(80, 200, 0.1) < 1e-25


def test_sure_and_impossible_texts() -> None:
    assert hits_by_chance(1, [1.0]) == 1.0
    assert hits_by_chance(1, [0.0, 0.0]) == 0.0
    assert hits_by_chance(2, [1.0, 0.25, 0.0]) == pytest.approx(0.25, abs=1e-12)
    assert hits_by_chance(0, []) == 1.0


def test_more_hits_than_texts_or_odd_chances_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits in 2 texts"):
        hits_by_chance(3, [0.5, 0.5])
    with pytest.raises(ValueError, match="-1 hits"):
        hits_by_chance(-1, [0.5])
    for wrong in (1.1, -0.1, NAN):
        with pytest.raises(ValueError, match="between 0 and 1"):
            hits_by_chance(1, [0.5, wrong])


@drawn
@given(st.lists(shares, min_size=1, max_size=7), st.data())
def test_hits_by_enumeration(chances: list[float], data: st.DataObject) -> None:
    least = data.draw(st.integers(0, len(chances)))
    found = hits_by_chance(least, chances)
    assert found == pytest.approx(enumerated(least, chances), abs=1e-12)
    assert hits_by_chance(least, chances[::-1]) == pytest.approx(found, abs=1e-12)


# Agreement of orders


def tau_b(a: Sequence[float], b: Sequence[float]) -> float:
    """(concordant - discordant) / sqrt((pairs - ties in a) (pairs - ties in b)), pair by pair."""
    s = [(np.sign(x - u), np.sign(y - v)) for (x, y), (u, v) in itertools.combinations(zip(a, b, strict=True), 2)]
    return float(sum(x * y for x, y in s) / math.sqrt(sum(x * x for x, _ in s) * sum(y * y for _, y in s)))


def test_tau_by_hand() -> None:
    """1 2 3 4 and 1 3 2 4: five pairs agree, one does not. With one tie: 5 of 5 pairs of 6 agree, 5 / sqrt(5·6)."""
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6, abs=1e-12)
    assert kendall([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30), abs=1e-12)
    assert kendall([1, 2], [2, 1]) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4]), ([1, NAN, 2], [1, 2, 3])]
)
def test_without_an_order_there_is_no_tau(a: list[float], b: list[float]) -> None:
    assert math.isnan(kendall(a, b))


def test_orders_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        kendall([1, 1, 1], [1, 2])


@drawn
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=15))
def test_tau_by_pairs(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    assert kendall(a, b) == pytest.approx(tau_b(a, b), abs=1e-9)
    assert kendall(a, [-y for y in b]) == pytest.approx(-tau_b(a, b), abs=1e-9)


# Divergence


def js(p: Sequence[float], q: Sequence[float]) -> float:
    """Entropy of the mean less the mean entropy."""

    def entropy(r: Sequence[float]) -> float:
        return -math.fsum(x * math.log(x) for x in r if x > 0)

    return entropy([(x + y) / 2 for x, y in zip(p, q, strict=True)]) - (entropy(p) + entropy(q)) / 2


def test_divergence_by_hand() -> None:
    """(1, 0) from (0, 1) is ln 2. (1, 0) from (1/2, 1/2): entropy of (3/4, 1/4) less half of ln 2."""
    assert float(js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]))) == math.log(2)
    found = float(js_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])))
    assert found == pytest.approx(2 * math.log(2) - 0.75 * math.log(3) - math.log(2) / 2, abs=1e-12)
    assert found == pytest.approx(0.2157615543, abs=1e-9)


def test_the_smallest_numbers_are_not_infinite() -> None:
    """Half of the smallest number is 0, and its ratio to that is not a number to go by."""
    least = 5e-324
    assert js_divergence(np.array([least, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-300)
    assert js_divergence(np.array([least, 1.0]), np.array([1.0, least])) == pytest.approx(math.log(2), abs=1e-12)


def test_rounding_passes_neither_bound() -> None:
    """Rows that differ in their last digits, and rows that share nothing but sum to one only nearly."""
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(6), 500)
    near = js_divergence(p, p * (1 + 1e-15 * rng.normal(size=p.shape)))
    assert (near >= 0).all()
    assert near.max() < 1e-15
    gap = np.zeros_like(p)
    apart = js_divergence(np.hstack([p, gap]), np.hstack([gap, p]))
    assert (apart <= math.log(2)).all()
    assert apart.min() > math.log(2) - 1e-12


def test_rows_broadcast_in_float64() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(4), (3, 1)), rng.dirichlet(np.ones(4), 5)
    found = js_divergence(p, q)
    assert found.shape == (3, 5)
    assert found == pytest.approx(np.array([[js(a, b) for b in q] for a in p[:, 0]]), abs=1e-12)
    one = js_divergence(q[0].astype(np.float32), q[1].astype(np.float32))
    assert (one.shape, one.dtype) == ((), np.float64)
    assert one == pytest.approx(js(q[0], q[1]), abs=1e-6)
    assert np.isnan(js_divergence(np.array([[NAN, 1.0], [0.5, 0.5]]), np.array([0.5, 0.5]))).tolist() == [True, False]


@st.composite
def rows(draw: st.DrawFn) -> np.ndarray:
    """Probabilities, zeros and very small ones among them."""
    parts = draw(st.lists(st.sampled_from([0.0, 1e-320, 1e-200, 1e-9, 0.3]) | shares, min_size=5, max_size=5))
    assume(sum(parts) > 0.01)
    return np.array(parts) / sum(parts)


@drawn
@given(rows(), rows())
def test_divergence_is_symmetric_bounded_and_zero_for_equal_rows(p: np.ndarray, q: np.ndarray) -> None:
    found = float(js_divergence(p, q))
    assert found == float(js_divergence(q, p))
    assert 0 <= found <= math.log(2)
    assert found == pytest.approx(js(p, q), abs=1e-12)
    assert float(js_divergence(p, p)) == 0.0
    assert found > 0 or np.abs(p - q).max() < 1e-7


def test_paired_p_is_the_share_of_sign_flips_as_far_out() -> None:
    """All flips of few pairs, by enumeration; drawn ones of many, within their error; nothing to tell: 1."""
    a, b = np.array([0.3, 0.9, 0.2, 0.8, 0.55]), np.array([0.1, 0.2, 0.3, 0.1, 0.5])
    d = a - b
    flips = np.array([np.mean(np.array(s) * d) for s in itertools.product((-1, 1), repeat=5)])
    assert paired_p(a.tolist(), b.tolist()) == pytest.approx((np.abs(flips) >= d.mean() - 1e-12).mean())
    rng = np.random.default_rng(0)
    x = rng.normal(0.2, 1, 100)
    expected = float(2 * t.sf(abs(x.mean() / x.std(ddof=1) * 10), 99))
    assert paired_p(x.tolist(), [0.0] * 100) == pytest.approx(expected, abs=0.02)
    assert paired_p([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert math.isnan(paired_p([math.nan], [1.0]))
    assert paired_p([1.0, math.nan], [0.0, 1.0]) == 1.0
    assert paired_p([1.0] * 40, [0.0] * 40) == pytest.approx(1 / 10_000)
