"""Estimators of information against known truths, and the baselines that fail where these do not.

The cases and their truths are those of examples/information_truths.py, which measures more of them.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma

from pellucid.audits.information import (
    binning_information,
    kernel_information,
    mine_information,
    networks,
    probe_information,
    projected_information,
    ross_information,
)
from pellucid.audits.information.baselines import ba_bound, dv_bound
from pellucid.audits.information.estimate import Sample, folds_of
from pellucid.audits.information.neighbours import ross
from pellucid.errors import InputError

CASE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "information_truths.py"))
CASES, shifted, spread, independent = (CASE[name] for name in ("CASES", "shifted", "spread", "independent"))
SHIFT, SPREAD, CORNER = (CASE[name] for name in ("SHIFT", "SPREAD", "CORNER"))
truth_of_shift, truth_of_spread = CASE["truth_of_shift"], CASE["truth_of_spread"]


def test_the_truths() -> None:
    assert truth_of_shift(SHIFT) == pytest.approx(0.3, abs=1e-3)
    assert truth_of_spread(SPREAD) == pytest.approx(0.3, abs=1e-3)
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=200_000)
    z = CORNER * (rng.normal(size=(len(y), 4)) + CORNER * np.eye(4)[y])
    log_q = z - np.logaddexp.reduce(z, 1, keepdims=True)
    assert np.log(4) + log_q[np.arange(len(y)), y].mean() == pytest.approx(0.9196, abs=5e-3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("d", "within"), [(2, 0.02), (32, 0.04)])
def test_the_probe_finds_what_is_there(name: str, d: int, within: float) -> None:
    """The mean over five draws of 5,000 rows."""
    draw, truth = CASES[name]
    found = [probe_information(*draw(5000, d, np.random.default_rng(s)), null=False).value for s in range(5)]
    assert np.mean(found) == pytest.approx(truth, abs=within), found


def test_the_probe_finds_nothing_where_there_is_nothing() -> None:
    """20 draws of 1,000 rows, 128 wide: at least 19 within three standard errors, or .01."""
    found = [probe_information(*independent(1000, 128, np.random.default_rng(s)), null=False) for s in range(20)]
    assert sum(abs(f.value) <= max(3 * f.se, 0.01) for f in found) >= 19
    assert all("1,000 texts are few" in f.warning for f in found)
    one = probe_information(*shifted(1000, 8, np.random.default_rng(0)))
    assert one.value > 0.2 > 0.02 > abs(one.null)


def test_the_interval_covers_the_truth() -> None:
    """30 draws here; 100 of each case in examples/information_truths.py."""
    found = [probe_information(*shifted(2000, 2, np.random.default_rng(s)), null=False) for s in range(30)]
    assert sum(f.interval[0] <= 0.3 <= f.interval[1] for f in found) >= 26


def test_noise_can_only_take_information_away() -> None:
    """Data processing, where the family holds the best classifier: H, H + N(0, 1), H + N(0, 4)."""
    rng, found = np.random.default_rng(0), []
    h, p = shifted(5000, 16, rng)
    for more in (0.0, 1.0, 4.0):
        truth = truth_of_shift(SHIFT / np.sqrt(1 + more))
        noisy = h + rng.normal(size=h.shape) * np.sqrt(more)
        found.append(probe_information(noisy, p, families=("linear",), null=False).value)
        if more:  # nuisance is louder than the signal's noise before, so that the truth holds for the signal's own
            assert found[-1] <= truth + 0.02
    assert found[0] > found[1] > found[2] > 0
    seen = probe_information(h @ rng.normal(size=(16, 4)), p, families=("linear",), null=False).value
    assert seen <= found[0] + 0.01


def test_a_line_cannot_see_a_spread() -> None:
    h, p = spread(3000, 4, np.random.default_rng(0))
    line = probe_information(h, p, families=("linear",), null=False)
    curve = probe_information(h, p, null=False)
    assert abs(line.value) < 0.01
    assert curve.value > 0.2


def test_soft_targets_say_the_same_with_less_noise() -> None:
    """Probabilities in place of labels drawn from them: the same in the mean, nearer to each other."""
    soft, hard = [], []
    for s in range(8):
        rng = np.random.default_rng(s)
        h = rng.normal(size=(1500, 4))
        q = 1 / (1 + np.exp(-h[:, 0] - rng.normal(size=len(h))))
        p = np.stack([1 - q, q], 1)
        drawn = np.eye(2)[(rng.random(len(h)) < q).astype(int)]
        soft.append(probe_information(h, p, families=("linear",), null=False).value)
        hard.append(probe_information(h, drawn, families=("linear",), null=False).value)
    assert np.mean(soft) == pytest.approx(np.mean(hard), abs=0.015)
    assert np.std(soft) < np.std(hard)


def test_rows_of_one_text_share_a_fold_and_weights_count() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    h, p = shifted(len(groups), 3, rng)
    sample = Sample.of(h, p, groups, 1 / np.bincount(groups)[groups])
    fold = folds_of(sample, 5, 0)
    assert all(len(set(fold[groups == g])) == 1 for g in range(40))
    assert sorted(np.bincount([fold[groups == g][0] for g in range(40)])) == [8] * 5
    value, se = sample.summed(np.arange(len(h), dtype=float))
    means = np.array([np.arange(len(h))[groups == g].mean() for g in range(40)])
    assert (value, se) == (pytest.approx(means.mean()), pytest.approx(means.std(ddof=1) / np.sqrt(40)))
    # texts repeated row by row tell no more than once
    twice = probe_information(np.repeat(h, 3, 0), np.repeat(p, 3, 0), np.repeat(np.arange(len(h)), 3), null=False)
    once = probe_information(h, p, null=False)
    assert twice.se == pytest.approx(once.se, rel=0.25)
    assert twice.n == once.n == len(h)


def test_the_same_seed_gives_the_same() -> None:
    h, p = spread(600, 3, np.random.default_rng(0))
    before = torch.get_rng_state()
    one, same, other = (probe_information(h, p, seed=s) for s in (0, 0, 1))
    assert (one.value, one.null) == (same.value, same.null)
    assert one.value != other.value
    assert torch.equal(before, torch.get_rng_state())


def test_the_prior_is_taken_where_nothing_else_is_better() -> None:
    """Without it, 100 rows of 60 independent dimensions would pay for chance."""
    found = [probe_information(*independent(100, 60, np.random.default_rng(s)), null=False) for s in range(10)]
    assert sum("prior" in f.method for f in found) >= 8
    assert np.mean([f.value for f in found]) > -0.03


def test_large_samples_are_trained_too() -> None:
    """More rows than an epoch of the allowed steps sees: the best weights so far are kept, not the first ones."""
    found = probe_information(*spread(60_000, 2, np.random.default_rng(0)), families=("mlp",), folds=2, null=False)
    assert found.value == pytest.approx(0.3, abs=0.02)
    one = networks.networks([part(20_000)], [part(2000)], 0)
    steps, networks.STEPS = networks.STEPS, 10
    try:
        short = networks.networks([part(20_000)], [part(2000)], 0)
    finally:
        networks.STEPS = steps
    begun = networks._begin(networks.MEMBERS, 2, 2, torch.Generator().manual_seed(0))
    assert not torch.allclose(short[0][0][0][:32].float(), begun[0][0].mT), (
        "10 of 79 steps of an epoch were thrown away"
    )
    assert len(one[0]) == 3


def part(n: int) -> networks.Part:
    h, p = spread(n, 2, np.random.default_rng(n))
    return networks.Part.of(h, p, np.ones(n))


def test_a_class_that_is_hardly_seen_costs_little() -> None:
    """One row of a third class among 200: bounded, by a share of the prior in every probe."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        h, y = rng.normal(size=(200, 3)), np.arange(200) % 2
        y[17] = 2
        found = probe_information(h, np.eye(3)[y], families=("linear",), null=False, seed=seed)
        assert found.value > -0.1
        assert found.pointwise.min() > -np.log(1000)
        assert found.value <= np.log(3)


