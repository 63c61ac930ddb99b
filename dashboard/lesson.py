"""Lessons: reads the text files that hold them. Pure: no page, no model, no run.

A lesson is one TOML file: `[results.NAME]` are experiments, which `lesson_results` measures once;
each `[[step]]` is a page of the panel. Numbers in a text are places, `{NAME.accuracy}`, which are
filled from the results: nobody types one. A file that cannot be followed is refused with its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from dashboard import figures
from dashboard.figures import FIGURES
from dashboard.locks import ADVANCED, CONTROLS, expanded
from dashboard.pages import PAGE_NAMES
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.storage import default_workspace

SHIPPED = Path(__file__).parent / "lessons"
OWN = "lessons"
"""The folder of the workspace that holds lessons of one's own."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
RESULT = re.compile(r"[a-z][a-z0-9_]{0,40}")
PLACE = re.compile(r"\{([^{}]*)\}")
CHECK = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")
LARGEST = 200_000  # characters of a file
MOST_STEPS = 30
SEEDS = 3

TEXTS = ("page", "layer")
"""What a goal may look at as it is, beside what `GOALS` lists: the open page, the picked layer."""
GOALS = ("page", "layer", "recipe.FIELD", "ratio.LAYER", "drop.LAYER", "run.FIGURE")
"""What a goal may look at. ratio: what the recipe removes of a layer; drop: accuracy that the
sensitivity map measured for that, in points; run: the newest finished run of the current recipe."""


class LessonError(PruningError):
    """A lesson that cannot be followed. line: of its file, from 1."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}, line {line}: {message}")
        self.line = line


@dataclass(frozen=True)
class Check:
    """One comparison of a goal or a claim. value: a number, a text, or another result's figure."""

    figure: str
    comparison: str
    value: float | str | bool

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.value}"


@dataclass(frozen=True)
class Predict:
    """figure: of a result, `NAME.FIGURE`, that people are asked for before they see it."""

    question: str
    figure: str


@dataclass(frozen=True)
class Goal:
    """text: what to do; checks: all of them have to be met."""

    text: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Reveal:
    """text: what came of it; results, figures: rows and columns of the table below it."""

    text: str
    results: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """page: where it takes place; recipe: what is set when it begins, None to leave it."""

    title: str
    text: str
    page: str
    recipe: Recipe | None = None
    layer: str | None = None
    lock: frozenset[str] = frozenset()
    hide: frozenset[str] = frozenset()
    predict: Predict | None = None
    goal: Goal | None = None
    reveal: Reveal | None = None


@dataclass(frozen=True)
class Experiment:
    """A recipe that is measured with so many seeds, from the recipe's own on."""

    recipe: Recipe
    seeds: int


@dataclass(frozen=True)
class Lesson:
    """claims: comparisons of results that its sentences rest on."""

    name: str
    title: str
    question: str
    minutes: int
    steps: tuple[Step, ...]
    results: Mapping[str, Experiment] = field(default_factory=dict, hash=False)
    claims: tuple[Check, ...] = ()


# ---------------------------------------------------------------- which there are


def files() -> dict[str, Path]:
    """Name of a lesson -> its file, in the order of their names; one's own after the shipped."""
    # A shipped name stays the shipped one's.
    folders = [(folder, _changed(folder)) for folder in (default_workspace() / OWN, SHIPPED)]
    return dict(_listed(*folders))


@lru_cache(maxsize=4)
def _listed(*folders: tuple[Path, int]) -> dict[str, Path]:
    """Each with when it changed: pages ask at every control, and a folder is long to read."""
    return {
        file.stem: file
        for folder, _ in folders
        for file in sorted(folder.glob("*.toml"))
        if NAME.fullmatch(file.stem)
    }


