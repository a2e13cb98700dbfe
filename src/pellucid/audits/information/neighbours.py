"""Nearest-neighbour information (Ross 2014): on the probe's log-odds as a second opinion, on whole states if narrow."""

import numpy as np
from scipy.special import digamma

from pellucid.audits.information.estimate import Information, Sample, folds_of
from pellucid.audits.information.probe import crossfitted, small
from pellucid.errors import InputError, MissingExtra

WIDEST = 10


def ross(h: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """What each row adds, [n]: psi(n) + psi(k) - psi(n_y) - psi(m), m the rows as near as the k-th of its own class.

    Classes of one row tell nothing: their rows add 0. Source: Ross 2014, PLOS ONE 9(2) e87357; rows at one place as in
    Gao et al. 2017, arXiv 1709.06212.
    """
    try:
        from sklearn.neighbors import KDTree, NearestNeighbors
    except ImportError as e:
        raise MissingExtra("Neighbours need scikit-learn: pip install 'pellucid[info]'.") from e

    found, radius = np.zeros(len(h)), np.zeros(len(h))
    used, counts = np.zeros(len(h), dtype=bool), np.zeros(len(h))
    near = np.full(len(h), k)
    for c in np.unique(y):
        mine = np.flatnonzero(y == c)
        if len(mine) < 2:
            continue
        some = min(k, len(mine) - 1)
        distances = NearestNeighbors(n_neighbors=some).fit(h[mine]).kneighbors()[0][:, -1]
        # rows at one place: all of them are the neighbours, within a distance of 0 (Gao et al. 2017)
        same = KDTree(h[mine]).query_radius(h[mine], 0.0, count_only=True) - 1
        radius[mine] = np.where(distances > 0, np.nextafter(distances, 0), 0.0)
        near[mine], counts[mine], used[mine] = np.where(distances > 0, some, same), len(mine), True
    within = KDTree(h[used]).query_radius(h[used], radius[used], count_only=True)
    n = int(used.sum())
    found[used] = digamma(n) + digamma(near[used]) - digamma(counts[used]) - digamma(np.maximum(within, 1))
    return found


def labels_of(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """One class drawn per row from its probabilities: the variable whose information is asked for."""
    return np.asarray((sample.p.cumsum(1) < rng.random((len(sample.p), 1))).sum(1).clip(max=sample.p.shape[1] - 1))


def ross_information(h: object, p: object, k: int = 3, seed: int = 0) -> Information:
    """Nearest-neighbour information of whole states, at most 10 wide: beyond, it loses most of what is there.

    h [n, d], p [n, c]: as in `probe_information`, one row per text, since rows of a text are near each other for
    another reason; a class is drawn per row. k: neighbours.
    Unit: nats. Cost: a tree over the rows. Raises: InputError for wider states, and as `probe_information`.
    Source: Ross 2014. At d = 32 it finds three quarters of 0.3 nats, at d = 128 a third.
    """
    sample, rng = Sample.of(h, p), np.random.default_rng(seed)
    d = sample.h.shape[1]
    if d > WIDEST:
        raise InputError(
            f"Neighbours of whole states hold up to {WIDEST} dimensions; these have {d}: use projected_information."
        )
    pointwise = ross(sample.h, labels_of(sample, rng), k)
    value, se = sample.summed(pointwise)
    other = sample.permuted(rng)
    nothing = other.summed(ross(other.h, labels_of(other, rng), k))[0]
    return Information(value, se, sample.texts, nothing, None, pointwise, f"Ross, k = {k}, on {d} dimensions")


def projected_information(h: object, p: object, folds: int = 5, k: int = 3, seed: int = 0) -> Information:
    """Nearest-neighbour information of the cross-fitted probe's log-odds: a second opinion on the probe's calibration.

    It sees what the probe sees and nothing else, so it is no second opinion on what the probe missed.
    h [n, d], p [n, c]: one row per text. Unit, raises: as `probe_information`. Cost: that, and a tree per fold.
    Source: ours; Ross 2014 on a learnt projection.
    """
    sample, rng = Sample.of(h, p), np.random.default_rng(seed)
    both = [sample, sample.permuted(rng)]
    values = []
    for one, found in zip(both, crossfitted(both, folds=folds, seed=seed), strict=True):
        pointwise, y, fold = np.zeros(len(one.h)), labels_of(one, rng), folds_of(one, folds, seed)
        for i, family in enumerate(found.chosen):
            test = fold == i
            if family != "prior":  # log-odds that are the same everywhere tell nothing
                z = found.log_q[test]
                pointwise[test] = ross(z[:, 1:] - z[:, :1], y[test], k)
        values.append((*one.summed(pointwise), pointwise))
    (value, se, pointwise), (nothing, _, _) = values
    method = f"Ross, k = {k}, on the probe's log-odds"
    return Information(value, se, sample.texts, nothing, small(sample), pointwise, method)
