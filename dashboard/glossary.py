"""The glossary: each word that pages use in one line. Its words lie in glossary.toml; techniques
are not among them, for the registry has them in their docstrings.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dashboard import words
from pruning import registry
from pruning.registry import Entry

FILE = Path(__file__).with_suffix(".toml")
GROUPS = ("The recipe", "Training", "What comes of it", "What is measured")
KINDS = {
    "criterion": "Criteria",
    "granularity": "Granularities",
    "scope": "Scopes",
    "schedule": "Schedules",
}
"""Kind of technique -> its heading, below those of GROUPS."""


@dataclass(frozen=True)
class Term:
    """A word. line: what it means; fields: of the recipe that it explains; formula: LaTeX; paper: a
    link; where: the module that computes it; more: what else there is to say of a technique.
    """

    name: str
    line: str
    group: str
    fields: tuple[str, ...] = ()
    formula: str = ""
    paper: str = ""
    where: str = ""
    more: str = ""

    def matches(self, text: str) -> bool:
        """Whether every word of a search is in it."""
        whole = f"{self.name} {self.line} {self.more} {self.where}".lower()
        return all(part in whole for part in text.lower().split())


@cache
def terms() -> tuple[Term, ...]:
    """Those of the file, in its order."""
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    made = [Term(**{**term, "fields": tuple(term.get("fields", ()))}) for term in data["term"]]
    return tuple(made)


def techniques() -> list[Term]:
    """The registry's criteria, granularities, scopes and schedules; those added since, too."""
    return [
        _of_technique(entry, group)
        for kind, group in KINDS.items()
        for entry in registry.entries(kind).values()
    ]


def _of_technique(entry: Entry, group: str) -> Term:
    defaults = [f"{words.technique(option.name)} {option.default}" for option in entry.options]
    more = f"As usual: {', '.join(defaults)}." if defaults else ""
    if entry.kind == "criterion":  # the others share a file, whose docstring is of no single one
        more = f"{entry.about.partition(chr(10) * 2)[2]} {more}".strip()
    name = words.capitalized(entry.name)
    return Term(name, entry.title, group, paper=entry.paper or "", where=entry.module, more=more)


@cache
def _by_field() -> dict[str, str]:
    return {field: term.line for term in terms() for field in term.fields}


def of_field(field: str) -> str:
    """What a field of the recipe means, in one line, as Markdown. Raises KeyError."""
    return words.plain(_by_field()[field])


@cache
def _by_name() -> dict[str, str]:
    return {term.name.lower(): term.line for term in terms()}


def line(name: str) -> str:
    """What a word means, in one line, as Markdown. Raises KeyError."""
    return words.plain(_by_name()[name.lower()])


def of_label(label: str) -> str | None:
    """What a label begins with, `Weights kept` or `File, compact`, in one line; None for words that
    are not in the glossary.
    """
    first = re.split(r"[, ]", label.lower(), maxsplit=1)[0]
    line = _by_name().get(label.lower()) or _by_name().get(first)
    return words.plain(line) if line else None