def test_weights_of_rows_count_in_the_fit() -> None:
    """Rows of weight near 0 tell another story, which must not be learnt."""
    rng = np.random.default_rng(0)
    h, p = shifted(1200, 2, rng)
    lies = np.arange(1200) % 2 == 0
    p[lies] = p[lies][:, ::-1]
    weights = np.where(lies, 1e-4, 1.0)
    found = probe_information(h, p, families=("linear",), null=False, weights=weights)
    assert found.value == pytest.approx(0.3, abs=0.06)


def test_constant_and_huge_columns_do_no_harm() -> None:
    h, p = shifted(800, 3, np.random.default_rng(0))
    more = np.concatenate([h * 1e6, np.full((800, 2), 7.0), np.zeros((800, 1))], 1)
    plain, wide = (probe_information(x, p, families=("linear",), null=False) for x in (h, more))
    assert wide.value == pytest.approx(plain.value, abs=0.02)


# --- neighbours ---


def test_ross_by_hand() -> None:
    """Six points on a line, k = 1: counts of neighbours within the distance to the next of the own class."""
    h = np.array([[0.0], [1.0], [3.0], [6.0], [10.0], [15.0]])
    y = np.array([0, 0, 1, 0, 1, 1])
    # distance to the own class's nearest: 1, 1, 7, 5, 5, 5; points strictly nearer, itself included
    within = [1, 1, 4, 3, 2, 1]
    expected = digamma(6) + digamma(1) - digamma(3) - digamma(within)
    np.testing.assert_allclose(ross(h, y, 1), expected)


