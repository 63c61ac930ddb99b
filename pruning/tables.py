"""Small HTML tables: how a result shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

LEFT = ' style="text-align: left"'
"""Notebooks align cells at the right, where names are hard to follow."""


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """head: of the columns, the first of which names the rows. All text is shown as text."""
    lines = ["<table>", f"<thead>{_row('th', head)}</thead>", "<tbody>"]
    lines += [_row("td", row) for row in rows]
    return "\n".join([*lines, "</tbody>", "</table>"])


def _row(tag: str, cells: Sequence[str]) -> str:
    inside = "".join(f"<{tag}{LEFT}>{escape(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inside}</tr>"
