"""Worked examples of the generated pages: Python sessions that are run, and compared but for the last digits.

Each example is a list of statements. A page shows them as an interactive session with what they print.
"""

import contextlib
import doctest
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pellucid.audits.audit import Audit
from pellucid.methods.method import Method
from pellucid.settings import defaults_of

SENTENCE = "The ending is not funny."
OPEN = ["import pellucid", "model = pellucid.load(pellucid.DEMO)"]
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FENCE = re.compile(r"^```pycon\n(.*?)^```$", re.M | re.S)

FAST: dict[str, str] = {
    "erasure": "draws=5, permutations=20, adversaries=0, greedy=False",
    "information": 'leave_one_out=5, families=("linear",), folds=2',
    "token_identity": 'folds=3, distances=("cosine",)',
    "mixing": "texts=10, probes=4",
}
"""Settings with which an audit's example takes a second."""
AFTER: dict[str, list[str]] = {
    "identifiability": [
        "# longer than the 32 numbers of a head's values",
        'long = pellucid.audit(model, " ".join(texts[:5]), "identifiability", rows=1, starts=1)',
        "print(long[0].reading)",
    ],
}
"""What an example goes on with."""
VARIED = (
    ("seed", "seed=1", "another seed"),
    ("operator", 'operator="delete"', "tokens deleted instead"),
    ("operator", 'operator="mask"', "tokens masked instead"),
    ("bias", 'bias="absdot"', "the paper's rule for biases"),
    ("baseline", 'baseline="mask"', "from [MASK] instead"),
    ("baseline", 'baseline="zero"', "from zero vectors instead"),
    ("reduce", 'reduce="norm"', "by norms"),
    ("reduce", 'reduce="signed"', "with signs"),
    ("ffn", "ffn=True", "with the feed-forwards"),
    ("ffn", "ffn=False", "without the feed-forwards"),
    ("rollout", "rollout=False", "the last block alone"),
    ("residual", "residual=0.9", "a larger share of the residual"),
    ("layer", "layer=0", "the first layer"),
)
"""What an example sets beside a method: the first of these that the method has and that differs from what it is."""


@dataclass(frozen=True)
class Session:
    """An example as Markdown."""

    text: str


def of_method(method: Method) -> list[str]:
    """Explain one sentence with the method, and with one of its parameters changed."""
    name, has = method.name, defaults_of(method)
    varied = next((v for v in VARIED if v[0] in has and v[1] != f"{v[0]}={_typed(has[v[0]])}"), None)
    get = f'method = pellucid.METHODS.get("{name}")'
    if "probe" in has:
        return [
            *OPEN,
            'texts = (pellucid.DEMO / "sentences.txt").read_text().splitlines()',
            "probe = pellucid.audits.information.fit_probe(model, texts, families=(\"linear\",))",
            "method = pellucid.methods.PointwiseInformation(probe)",
            f'a = pellucid.explain(model, "{SENTENCE}", method)',
            "for token, score in zip(a.tokens, a.scores):\n    print(f\"{token.text:>8} {score:+9.3f}\")",
        ]  # fmt: skip
    explain = f'a = pellucid.explain(model, "{SENTENCE}", method)'
    if varied is None:
        show = 'for token, score in zip(a.tokens, a.scores):\n    print(f"{token.text:>8} {score:+9.3f}")'
        return [*OPEN, get, explain, show, *_sum(method)]
    return [
        *OPEN,
        "from dataclasses import replace",
        get,
        explain,
        f'b = pellucid.explain(model, "{SENTENCE}", replace(method, {varied[1]}))  # {varied[2]}',
        "for token, one, other in zip(a.tokens, a.scores, b.scores):\n"
        '    print(f"{token.text:>8} {one:+9.3f} {other:+9.3f}")',
        *_sum(method),
    ]


def _typed(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _sum(method: Method) -> list[str]:
    """How the scores and the logit compare, for methods in the logit's unit."""
    if method.unit != "logit":
        return []
    return ['print(f"{a.label}: logit {a.explained:.3f}, unallocated {a.unallocated:.3f}, missing {abs(a.gap):.3f}")']


def of_audit(audit: Audit) -> list[str]:
    """Ask twenty sentences, and print the grades and readings."""
    fast = f", {FAST[audit.name]}" if audit.name in FAST else ""
    labels = ", labels=labels" if getattr(audit, "labels", False) or audit.name in LABELLED else ""
    texts = ['texts = (pellucid.DEMO / "sentences.txt").read_text().splitlines()']
    texts += [GOLD] if labels else []
    return [
        *OPEN,
        *texts,
        f'found = pellucid.audit(model, texts, "{audit.name}"{labels}{fast})',
        'for one in found[:8]:\n    print(f"{one.grade}: {one.reading}")',
        "print(len(found), found[0].limits[-1:])",
        *AFTER.get(audit.name, []),
    ]


LABELLED = ("calibration", "reliability", "mistakes", "errors")
GOLD = 'labels = (pellucid.DEMO / "labels.txt").read_text().splitlines()'


def played(statements: Sequence[str], space: dict[str, object] | None = None) -> Session:
    """Run the statements in one namespace and show them with what they print."""
    space = {} if space is None else space
    lines: list[str] = []
    for statement in statements:
        lines += _asked(statement)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(statement + "\n", "<example>", "exec"), space)
        lines += out.getvalue().rstrip("\n").split("\n") if out.getvalue() else []
    return Session("```pycon\n" + "\n".join(lines) + "\n```\n")


def silent(statements: Sequence[str]) -> Session:
    """The statements alone."""
    return Session("```pycon\n" + "\n".join(line for s in statements for line in _asked(s)) + "\n```\n")


def _asked(statement: str) -> Iterator[str]:
    first, *rest = statement.split("\n")
    yield f">>> {first}"
    yield from (f"... {line}" for line in rest)


def questions(page: str) -> str:
    """A page without what its sessions print."""

    def asked(found: re.Match[str]) -> str:
        kept = [line for line in found[1].splitlines() if line.startswith((">>>", "..."))]
        return "```pycon\n" + "\n".join(kept) + "\n```"

    return FENCE.sub(asked, page)


def nearly(one: str, other: str) -> bool:
    """Whether two texts are the same but for white space and two units in the last digit of their decimals."""
    a, b = (" ".join(t.split()) for t in (one, other))
    if NUMBER.sub("0", a) != NUMBER.sub("0", b):
        return False
    return all(_close(x, y) for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True))


def _close(x: str, y: str) -> bool:
    """Whole numbers must agree; decimals within two units of the last digit shown, powers of ten within a factor."""
    if "e" in x or "e" in y:
        return abs(float(x)) < 1e-3 and abs(float(y)) < 1e-3
    digits = len(x.partition(".")[2])
    return x == y if not digits else abs(float(x) - float(y)) < 2.5 * 10**-digits


class Checker(doctest.OutputChecker):
    """Doctest's comparison, or `nearly`: other machines round the last digit otherwise."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or nearly(want, got)
