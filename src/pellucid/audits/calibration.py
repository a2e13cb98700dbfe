"""The audit "calibration": may the probabilities be believed, and how do errors differ from correct predictions?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int

from pellucid.audits import reliability as rely
from pellucid.audits.audit import Audit, Tick, register
from pellucid.audits.contributions import by_length, contributions, method_for, told_of
from pellucid.audits.layers import Rule, graded
from pellucid.audits.mistakes import NONE, OF_EVIDENCE, PLAIN, against, compared, differences, toward, words_for_half
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError, Unanswerable
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods import METHODS
from pellucid.metrics import gold_of
from pellucid.stats import Estimate, over_texts
from pellucid.types import Batch

SURE = 0.9
"""Predictions with a larger probability are called confident."""
SIGN = (Rule("OVERCONFIDENT", above_control=True), Rule("UNDERCONFIDENT", most=-1e-12), Rule("NO BIAS SHOWN"))
ERROR = (Rule("MISCALIBRATED", above_control=True), Rule("WITHIN CHANCE"))
BETTER = (Rule("BETTER THAN CLASS FREQUENCIES", above_control=True), Rule("NO BETTER SHOWN"))
SIMULATED = "a perfectly calibrated model with these probabilities, on as many texts (simulated)"


@dataclass(frozen=True)
class Quantity:
    """One finding: name, unit, grades (the first that fits), control, and what it means in one sentence."""

    name: str
    unit: str
    grades: tuple[Rule, ...]
    control: str
    reading: str


QUANTITIES = {
    q.name: q
    for q in (
        Quantity(
            "accuracy", "share of texts",
            (Rule("BETTER THAN THE LARGEST CLASS", above_control=True), Rule("NO BETTER SHOWN")),
            "the share of the largest class",
            "{value:.1%} of the predictions are right; always saying the largest class would be right in {null:.1%}.",
        ),
        Quantity(
            "mean_confidence", "probability", SIGN, "accuracy",
            "Predictions are given a probability of {value:.3f} on average, and {null:.3f} of them are right.",
        ),
        Quantity(
            "calibration_error", "probability", ERROR, SIMULATED,
            "Probability and accuracy are {value:.3f} apart, on average over bins; perfect calibration would show "
            "{null:.3f} by chance.",
        ),
        Quantity(
            "confident_errors", "share of confident predictions",
            (Rule("MORE THAN PROMISED", above_control=True), Rule("AS PROMISED, OR FEWER")),
            "what their probabilities promise (interval: simulated)",
            "Of the predictions with a probability over .9, {value:.1%} are wrong; their probabilities promise "
            "{null:.1%}.",
        ),
        Quantity(
            "log_loss", "nats", BETTER, "the frequencies of the classes in these texts",
            "The true class costs {value:.3f} nats on average; with the classes' frequencies instead {null:.3f}.",
        ),
        Quantity(
            "brier_score", "squared distance", BETTER, "the frequencies of the classes in these texts",
            "Probabilities lie {value:.3f} from the truth (squared, summed over classes); the classes' frequencies "
            "{null:.3f}.",
        ),
        Quantity(
            "temperature", "factor", SIGN, "1: the probabilities as they are",
            "Logits divided by {value:.2f} would make the truth likeliest; above 1 the model is too sure.",
        ),
        Quantity(
            "calibration_error_scaled", "probability", ERROR, SIMULATED,
            "With the temperature of other texts, probability and accuracy are {value:.3f} apart; perfect calibration "
            "would show {null:.3f} by chance.",
        ),
        Quantity(
            "log_loss_scaled", "nats",
            (Rule("LESS THAN BEFORE", above_control=True), Rule("MORE THAN BEFORE", most=-1e-12),
             Rule("NO GAIN SHOWN")),
            "without the temperature",
            "With the temperature of other texts the true class costs {value:.3f} nats on average, without {null:.3f}.",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predicted:
    """n texts: logits of at least two classes, true and predicted classes, and confidences before and after scaling."""

    z: Float[np.ndarray, "n c"]
    y: Int[np.ndarray, "n"]
    best: Int[np.ndarray, "n"]
    correct: np.ndarray
    confidence: Float[np.ndarray, "n"]
    bins: Int[np.ndarray, "n"]
    fitted: Float[np.ndarray, "n"]
    scaled: Float[np.ndarray, "n"]
    scaled_bins: Int[np.ndarray, "n"]

    @classmethod
    def of(cls, z: np.ndarray, y: np.ndarray, bins: int, folds: int, seed: int) -> "Predicted":
        """From the model's logits [n, c or 1] and true classes [n]."""
        z = rely.pairs(z)
        best, fitted = z.argmax(1), rely.crossfitted(z, y, folds, seed)
        before, after = (np.exp(rely.log_probabilities(z, t)).max(1) for t in (1.0, fitted))
        return cls(z, y, best, best == y, before, rely.bins_of(before, bins), fitted, after, rely.bins_of(after, bins))


