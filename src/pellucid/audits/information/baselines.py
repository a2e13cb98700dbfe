"""Estimators that fail on wide states, kept to show how: never take a finding from these.

With independent states and outputs at 128 dimensions and 1,000 rows, where the truth is 0, binning and kernels give
log 2, the most there can be, and the in-sample neural bound more than that (docs/LOG.md).
"""

import numpy as np
import torch

from pellucid.audits.information.estimate import Information, Sample

FAILS = "A baseline that fails on wide states, for teaching and tests: do not use its number."


def binning_information(h: object, p: object, bins: int = 30) -> Information:
    """Plug-in information of states cut into `bins` per dimension: as soon as every row has a cell of its own, it is
    the output's entropy (Shwartz-Ziv & Tishby 2017, arXiv 1703.00810, is its best known use)."""
    sample = Sample.of(h, p)
    low, high = sample.h.min(0), sample.h.max(0)
    cells = (
        np.floor((sample.h - low) / np.where(high > low, high - low, 1.0) * bins).clip(max=bins - 1).astype(np.int64)
    )
    _, cell = np.unique(cells, axis=0, return_inverse=True)

    def plug_in(p: np.ndarray) -> float:
        table = np.zeros((cell.max() + 1, p.shape[1]))
        np.add.at(table, cell.ravel(), p / len(p))
        rows, columns = table.sum(1, keepdims=True), table.sum(0, keepdims=True)
        on = table > 0
        return float((table[on] * np.log((table / (rows * columns + 1e-300))[on])).sum())

    other = sample.permuted(np.random.default_rng(0))
    return Information(plug_in(sample.p), None, sample.texts, plug_in(other.p), FAILS, None, f"{bins} bins a dimension")


def kernel_information(h: object, p: object, variance: float = 0.1) -> Information:
    """Information of states with Gaussian noise added, by pairwise distances (Kolchinsky & Tracey 2017, arXiv
    1706.02419): the noise's variance is chosen; where it is small against distances, the output's entropy results."""
    sample = Sample.of(h, p)
    squared = (sample.h**2).sum(1)
    kernel = np.exp(-np.maximum(squared[:, None] + squared - 2 * sample.h @ sample.h.T, 0) / (2 * variance))

    def between(p: np.ndarray) -> float:
        whole = -np.log(kernel.mean(1)).mean()
        share = p.mean(0)
        of_class = kernel @ p / p.sum(0)
        return float(whole + (p * np.log(np.maximum(of_class, 1e-300))).sum(0) @ (share / p.sum(0)))

    other = sample.permuted(np.random.default_rng(0))
    name = f"Gaussian kernel, variance {variance}"
    return Information(between(sample.p), None, sample.texts, between(other.p), FAILS, None, name)


def mine_information(h: object, p: object, steps: int = 1000, seed: int = 0) -> Information:
    """The Donsker-Varadhan bound of a network, on the rows that it was trained on (Belghazi et al. 2018, arXiv
    1801.04062): there it is no bound, and grows with the network's memory."""
    sample = Sample.of(h, p)
    other = sample.permuted(np.random.default_rng(seed))
    value, nothing = (_mine(one.h, one.p, steps, seed) for one in (sample, other))
    return Information(value, None, sample.texts, nothing, FAILS, None, f"in-sample neural bound, {steps} steps")


def _mine(h: np.ndarray, p: np.ndarray, steps: int, seed: int) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.from_numpy((h - h.mean(0)) / np.maximum(h.std(0), 1e-12)).float()
        y = torch.from_numpy(p).float()
        critic = torch.nn.Sequential(
            torch.nn.Linear(h.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
            torch.nn.Linear(64, p.shape[1]),
        )  # fmt: skip
        adam = torch.optim.Adam(critic.parameters(), lr=1e-3)
        for _ in range(steps):
            some = torch.randint(len(x), (min(256, len(x)),))
            adam.zero_grad()
            (-dv_bound(critic(x[some]), y[some])).backward()  # type: ignore[no-untyped-call]
            adam.step()
        with torch.no_grad():
            return float(dv_bound(critic(x), y))


def dv_bound(f: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """E f - log E exp f of a critic's values f [n, c], the second mean over states and outputs drawn apart."""
    prior = p.mean(0)
    joint = (p * f).sum(-1).mean()
    return joint - (f + prior.clamp(min=1e-12).log()).logsumexp(-1).logsumexp(0) + float(np.log(len(f)))


def ba_bound(f: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The probe bound that the same critic gives, E f - E log sum_y p(y) exp f: never below the other (Jensen)."""
    prior = p.mean(0)
    return (p * f).sum(-1).mean() - (f + prior.clamp(min=1e-12).log()).logsumexp(-1).mean()
