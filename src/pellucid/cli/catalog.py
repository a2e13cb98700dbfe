"""`pellucid methods`, `audits`, `metrics` and `families`: what there is to choose from."""

from pellucid.cli import options
from pellucid.outputs import print_table, print_utf8
from pellucid.registry import choose

FORMATS = ["text", "json"]


def methods(name: options.EntryName = None, format: options.TextOrJson = "text") -> None:
    """List the methods and what each one promises.

    needs: how much of the model it must see, from OUTPUTS over GRADIENTS and READOUT to ENCODER.
    """
    choose("format", format, FORMATS)
    from pellucid.methods import METHODS
    from pellucid.methods.catalog import about, explained_at_length
    from pellucid.records import dumps

    asked = [METHODS.get(name)] if name else list(METHODS)
    if format == "json":
        print_utf8(dumps(about(asked[0]) if name else [about(m) for m in asked]) + "\n")
    elif name:
        print(explained_at_length(asked[0]))
    else:
        keys = ("name", "needs", "unit", "complete", "signed", "additive")
        yes_no = {True: "yes", False: "no", None: "depends"}
        entries = [about(m) for m in asked]
        print_table(keys, [[e[k] if isinstance(e[k], str) else yes_no[e[k]] for k in keys] for e in entries])
        print(
            "complete: the scores and the unallocated share add up to the logit, up to rounding\n"
            "signed: scores tell for from against\n"
            "additive: a word's score is the sum of its tokens' scores\n"
            "All of it with the parameters as they are by default. More about one: pellucid methods NAME"
        )


def audits(name: options.EntryName = None, format: options.TextOrJson = "text") -> None:
    """List the audits and what each one asks.

    needs: how much of the model it must see, from OUTPUTS over GRADIENTS and READOUT to ENCODER.
    """
    choose("format", format, FORMATS)
    from pellucid.audits import AUDITS
    from pellucid.audits.catalog import about, explained_at_length
    from pellucid.records import dumps

    asked = [AUDITS.get(name)] if name else list(AUDITS)
    if format == "json":
        print_utf8(dumps(about(asked[0]) if name else [about(a) for a in asked]) + "\n")
    elif name:
        print(explained_at_length(asked[0]))
    else:
        print_table(("name", "needs", "asks"), [[a.name, a.needs.name, about(a)["summary"]] for a in asked])
        print("Settings and source of one: pellucid audits NAME. To ask: pellucid audit --only NAME")


def metrics(name: options.EntryName = None, format: options.TextOrJson = "text") -> None:
    """List the metrics of `pellucid bench`, each with the direction in which it is better."""
    choose("format", format, FORMATS)
    from inspect import cleandoc

    from pellucid.metrics import METRICS
    from pellucid.records import dumps

    asked = [METRICS.get(name)] if name else list(METRICS)
    if format == "json":
        print_utf8(dumps(asked[0].about() if name else [m.about() for m in asked]) + "\n")
    elif name:
        one = asked[0]
        print(f"{one.label}: {cleandoc(one.compute.__doc__ or '')}\n\nUnit: {one.unit}. Source: {one.source}.")
    else:
        print_table(("name", "kind", "means"), [[m.label, m.kind, m.meaning] for m in asked])
        print("↑ up is better, ↓ down is. More about one: pellucid metrics NAME. To ask: pellucid bench --metrics NAME")


def families(format: options.TextOrJson = "text") -> None:
    """List the architectures that Pellucid rebuilds."""
    choose("format", format, FORMATS)
    from pellucid.families import FAMILIES
    from pellucid.records import dumps

    if format == "json":
        closed = [{"name": f.model_type, "implements": {k: list(v) for k, v in f.closed.items()}} for f in FAMILIES]
        print_utf8(dumps(closed) + "\n")
        return
    rows = [[f.model_type, ", ".join(f"{k}={' or '.join(map(str, v))}" for k, v in f.closed.items())] for f in FAMILIES]
    print_table(("family", "only where the configuration says"), rows)
    print("Models of other architectures open too, for the methods that need GRADIENTS or OUTPUTS.")