@dataclass(frozen=True)
class Calibration(Audit):
    """May the probabilities be believed, and how do errors differ from correct predictions?

    Needs the true classes. The calibration error is over bins of about equally many texts. The temperature is the one
    number that logits are divided by to make the true classes likeliest; each text is scaled by that of the other
    folds, so that none judges itself. Errors are compared with correct predictions by probability, length, the share of
    evidence against the prediction and the words that carry half of it; evidence is what words contribute, by `method`.

    bins: at most so many, and at least 10 texts in each. folds: of texts. method: a registered method whose scores add
      up over the tokens of a word; on a model that does not give the access it needs, that part is left out.

    Unit: see each finding. Cost: a forward pass per text, and the method for all classes.
    Source: Guo et al. 2017, arXiv 1706.04599 (error, temperature); Brier 1950.
    Differs from the source: bins of equal numbers of texts instead of fifteen of equal width; the temperature is
    cross-fitted; the error's control is what perfect calibration would show on as many texts, which is not 0.
    """

    bins: int = 10
    folds: int = 5
    method: str = "decompx"

    source: ClassVar[str] = "Guo et al. 2017, arXiv 1706.04599; Brier 1950"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "Calibration holds for texts like these and wrong labels count as the model's errors: on other texts a "
        "temperature fitted here may do harm. Nor does a small error over bins say that each probability is right."
    )

    def __post_init__(self) -> None:
        METHODS.get(self.method)
        if self.bins < 1 or self.folds < 2:
            raise InputError(
                f"Calibration needs bins of at least 1 and folds of at least 2; seen bins={self.bins}, "
                f"folds={self.folds}."
            )

    @property
    def name(self) -> str:
        return "calibration"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        y = gold(model, batch)
        able = model.access >= METHODS.get(self.method).needs
        method = method_for(self.method, "words", model, "The audit 'calibration'") if able else None
        n, steps = len(batch), 2 if able else 1
        z = _logits(model, batch, lambda done, total: tick(done, steps * total))
        seen, passes = Predicted.of(z, y, self.bins, self.folds, self.seed), float(n)
        columns: dict[str, np.ndarray] = {"probability": seen.confidence, "tokens": _lengths(batch)}
        limits = _limits(self, seen)
        evidence: tuple[str, ...] = ()
        if method is None:
            left = f"What errors rest on is left out: {self.method!r} needs more access than {model.access.name}."
            limits = (*limits, left)
        else:
            texts = contributions(model, batch, method, "words", lambda done, total: tick(n + done, steps * total))
            mine = [toward(text, int(k)) for text, k in zip(texts, seen.best, strict=True)]
            columns["against"] = np.array([against(scores) for scores in mine])
            columns["half"] = np.array([words_for_half(scores) for scores in mine])
            evidence = tuple(told_of(texts, batch, method, model, "words"))
            passes += sum(text.passes for text in texts)
        found = self._findings(seen, limits)
        said = ("Several comparisons, at 5 % each: one may differ by chance.",)
        mistakes = [
            compared(q, columns[q.column], seen.correct, said + (evidence if q in OF_EVIDENCE else ()), self.seed)
            for q in (*PLAIN, *OF_EVIDENCE)
            if q.column in columns
        ]
        bins = [*_bins(seen.confidence, seen.correct, seen.bins, False), *_bins(seen.scaled, seen.correct,
                seen.scaled_bins, True)]  # fmt: skip
        tables = {"predictions": _predictions(model, z, seen, columns), "bins": bins}
        drawn = Picture(differences, columns, seen.correct, self.seed)
        pictures = {"reliability": Picture(_reliability, bins)} | ({} if seen.correct.all() else {"errors": drawn})
        return Findings([*found, *mistakes], self.name, tables, pictures, origin={"forwards": passes})

    def _findings(self, s: Predicted, limits: tuple[str, ...]) -> list[Finding]:
        """One finding per quantity: value, control, and what its grade is about where that is not these two."""
        seed, n = self.seed, len(s.y)
        share = np.bincount(s.y, minlength=s.z.shape[1]) / n
        largest = (s.y == share.argmax()).astype(float)
        right = _mean(s.correct, seed, share=True)
        loss, frequent = rely.losses(s.z, s.y), -np.log(share[s.y])
        scaled_loss = rely.losses(s.z, s.y, s.fitted)
        far, even = rely.brier(np.exp(rely.log_probabilities(s.z)), s.y), rely.brier(np.tile(share, (n, 1)), s.y)
        error, scaled = (
            (rely.error_over_texts(c, s.correct, b, seed), rely.error_if_calibrated(c, b, seed))
            for c, b in ((s.confidence, s.bins), (s.scaled, s.scaled_bins))
        )
        t = rely.temperature_over_texts(s.z, s.y, seed)
        sure = s.confidence > SURE
        wrong = over_texts((~s.correct[sure]).astype(float)[:, None].tolist(), share=True, seed=seed)
        promised = rely.rate_if_calibrated(s.confidence[sure], seed)
        lifted = Estimate(None if t.value is None else t.value - 1, _moved(t.interval, -1.0), n)
        rows: list[tuple[str, Estimate, Estimate, Estimate, Estimate]] = [
            ("accuracy", right, _mean(largest, seed, share=True), _mean(s.correct - largest, seed), NONE),
            ("mean_confidence", _mean(s.confidence, seed), right, _bias(s, right, seed), NONE),
            ("calibration_error", *error, _point(error[0]), error[1]),
            ("confident_errors", wrong, promised, _point(wrong), promised),
            ("log_loss", _mean(loss, seed), _mean(frequent, seed), _mean(frequent - loss, seed), NONE),
            ("brier_score", _mean(far, seed), _mean(even, seed), _mean(even - far, seed), NONE),
            ("temperature", t, Estimate(1.0, None, n), lifted, NONE),
            ("calibration_error_scaled", *scaled, _point(scaled[0]), scaled[1]),
            ("log_loss_scaled", _mean(scaled_loss, seed), _mean(loss, seed), _mean(loss - scaled_loss, seed), NONE),
        ]
        counts = {"errors": int((~s.correct).sum()), "bins": int(s.bins.max()) + 1}
        return [_finding(QUANTITIES[row[0]], *row[1:], limits, counts) for row in rows]


