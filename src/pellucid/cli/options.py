"""The options that commands share, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="One or several texts, in quotes.")]
Input = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="FILE", help="Texts: .txt (a line each), .csv .tsv .jsonl .parquet, or -."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", metavar="M", help="Folder or hub name; default: the bundled demo model.")
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="M",
        help="Folder or hub name; default: the bundled demo model. A second --model is set beside the first.",
    ),
]
TextColumn = Annotated[str | None, typer.Option(metavar="NAME", help='Default "text", or "sentence".')]
PairColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The second text of pairs.")]
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N texts of --input.")]
Device = Annotated[str | None, typer.Option(metavar="D", help="cpu (default), cuda, cuda:1, mps.")]
TextOrJson = Annotated[str, typer.Option("--format", metavar="F", help="text or json.")]
EntryName = Annotated[str | None, typer.Argument(metavar="NAME", help="Tell all about this one.")]

# of explain alone

LabelColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The true class, for gold targets and accuracy.")]
Params = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the method; may be repeated.")
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help='What to explain: predicted (default), a class number or label, all, gold, or "A,B": logit A minus B.',
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", metavar="F", help="text, json or html; default: by --out, else text.")
]
OutFile = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here; .parquet and .jsonl hold records.")
]
Long = Annotated[
    str, typer.Option(metavar="HOW", help="Texts over the model's limit: refuse, truncate, or window (overlapping).")
]
BatchTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Tokens per forward pass.")]

# of audit alone

Only = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help='This audit alone, without a verdict; may be repeated; "all" is every one.'),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="A setting of the one audit of --only; may be repeated."),
]
AuditBudget = Annotated[
    str | None,
    typer.Option(metavar="T", help="Wall time such as 5m (default), which decides how many texts are looked at."),
]
TrueColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The true class of each text, for calibration and errors.")
]
FailOn = Annotated[
    list[str] | None,
    typer.Option(metavar="GRADE", help="End with status 1 if the verdict has this grade or a worse one; repeatable."),
]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Cut longer texts to N tokens, and say so.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="S", help="Of everything random in the audits; default 0.")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write findings, tables, pictures and run.json here.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Take over what --out holds of the same settings, weights and texts.")
]

# of train and study

ModelFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Write model, tokenizer, card.json and run.json here.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Tables data, tokenizer, model, training in TOML.")
]
SetKeys = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as training.epochs=3; may be repeated."),
]
TrainingSeed = Annotated[int | None, typer.Option(min=0, metavar="S", help="The same as --set training.seed=S.")]
StudyFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Write cells, results.parquet and run.json here.")
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Cells at the same time, which share the cores.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")]

# of bench alone

MethodNames = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C", help='Between commas, each a name or "name(field=value)"; default: a panel of the field.'
    ),
]
MetricNames = Annotated[
    str | None,
    typer.Option(metavar="X,Y", help='Between commas, each a name or "name:operator"; see `pellucid metrics`.'),
]
OperatorNames = Annotated[
    str,
    typer.Option(
        metavar="O,P",
        help="How tokens are erased, for metrics that name none: mask, delete, pad, attention_mask, mean_embedding.",
    ),
]
BenchSeed = Annotated[int, typer.Option(min=0, metavar="S", help="Of controls, sampling, the order of texts.")]
Budget = Annotated[
    str | None,
    typer.Option(metavar="T", help="Wall time such as 5m; texts come in random order, and the table tells how many."),
]
TableFormat = Annotated[str, typer.Option("--format", metavar="F", help="text, markdown or json.")]
TableFolder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the table, rows, figure and run.json here.")
]
RationaleColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What people marked: [[start, end], ...] in characters, or 0 and 1 for words between spaces.",
    ),
]
PlantedFlag = Annotated[
    bool, typer.Option("--planted", help="On small models whose true contributions are known; needs no model or texts.")
]
SanityFlag = Annotated[
    bool, typer.Option("--sanity", help="Do explanations change when the model's weights become random?")
]
OtherModel = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="M", help="With --sanity: another model instead, such as one of shuffled labels."
    ),
]
