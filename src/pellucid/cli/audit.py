"""`pellucid audit`: may the attention be shown as the explanation? With --only: single audits, one after the other."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, check_source, located, opened, say, texts_of
from pellucid.errors import AccessError, InputError, MissingExtra, Unanswerable
from pellucid.outputs import check_place, print_utf8, run_record
from pellucid.registry import choose

if TYPE_CHECKING:
    from pellucid.audits import Audit
    from pellucid.cli.answer import Ask
    from pellucid.encoder.model import Model
    from pellucid.finding import Findings
    from pellucid.inputs import Item

    Labels = list[int | str] | None
ALL = "all"


def audit(
    text: options.Texts = None,
    input: options.Input = None,
    model: options.ModelNames = None,
    budget: options.AuditBudget = None,
    label_column: options.TrueColumn = None,
    fail_on: options.FailOn = None,
    only: options.Only = None,
    setting: options.Settings = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    format: options.TextOrJson = "text",
    out: options.OutFolder = None,
    resume: options.Resume = False,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    limit: options.Count = None,
    device: options.Device = None,
) -> None:
    """May the model's attention be shown as the explanation, and what to show instead if not?

    Every audit and a short comparison of methods, on as many of the texts as the time budget allows; then a verdict
    with a grade for each question, and in --out a report. With --only NAME: these audits alone, each on all texts
    ("all": every one), as tables with intervals and controls; see `pellucid audits`.

    Examples:

        pellucid audit -m my-model -i reviews.csv --out findings

        pellucid audit -m old-model -m new-model -i reviews.csv --label-column label --budget 10m --out findings

        pellucid audit -m my-model -i reviews.csv --fail-on "NOT BETTER THAN RANDOM"
    """
    start = time.perf_counter()
    choose("format", format, ["text", "json"])
    check_source(text or [], input, "audit")
    if resume and out is None:
        raise InputError("--resume takes over what --out DIR holds; add --out, or leave --resume out.")
    if out is not None:
        check_place(out / "run.json")
    from pellucid.cli import answer
    from pellucid.inputs import Columns

    columns = Columns(text_column, pair_column, label_column)
    ask = answer.Ask(model or [], budget, fail_on or [], seed or 0, max_tokens, format, out, resume, device, start)
    if not only:
        ask.check(setting or [])
        notes = [] if model else [NO_MODEL]
        ask.run(texts_of(text or [], input, columns, limit, "Auditing", notes.append), label_column is not None, notes)
        return
    ask.refuse_with_only()
    asked, notes = _asked(only, setting or [], seed), [] if model else [NO_MODEL]
    items = texts_of(text or [], input, columns, limit, "Auditing", notes.append)
    _each(ask, asked, items, notes, only, label_column is not None)


def _each(
    ask: "Ask", asked: "list[Audit]", items: "Sequence[Item]", notes: list[str], only: Sequence[str], labelled: bool
) -> None:
    """Audits one after the other, each on all texts, printed and written as they are done."""
    from pellucid.inputs import gold_of
    from pellucid.records import dumps

    named, out = ALL not in only, ask.out
    classifier = opened(ask.models[0] if ask.models else None, ask.device)
    asked, beyond = _within_reach(classifier, asked, named)
    notes += beyond
    ask.ready(classifier, items, notes)
    labels = [gold_of(item, classifier.labels) for item in items] if labelled else None
    known = _at_hand(out, asked, classifier, items, ask.max_tokens, labels) if ask.resume and out is not None else {}
    found: list[Findings] = []
    for i, one in enumerate(asked):
        try:
            made = known[one.name] if one.name in known else _measured(classifier, items, one, ask.max_tokens, labels)
        except (Unanswerable, MissingExtra) as e:  # where all were asked for, this does not stop the others
            if named or (not found and i == len(asked) - 1):
                raise
            say(f"The audit {one.name!r} is left out: {e}")
            continue
        found.append(made)
        if out is not None:
            _keep(out, found, known, classifier, items, time.perf_counter() - ask.start)
        if ask.format == "text":
            _print(made, first=len(found) == 1)
    if ask.format == "json":
        print_utf8(dumps([made.to_dict() for made in found]) + "\n")
    if out is not None:
        say(f"Wrote {out} in {time.perf_counter() - ask.start:.1f} s.")


def _asked(only: Sequence[str], given: Sequence[str], seed: int | None) -> "list[Audit]":
    """The audits of --only, with their settings."""
    from pellucid.audits import AUDITS
    from pellucid.audits.catalog import audit_with

    names = AUDITS.names() if ALL in only else list(dict.fromkeys(only))
    if given and (len(set(only)) != 1 or ALL in only):
        raise InputError("--setting is about one audit: name it, and it alone, with --only.")
    if seed is not None and any(text.partition("=")[0] == "seed" for text in given):
        raise InputError("The seed was given twice; leave out --seed or --setting seed.")
    asked = [audit_with(name, given) for name in names]
    return asked if seed is None else [one.with_fields(seed=seed) for one in asked]


def _within_reach(model: "Model", asked: "Sequence[Audit]", named: bool) -> "tuple[list[Audit], list[str]]":
    """The audits that the model's access allows, and a note about the others; AccessError, before any time is spent, if
    these were asked for by name, or if none is left."""
    able = [one for one in asked if model.access >= one.needs]
    beyond = [one for one in asked if one not in able]
    for one in beyond:
        if able and named:
            raise AccessError(
                f"The audit {one.name!r} needs {one.needs.name} access, but {model.id!r} gives {model.access.name}. "
                f"{model.lost} Ask for what it allows: {' '.join(f'--only {a.name}' for a in able)}."
            )
        if not able:
            model.require(one.needs, f"The audit {one.name!r}")
    names = ", ".join(one.name for one in beyond)
    note = f"{model.id} gives {model.access.name} access, so these audits are left out: {names}. {model.lost}"
    return able, [note] * bool(beyond)


def _measured(
    model: "Model", items: "Sequence[Item]", one: "Audit", max_tokens: int | None, labels: "Labels"
) -> "Findings":
    """The findings of one audit, with a bar on a terminal; refusals name the line."""
    from pellucid.run import audit

    try:
        return audit(model, [item.text for item in items], one, max_tokens, progress=True, labels=labels)
    except InputError as e:
        raise type(e)(located(str(e), items)) from e


def _at_hand(
    folder: Path,
    asked: "Sequence[Audit]",
    model: "Model",
    items: "Sequence[Item]",
    max_tokens: int | None,
    labels: "Labels",
) -> "dict[str, Findings]":
    """What the folder holds of these audits, on these texts, of this model; what it holds of others is named."""
    from pellucid.records import read_findings
    from pellucid.run.auditing import audited, data_hash
    from pellucid.verdict.store import differs

    try:
        data = data_hash(audited(model, [item.text for item in items], max_tokens, labels).whole)
    except InputError as e:
        raise InputError(located(str(e), items)) from e
    found = {}
    for one in asked:
        path = folder / f"{one.name}.json"
        if not path.exists():
            continue
        try:
            saved = read_findings(path)
        except InputError as e:
            say(f"{e} So {one.name} is measured again.")
            continue
        other = differs(saved, one, model, data)
        if other:
            say(f"{path} was made with other {other}, so {one.name} is measured again.")
        else:
            found[one.name] = saved
            say(f"Took {one.name} over from {path}.")
    return found


def _keep(
    folder: Path,
    found: "Sequence[Findings]",
    known: "Mapping[str, Findings]",
    model: "Model",
    items: "Sequence[Item]",
    seconds: float,
) -> None:
    """Write the last of `found`, unless it comes from the folder, and run.json as it stands now."""
    from pellucid.records import write_whole

    if found[-1].audit not in known:
        found[-1].save(folder)
    done: dict[str, Any] = {}
    for made in found:
        told = {k: made.origin.get(k) for k in ("texts", "tokens", "data", "truncated", "seconds")}
        done[made.audit] = {"params": made.params, **told, "taken_over": made.audit in known}
    forwards = [made.origin["forwards"] for made in found if "forwards" in made.origin]
    spent = {"audits": done, "forwards": sum(forwards) if forwards else None}
    record = run_record(model, items, seconds, found[0].params["seed"], spent)
    write_whole(folder / "run.json", record.encode())


def _print(made: "Findings", first: bool) -> None:
    if not first:
        print()
    made.show()
    sys.stdout.flush()  # a reader at the other end of a pipe need not wait for the next audit
