"""What the server knows of the pages before it has loaded them: their names and fixed lengths."""

from __future__ import annotations

from dashboard.lengths import PANELS, STRIP

PAGES = (
    ("model", "Model"),
    ("inspect", "Inspect"),
    ("sensitivity", "Sensitivity"),
    ("prune", "Prune"),
    ("run", "Result"),
    ("sweeps", "Sweeps"),
    ("compare", "Compare"),
    ("runs", "Runs"),
    ("lessons", "Lessons"),
    ("advisor", "Advisor"),
    ("lottery", "Lottery"),
    ("structure", "Structure"),
    ("criteria", "Criteria"),
    ("classroom", "Class"),
    ("glossary", "Glossary"),
)
FIRST = PAGES[0][0]
"""The page that opens without a name, at the root."""

MENU = "Understand"
UNDERSTAND = ("lottery", "structure", "criteria", "glossary", "classroom")
"""Pages that stand in that menu: the row has no room for all of them."""
IN_SIMPLE = ("model", "prune", "run", "lessons", "glossary", "classroom")
"""Pages of the simple layout."""
PAGE_NAMES = tuple(name for name, *_ in PAGES)
RENAMED = {"scores": "criteria"}
"""Pages that had another name: old links still open them."""

SMALL_WIDTH = 132 * PANELS  # pixels of a row of them whose names keep clear of each other
CELLS_WIDTH = 640  # pixels of a dozen cells with a ratio in each, and their names
HALF_CELLS_WIDTH = 392  # pixels of a dozen with a number of four characters: half a laptop's page
TILES = 95  # pixels of large numbers, each with another below it
LENGTHS = {
    "strip-height": STRIP,
    "tiles-height": TILES,
    "small-width": SMALL_WIDTH,
    "cells-width": CELLS_WIDTH,
    "half-cells-width": HALF_CELLS_WIDTH,
}
"""What page.css has to know of elements, as it names them. tests/e2e measures them."""