def _finding(
    q: Quantity, found: Estimate, null: Estimate, graded_by: Estimate, beside: Estimate, limits: tuple[str, ...],
    counts: dict[str, int],
) -> Finding:  # fmt: skip
    reading = "Not measured: " + ("no temperature is the best." if q.name == "temperature" else "no confident texts.")
    if found.value is not None and null.value is not None:
        reading = q.reading.format(value=found.value, null=null.value)
    return Finding(
        "calibration", q.name, found.value, found.interval, null.value, found.n, graded(q.grades, graded_by, beside),
        reading, limits, q.unit, "", q.control, null.interval, counts,
    )  # fmt: skip


def _mean(values: np.ndarray, seed: int, share: bool = False) -> Estimate:
    return over_texts(values.astype(float)[:, None].tolist(), share=share, seed=seed)


def _bias(s: Predicted, right: Estimate, seed: int) -> Estimate:
    """Mean confidence minus accuracy; where all or no predictions are right, resampling would see no chance in that, so
    that the interval is that of the accuracy."""
    found = _mean(s.confidence - s.correct, seed)
    if right.interval is None or 0 < s.correct.mean() < 1:
        return found
    mean = float(s.confidence.mean())
    return Estimate(found.value, (mean - right.interval[1], mean - right.interval[0]), found.n)


def _moved(interval: tuple[float, float] | None, by: float) -> tuple[float, float] | None:
    return None if interval is None else (interval[0] + by, interval[1] + by)


def _point(found: Estimate) -> Estimate:
    """The value alone: the control's interval is where it falls by chance at this n, so noise must not count twice."""
    return Estimate(found.value, None, found.n)


