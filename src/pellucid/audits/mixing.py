"""The audit "mixing": how much of a hidden token's sensitivity is left to its own input token, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from pellucid.audits.audit import Audit, Tick, generator_of, register
from pellucid.audits.layers import Rule, by_layer, graded, place
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods.hta import JacobianNorms, check_probes, jacobian_norms
from pellucid.stats import Statistic, over_texts
from pellucid.types import Batch

REACH = 2
"""Tokens on each side that count as local."""


@dataclass(frozen=True)
class Quantity:
    """What is told of each layer: a column of `Shares` and its control, and the rules of its grades."""

    name: str
    unit: str
    grades: tuple[Rule, ...]
    control: str
    reading: str
    statistic: Statistic = np.mean
    share: bool = False


QUANTITIES = (
    Quantity(
        "own_share", "share of sensitivity, median",
        (Rule("OWN TOKEN DOMINATES", least=0.5), Rule("MIXED", above_control=True), Rule("OWN TOKEN LOST")),
        "the share of a random other token of the text",
        "In {where} a hidden token's own input has {value:.1%} of its sensitivity (median); a random other token "
        "{null:.1%}.",
        np.median,
    ),
    Quantity(
        "not_own_main", "share of hidden tokens",
        (Rule("OWN TOKEN LEADS", most=0.1), Rule("OWN TOKEN LOST", least=0.5), Rule("MIXED")),
        "the main contributor drawn at random from the text",
        "In {where} {value:.1%} of the hidden tokens answer more to another token than to their own; at random it "
        "would be {null:.1%}.",
        share=True,
    ),
    Quantity(
        "local_mass", "share of sensitivity, mean",
        (Rule("LOCAL", least=0.5, above_control=True), Rule("PARTLY LOCAL", above_control=True),
         Rule("REST SPREAD EVENLY")),
        "the own share as measured, the rest spread evenly over the text's other tokens",
        "In {where} {value:.1%} of a hidden token's sensitivity is to tokens at most two places away, its own "
        "included; spread evenly over the others it would be {null:.1%}.",
    ),
)  # fmt: skip
"""Of the grades of a quantity the first that fits is given."""


@dataclass(frozen=True, eq=False)
class Shares:
    """One layer of one text: for each hidden token in `rows` [r] the quantities and their controls, by name.

    main [r]: the largest contributor; main_share its share. close [r]: where another token's norm is within two
    standard errors of the own one, so that the estimate cannot tell which is the larger. error: relative, the median.
    """

    rows: Int[np.ndarray, " r"]
    value: dict[str, Float[np.ndarray, " r"]]
    null: dict[str, Float[np.ndarray, " r"]]
    main: Int[np.ndarray, " r"]
    main_share: Float[np.ndarray, " r"]
    close: Int[np.ndarray, ""]
    error: float


def shares_of(norms: Float[np.ndarray, "r n"], error: Float[np.ndarray, "r n"], rows: Int[np.ndarray, " r"]) -> Shares:
    """The quantities of one layer, from norms of derivatives of hidden tokens `rows` by all n > 1 inputs.

    Rows without any sensitivity are not numbers. Local mass is not a number where no token is more than `REACH` away.
    """
    n, r = norms.shape[1], np.arange(len(rows))
    with np.errstate(invalid="ignore"):
        c = norms / norms.sum(1, keepdims=True)
    own, others = c[r, rows], c.copy()
    others[r, rows] = -np.inf
    near = np.abs(np.arange(n) - rows[:, None]) <= REACH
    count = near.sum(1)
    far = np.where(count < n, 1.0, np.nan)
    known = np.where(np.isnan(own), np.nan, 1.0)
    second = others.argmax(1)
    lead = others[r, second]
    blur = np.hypot(error[r, rows], error[r, second])
    some = norms > 0
    return Shares(
        rows,
        {"own_share": own, "not_own_main": (lead > own) * known, "local_mass": (c * near).sum(1) * far},
        {
            "own_share": (1 - own) / (n - 1),
            "not_own_main": (1 - 1 / n) * known,
            "local_mass": (own + (1 - own) * (count - 1) / (n - 1)) * far,
        },
        np.where(lead > own, second, rows),
        np.maximum(own, lead),
        np.asarray((np.abs(norms[r, rows] - norms[r, second]) < 2 * blur).sum()),
        float(np.median(error[some] / norms[some])) if some.any() else 0.0,
    )


@dataclass(frozen=True)
class Mixing(Audit):
    """How much of a hidden token's sensitivity is left to its own input token, layer by layer?

    The sensitivity of hidden token j to input token i is the Frobenius norm of the derivative of the block's output by
    the first block's input; shares are of the sum over i. Layers are counted from 1, the first block's output.
    probes: random directions per hidden token; None is exact, at width / probes times the cost.
    texts: at most so many, a sample; None takes all. tokens: at most so many hidden tokens per text, a sample; None
      takes all. Texts of one token are left out.

    In the model's own precision; the estimate's error, which the limits tell, is larger by far.
    Cost: per text and layer l, tokens * probes backward passes through l blocks.
    Source: Brunner et al. 2020, arXiv 1908.04211; the estimate and the controls are ours.
    """

    probes: int | None = 16
    texts: int | None = 25
    tokens: int | None = 64

    source: ClassVar[str] = "Brunner et al. 2020, arXiv 1908.04211"
    caution: ClassVar[str] = (
        "A sensitivity of states, not a contribution to the decision: norms of derivatives have no sign and no "
        "class. With random weights all shares are nearly alike, so read them beside the control."
    )

    def __post_init__(self) -> None:
        check_probes("Mixing", self.probes)
        for field in ("texts", "tokens"):
            given = getattr(self, field)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
                raise InputError(f"Mixing needs {field} to be None (all) or a whole number from 1; seen {given!r}.")

    @property
    def name(self) -> str:
        return "mixing"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        lengths = batch.keep.sum(-1).tolist()
        able = [i for i, n in enumerate(lengths) if n > 1]
        used = _sample(len(able), self.texts, [self.seed])
        used = [able[i] for i in used]
        layers = len(model.require_net().layers)
        found: list[list[Shares]] = [[] for _ in range(layers)]
        for done, i in enumerate(used):
            text = batch.rows([i])
            rows = _sample(lengths[i], self.tokens, [self.seed, i])
            # texts get unlike probes, so that errors of the estimate average out over texts
            seed = int(generator_of(self.seed, text).integers(2**31))
            for layer in range(layers):
                made = jacobian_norms(model, text, (layer,), self.probes, seed, rows=rows)
                found[layer].append(_one(made))
                tick(done * layers + layer + 1, len(used) * layers)
        if not used:
            tick(1, 1)
        limits = self._limits(found, len(batch), len(able), [lengths[i] for i in used])
        out = [
            _finding(q, layer, shares, limits, len(batch) - len(able))
            for q in QUANTITIES
            for layer, shares in enumerate(found)
        ]
        table = [row for layer, shares in enumerate(found) for i, s in zip(used, shares, strict=True)
                 for row in _rows(s, layer, i, batch)]  # fmt: skip
        return Findings(out, self.name, {"tokens": table}, _pictures(out) if used else {})

    def _limits(self, found: Sequence[Sequence[Shares]], given: int, able: int, lengths: Sequence[int]) -> list[str]:
        said = [
            "A sensitivity at these inputs; norms do not add up, so that a share is no part of the hidden token.",
            "Special tokens count like others.",
        ]
        if len(lengths) < able:
            said.append(f"{len(lengths)} of {able} texts were sampled; texts=None takes all.")
        if able < given:
            said.append(f"Texts of one token are left out: {given - able}.")
        cut = sum(self.tokens is not None and n > self.tokens for n in lengths)
        if cut:
            said.append(f"In {cut} texts {self.tokens} hidden tokens were sampled; tokens=None takes all.")
        if self.probes is not None and lengths:
            error = np.median([s.error for shares in found for s in shares])
            said.append(
                f"Norms are estimated from {self.probes} probes, each to within {error:.1%} (standard error, median); "
                "which of two is larger may be open (counts); probes=None is exact."
            )
        return said


def _sample(count: int, most: int | None, seed: list[int]) -> list[int]:
    """All of 0 to count - 1, or `most` of them drawn from `seed`, in order."""
    if most is None or count <= most:
        return list(range(count))
    drawn: list[int] = np.sort(np.random.default_rng(seed).choice(count, most, replace=False)).tolist()
    return drawn


def _one(made: JacobianNorms) -> Shares:
    norms, error = (v[0].double().cpu().numpy() for v in (made.norms, made.error))
    return shares_of(norms, error, np.array(made.rows))


def _finding(q: Quantity, layer: int, shares: Sequence[Shares], limits: Sequence[str], left: int) -> Finding:
    found, null = (
        over_texts([v[q.name].tolist() for v in values], q.statistic, q.share)
        for values in ([s.value for s in shares], [s.null for s in shares])
    )
    reading = (
        "No text has two tokens that are far enough apart." if q.name == "local_mass" else "No text has two tokens."
    )
    if found.value is not None and null.value is not None:
        reading = q.reading.format(where=place(layer), value=found.value, null=null.value)
    counts = {"tokens": found.samples, "texts left out": left}
    if q.name == "not_own_main":
        counts["tokens too close to call"] = sum(int(s.close) for s in shares)
    return Finding(
        "mixing", q.name, found.value, found.interval, null.value, found.n, graded(q.grades, found, null), reading,
        tuple(limits), q.unit, place(layer), q.control, null.interval, counts,
    )  # fmt: skip


def _rows(s: Shares, layer: int, text: int, batch: Batch) -> list[dict[str, Any]]:
    """One row per hidden token; texts and positions as given, from 0, layers from 1."""
    names = [str(j) for j in range(int(batch.keep[text].sum()))]
    if batch.tokens is not None:
        names = [t.text for t in batch.tokens[text]]
    return [
        {"text": text, "layer": layer + 1, "position": int(j), "token": names[j], "n": len(names),
         "own_share": float(s.value["own_share"][k]), "largest": int(s.main[k]), "largest_token": names[s.main[k]],
         "largest_share": float(s.main_share[k]), "local_mass": float(s.value["local_mass"][k])}
        for k, j in enumerate(s.rows)
    ]  # fmt: skip


def _pictures(found: Sequence[Finding]) -> dict[str, Picture]:
    labels = {
        "own_share": "own token's share",
        "not_own_main": "own token not the main one",
        "local_mass": "share within two places",
    }
    return {"layers": Picture(by_layer, found, labels, "share", "How hidden tokens mix their inputs")}


register(Mixing())
