"""`pellucid audit`: questions about a model, asked on a set of texts, one after the other."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid._version import __version__
from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, check_source, located, opened, say, texts_of
from pellucid.errors import AccessError, InputError, MissingExtra, Unanswerable
from pellucid.outputs import check_place, print_utf8, run_record
from pellucid.registry import choose

if TYPE_CHECKING:
    from pellucid.audits import Audit
    from pellucid.encoder.model import Model
    from pellucid.finding import Findings
    from pellucid.inputs import Item


def audit(
    text: options.Texts = None,
    input: options.Input = None,
    model: options.ModelName = None,
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
    """Measure what may be read into the model's attention.

    Every number comes with its 95 % interval over texts, its control, and a grade. See `pellucid audits`. Without
    --only all audits are made; one that cannot be made of this model or these texts is left out, with the reason.

    Examples:

        pellucid audit -m my-model -i reviews.csv --out findings
    """
    start = time.perf_counter()
    choose("format", format, ["text", "json"])
    check_source(text or [], input, "audit")
    if resume and out is None:
        raise InputError("--resume takes over what --out DIR holds; add --out, or leave --resume out.")
    if out is not None:
        check_place(out / "run.json")
    from pellucid.inputs import Columns, check_tokens
    from pellucid.records import dumps

    asked, notes = _asked(only or [], setting or [], seed), [] if model else [NO_MODEL]
    items = texts_of(text or [], input, Columns(text_column, pair_column), limit, "Auditing", notes.append)
    classifier = opened(model, device)
    asked, beyond = _within_reach(classifier, asked, named=bool(only))
    notes += beyond
    fix = f"Add --max-tokens {classifier.limit} to cut longer texts off there." if max_tokens is None else None
    check_tokens(classifier, items, fix)
    for note in notes:  # only now, so that a refusal stands alone
        say(note)
    known = _at_hand(out, asked, classifier, items, max_tokens) if resume and out is not None else {}
    found: list[Findings] = []
    for i, one in enumerate(asked):
        try:
            made = known[one.name] if one.name in known else _measured(classifier, items, one, max_tokens)
        except (Unanswerable, MissingExtra) as e:  # where all were asked for, this does not stop the others
            if only or (not found and i == len(asked) - 1):
                raise
            say(f"The audit {one.name!r} is left out: {e}")
            continue
        found.append(made)
        if out is not None:
            _keep(out, found, known, classifier, items, time.perf_counter() - start)
        if format == "text":
            _print(made, first=len(found) == 1)
    if format == "json":
        print_utf8(dumps([made.to_dict() for made in found]) + "\n")
    if out is not None:
        say(f"Wrote {out} in {time.perf_counter() - start:.1f} s.")


def _asked(only: Sequence[str], given: Sequence[str], seed: int | None) -> "list[Audit]":
    """The audits of --only, or all of them, with their settings."""
    from pellucid.audits import AUDITS
    from pellucid.audits.catalog import audit_with

    names = list(dict.fromkeys(only)) or AUDITS.names()
    if given and len(set(only)) != 1:
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


def _measured(model: "Model", items: "Sequence[Item]", one: "Audit", max_tokens: int | None) -> "Findings":
    """The findings of one audit, with a bar on a terminal; refusals name the line."""
    from pellucid.run import audit

    try:
        return audit(model, [item.text for item in items], one, max_tokens, progress=True)
    except InputError as e:
        raise type(e)(located(str(e), items)) from e


def _at_hand(
    folder: Path, asked: "Sequence[Audit]", model: "Model", items: "Sequence[Item]", max_tokens: int | None
) -> "dict[str, Findings]":
    """What the folder holds of these audits, on these texts, of this model; what it holds of others is named."""
    from pellucid.records import read_findings
    from pellucid.run.auditing import audited, data_hash

    try:
        data = data_hash(audited(model, [item.text for item in items], max_tokens).whole)
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
        origin = {"versions": {}} | saved.origin
        same = {
            "settings": saved.params == json.loads(json.dumps(one.params())),
            "weights": origin.get("weights") == model.fingerprint.sha256,
            "texts": origin.get("data") == data,
            "version of pellucid": origin["versions"].get("pellucid") == __version__,
        }
        if all(same.values()):
            found[one.name] = saved
            say(f"Took {one.name} over from {path}.")
        else:
            other = " and ".join(what for what, equal in same.items() if not equal)
            say(f"{path} was made with other {other}, so {one.name} is measured again.")
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
