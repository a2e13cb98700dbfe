"""The page: type a text, see which words made the decision, and what attention could have been (extra `app`).

`desk` computes and bounds, `panels` writes HTML, `layout` alone knows gradio, `server` listens.
"""

from pellucid.app.desk import Busy, Desk, Limits
from pellucid.app.server import Running, serve, start

__all__ = ["Busy", "Desk", "Limits", "Running", "serve", "start"]