def _changed(folder: Path) -> int:
    """When something was put into it or taken out; 0 without one."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def names() -> list[str]:
    known = files()
    return sorted(known, key=lambda name: (known[name].parent != SHIPPED, name))


def find(name: str) -> Lesson:
    """Raises LessonError for a file that cannot be followed, PruningError for none."""
    known = files()
    if name not in known:
        raise PruningError(f"There is no lesson {name[:60]!r}: there are {', '.join(names())}.")
    file = known[name]
    try:
        return _kept(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise PruningError(f"{file.name} cannot be read: {error.strerror}.") from None


@lru_cache(maxsize=64)
def _kept(file: Path, changed: int) -> Lesson:
    """changed: a file that somebody edits is read anew."""
    return read(file.read_text(encoding="utf-8", errors="replace"), file.stem, file.name)


# ---------------------------------------------------------------- one file


def read(text: str, name: str, file: str = "") -> Lesson:
    """The lesson of a text. Raises LessonError."""
    return _Reader(text, name, file or f"{name}.toml").lesson()


FIELDS = {
    "": ("title", "question", "minutes", "claims", "results", "step"),
    "results": ("recipe", "seeds"),
    "step": (
        *("title", "text", "page", "recipe", "layer", "lock", "hide"),
        *("predict", "goal", "reveal"),
    ),
    "predict": ("question", "figure"),
    "goal": ("text", "check"),
    "reveal": ("text", "results", "figures"),
}
"""Table -> its keys."""


class _Reader:
    """One file. Every complaint names the line that it is about."""

    def __init__(self, text: str, name: str, file: str) -> None:
        self.text, self.name, self.file = text, name, file
        self.lines = dict(_keys(text))

    def refuse(self, table: str, key: str, message: str) -> NoReturn:
        """table: "" or "step 2" or "step 2.goal" or "results.NAME"."""
        places = [(table, key), (table, "")]
        # A key of an inline table stands where its table is.
        outer, _, inner = table.rpartition(".")
        places += [(outer, inner), (outer, "")]
        line = next((self.lines[place] for place in places if place in self.lines), 1)
        raise LessonError(self.file, line, message)

    def lesson(self) -> Lesson:
        if len(self.text) > LARGEST:
            raise LessonError(self.file, 1, f"it has more than {LARGEST:,} characters.")
        try:
            data = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            message = f"{str(error).partition(' (at')[0]}."
            raise LessonError(self.file, _line_of(error, self.text), message) from None
        except RecursionError:
            raise LessonError(self.file, 1, "it is nested too deep.") from None
        self.known("", "", data)
        minutes = data.get("minutes")
        if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= 60:
            self.refuse("", "minutes", "minutes is a whole number from 1 to 60.")
        self.results = dict(self.experiments(data.get("results", {})))
        steps = data.get("step")
        if not isinstance(steps, list) or not 1 <= len(steps) <= MOST_STEPS:
            self.refuse("", "step", f"a lesson has 1 to {MOST_STEPS} steps, each a [[step]].")
        return Lesson(
            self.name,
            self.string("", data, "title"),
            self.string("", data, "question"),
            minutes,
            tuple(self.step(f"step {number}", each) for number, each in enumerate(steps, 1)),
            self.results,
            tuple(self.claim(each) for each in self.strings("", data, "claims")),
        )

    # ------------------------------------------------------------ parts

    def experiments(self, tables: Any) -> Iterator[tuple[str, Experiment]]:
        if not isinstance(tables, dict):
            self.refuse("", "results", "results are tables, each [results.NAME].")
        for name, data in tables.items():
            table = f"results.{name}"
            if not RESULT.fullmatch(name):
                self.refuse(table, "", "names of results are small letters, digits and _.")
            self.known("results", table, data)
            seeds = data.get("seeds", SEEDS)
            if not isinstance(seeds, int) or not 1 <= seeds <= 10:
                self.refuse(table, "seeds", "seeds is a whole number from 1 to 10.")
            yield name, Experiment(self.recipe(table, data.get("recipe")), seeds)

    def recipe(self, table: str, data: Any) -> Recipe:
        if isinstance(data, str):
            if data not in self.results:
                self.refuse(table, "recipe", f"there is no [results.{data[:40]}].")
            return self.results[data].recipe
        if not isinstance(data, dict) or not data.get("model"):
            self.refuse(table, "recipe", 'a recipe is like {model = "digits-cnn", sparsity = 0.9}.')
        try:
            return Recipe.from_dict(data)
        except PruningError as error:
            self.refuse(table, "recipe", str(error))
        except (TypeError, ValueError, OverflowError):
            self.refuse(table, "recipe", "its values are of the wrong kind.")

    def step(self, table: str, data: Any) -> Step:
        self.known("step", table, data)
        page = self.string(table, data, "page")
        if page not in PAGE_NAMES:
            self.refuse(table, "page", f"there is no page {page[:40]!r}: {', '.join(PAGE_NAMES)}.")
        return Step(
            self.string(table, data, "title"),
            self.filled(table, data, "text"),
            page,
            self.recipe(table, data["recipe"]) if "recipe" in data else None,
            self.string(table, data, "layer") if "layer" in data else None,
            self.controls(table, data, "lock"),
            self.controls(table, data, "hide"),
            self.predict(f"{table}.predict", data["predict"]) if "predict" in data else None,
            self.goal(f"{table}.goal", data["goal"]) if "goal" in data else None,
            self.reveal(f"{table}.reveal", data["reveal"]) if "reveal" in data else None,
        )

    def predict(self, table: str, data: Any) -> Predict:
        self.known("predict", table, data)
        return Predict(
            self.filled(table, data, "question"),
            self.measured(table, "figure", self.string(table, data, "figure")),
        )

    def goal(self, table: str, data: Any) -> Goal:
        self.known("goal", table, data)
        checks = self.strings(table, data, "check")
        if not checks:
            self.refuse(table, "check", 'a goal has a check, like ["recipe.sparsity >= 0.9"].')
        return Goal(
            self.filled(table, data, "text"), tuple(self.check(table, each) for each in checks)
        )

    def reveal(self, table: str, data: Any) -> Reveal:
        self.known("reveal", table, data)
        results = self.strings(table, data, "results")
        for name in results:
            if name not in self.results:
                self.refuse(table, "results", f"there is no [results.{name[:40]}].")
        columns = self.strings(table, data, "figures")
        for name in columns:
            if name not in FIGURES:
                self.refuse(table, "figures", _no_figure(name))
        if bool(results) != bool(columns):
            self.refuse(table, "results", "a table needs both results and figures.")
        return Reveal(self.filled(table, data, "text"), tuple(results), tuple(columns))

    def check(self, table: str, text: str) -> Check:
        check = self.compared(table, "check", text)
        what, _, rest = check.figure.partition(".")
        if check.figure in TEXTS:
            kind: type = str
            if what == "page" and check.value not in PAGE_NAMES:
                self.refuse(table, "check", f"there is no page {check.value!r}.")
        elif what == "recipe" and rest in Recipe.__dataclass_fields__:
            kind = type(getattr(Recipe(), rest))
            if kind not in (str, bool, int, float):
                self.refuse(table, "check", f"{rest} is no single value to compare.")
        elif (what in ("ratio", "drop") and rest) or (what == "run" and rest in FIGURES):
            kind = float
        else:
            known = ", ".join(GOALS)
            self.refuse(table, "check", f"a goal cannot look at {check.figure[:60]!r}: {known}.")
        return self.of_kind(table, check, kind)

    def of_kind(self, table: str, check: Check, kind: type) -> Check:
        """The check with its value as what it is compared with."""
        value = check.value
        if kind is bool:
            if value not in ("true", "false") or check.comparison not in ("=", "!="):
                self.refuse(table, "check", f"{check.figure} is true or false.")
            return Check(check.figure, check.comparison, value == "true")
        if kind is str:
            if check.comparison not in ("=", "!="):
                self.refuse(table, "check", f"{check.figure} is a name: compare with = or !=.")
            return check
        try:
            return Check(check.figure, check.comparison, float(value))
        except ValueError:
            self.refuse(table, "check", f"{check.figure} is a number, and {value!r} is none.")

    def claim(self, text: str) -> Check:
        check = self.compared("", "claims", text)
        self.measured("", "claims", check.figure)
        try:
            return Check(check.figure, check.comparison, float(check.value))
        except ValueError:
            other = self.measured("", "claims", str(check.value))
            return Check(check.figure, check.comparison, other)

    def compared(self, table: str, key: str, text: str) -> Check:
        match = CHECK.fullmatch(text)
        if match is None:
            self.refuse(
                table, key, f"{text[:60]!r} is no comparison: write it like recipe.sparsity >= 0.9."
            )
        return Check(*match.groups())

    # ------------------------------------------------------------ values

    def known(self, kind: str, table: str, data: Any) -> None:
        """Refuses what is no table, and keys that it does not have."""
        if not isinstance(data, dict):
            self.refuse(table, "", f"{table or 'this'} is a table.")
        for key in data:
            if key not in FIELDS[kind]:
                known = ", ".join(FIELDS[kind])
                self.refuse(table, key, f"there is no key {key[:40]!r} here: {known}.")

    def string(self, table: str, data: Mapping[str, Any], key: str) -> str:
        value = data.get(key)
        if not isinstance(value, str) or not value.strip():
            self.refuse(table, key, f"{key} is a text, and has to be there.")
        return value.strip()

    def strings(self, table: str, data: Mapping[str, Any], key: str) -> list[str]:
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.refuse(table, key, f'{key} is a list of texts, like ["..."].')
        return value

    def controls(self, table: str, data: Mapping[str, Any], key: str) -> frozenset[str]:
        named = self.strings(table, data, key)
        for name in named:
            if name not in CONTROLS and name != ADVANCED:
                known = ", ".join([*CONTROLS, ADVANCED])
                self.refuse(table, key, f"there is no control {name[:40]!r}: {known}.")
        return frozenset(expanded(named))

    def filled(self, table: str, data: Mapping[str, Any], key: str) -> str:
        """A text whose places can all be filled."""
        text = self.string(table, data, key)
        for place in PLACE.findall(text):
            for part in place.split(" - "):
                self.measured(table, key, part.strip())
        return text

    def measured(self, table: str, key: str, figure: str) -> str:
        """`NAME.FIGURE` of a result that the lesson has."""
        name, _, rest = figure.partition(".")
        if name not in self.results:
            self.refuse(table, key, f"{figure[:60]!r} names no [results.{name[:40]}].")
        if rest not in FIGURES:
            self.refuse(table, key, _no_figure(rest))
        return figure


def _no_figure(name: str) -> str:
    return f"there is no figure {name[:40]!r}: {', '.join(FIGURES)}."


# ---------------------------------------------------------------- lines

HEADER = re.compile(r"\s*\[(\[?)\s*([\w.\-]+)\s*\]")
KEY = re.compile(r"\s*([\w\-]+)\s*=")


def _keys(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    """(table, key) -> line; a table alone by the key "". The n-th [[step]] is `step n`."""
    table, steps, quote = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not quote:
            if header := HEADER.match(line):
                name = header[2]
                if header[1]:
                    steps += 1
                    name = f"step {steps}"
                elif name.startswith("step."):
                    name = f"step {steps}.{name.removeprefix('step.')}"
                table = name
                yield (table, ""), number
            elif key := KEY.match(line):
                yield (table, key[1]), number
        # What stands in a text of several lines is neither a table nor a key.
        for mark in ('"""', "'''"):
            if quote in ("", mark) and line.count(mark) % 2:
                quote = "" if quote else mark


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    match = re.search(r"at line (\d+)", str(error))
    return int(match[1]) if match else max(1, len(text.splitlines()))


