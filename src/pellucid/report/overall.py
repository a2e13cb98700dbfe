"""What holds over all texts: words, calibration, the comparison of methods; and every audit's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.finding import Finding, Findings, number, with_interval
from pellucid.render.marks import escaped
from pellucid.report.bars import bar, boxed, control_text, ends_of, plain_name, shortened, span_of, table, value_cell
from pellucid.report.terms import AUDITS, METHODS
from pellucid.verdict.verdict import Verdict

TOP = 10  # words of a class, and at most as many further ones that stand out
IN_ERRORS = "_in_errors"
BEYOND = 0.05
"""A word stands out where q, its chance under random words after correction for testing many words, is below."""


def words(v: Verdict, level: int) -> str:
    """The words that push each class most, from the table "words" of the findings "words"."""
    found = v.findings.get("words")
    rows = list(found.tables.get("words", ())) if found is not None else []
    if not rows:
        return ""
    out = [f"<h{level}>Words over all texts</h{level}><p>{escaped(AUDITS['words'])}</p>"]
    for label in dict.fromkeys(str(r.get("class")) for r in rows):
        own = [r for r in rows if str(r.get("class")) == label and _pushes(r)]
        own.sort(key=lambda r: -_least(r))
        further = [r for r in own[TOP:] if _stands_out(r)][:TOP]
        if own:
            out.append(_word_table(label, [*own[:TOP], *further], len(own)))
    if found:
        said = "".join(f"<li>{escaped(f.reading)}</li>" for f in found)
        out.append(
            f'<ul>{said}</ul><p class="dim">q: how often chance would give as much, corrected for testing many words; '
            f"below {BEYOND} the word stands out.</p>"
        )
    return "".join(out)


def _word_table(label: str, rows: Sequence[Mapping[str, Any]], of: int) -> str:
    ends = [
        x for r in rows for x in ends_of(_float(r, "mean"), _ends(r)) + ends_of(_float(r, "null"), _ends(r, "null_"))
    ]
    span = (min([0.0, *ends]), max([0.0, *ends]) or 1.0)
    body = []
    for r in rows:
        mean, null, q, found = _float(r, "mean"), _float(r, "null"), _float(r, "q"), _stands_out(r)
        drawn = bar(mean, _ends(r), null, _ends(r, "null_"), span)
        body.append(
            f"<tr{' class=chosen' if found else ''}><th scope=row><bdi>{escaped(shortened(str(r.get('word'))))}</bdi>"
            f'</th><td><span class="nowrap">{escaped(with_interval(mean, _ends(r)))}</span> {drawn}</td>'
            f"<td>{escaped(with_interval(null, None))}</td><td>{escaped(str(r.get('n', '-')))}</td>"
            f"<td>{'-' if q is None else number(q)}{', stands out' if found else ''}</td></tr>"
        )
    which = f"Words that push {label}: {len(rows)} of {of}, by the lower end of their interval"
    columns = ("word", "mean contribution (95 % interval)", "a random word", "texts", "q")
    return boxed(which, columns, "".join(body), "found word")


def _pushes(row: Mapping[str, Any]) -> bool:
    """Whether the word speaks for the class, more than a random word does."""
    mean, null = _float(row, "mean"), _float(row, "null")
    return mean is not None and mean > max(0.0, null or 0.0)


def _least(row: Mapping[str, Any]) -> float:
    """The end of the interval that is nearer to zero, by which words are ordered: a few texts are no lead."""
    return (_ends(row) or (_float(row, "mean") or 0.0, 0.0))[0]


def _stands_out(row: Mapping[str, Any]) -> bool:
    q = _float(row, "q")
    return q is not None and q < BEYOND


def _float(row: Mapping[str, Any], key: str) -> float | None:
    x = row.get(key)
    return None if x is None else float(x)


def _ends(row: Mapping[str, Any], of: str = "") -> tuple[float, float] | None:
    low, high = _float(row, f"{of}low"), _float(row, f"{of}high")
    return None if low is None or high is None else (low, high)


def calibration(v: Verdict, level: int) -> str:
    """How often the model is right, and whether its confidence says so."""
    found = v.findings.get("calibration")
    if not found:
        return ""
    said = f"<h{level}>Confidence and errors</h{level}><p>{escaped(AUDITS['calibration'])}</p>"
    errors = [f for f in found if f.name.endswith(IN_ERRORS)]
    others = [f for f in found if not f.name.endswith(IN_ERRORS)]
    return (
        said
        + (table(others, "Accuracy and calibration") if others else "")
        + (table(errors, "What is different where the model errs; the control is where it is right") if errors else "")
    )


def comparison(v: Verdict, level: int) -> str:
    """The methods side by side on one axis, the best first, with the control; then the differences."""
    found = v.findings.get("comparison")
    if not found:
        return ""
    of_methods = sorted((f for f in found if f.where), key=lambda f: -(f.value if f.value is not None else -9.0))
    others = [f for f in found if not f.where]
    out = [f"<h{level}>Which method finds what the decision hangs on</h{level}><p>{escaped(AUDITS['comparison'])}</p>"]
    for name in dict.fromkeys(f.name for f in of_methods):
        out.append(_method_table(name, [f for f in of_methods if f.name == name], v.instead))
    return "".join(out) + (table(others, "Differences between methods") if others else "")


def _method_table(name: str, found: Sequence[Finding], best: str) -> str:
    span = span_of(found)
    body = "".join(
        f"<tr{' class=chosen' if f.where == best else ''}><th scope=row>{escaped(f.where)}"
        f"{'<br><b>show this</b>' if f.where == best else ''}<br><small>{escaped(METHODS.get(f.where, ''))}"
        f"</small></th><td>{value_cell(f, span)}</td>"
        f"<td>{escaped(control_text(f))}</td><td>{f.n:,}</td></tr>"
        for f in found
    )
    unit = found[0].unit
    head = f"{name.upper() if name == 'aopc' else plain_name(name)} ↑{f' ({unit})' if unit else ''}"
    return boxed(head, ("method", "value (95 % interval)", "control", "texts"), body, "found methods")


def numbers(name: str, found: Findings) -> str:
    """All findings of one audit behind a summary, with what it asks."""
    asks = f"<p>{escaped(AUDITS[name])}</p>" if name in AUDITS else ""
    inner = table(list(found), plain_name(name)) if found else "<p>There are no findings.</p>"
    several = f"{len(found)} numbers" if len(found) != 1 else "1 number"
    return f"<details><summary><b>{escaped(plain_name(name))}</b> · {several}</summary>{asks}{inner}</details>\n"
