"""The report of one or two verdicts: one HTML page, the terminal, a picture."""

from pellucid.report.page import html_page
from pellucid.report.picture import picture
from pellucid.report.terminal import show

__all__ = ["html_page", "picture", "show"]
