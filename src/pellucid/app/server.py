"""The page on a port: loopback unless told otherwise, nothing from other hosts, nothing sent to them."""

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.app.desk import Desk, Limits
from pellucid.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from pellucid.encoder.model import Model

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BODY = 1 << 20  # bytes of one request
_NO_UPLOAD = "/gradio_api/upload"


@dataclass(frozen=True, eq=False)
class Running:
    """A page that is being served."""

    url: str
    blocks: Any

    def close(self) -> None:
        """Stop serving."""
        self.blocks.close(verbose=False)


class Small:
    """Requests of a bounded size only, and no uploads, which this page has no use for (an ASGI application)."""

    def __init__(self, app: Any, most: int = BODY) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer it with a sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith(_NO_UPLOAD):
            await _say(send, 403, "This page takes no files.")
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if int(said) > self.most:
            await _say(send, 413, f"A request may have {self.most} bytes at most.")
            return
        read = 0

        async def counted() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return {"type": "http.disconnect"} if read > self.most else message

        await self.app(scope, counted, send)


async def _say(send: Any, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def check_gradio() -> None:
    """MissingExtra where gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ImportError as e:
        raise MissingExtra('The page needs gradio: pip install "pellucid[app]".') from e


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; InputError where it is taken or the host is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((host, port))
            return int(s.getsockname()[1])
    except socket.gaierror as e:
        raise InputError(
            f"There is no host {host!r} here; 127.0.0.1 is this machine alone, 0.0.0.0 all networks."
        ) from e
    except OverflowError as e:
        raise InputError(f"A port is a number from 0 to 65535; seen {port}.") from e
    except OSError as e:
        raise InputError(
            f"Port {port} on {host} cannot be used ({e.strerror or e}); if another program listens there, choose "
            "another port with --port, or 0 for any free one."
        ) from e


def start(
    models: "Mapping[str, Model]",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    demo: str | None = None,
) -> Running:
    """Serve the page from a thread of its own, and return at once. demo: the name of the bundled model, if it is there.

    Raises: MissingExtra without gradio; InputError for a port that is taken.
    """
    check_gradio()
    desk = Desk(models, limits)
    port = free_port(host, port)
    import gradio as gr
    from starlette.middleware import Middleware

    from pellucid.app.layout import Page, known
    from pellucid.app.style import CSS

    blocks = Page(desk, demo).blocks
    # the desk itself refuses what is one too many, in our words; gradio's own queue is only a second fence
    blocks.queue(max_size=4 * desk.limits.queue, api_open=False, default_concurrency_limit=None)
    # fonts by name: gradio's own themes ask Google for theirs
    theme = gr.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    blocks.launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, show_error=False,
        max_threads=desk.limits.queue + 8, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(Small)]}, theme=theme, css=CSS, footer_links=["api"],
        **known(blocks.launch, run_history=False),
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else "localhost" if host == "0.0.0.0" else host
    return Running(f"http://{shown}:{port}", blocks)


def serve(
    models: "Mapping[str, Model]",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    demo: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page until the process is interrupted (Ctrl+C); `say` is told where it listens."""
    running = start(models, host, port, limits, demo)
    open_to_all = "" if host in LOOPBACK else " Whoever reaches this machine can use it."
    say(f"Pellucid listens on {running.url}; Ctrl+C ends it.{open_to_all}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("Closed.")
    finally:
        running.close()


def names_of(sources: list[str]) -> list[str]:
    """Names to choose models by: the last part of a folder, a hub name as it is; numbered where two are alike."""
    short = [Path(s).resolve().name if Path(s).is_dir() else s for s in sources]
    seen: dict[str, int] = {}
    out = []
    for name in short:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out
