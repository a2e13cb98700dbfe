"""`pellucid serve`."""

import os
from typing import Annotated

import typer

from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, demo_folder, opened, say

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", metavar="M", help="Folder or hub name; may be repeated. Default: the bundled demo model."
    ),
]
Host = Annotated[str, typer.Option(metavar="H", help="Where to listen; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="P", help="0 is any free one.")]
Longest = Annotated[int, typer.Option("--max-tokens", min=1, metavar="N", help="Longer texts are refused.")]
Queue = Annotated[
    int, typer.Option(min=1, metavar="N", help="Questions that may wait; one more is told at once to come back.")
]


def serve(
    model: Models = None,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    max_tokens: Longest = 256,
    queue: Queue = 32,
    device: options.Device = None,
) -> None:
    """Serve a page where one types texts and sees which words decided.

    It listens on this machine alone unless --host says otherwise, and asks nothing of other hosts. Needs the extra
    `app`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from pellucid.app.desk import Limits
    from pellucid.app.server import check_gradio, free_port, names_of, serve

    check_gradio()
    limits, port = Limits(max_tokens, queue), free_port(host, port)  # before models are opened, which takes a while
    if not model:
        say(NO_MODEL)
    sources = model or [str(demo_folder())]
    models = {name: opened(source, device) for name, source in zip(names_of(sources), sources, strict=True)}
    demo = next((n for n, s in zip(models, sources, strict=True) if s == str(demo_folder())), None)
    serve(models, host, port, limits, demo, say)