@pytest.mark.parametrize("name", ["shifted", "spread"])
def test_neighbours_of_narrow_states(name: str) -> None:
    draw, truth = CASES[name]
    h, p = draw(4000, 2, np.random.default_rng(0))
    for estimate in (ross_information, projected_information):
        found = estimate(h, p)
        assert found.value == pytest.approx(truth, abs=0.04)
        assert abs(found.null) < 0.03
    with pytest.raises(InputError, match="up to 10 dimensions; these have 11: use projected_information"):
        ross_information(np.zeros((50, 11)), np.eye(2)[np.arange(50) % 2])


def test_rows_at_one_place() -> None:
    """Discrete states: what is left is the plug-in information, not minus several nats."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    sure, nothing = (np.repeat(x[:, None], 2, 1).astype(float) for x in (y, rng.integers(3, size=600)))
    assert ross_information(sure, np.eye(2)[y]).value == pytest.approx(np.log(2), abs=0.02)
    assert ross_information(nothing, np.eye(2)[y]).value == pytest.approx(0, abs=0.02)


def test_projected_neighbours_of_wide_states() -> None:
    found = projected_information(*shifted(3000, 32, np.random.default_rng(0)))
    assert found.value == pytest.approx(0.3, abs=0.05)
    assert abs(projected_information(*independent(1000, 64, np.random.default_rng(0))).value) < 0.03


# --- the baselines that fail ---


def test_baselines_report_the_most_where_there_is_nothing() -> None:
    """Independent states at 128 dimensions: binning and kernels give log 2, the in-sample network more than .5."""
    h, p = independent(1000, 128, np.random.default_rng(0))
    assert binning_information(h, p).value == pytest.approx(np.log(2), abs=1e-3)
    assert kernel_information(h, p).value == pytest.approx(np.log(2), abs=1e-3)
    mine = mine_information(h, p)
    assert mine.value > 0.5
    assert abs(probe_information(h, p, null=False).value) < 0.02
    for found in (mine, binning_information(h, p), kernel_information(h, p)):
        assert "fails" in found.warning
        assert found.se is None
        assert found.null > 0.5


def test_baselines_are_right_on_a_line() -> None:
    """Where one dimension has many rows, they come near: the failure is of width."""
    h, p = shifted(5000, 2, np.random.default_rng(0))
    assert kernel_information(h[:2000], p[:2000]).value == pytest.approx(0.3, abs=0.05)
    assert binning_information(h, p, bins=8).value == pytest.approx(0.3, abs=0.05)


@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.1, 20.0))
def test_a_probe_bound_is_never_below_the_neural_one(seed: int, classes: int, scale: float) -> None:
    """Jensen: of the same critic, E f - E log Z >= E f - log E Z; both against plain sums."""
    rng = np.random.default_rng(seed)
    f, p = rng.normal(size=(30, classes)) * scale, rng.dirichlet(np.ones(classes), 30)
    ba, dv = (float(b(torch.from_numpy(f), torch.from_numpy(p))) for b in (ba_bound, dv_bound))
    z = np.exp(f) @ p.mean(0)
    assert ba == pytest.approx((p * f).sum(1).mean() - np.log(z).mean(), rel=1e-9)
    assert dv == pytest.approx((p * f).sum(1).mean() - np.log(z.mean()), rel=1e-9)
    assert ba >= dv - 1e-12


# --- what is refused ---

Y = np.eye(2)[np.arange(60) % 2]
H = np.random.default_rng(0).normal(size=(60, 3))
WRONG = {
    "fewer texts than folds": (H[:8], Y[:8], {}, "5 folds need at least 10 texts; seen 8"),
    "fewer groups": (H, Y, {"groups": np.arange(60) // 10}, "5 folds need at least 10 texts; seen 6"),
    "folds": (H, Y, {"folds": 1}, "at least 2 folds; seen 1"),
    "one class": (H, np.tile([0.9, 0.1], (60, 1)), {}, "One class is predicted throughout"),
    "nan": (np.where(np.arange(180).reshape(60, 3) == 7, np.nan, H), Y, {}, "1 of 60 states hold NaN or an infinity"),
    "continuous": (H, H[:, :1], {}, "continuous output is infinite"),
    "two columns that are no distribution": (H, H[:, :2], {}, "continuous output is infinite"),
    "shapes": (H, Y[:5], {}, r"seen \[60, 3\] and \[5, 2\]"),
    "a vector": (H[:, 0], Y, {}, r"seen \[60\]"),
    "groups of another length": (H, Y, {"groups": [0, 1]}, "one group and one positive weight"),
    "weights": (H, Y, {"weights": np.zeros(60)}, "one positive weight"),
    "family": (H, Y, {"families": ("forest",)}, "no probe family 'forest'; choose from linear, mlp"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_refused(name: str) -> None:
    h, p, options, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        probe_information(h, p, **options)
