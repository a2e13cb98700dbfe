"""How well classes were told: accuracy and macro-F1, each with its interval and its control; and a simple rival."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.data import INSTALL, Corpus, Split
from pellucid.errors import MissingExtra

DRAWS = 10_000
FEATURES = 100_000


@dataclass(frozen=True)
class Score:
    """One number from 0 to 1 over the n texts of a split, with its 95 % interval.

    null: the same number for always answering with the most frequent class of the training texts.
    """

    split: str
    name: str
    value: float
    interval: tuple[float, float]
    null: float
    n: int

    def __str__(self) -> str:
        low, high = self.interval
        said = f"{self.name.replace('_', '-')} on {self.split} {self.value:.3f} ({low:.3f} to {high:.3f})"
        return f"{said}; {self.null:.3f} for the most frequent class; n = {self.n}"


def scores(split: str, gold: Sequence[int], told: Sequence[int], classes: int, usual: int) -> tuple[Score, Score]:
    """Accuracy and macro-F1 (the mean of all classes' F1; a class neither there nor told counts as 0).

    usual: the most frequent class in training. Intervals: Wilson's for accuracy; for macro-F1 a percentile bootstrap
    over texts, drawn as counts of (gold, told), which is the same. Cost: DRAWS tables of classes x classes.
    """
    from scipy.stats import binomtest

    n, cells = len(gold), classes * np.asarray(gold) + np.asarray(told)
    table = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    always = np.zeros_like(table)
    always[:, usual] = table.sum(1)
    right = int(np.trace(table))
    wilson = binomtest(right, n).proportion_ci(method="wilson")
    rng = np.random.default_rng(0)
    drawn = np.concatenate(  # in parts, as all tables of many classes are large
        [_macro_f1(rng.multinomial(n, table.ravel() / n, DRAWS // 20).reshape(-1, classes, classes)) for _ in range(20)]
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    ends = (float(wilson.low), float(wilson.high))
    return (
        Score(split, "accuracy", right / n, ends, float(np.trace(always)) / n, n),
        Score(split, "macro_f1", float(_macro_f1(table)), (float(low), float(high)), float(_macro_f1(always)), n),
    )


def _macro_f1(tables: np.ndarray) -> np.ndarray:
    """Tables [.., gold, told] of counts -> [..]."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    both = tables.sum(-1) + tables.sum(-2)
    return np.asarray((2 * hits / np.maximum(both, 1)).mean(-1))


def usual_class(corpus: Corpus) -> int:
    """The most frequent class of the training texts."""
    return int(np.bincount(corpus.train.classes).argmax())


def control(corpus: Corpus, seed: int = 0) -> list[Score]:
    """What logistic regression on TF-IDF of words and pairs of words reaches on dev and, if there is one, test.

    The FEATURES most frequent of them, with logarithmic counts; the parts of a pair of texts are joined. A network
    whose attention is studied should do better than this.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as e:
        raise MissingExtra(f"The TF-IDF control needs scikit-learn: {INSTALL}.") from e

    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES, token_pattern=r"(?u)\b\w+\b")
    model = make_pipeline(terms, LogisticRegression(max_iter=1000, random_state=seed))
    model.fit(_joined(corpus.train), corpus.train.classes)
    found: list[Score] = []
    for name, split in corpus.splits.items():
        if name != "train":
            told = model.predict(_joined(split))
            found += scores(name, split.classes, told, len(corpus.labels), usual_class(corpus))
    return found


def _joined(split: Split) -> list[str]:
    return [text if isinstance(text, str) else " ".join(text) for text in split.texts]
