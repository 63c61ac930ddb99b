"""The field's words: what people read, and what things are called, has none of the old ones.

`python tests/test_house_words.py` counts what remains, folder by folder.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pruning import registry

ROOT = Path(__file__).resolve().parents[1]
CODE = ("dashboard", "pruning", "sample_models")
WITH_TEXT = ("dashboard", "pruning")
"""Folders whose strings people read: the page's, and errors, notices, reasons, help."""
TECHNIQUES = {
    "criterion": "pruning/criteria",
    "granularity": "pruning/units",
    "scope": "pruning/allocation",
    "schedule": "pruning/allocation",
}
"""Kind of technique -> its room."""

PROSE = re.compile(
    r"""\b(
        heal(s|ed|ing)? | slim(s|med)?                  # fine-tune; compact. Slimming is L1 on BN.
      | foretold | gone | goes | went      # predicted; pruned, removed
      | (is|are|was|were)\ left(?!\ out)               # kept, remaining
      | drawn\ by\ lot | by\ lot                        # at random
      | on\ the\ bench                                  # current model
      | what\ goes\ together | by\ what\ score          # granularity; criterion
      | coupled | lives?\ (and|or)\ dies?               # dependency group
      | by[ _]hand | spare[sd]                          # manual; skipped
      | the\ truth | oracles? | promises?               # criterion check; improvements
      | doorm[ae]n | strangers? | crews? | shel(f|ves) | twins?
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
NAMES = re.compile(
    r"""bench | came | chance | coupled | crew | door(man)? | drawn | ending | floor | foretold
      | found | given | goes | gone | heal(ed|ing)? | held | leg | lot | oracle | promises | route
      | said | shelf | slim(med)? | spare[sd] | story | stranger | told | truth | twin | walk | went
      """,
    re.IGNORECASE | re.VERBOSE,
)
"""Parts of identifiers, between underscores and capitals, as a whole."""

ALLOWED = {
    # Version 1 called them so, and its recipes, events and runs still read.
    ("pruning/recipe.py", "by_hand"),
    ("pruning/events.py", "slim"),
    ("pruning/runs/take_home.py", "slim"),
    # "went wrong" is of errors, not of weights.
    ("pruning/runs/worker.py", "went"),
    # Of a run that is resumed: the promise is in the words that it was asked for in.
    ("README.md", "goes"),
}
"""(file, word) where the word is another thing, with the reason."""


class Hit(NamedTuple):
    file: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r} in {self.text[:70]!r}"


def prose_hits(file: str, line: int, text: str) -> Iterator[Hit]:
    for match in PROSE.finditer(text):
        yield Hit(file, line, match.group().lower(), " ".join(text.split()))


def name_hits(file: str, line: int, name: str) -> Iterator[Hit]:
    for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        if NAMES.fullmatch(part):
            yield Hit(file, line, part.lower(), name)


def nodes(path: Path) -> list[ast.AST]:
    """Of a file of Python, walked once: for its names and for its strings."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def docstrings(nodes: Sequence[ast.AST]) -> set[int]:
    """The ids of the string constants that are statements: docstrings, not text on the page."""
    return {id(node.value) for node in nodes if isinstance(node, ast.Expr)}


def strings(path: Path, nodes: Sequence[ast.AST]) -> Iterator[Hit]:
    """In the strings of a file: they may reach people. The parts of f-strings are among them."""
    skipped = docstrings(nodes)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in skipped:
                yield from prose_hits(relative(path), node.lineno, node.value)


def definitions(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that a file names: uses follow from them."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def names(path: Path, nodes: Sequence[ast.AST]) -> Iterator[Hit]:
    file = relative(path)
    yield from name_hits(file, 1, path.stem)
    for line, name in definitions(nodes):
        yield from name_hits(file, line, name)


def text_lines(path: Path) -> Iterator[Hit]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield from prose_hits(relative(path), number, line)


def help_of_techniques() -> Iterator[Hit]:
    """In the docstrings and tags of techniques: the page and the shell show them as help."""
    for kind, folder in TECHNIQUES.items():
        for entry in registry.entries(kind).values():
            tags = map(str, entry.tags.values())
            text = " ".join([entry.help, entry.about, *tags])
            yield from prose_hits(f"{folder}/help of {entry.name}", 1, text)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def all_hits() -> list[Hit]:
    hits = list(help_of_techniques())
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            read = nodes(path)
            hits += names(path, read)
            if folder in WITH_TEXT:
                hits += strings(path, read)
    for path in sorted((ROOT / "dashboard").rglob("*")):
        if path.suffix in (".js", ".html", ".css", ".md"):
            hits += text_lines(path)
    hits += text_lines(ROOT / "README.md")
    return [hit for hit in hits if (hit.file, hit.word) not in ALLOWED]


def test_the_house_has_only_the_fields_words() -> None:
    remaining = all_hits()
    assert not remaining, "\n".join(map(str, remaining))


def test_the_search_finds_words_and_names_and_lets_slimming_be() -> None:
    found = [
        hit.word for hit in prose_hits("", 1, "Healing the slim model, by lot; slimming stays")
    ]
    assert found == ["healing", "slim", "by lot"]
    assert [hit.word for hit in name_hits("", 1, "SlimModel_goneBy")] == ["slim", "gone"]
    assert not list(name_hits("", 1, "slimming_floored"))


if __name__ == "__main__":
    remaining = all_hits()
    if "-v" in sys.argv:
        print(*remaining, sep="\n")
    for place, count in sorted(Counter(str(Path(hit.file).parent) for hit in remaining).items()):
        print(f"{count:5d}  {place}")
