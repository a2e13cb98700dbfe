"""What the generated pages say: methods, audits, metrics and families as Markdown, from the registries alone."""

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, asdict, fields

from sessions import Session

import pellucid
from pellucid.audits.audit import Audit
from pellucid.families import Family
from pellucid.methods.method import Guarantees, Method
from pellucid.settings import choices_of, defaults_of, shown, summary_of

MADE = "<!-- Made by docs/generate.py: change the docstring or class that it tells of, then run `make docs`. -->\n\n"
LABELS = re.compile(
    r"(?:(?<=\s)|^)(Unit|Cost|Source|Shapes|Resolution|Complete|Edge|Raises|Differs from [^:.]{2,40}): "
)

ACCESS = {
    "OUTPUTS": "any classifier: its logits are enough",
    "GRADIENTS": "any classifier that takes `inputs_embeds` and can be differentiated",
    "READOUT": "a supported family, or a model of the zoo: the last attention and what follows",
    "ENCODER": "a supported family: the whole network",
}
PROMISES = {
    "complete": (
        "the scores and `unallocated` add up to the logit",
        "they need not add up; `gap` says what is missing",
    ),
    "signed": ("scores tell for from against", "scores tell how much, not for or against"),
    "additive": ("a word's score is the sum of its tokens' scores", "tokens' scores may not be summed to a word's"),
    "linear_in_target": ("the scores of a contrast are the difference of its two classes' scores", ""),
    "target_free": (
        "the scores are the same whatever class is asked about",
        "the scores are about the class asked for",
    ),
    "deterministic": ("the same call gives the same numbers", "the numbers change from call to call"),
    "padding_invariant": ("neither padding nor other texts in the batch change anything", ""),
}


# Docstrings as Markdown


def safe(text: str) -> str:
    """Text that Markdown leaves as it is, code in backquotes apart."""
    return "".join(
        part if i % 2 else re.sub(r"([<*|\[\]])", r"\\\1", part) for i, part in enumerate(re.split(r"(`[^`]*`)", text))
    )


def prose(doc: str, names: Iterable[str] = ()) -> str:
    """A docstring without its first line: settings as a list, "Unit:", "Cost:" and their like in bold."""
    body = inspect.cleandoc(doc).partition("\n")[2].strip()
    known = "|".join(map(re.escape, names)) or "(?!)"
    setting = re.compile(rf"(?:(?<=\. )|(?<=; )|^)((?:{known})(?:, (?:{known}))*): ")
    out = []
    for paragraph in re.split(r"\n\s*\n", body):
        text = " ".join(paragraph.split())
        text = LABELS.sub(lambda m: f"\0**{m[1]}:** ", setting.sub(lambda m: f"\0- `{m[1]}`: ", text))
        parts = [p.strip() for p in text.split("\0") if p.strip()]
        for i, part in enumerate(parts):
            item = part.startswith("- `") and i and parts[i - 1].startswith("- `")
            out.append(("\n" if item else "\n\n") + re.sub(r"^(- `[^`]*`: |\*\*[^*]*\*\* )?(.*)", _marked, part))
    return "".join(out).strip()


def _marked(found: re.Match[str]) -> str:
    return (found[1] or "").replace(", ", "`, `") * bool(found[1]) + safe(found[2])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("\n", " ") for c in line) + " |" for line in lines) + "\n"


def variant(method: Method) -> str:
    """What a method has that its class has not by default: " Here `baseline` is `mask`."."""
    other = [f"`{f.name}` is `{shown(getattr(method, f.name))}`" for f in fields(method) if _differs(method, f)]  # type: ignore[arg-type]
    return f" Here {' and '.join(other)}." if other else ""


def _differs(method: Method, field: Field[object]) -> bool:
    return field.default is not MISSING and getattr(method, field.name) != field.default


def listed(facts: Iterable[tuple[str, str]]) -> str:
    """Facts as a list, their names in bold."""
    return "".join(f"- **{name}:** {fact}\n" for name, fact in facts)


def settings_table(thing: object, kind: str) -> str:
    """The settings of a method or audit, with defaults and what they may be."""
    choices = choices_of(thing)
    rows = [
        (f"`{key}`", f"`{shown(value)}`", re.sub(r"<class '[\w.]+\.(\w+)'>", r"\1", choices[key]).replace("|", "\\|"))
        for key, value in defaults_of(thing).items()
    ]
    return f"## {kind}s\n\n" + table((kind.lower(), "default", "may be"), rows) + "\n" if rows else ""


