"""Attributions as HTML: a fragment for a notebook, a self-contained page."""

import html
from collections.abc import Mapping, Sequence

from pellucid.attribution import Attribution
from pellucid.render.marks import (
    DARK,
    DIM,
    INK,
    LEVELS,
    LIGHT,
    NIGHT,
    PAPER,
    PER_TEXT,
    by_strength,
    colour_of,
    column_of,
    drawn_of,
    escaped,
    from_right,
    header_of,
    mark_of,
    note_of,
    number_text,
    pieces_of,
    scale_of,
    sum_line,
    value_text,
)

# HTML: one table of looks, written into each element of a fragment and once into the style sheet of a page

_LOOKS = {
    "pellucid": f"color:{INK};background:{PAPER};border:1px solid #d0d0d0;border-radius:6px;padding:.8em 1em;"
    "margin:.4em 0;max-width:46em;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere",
    "head": "margin:0 0 .5em;font-size:.87em",
    "text": "margin:.4em 0;white-space:pre-wrap;line-height:1.85",
    "sum": "margin:.4em 0;font-size:.87em;font-variant-numeric:tabular-nums",
    "key": "margin:.4em 0;font-size:.8em;font-variant-numeric:tabular-nums",
    "bar": "display:inline-block;width:10em;margin:0 .5em;text-align:center;border:1px solid #d0d0d0",
    "nums": "font-size:1em;border-collapse:collapse;font-variant-numeric:tabular-nums;text-align:right",
    "s": "font-size:.8em",
    "d": f"color:{DIM}",
    "x": f"color:{DIM};font-style:italic",
}


def html_fragment(a: Attribution) -> str:
    """The attribution as one `<div>` for a notebook: every style inline, own colours, no script, no style sheet."""
    return f"<div{_attr(True, 'pellucid')}>{_body(a, inline=True)}</div>"


def html_page(attributions: Sequence[Attribution], title: str = "Pellucid", lead: str = "") -> str:
    """A self-contained page that lists attributions; it loads nothing and runs nothing. Same input, same bytes."""
    made: dict[str, int] = {}
    articles = []
    for i, a in enumerate(attributions, 1):
        origin = _origin(a, i, made)
        number = f"<h2>Text {i}</h2>" if len(attributions) > 1 else ""
        articles.append(f'<article class="pellucid">{number}{_body(a, inline=False)}{origin}</article>\n')
    signed = any(a.signed for a in attributions)
    guide = _guide(signed, any(not a.signed for a in attributions)) if articles else "There is nothing to show."
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(title)}</title>\n<style>{_css()}</style></head>\n<body><h1>{escaped(title)}</h1>"
        + (f"<p>{escaped(lead)}</p>" if lead else "")
        + f'<p class="guide">{guide}</p>\n{"".join(articles)}</body></html>\n'
    )


def _attr(inline: bool, *names: str, background: str = "") -> str:
    """The looks as a style attribute (fragment) or as classes (page; there a background is the name of a level)."""
    if not inline:
        said = " ".join(n for n in (*names, background) if n)
        return f' class="{said}"' if said else ""
    styles = [_LOOKS[n] for n in names] + ([f"background:{background}"] if background else [])
    return f' style="{";".join(styles)}"' if styles else ""


def _body(a: Attribution, inline: bool) -> str:
    scale, small = scale_of(a), _attr(inline, "sum")
    params = escaped(", ".join(f"{k}={value_text(v)}" for k, v in a.params.items()))
    items = [f"{k} <b><bdi>{escaped(v)}</bdi></b>" for k, v in header_of(a)]
    items[2] = f'<span title="{params}">{items[2]}</span>' if params else items[2]
    out = [f"<p{_attr(inline, 'head')}>{' · '.join(items)}</p>"]
    out += [f"<p{small}>{escaped(note_of(a))}</p>"] if note_of(a) else []
    if a.scores.ndim == 1:
        return "\n".join([*out, _text_html(a, scale, inline), _key(a, scale, inline), _numbers_html(a, scale, inline)])
    at, note = drawn_of(a)
    for one in (column_of(a, c) for c in at):
        is_open = " open" if len(at) <= 4 or one.label == a.prediction else ""
        name = f"<summary{_attr(inline, 'head')}><b><bdi>{escaped(one.label)}</bdi></b></summary>"
        text, numbers = _text_html(one, scale, inline), _numbers_html(one, scale, inline)
        out.append(f"<details{is_open}>{name}{text}{numbers}</details>")
    out += [_key(a, scale, inline), *(f"<p{small}>{escaped(line)}</p>" for line in (sum_line(a), note) if line)]
    return "\n".join(out)


def _text_html(a: Attribution, scale: float, inline: bool) -> str:
    out = []
    for text, mark in pieces_of(a, scale):
        shown = html.escape(text)
        if mark is None:
            look = _attr(inline, "x")
            out.append(f'<span{look} title="not read by the model">{shown}</span>' if text.strip() else shown)
            continue
        looks = [name for name, on in (("s", mark.special), ("d", mark.faint)) if on]
        look = _attr(inline, *looks, background=mark.colour if inline else mark.level)
        # in a page, a tap or click shows the number at the foot of the window; the keyboard has the table of numbers
        focus = "" if inline else " tabindex=-1"
        out.append(f'<span{look}{focus} title="{escaped(f"{mark.word}  {mark.number} ({a.unit})")}">{shown}</span>')
    return f"<p{_attr(inline, 'text')}{' dir=rtl' if from_right(a) else ''}>{''.join(out).strip()}</p>"