def gold(model: Model, batch: Batch) -> np.ndarray:
    """The true classes [n], 0 or 1 for a sigmoid head.

    Raises: Unanswerable without labels, for a regression and for several labels at once; InputError, with the text's
    number, for a label that is no class.
    """
    if model.problem == "regression":
        raise Unanswerable(f"{model.id!r} is a regression: it gives no probabilities that could be believed or not.")
    if model.problem == "multi_label" and len(model.labels) > 1:
        raise Unanswerable(
            f"{model.id!r} gives a probability for each of {len(model.labels)} labels at once; calibration is measured "
            "for one class per text."
        )
    if batch.labels is None:
        raise Unanswerable(
            "Whether probabilities may be believed needs the true classes: pass labels=[...], one for each text, a "
            "Batch that holds labels, or --label-column."
        )
    found = []
    for i, label in enumerate(batch.labels):
        try:
            found.append(gold_of(model, batch.rows([i])))
        except InputError as e:
            raise InputError(f"Text {i + 1} has the label {label!r}: {e}") from e
    return np.array(found)


def _logits(model: Model, batch: Batch, tick: Tick) -> np.ndarray:
    """The model's logits [n, c], float64."""
    out = np.empty((len(batch), len(model.labels)))
    done = 0
    for rows in by_length(batch):
        with torch.no_grad():
            out[rows] = model.logits(batch.rows(rows)).double().cpu().numpy()
        done += len(rows)
        tick(done, len(batch))
    return out


def _lengths(batch: Batch) -> np.ndarray:
    """Ordinary tokens of each text."""
    assert batch.tokens is not None
    return np.array([float(sum(not t.special for t in row)) for row in batch.tokens])


def _limits(audit: Calibration, s: Predicted) -> tuple[str, ...]:
    said = ["These texts and labels alone; a wrong label counts as an error of the model."]
    count = int(s.bins.max()) + 1
    if count < audit.bins:
        said.append(f"{count} of {audit.bins} bins, so that about ten texts are in each.")
    if not rely.bounded(s.z, s.y):
        said.append("No temperature is the best: all predictions are right, or chance would do better.")
    return tuple(said)


def _predictions(model: Model, z: np.ndarray, s: Predicted, columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per text, in order; texts from 0. logits are the model's own."""
    names: Sequence[Any] = model.labels if len(model.labels) > 1 else (0, 1)
    return [
        {"text": i, "prediction": names[s.best[i]], "probability": float(s.confidence[i]),
         "probability_scaled": float(s.scaled[i]), "temperature": float(s.fitted[i]), "gold": names[s.y[i]],
         "correct": bool(s.correct[i]), "logits": z[i].tolist(),
         **{key: float(column[i]) for key, column in columns.items() if key != "probability"}}
        for i in range(len(z))
    ]  # fmt: skip


def _bins(confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray, scaled: bool) -> list[dict[str, Any]]:
    """Of each bin the mean confidence and the accuracy with its exact binomial interval."""
    from scipy.stats import binomtest

    rows = []
    for b in np.unique(bins):
        mine = bins == b
        hits, n = int(correct[mine].sum()), int(mine.sum())
        ends = binomtest(hits, n).proportion_ci(method="exact")
        rows.append(
            {"scaled": scaled, "bin": int(b), "n": n, "least": float(confidence[mine].min()),
             "most": float(confidence[mine].max()), "confidence": float(confidence[mine].mean()),
             "accuracy": hits / n, "low": float(ends.low), "high": float(ends.high)}
        )  # fmt: skip
    return rows


def _reliability(bins: Sequence[dict[str, Any]]) -> Any:
    from pellucid.render.charts import Curve, curves

    series: dict[str, Curve] = {}
    for name, scaled in (("as it is", False), ("with the temperature of other texts", True)):
        mine = [row for row in bins if row["scaled"] is scaled]
        x, y, low, high = ([row[key] for row in mine] for key in ("confidence", "accuracy", "low", "high"))
        series[name] = (x, y, low, high)
    least = min(row["confidence"] for row in bins)
    perfect: dict[str, Curve] = {"perfect calibration": ([least, 1.0], [least, 1.0], None, None)}
    return curves(series, "probability of the prediction, mean of a bin", "share that is right (95 %)",
                  "May the probabilities be believed?", perfect)  # fmt: skip


register(Calibration())