# What was measured of a method, from the study


def measured(study: str) -> dict[str, str]:
    """Method -> the rows of the study's tables that are about it, beside their controls."""
    found: dict[str, str] = {}
    first = _rows(study, "## 1.")
    truth = _rows(study, "## 5.")
    for name in [n for n in first if n[0] != "("]:
        cells = [[n.strip("()"), *first[n][1:]] for n in (name, "(greedy)", "(random)")]
        found[name.partition("(")[0]] = (
            "AOPC ↑ by masking: how far the predicted class's probability falls when the tokens that it calls "
            "important are masked. Mean and 95 % interval over texts; in brackets where it lies between random (0) "
            "and greedy removal (1).\n\n" + table(["", *first["method"][1:]], cells)
        )
    for name, row in truth.items():
        if name not in ("method", "---") and name[0] != "(":
            said = f"{row[-1]}; random scores {truth['(random)'][-1]}"
            found[name] = (
                (found[name] + "\n" if name in found else "")
                + "On five planted models, whose true contributions are known, its error ↓ is "
                + f"{said} (20 texts each; 0 exact, 1 no better than zeros).\n"
            )
    return found


def _rows(study: str, heading: str) -> dict[str, list[str]]:
    """The first table behind a heading, without the column "passes": name -> cells, the name first."""
    lines = study[study.index(f"\n{heading}") :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| "))
    rows: dict[str, list[str]] = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [c.strip() for c in line.strip("|").split("|")]
        rows[cells[0].removesuffix(" *")] = [c.removesuffix(" *") for c in cells]
    at = rows["method"].index("passes")
    return {name: cells[:at] + cells[at + 1 :] for name, cells in rows.items() if name != "---"}


# Pages


def method_page(method: Method, told: str, session: Session) -> str:
    """All that is known of one method."""
    holds = asdict(method.guarantees(None))
    promised = [
        (f.name, "yes" if holds[f.name] else "no", PROMISES[f.name][not holds[f.name]]) for f in fields(Guarantees)
    ]
    home = f"{type(method).__module__}.{type(method).__name__}"
    facts = [
        ("unit", method.unit),
        ("needs", f"{method.needs.name} access: {ACCESS[method.needs.name]}"),
        ("source", safe(method.source)),
        ("in Python", f"`pellucid.methods.{type(method).__name__}`"),
    ]
    return (
        f"{MADE}# {method.name}\n\n{safe(summary_of(method))}{variant(method)}\n\n"
        f"![{method.name} on one sentence of the demo model](pictures/{method.name}.svg)\n\n"
        f"{listed(facts)}\n## When not to trust it\n\n{safe(method.caution)}\n\n"
        f"## What it does\n\n{prose(type(method).__doc__ or '', defaults_of(method))}\n\n"
        f"{settings_table(method, 'Parameter')}"
        "## What it promises\n\nWith these parameters, on any model; the contract tests hold it to that.\n\n"
        f"{table(('promise', 'holds', 'so'), [p for p in promised if p[2]])}\n"
        "## Measured\n\n"
        + (
            f"{told}\n[The comparison of methods](../studies/comparison.md) says on what and how.\n"
            if told
            else UNMEASURED
        )
        + f"\n## Example\n\n{session.text}\n"
        + f"In the reference: [`{home}`](../reference/methods.md#{home}).\n"
    )


UNMEASURED = (
    "Not among the methods of [the comparison](../studies/comparison.md). `pellucid bench --methods` measures it on "
    "your model and texts, beside a random ranking.\n"
)


def audit_page(audit: Audit, session: Session) -> str:
    """All that is known of one audit."""
    facts = [
        ("needs", f"{audit.needs.name} access: {ACCESS[audit.needs.name]}"),
        ("source", safe(audit.source)),
        ("in Python", f"`pellucid.audit(model, texts, {audit.name!r})`"),
        ("on the command line", f"`pellucid audit --model M --input FILE --only {audit.name}`"),
    ]
    caution = f"## When not to trust it\n\n{safe(audit.caution)}\n\n" if audit.caution else ""
    return (
        f"{MADE}# {audit.name}\n\n{safe(summary_of(audit))}\n\n{listed(facts)}\n{caution}"
        f"## What it does\n\n{prose(type(audit).__doc__ or '', defaults_of(audit))}\n\n"
        f"{settings_table(audit, 'Setting')}## Example\n\nTwenty sentences and the demo model; each finding is a "
        "grade, a number, its control, an interval and a sentence. Here the grades and the sentences.\n\n"
        f"{session.text}"
    )


def methods_index(methods: Sequence[Method]) -> str:
    """The list of methods, and one sentence as all of them see it."""
    rows = []
    for m in methods:
        g = m.guarantees(None)
        held = {"complete": g.complete, "signed": g.signed and not g.target_free, "additive": g.additive}
        promises = ", ".join(name for name, holds in held.items() if holds)
        rows.append([f"[{m.name}]({m.name}.md)", safe(summary_of(m)) + variant(m), m.unit, promises, m.needs.name])
    pictures = "\n".join(f"[![{m.name}](pictures/{m.name}.svg)]({m.name}.md)\n" for m in methods)
    return (
        f"{MADE}# Methods\n\n{len(methods)} ways to give each token a number. Which one to believe is a question "
        "of its own: [Which method should I believe?](../questions/which-method.md)\n\n"
        "Complete: the scores and `unallocated` add up to the logit. Signed: they tell for from against. Additive: a "
        "word is the sum of its tokens. Needs: how much of the model it must see, from OUTPUTS over GRADIENTS and "
        "READOUT to ENCODER.\n\n"
        + table(("method", "what", "unit", "promises", "needs"), rows)
        + '\n## One sentence, all methods\n\nThe demo model on "The ending is not funny.", each in its own unit: '
        "colours compare tokens within a line, not lines.\n\n" + pictures
    )


def audits_index(audits: Sequence[Audit]) -> str:
    """The list of audits."""
    rows = [(f"[{a.name}]({a.name}.md)", safe(summary_of(a)), a.needs.name) for a in audits]
    return (
        f"{MADE}# Audits\n\nAn audit asks one question about a model on a set of texts. Every finding is a number "
        "with its 95 % interval over texts, the same number for a control, n, a grade and its limits.\n\n"
        + table(("audit", "question", "needs"), rows)
        + "\nAll of them at once, with one answer: "
        "[May I show this attention map?](../questions/attention-map.md)\n"
    )


def metrics_page() -> str:
    """Every metric of `pellucid bench`."""
    parts = [f"{MADE}# Metrics\n\n↑ up is better, ↓ down is better. [How they are used](../comparison.md).\n"]
    for m in pellucid.METRICS:
        doc = inspect.getdoc(m.compute) or ""
        facts = f"{m.kind}; unit: {m.unit}; source: {safe(m.source)}"
        parts.append(f"\n## {m.label}\n\n{safe(m.meaning)}\n\n{prose(doc)}\n\n{facts}.\n".replace("\n\n\n", "\n"))
    return "".join(parts)


def families_page(families: Iterable[Family]) -> str:
    """Every architecture whose network we rebuild."""
    rows = [
        (
            f"`{f.model_type}`",
            ", ".join(f"`{k}` is {' or '.join(map(str, v))}" for k, v in f.closed.items()) or "always",
        )
        for f in families
    ]
    return (
        f"{MADE}# Families\n\nClassifiers of these types are rebuilt from their weights and checked against Hugging "
        "Face's own logits; all methods and audits read them. A configuration that says something else is refused by "
        "its field's name.\n\n" + table(("model type", "where the configuration says"), rows) + "\nOther classifiers: "
        "[My model is not supported](../questions/unsupported-model.md).\n"
    )


def methods_reference(methods: Iterable[Method]) -> str:
    """The classes of all methods; mkdocstrings reads their documentation."""
    classes = dict.fromkeys(f"{type(m).__module__}.{type(m).__name__}" for m in methods)
    entries = "\n".join(f"::: {name}\n    options:\n      members: false\n" for name in classes)
    return (
        f"{MADE}# Methods in Python\n\nAll of them stand in `pellucid.methods`. Several names can be one class "
        'with other parameters: `integrated_gradients_mask` is `IntegratedGradients(baseline="mask")`.\n\n'
        "## Classes\n\n::: pellucid.methods.method.Method\n\n::: pellucid.methods.method.Guarantees\n\n"
        f"::: pellucid.methods.method.Scores\n\n{entries}"
    )