# ---------------------------------------------------------------- what is filled in

Measured = Mapping[str, Mapping[str, float | None]]
"""Name of a result -> figure -> its mean over seeds."""


def fill(text: str, measured: Measured) -> str:
    """A text with its places filled; what was not measured says so."""
    return PLACE.sub(lambda match: _place(match[1], measured), text)


def _place(place: str, measured: Measured) -> str:
    parts = [part.strip() for part in place.split(" - ")]
    values = [value_of(part, measured) for part in parts]
    figure = parts[0].partition(".")[2]
    if len(parts) == 1:
        return figures.write(figure, values[0])
    return figures.difference(figure, values[0], values[1])


def value_of(figure: str, measured: Measured) -> float | None:
    """Of `NAME.FIGURE`; None where it was not measured."""
    name, _, rest = figure.partition(".")
    return measured.get(name, {}).get(rest)


COMPARE = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def met(check: Check, actual: Any) -> bool:
    """Whether a value is as the check wants it; nothing that is not known is."""
    if actual is None:
        return False
    if isinstance(check.value, float) and not isinstance(actual, bool):
        # 0.9 that a slider gives is 0.9 as typed: shares are told apart by a ten-thousandth.
        actual, wanted = round(float(actual), 6), round(check.value, 6)
        return bool(COMPARE[check.comparison](actual, wanted))
    return bool(COMPARE[check.comparison](actual, check.value))


def holds(claim: Check, measured: Measured) -> bool:
    """Whether the results are as a claim says."""
    value = claim.value
    wanted = value_of(value, measured) if isinstance(value, str) else value
    actual = value_of(claim.figure, measured)
    return actual is not None and wanted is not None and COMPARE[claim.comparison](actual, wanted)
