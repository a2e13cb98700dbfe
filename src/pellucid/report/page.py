"""One or two verdicts as one self-contained HTML page: nothing is loaded, the same input gives the same bytes."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from pellucid.render.marks import DARK, LEVELS, LIGHT, colour_of, escaped
from pellucid.report import making, overall, pair
from pellucid.report.answers import names_of, opening, questions
from pellucid.report.figures import MOST, Figure, figures_of
from pellucid.report.texts import Shown, controls, guide, shown_of
from pellucid.verdict.verdict import Verdict

LIMIT = 400_000
"""Bytes of a page; texts, numbers and figures that do not fit are left out from the end, and the page says so."""
FIGURES_FIRST = 3  # figures of each model that go before numbers
TEXTS_FIRST = 0.5  # share of what is left that texts may take before numbers and figures


@dataclass
class Parts:
    """What a page shows if there is room, an entry of `numbers` and `figures` for each model; and what was left out."""

    texts: list[Shown]
    numbers: list[dict[str, str]]
    figures: list[list[Figure]]
    left_out: list[str] = field(default_factory=list)


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
    empty = Parts([], [{} for _ in verdicts], [[] for _ in verdicts], ["x" * 1500])
    room = LIMIT - _size(_page(verdicts, names, empty, call, links))
    return _page(verdicts, names, fitting(every, room, names), call, links)


def _size(text: str) -> int:
    return len(text.encode("utf-8"))


def fitting(every: Parts, room: int, names: Sequence[str]) -> Parts:
    """As much of the parts as fits into `room` bytes: texts into their share, the first figures, numbers, further
    figures, further texts; of each, whatever fits is taken in order, from two models in turn."""
    space = _Space(room)
    sizes = [_size(s.html) + _size(_json(s.data)) + 1 for s in every.texts]
    texts = space.take(sizes, most=int(room * TEXTS_FIRST))
    drawn = [(i, k) for k in range(MOST) for i, own in enumerate(every.figures) if k < len(own)]
    audits = [list(own.items()) for own in every.numbers]
    listed = [(i, k) for k in range(max(map(len, audits))) for i, own in enumerate(audits) if k < len(own)]
    first = sum(k < FIGURES_FIRST for _, k in drawn)
    drawn_sizes = [_size(every.figures[i][k].html) for i, k in drawn]
    shown = {drawn[j] for j in space.take(drawn_sizes[:first])}
    told = {listed[j] for j in space.take([_size(audits[i][k][1]) for i, k in listed])}
    shown |= {drawn[first + j] for j in space.take(drawn_sizes[first:])}
    texts |= {j for j in range(len(sizes)) if j not in texts and space.take([sizes[j]])}
    return Parts(
        [s for j, s in enumerate(every.texts) if j in texts],
        [{name: page for k, (name, page) in enumerate(own) if (i, k) in told} for i, own in enumerate(audits)],
        [[f for k, f in enumerate(own) if (i, k) in shown] for i, own in enumerate(every.figures)],
        _lost(every, len(texts), [audits[i][k][0] + _of(names, i) for i, k in listed if (i, k) not in told],
              [f"{every.figures[i][k].label}{_of(names, i)}" for i, k in drawn if (i, k) not in shown]),
    )  # fmt: skip


def _of(names: Sequence[str], i: int) -> str:
    return f" of {names[i]}" if len(names) > 1 else ""


def _lost(every: Parts, texts: int, numbers: Sequence[str], figures: Sequence[str]) -> list[str]:
    """What is not on the page, in words."""
    out = [f"{len(every.texts) - texts} of {len(every.texts)} texts"] if texts < len(every.texts) else []
    out += [f"the numbers of: {', '.join(numbers)}"] if numbers else []
    return out + ([f"the figures: {', '.join(figures)}"] if figures else [])


@dataclass
class _Space:
    """What is left of the page."""

    left: int

    def take(self, sizes: Sequence[int], most: int | None = None) -> set[int]:
        """Which of these fit, the first ones first, into `most` or what is left."""
        room = self.left if most is None else min(most, self.left)
        taken = set()
        for k, size in enumerate(sizes):
            if size <= room:
                taken.add(k)
                room -= size
                self.left -= size
        return taken


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
    data = ",".join(_json(s.data) for s in parts.texts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{checked}'; img-src data:; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(title)} · Pellucid</title>\n<style>{style}</style></head>\n<body>"
        f'<a class="skip" href="#main">to the content</a>{making.linked(links)}{body}'
        f'<script type="application/json" id="data">[{data}]</script>\n<script>{script}</script></body></html>\n'
    )


def _json(data: object) -> str:
    """JSON that no markup can be in, and that is the same in every encoding of the page."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


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
        f"<header><h1>May attention be shown as the explanation?</h1>{opening(v, name)}</header>"
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
        f'<header><h1>May attention be shown as the explanation?</h1><div class="panels">{head}</div></header>'
        f'{_contents(sections)}<main id="main">{sections}</main>'
    )


def texts(verdicts: Sequence[Verdict], parts: Parts) -> str:
    """How to read them, the controls, the texts, and where their numbers are shown."""
    if not parts.texts and not parts.left_out:
        return "<p>No text is shown.</p>"
    cases = [c for v in verdicts for c in v.cases]
    note = f"<p><b>{escaped(_left_out(parts))}</b></p>" if parts.left_out else ""
    return (
        f'{guide(verdicts)}{note}{controls(verdicts, cases)}<div id="cases">'
        f'{"".join(s.html for s in parts.texts)}</div><output id="readout" hidden></output>'
    )


def _left_out(parts: Parts) -> str:
    return (
        f"Left out here, so that this page stays below {LIMIT // 1000} kB: {'; '.join(parts.left_out)}. "
        "verdict.json and the folder that `save` writes hold all numbers and pictures."
    )


def rest(v: Verdict, parts: Parts, k: int, call: Sequence[str] | None, level: int, mark: str) -> str:
    """What one model has to itself: over all texts, figures, numbers, limits, how to make it again."""
    over = overall.comparison(v, level + 1) + overall.words(v, level + 1) + overall.calibration(v, level + 1)
    drawn = "".join(f.html for f in parts.figures[k])
    every = "".join(parts.numbers[k].values())
    note = f"<p>{escaped(_left_out(parts))}</p>" if parts.left_out else ""
    again = (
        f'<pre tabindex="0">{escaped(making.command(call, v))}</pre><p>The same texts, model, versions and seed give '
        f"the same page, byte for byte.</p>{making.made(v)}"
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
