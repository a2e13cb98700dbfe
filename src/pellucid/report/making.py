"""The end of the report: limits, what was looked at, how it was made and how to make it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pellucid.render.marks import escaped, value_text
from pellucid.report.bars import plain_name
from pellucid.report.terminal import sampled
from pellucid.verdict.verdict import Verdict

NAMES = {
    "parity": "largest relative difference between our logits and those of Hugging Face",
    "weights": "hash of the weights",
    "data": "hash of the token ids and labels",
    "place": "attention looked at",
}


def limits(v: Verdict) -> str:
    """What the verdict does not say, and what was looked at; each once."""
    said = "".join(f"<li>{escaped(line)}</li>" for line in dict.fromkeys(v.limits))
    seen = "".join(f"<li>{escaped(sampled(s.part, s.texts, s.of, s.why))}</li>" for s in v.sample)
    return (f"<ul>{said}</ul>" if said else "<p>No limits were given.</p>") + (
        f"<p><b>What was looked at</b></p><ul>{seen}</ul>" if seen else ""
    )


def limits_of_audits(v: Verdict) -> str:
    """Each limit of the findings, once, that the verdict's own do not say already."""
    found = dict.fromkeys(line for audit in v.findings.values() for f in audit for line in f.limits)
    lines = "".join(f"<li>{escaped(line)}</li>" for line in found if line not in v.limits)
    return f"<details><summary>Limits of single numbers</summary><ul>{lines}</ul></details>" if lines else ""


def command(call: Sequence[str] | None, v: Verdict) -> str:
    """The command that made the report, or the lines of Python."""
    if call is not None:
        return shlex.join(call)
    about = v.about
    told = ("budget", "max_tokens", "methods", "seed")
    extra = "".join(f", {key}={about[key]!r}" for key in told if about.get(key) is not None)
    extra += ", labels=labels" * bool(about.get("gold"))
    model = str(about.get("model", "..."))
    return f"import pellucid\nverdict = pellucid.audit_all(pellucid.load({model!r}), texts{extra})"


def made(v: Verdict) -> str:
    """Every fact of `about`, those that we do not know included."""
    rows = "".join(_row(key, value) for key, value in v.about.items())
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="how this was made"><table class="facts">'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(key: str, value: Any) -> str:
    told = escaped(NAMES.get(key, plain_name(str(key))))
    if isinstance(value, Mapping):
        inner = "<br>".join(f"{escaped(str(k))} {escaped(value_text(x))}" for k, x in value.items())
    else:
        inner = escaped(value_text(value))
    return f'<tr><th scope="row">{told}</th><td>{inner}</td></tr>'


def linked(links: Mapping[str, str] | None) -> str:
    """Files and pages beside this one; only relative addresses and http ones become links."""
    items = []
    for name, to in (links or {}).items():
        safe = urlsplit(to).scheme in ("", "http", "https")
        items.append(f'<a href="{escaped(to)}">{escaped(name)}</a>' if safe else escaped(f"{name}: {to}"))
    return f'<p class="links">{" · ".join(items)}</p>' if items else ""