def _gradient(signed: bool, ramps: Mapping[str, Sequence[str]]) -> str:
    stops = [*reversed(ramps["n"]), *ramps["p"][1:]] if signed else ramps["u"]
    return f"linear-gradient(to right,{','.join(stops)})"


def _key(a: Attribution, scale: float, inline: bool) -> str:
    if scale == 0:
        return f"<div{_attr(inline, 'key')}>All scores are 0.</div>"
    paint = _gradient(a.signed, LIGHT) if inline else "signed" if a.signed else "single"
    low, middle = (number_text(-scale, scale), "0") if a.signed else ("0", "&nbsp;")
    bar = f"<span{_attr(inline, 'bar', background=paint)}>{middle}</span>"
    return f"<div{_attr(inline, 'key')}>{low}{bar}{number_text(scale, scale, a.signed)} {escaped(a.unit)}</div>"


def _numbers_html(a: Attribution, scale: float, inline: bool) -> str:
    """The sum, and behind a summary all numbers, the strongest first."""
    marks = ((i, mark_of(a, i, scale)) for i in by_strength(a.scores))
    rows = "".join(f"<tr><td>{escaped(mark.word)}<td>{mark.number}<td>{i + 1}" for i, mark in marks)
    return (
        f"<p{_attr(inline, 'sum')}>{escaped(sum_line(a))}</p>"
        f"<details{_attr(inline, 'key')}><summary>all numbers</summary>"
        f"<table{_attr(inline, 'nums')}><tr><th>token<th>{escaped(a.unit)}<th>place{rows}</table></details>"
    )


def _origin(a: Attribution, i: int, made: dict[str, int]) -> str:
    """How attribution i was made; where an earlier one says the same, only its number and what differs."""
    facts = {"method": a.method, **{f"{k}": v for k, v in a.params.items()}}
    facts |= {k: v for k, v in a.origin.items() if k not in PER_TEXT}
    rows = "".join(f"<tr><td>{escaped(str(k))}<td>{escaped(value_text(v))}" for k, v in facts.items())
    own = "; ".join(f"{k} {value_text(a.origin[k])}" for k in PER_TEXT[:3] if k in a.origin)
    first = made.setdefault(rows, i)
    if first != i:
        return f'<p class="key">made as text {first}{f"; {escaped(own)}" if own else ""}</p>'
    own = f"<tr><td>spent<td>{escaped(own)}" if own else ""
    table = f'<table class="nums how">{rows}{own}</table>'
    return f'<details class="key"><summary>how this was made</summary>{table}</details>'


def _guide(signed: bool, unsigned: bool) -> str:
    return (
        "<b>How to read this.</b> Each token is coloured by its score; no colour is zero. "
        + ("Orange-red raises the explained output, blue lowers it. " if signed else "")
        + ("Green marks scores without a sign. " if unsigned else "")
        + "The strongest colour is the largest score of that text: to compare texts, compare numbers. Point at a "
        "token, or tap it, for its number. Scores tell what this model computed, not whether it is right."
    )


def _css() -> str:
    rules = "".join(f".{name}{{{look}}}" for name, look in _LOOKS.items())

    def levels(ramps: Mapping[str, Sequence[str]]) -> str:
        steps = ((r, k, colour_of(k / LEVELS, stops)) for r, stops in ramps.items() for k in range(1, LEVELS + 1))
        rule = "".join(f".{r}{k}{{background:{colour}}}" for r, k, colour in steps)
        return f"{rule}.signed{{background:{_gradient(True, ramps)}}}.single{{background:{_gradient(False, ramps)}}}"

    return (
        ":root{color-scheme:light dark}body{margin:0 auto;padding:1rem;max-width:46rem;color:#111;background:#f6f6f6;"
        "font:16px/1.5 system-ui,sans-serif;-webkit-text-size-adjust:100%}h1{font-size:1.4rem;margin:.2rem 0}"
        "h2{font-size:1rem;margin:0 0 .3rem}article.pellucid{margin:1rem 0}.guide{font-size:.9rem}"
        f"{rules}.nums td,.nums th{{padding:0 1.2em 0 0}}.nums :is(td,th):first-child{{text-align:left}}"
        "summary{cursor:pointer}.how td{text-align:left;vertical-align:top}"
        ".text span{border-radius:.2em;padding:.12em 0}.text span:hover,.text span:focus{outline:2px solid}"
        ".text span:focus::after{content:attr(title);position:fixed;inset:auto 0 0;padding:.6em;text-align:center;"
        f"font-size:1rem;font-style:normal;color:#fff;background:#333;white-space:pre-wrap}}{levels(LIGHT)}"
        "@media screen and (prefers-color-scheme:dark){body{color:#eee;background:#0c0d10}"
        f".pellucid{{color:#eee;background:{NIGHT};border-color:#3a3d44}}.d,.x{{color:#b0b0b0}}{levels(DARK)}}}"
        "@media print{body{background:#fff;max-width:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}"
        "article{break-inside:avoid}details.key{display:none}}"
    )
