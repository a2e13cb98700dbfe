"""One or two verdicts as one self-contained HTML page: nothing is loaded, the same input gives the same bytes."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files

from pellucid.render.marks import DARK, LEVELS, LIGHT, colour_of, escaped
from pellucid.report import making, overall, pair
from pellucid.report.answers import names_of, opening, questions
from pellucid.report.figures import figures_of
from pellucid.report.fitting import LIMIT, Parts, fitted, json_of, size_of
from pellucid.report.texts import controls, guide, shown_of
from pellucid.verdict.verdict import Verdict


def html_page(
    verdicts: Sequence[Verdict], call: Sequence[str] | None = None, links: Mapping[str, str] | None = None
) -> str:
    """The report. call: the command to print under "how to make this again". links: name -> address, near the top."""
    verdicts = list(verdicts)
    if len(verdicts) not in (1, 2):
        raise ValueError(f"a report is of one or two verdicts; {len(verdicts)} were given")
    names = names_of(verdicts)
    every = Parts(
        shown_of(verdicts, names),
        [{name: overall.numbers(name, found) for name, found in v.findings.items()} for v in verdicts],
        [figures_of(v, "ab"[k]) for k, v in enumerate(verdicts)],
    )
    empty = Parts([], [{} for _ in verdicts], [[] for _ in verdicts], "x" * 300, ["x" * 900 for _ in verdicts])
    room = LIMIT - size_of(_page(verdicts, names, empty, call, links))
    return _page(verdicts, names, fitted(every, room), call, links)


def _page(
    verdicts: Sequence[Verdict],
    names: Sequence[str],
    parts: Parts,
    call: Sequence[str] | None,
    links: Mapping[str, str] | None,
) -> str:
    script = files("pellucid.report").joinpath("script.js").read_text(encoding="utf-8")
    style = files("pellucid.report").joinpath("style.css").read_text(encoding="utf-8") + levels()
    checked = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    title = f"{verdicts[0].grade}: {names[0]}" if len(verdicts) == 1 else f"{names[0]} and {names[1]}"
    body = _one(verdicts[0], names[0], parts, call) if len(verdicts) == 1 else _two(verdicts, names, parts, call)
    data = ",".join(json_of(s.data) for s in parts.texts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{checked}'; img-src data:; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(title)} · Pellucid</title>\n<style>{style}</style></head>\n<body>"
        f'<a class="skip" href="#main">to the content</a>{making.linked(links)}{body}'
        f'<script type="application/json" id="data">[{data}]</script>\n<script>{script}</script></body></html>\n'
    )


def levels() -> str:
    """The colours of the scores as classes p1 to p12, n1 ..., u1 ..., and the keys, for light and dark."""

    def rules(ramps: Mapping[str, Sequence[str]]) -> str:
        steps = [(r, k, colour_of(k / LEVELS, stops)) for r, stops in ramps.items() for k in range(1, LEVELS + 1)]
        signed, single = [*reversed(ramps["n"]), *ramps["p"][1:]], ramps["u"]
        return "".join(f".{r}{k}{{background:{colour}}}" for r, k, colour in steps) + "".join(
            f".{name}{{background:linear-gradient(to right,{','.join(stops)})}}"
            for name, stops in (("signed", signed), ("single", single))
        )

    return f"{rules(LIGHT)}@media screen and (prefers-color-scheme:dark){{{rules(DARK)}}}"


def section(key: str, head: str, inner: str, level: int = 2) -> str:
    """A part of the page; "" where there is nothing in it."""
    return f'<section id="{key}"><h{level}>{head}</h{level}>{inner}</section>\n' if inner else ""


def _one(v: Verdict, name: str, parts: Parts, call: Sequence[str] | None) -> str:
    sections = (
        section("questions", f"{_counted(len(v.answers), 'question')}", questions(v, 3))
        + section("texts", "Text by text", texts([v], parts))
        + rest(v, parts, 0, call, 2, "")
    )
    return (
        f"<header><h1>May attention be shown as the explanation?</h1>{opening(v, name)}{_PAPER}</header>"
        f'{_contents(sections)}<main id="main">{sections}</main>'
    )


def _two(verdicts: Sequence[Verdict], names: Sequence[str], parts: Parts, call: Sequence[str] | None) -> str:
    head = "".join(f'<div class="panel">{opening(v, n)}</div>' for v, n in zip(verdicts, names, strict=True))
    own = "".join(
        f'<section id="model{k + 1}"><h2>All of <bdi>{escaped(n)}</bdi></h2><details><summary>its questions, words, '
        f"figures, numbers, limits, and how to make this again</summary>{questions(v, 3)}"
        f"{rest(v, parts, k, call, 3, f'{k + 1}')}</details></section>\n"
        for k, (v, n) in enumerate(zip(verdicts, names, strict=True))
    )
    sections = (
        section("questions", "The questions side by side", pair.questions(verdicts, names))
        + section("texts", "Text by text", texts(verdicts, parts))
        + own
    )
    return (
        f'<header><h1>May attention be shown as the explanation?</h1><div class="panels">{head}</div>{_PAPER}</header>'
        f'{_contents(sections)}<main id="main">{sections}</main>'
    )


def texts(verdicts: Sequence[Verdict], parts: Parts) -> str:
    """How to read them, the controls, the texts, and where their numbers are shown."""
    if not parts.texts and not parts.lost_texts:
        return "<p>No text is shown.</p>"
    cases = [c for v in verdicts for c in v.cases]
    note = f"<p><b>{escaped(parts.lost_texts)}</b></p>" if parts.lost_texts else ""
    return (
        f'{guide(verdicts)}{note}{controls(verdicts, cases)}<div id="cases">'
        f'{"".join(s.html for s in parts.texts)}</div><output id="readout" hidden></output>'
    )


def rest(v: Verdict, parts: Parts, k: int, call: Sequence[str] | None, level: int, mark: str) -> str:
    """What one model has to itself: over all texts, figures, numbers, limits, how to make it again."""
    over = overall.comparison(v, level + 1) + overall.words(v, level + 1) + overall.calibration(v, level + 1)
    drawn = "".join(f.html for f in parts.figures[k])
    every = "".join(parts.numbers[k].values())
    note = f"<p>{escaped(parts.lost[k])}</p>" if parts.lost[k] else ""
    again = (
        f'<pre tabindex="0">{escaped(making.command(call, v))}</pre><p>The same texts, model, versions, seed and '
        "budget give the same page, byte for byte, wherever the plan is kept; where the clock had to cut, the list of "
        f"what was looked at says so.</p>{making.made(v)}"
    )
    return (
        section(f"over{mark}", "Over all texts", over, level)
        + section(f"figures{mark}", "Figures", f'<div class="figures">{drawn}</div>' if drawn else "", level)
        + section(f"numbers{mark}", "Every number, with its control", every, level)
        + section(
            f"limits{mark}", "What this does not say", making.limits(v) + note + making.limits_of_audits(v), level
        )
        + section(f"again{mark}", "How to make this again", again, level)
    )


def _counted(n: int, thing: str) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    return f"{words[n] if n < len(words) else n} {thing}{'' if n == 1 else 's'}"


_PAPER = '<p class="onpaper dim">Folded parts of the page are not printed; unfold those that you want on paper.</p>'
_NAV = (
    ("questions", "Questions"),
    ("texts", "Texts"),
    ("model1", "First model"),
    ("model2", "Second model"),
    ("over", "Over all texts"),
    ("figures", "Figures"),
    ("numbers", "Numbers"),
    ("limits", "Limits"),
    ("again", "Make it again"),
)


def _contents(sections: str) -> str:
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in _NAV if f'<section id="{key}">' in sections)
    return f'<nav aria-label="contents">{links}</nav>'
