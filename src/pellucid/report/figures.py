"""Pictures of the audits as inline SVG: chosen, made small, and safe beside each other in one page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from pellucid.render.marks import escaped
from pellucid.report.terms import CAPTIONS, FIGURES
from pellucid.verdict.verdict import Verdict

MOST = 8
_KEPT = {
    "circle", "clipPath", "defs", "ellipse", "g", "image", "line", "linearGradient", "path", "pattern", "polygon",
    "polyline", "rect", "stop", "svg", "text", "tspan", "use",
}  # fmt: skip
"""Elements that draw; a picture may come from a file, so that nothing else goes into the page."""
_FONT = "'DejaVu Sans',Verdana,system-ui,sans-serif"


@dataclass(frozen=True)
class Figure:
    """A picture as SVG for a page, with what it shows."""

    audit: str
    name: str
    svg: str
    caption: str

    @property
    def label(self) -> str:
        """Its short name."""
        return f"{self.audit} {self.name}".replace("_", " ")

    @property
    def html(self) -> str:
        """The picture with its caption."""
        return f"<figure>{self.svg}<figcaption>{escaped(self.caption)}</figcaption></figure>"


def figures_of(verdict: Verdict, prefix: str = "f") -> list[Figure]:
    """At most MOST pictures of the verdict's audits, the most telling first; ids in them begin with `prefix`."""
    chosen = list(_chosen(verdict))[:MOST]
    out = []
    for k, (audit, name) in enumerate(chosen):
        made = verdict.findings[audit].svg(name)
        caption = CAPTIONS.get((audit, name)) or CAPTIONS.get((audit, "*")) or f"{audit}: {name.replace('_', ' ')}."
        label = f"{audit}: {name}".replace("_", " ")
        out.append(Figure(audit, name, inline(made, f"{prefix}{k}", label), caption))
    return out


def _chosen(verdict: Verdict) -> Iterator[tuple[str, str]]:
    for audit, wanted in FIGURES:
        there = verdict.findings[audit].pictures if audit in verdict.findings else {}
        yield from ((audit, name) for name in there if wanted in (name, "*"))


def inline(svg: bytes, prefix: str, label: str) -> str:
    """An SVG file as an element of a page: no header, metadata or style sheet, which would hold for the whole page;
    ids made the page's own, numbers short, groups that say nothing left out."""
    root = ET.fromstring(svg)
    text = svg.decode("utf-8")
    used = sorted(set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)))
    names = {old: f"{prefix}{k}" for k, old in enumerate(used)}
    box = escaped(root.get("viewBox", "0 0 504 302"))
    inner = "".join(_element(child, names) for child in root)
    return (
        f'<svg viewBox="{box}" role="img" aria-label="{escaped(label)}" style="max-width:{_width(root)}px;'
        f'font-family:{_FONT};font-size:10px;stroke-linejoin:round">{inner}</svg>'
    )


def _width(root: ET.Element) -> int:
    found = re.match(r"[\d.]+", root.get("width", ""))
    return round(float(found.group()) * 4 / 3) if found else 672


def _element(e: ET.Element, names: dict[str, str]) -> str:
    tag = e.tag.rpartition("}")[2]
    if tag not in _KEPT:
        return ""
    shared = _shared(e) if tag == "g" else ""
    for child in e if shared else ():
        del child.attrib["style"]
    inner = "".join(_element(child, names) for child in e)
    if tag == "text":
        inner = escaped(e.text or "") + inner + "".join(escaped(child.tail or "") for child in e)
    elif tag == "tspan":
        inner = escaped(e.text or "") + inner
    given = {_local(key): raw for key, raw in e.items()} | ({"style": shared} if shared else {})
    said = [(name, value) for name, raw in given.items() if (value := _value(name, raw, names))]
    if tag in ("g", "defs") and (not inner or (tag == "g" and not said)):
        return inner
    attributes = "".join(f' {name}="{escaped(value)}"' for name, value in said)
    return f"<{tag}{attributes}>{inner}</{tag}>" if inner else f"<{tag}{attributes}/>"


def _shared(e: ET.Element) -> str:
    """The style that all children have, which can stand at the group once: a hundred marks of a line have one."""
    styles = {child.get("style", "") for child in e}
    same = styles.pop() if len(styles) == 1 and len(e) > 1 and "style" not in e.attrib else ""
    return "" if re.search(r"(^|;)\s*opacity", same) else same


def _local(key: str) -> str:
    return key.rpartition("}")[2]


def _value(name: str, raw: str, names: dict[str, str]) -> str:
    """An attribute made short; "" where it can go."""
    value = " ".join(raw.split())
    if name.startswith("on"):
        return ""
    if name == "id":
        return names.get(value, "")
    if name == "href":
        # a picture inside (a heat map) is data; anything else points into this figure
        return f"#{names.get(value[1:], '')}" if value.startswith("#") else value if value[:5] == "data:" else ""
    if name == "transform" and re.fullmatch(r"rotate\(-?0 [^)]*\)", value):
        return ""
    if name in ("d", "x", "y", "width", "height", "transform", "points", "cx", "cy", "r"):
        value = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m.group()):.1f}".removesuffix(".0"), value)
        return re.sub(r" ?([A-Za-z]) ?", r"\1", value) if name == "d" else value
    if name == "style":
        value = re.sub(r"font-size: 10px;? ?|font-family: [^;]*;? ?|stroke-linecap: square;? ?", "", value)
        value = re.sub(r"\s*([:;])\s*", r"\1", value).rstrip(";")
    return re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names.get(m.group(1), '')})", value)
