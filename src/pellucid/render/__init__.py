"""One attribution for a person to read: terminal text, an HTML fragment or page, an SVG picture."""

from pellucid.render.page import html_fragment, html_page
from pellucid.render.picture import svg
from pellucid.render.terminal import show

__all__ = ["html_fragment", "html_page", "show", "svg"]
