"""A handout: what stands on a page, as one HTML file that opens offline.

While the script draws a page for one, `chart`, `table` and the others note what is drawn; at every
other time they do nothing. The file is written by what writes a run's report (`pruning.export`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import plotly.io
from plotly.offline import get_plotlyjs

from dashboard import state
from pruning.export import page, report
from pruning.export.record import Record

MOST_ROWS = 200  # of a table
DRAW = """
for (const place of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(place.querySelector("script").textContent);
  Plotly.newPlot(place.querySelector(".plot"), figure.data, figure.layout,
                 { responsive: true, displaylogo: false, displayModeBar: false });
}
"""
"""Draws each chart where it stands: its numbers are data beside it, which nothing runs."""


@dataclass(frozen=True)
class Handout:
    """title: the page's question, or what the page is about; parts: HTML, in the page's order."""

    title: str
    parts: tuple[str, ...]

    @property
    def file(self) -> str:
        """A name for the file: `which-of-these-runs-is-worth-keeping.html`."""
        letters = "".join(c if c.isalnum() and c.isascii() else " " for c in self.title.lower())
        return f"{'-'.join(letters.split()[:9]) or 'handout'}.html"

    @property
    def charts(self) -> int:
        """Pictures in it."""
        return sum(part.count("<svg ") for part in self.parts) + self.plots

    @property
    def plots(self) -> int:
        """Pictures in it that Plotly draws."""
        return sum(part.startswith(CHART) for part in self.parts)

    def html(self) -> str:
        """The file. Plotly is in it once, and only where there is a chart."""
        head = [page.heading(self.title, 1)]
        scripts = [plotly_script(), DRAW] if self.plots else []
        return page.document(self.title, [*head, *self.parts], scripts, light=True)


SOURCES = page.heading("Where it comes from")
CHART = '<figure class="chart">'


@cache
def plotly_script() -> str:
    """Plotly's library, without what would end a script's element early."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


# ---------------------------------------------------------------- noted while a page is drawn


def note(html: str) -> None:
    """A part, in HTML of `pruning.export.page`."""
    parts = state.handout_parts()
    if parts is not None:
        parts.append(html)


def heading(text: str) -> None:
    if state.recording():
        note(page.heading(text))


def text(text: str, *, soft: bool = False) -> None:
    if state.recording():
        note(page.paragraph(text, soft=soft))


def written(markdown: str) -> None:
    """Paragraphs that somebody wrote in Markdown, as plain text."""
    if state.recording():
        plain = re.sub(r"(\*\*|\*|`)(?=\S)(.+?)(?<=\S)\1", r"\2", markdown, flags=re.DOTALL)
        for paragraph in plain.split("\n\n"):
            text(" ".join(paragraph.split()))


def texts(texts: Sequence[str]) -> None:
    if state.recording() and texts:
        note(page.listed(texts))


def chart(figure: dict[str, Any], alt: str, numbers: pd.DataFrame | None = None) -> None:
    """A plotly figure under its title. numbers: what it is drawn from, folded below it."""
    if not state.recording():
        return
    layout = {**figure["layout"]}
    title = str(layout.pop("title", {}).get("text", ""))
    layout.pop("uirevision", None)
    layout["font"] = {**layout.get("font", {}), "family": "system-ui, sans-serif"}
    layout["margin"] = {**layout.get("margin", {}), "t": 24}
    # In a document of its own `<` would begin an element; in JSON this is the same letter.
    numbers_of_it = plotly.io.to_json({"data": figure["data"], "layout": layout}, validate=False)
    data = str(numbers_of_it).replace("<", "\\u003c")
    if title:
        heading(title)
    place = f'<div class="plot" role="img" aria-label="{page.attribute(alt)}"></div>'
    caption = f"<figcaption>{page.escape(alt)}</figcaption>"
    script = f'<script type="application/json">{data}</script>'
    note(f"{CHART}{place}{script}{caption}</figure>")
    if numbers is not None:
        note(page.folded("Numbers", _table(numbers)))


def table(frame: pd.DataFrame) -> None:
    """A table, by its first column."""
    if state.recording():
        note(_table(frame))


def record(record: Record, sentence: str) -> None:
    """A run, as its report has it. sentence: of its recipe."""
    if state.recording():
        for part in report.parts(record):
            note(part)
        note(SOURCES)
        text(f"{sentence} {page.made(record)}.")


def sources(records: Sequence[tuple[str, str, Record]]) -> None:
    """Where the numbers come from: (name, the recipe as a sentence, record) of each run."""
    if not state.recording():
        return
    note(SOURCES)
    texts([f"{name}: {sentence} {page.made(record)}." for name, sentence, record in records])


def _table(frame: pd.DataFrame) -> str:
    first, *others = [str(column) for column in frame.columns]
    rows = [
        [_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False)
    ]
    shown = page.table(others, rows, first)
    more = len(frame) - MOST_ROWS
    return shown + page.paragraph(f"{more:,} more rows.", soft=True) if more > 0 else shown


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# ---------------------------------------------------------------- made


def made(title: str, sentence: str, machine: str, waits: bool) -> Handout:
    """Of what was noted since the page began. sentence: the current recipe, of which the page is
    unless it said otherwise; waits: parts of the page were not there yet.
    """
    parts = state.handout_parts() or []
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    end = [] if SOURCES in parts else [page.heading("The recipe"), page.paragraph(sentence)]
    end.append(page.paragraph(f"Pruning Workbench, {date}, {machine}.", soft=True))
    if waits:
        end.append(page.paragraph("Parts of the page were still being worked out.", soft=True))
    return Handout(title, (*parts, *end))
