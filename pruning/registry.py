"""Which techniques there are, read from their source: a page can list and draw them without importing torch.

A technique is a function with a decorator: `@criterion(...)`, `@granularity(...)`, `@scope(...)`, `@schedule(...)`.
Its name is the function's, its options are the keyword-only parameters, its help is the docstring, and the
decorator's keywords are its tags. Written once, there; everything else (registry, form, shell flag) derives from it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pruning.errors import OutOfRange, RecipeError, UnknownName

KINDS = ("criterion", "granularity", "scope", "schedule")
PLURAL = {
    "criterion": "criteria",
    "granularity": "granularities",
    "scope": "scopes",
    "schedule": "schedules",
}
PLACES = {
    "criterion": "criteria",
    "granularity": "units.granularities",
    "scope": "allocation.scopes",
    "schedule": "allocation.schedules",
}

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter of a technique. kind: "int", "float", "bool", "choice" or "str"."""

    name: str
    kind: str
    default: Any
    choices: tuple[Any, ...] = ()
    help: str = ""


@dataclass(frozen=True)
class Entry:
    """A technique, described. about: the module's docstring; paper: the first link in it."""

    kind: str
    name: str
    title: str
    help: str
    about: str
    paper: str | None
    tags: dict[str, Any] = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    module: str = ""


_live: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}
_added: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def _decorator(kind: str) -> Callable[..., Callable[[Function], Function]]:
    def with_tags(**tags: Any) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            _live[kind][function.__name__.rstrip("_")] = function
            if not function.__module__.startswith(
                "pruning."
            ):  # added from outside: no file of ours to read
                source = textwrap.dedent(inspect.getsource(function))
                about = inspect.getdoc(inspect.getmodule(function)) or ""
                _added[kind].update(
                    {entry.name: entry for entry in _read(kind, source, about, function.__module__)}
                )
            return function

        return register

    return with_tags


criterion = _decorator("criterion")
granularity = _decorator("granularity")
scope = _decorator("scope")
schedule = _decorator("schedule")


def entries(kind: str) -> dict[str, Entry]:
    """Every technique of a kind, by name, in the order of files and lines."""
    if kind not in KINDS:
        raise UnknownName("kind of technique", kind, KINDS)
    return {**_shipped(kind), **_added[kind]}


def names(kind: str) -> list[str]:
    return list(entries(kind))


def entry(kind: str, name: str) -> Entry:
    """One technique, described. Raises UnknownName."""
    known = entries(kind)
    if name not in known:
        raise UnknownName(kind, name, known)
    return known[name]


def get(kind: str, name: str) -> Callable[..., Any]:
    """The technique itself (imports it, and torch with it). Raises UnknownName."""
    found = entry(kind, name)
    if name not in _live[kind]:
        importlib.import_module(found.module)
    return _live[kind][name]


def companion(name: str, what: str) -> Callable[..., Any] | None:
    """A function that stands beside a criterion in its file and that its tags announce; None where it has none.

    `compensates=True`: compensate(seen, masks, **options) -> name -> weights to set before the masks are applied.
    `skips=True`: skips(seen) -> name of a layer that the criterion leaves dense -> why, a clause that ends in a full stop.
    """
    tag = {"compensate": "compensates", "skips": "skips"}[what]
    if not entry("criterion", name).tags.get(tag):
        return None
    found: Callable[..., Any] = getattr(sys.modules[get("criterion", name).__module__], what)
    return found


def check_options(kind: str, name: str, options: dict[str, Any]) -> None:
    """Raises RecipeError for an option the technique does not have, or a value of the wrong kind."""
    known = {option.name: option for option in entry(kind, name).options}
    for key, value in options.items():
        if key not in known:
            raise UnknownName(f"option of {kind} {name}", key, known)
        option = known[key]
        if option.kind == "choice" and value not in option.choices:
            raise OutOfRange(
                f"Option {key} of {name}", value, "one of " + ", ".join(map(str, option.choices))
            )
        fits = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(
            option.kind, object
        )
        number_of_a_bool = isinstance(value, bool) and option.kind in ("int", "float")
        if number_of_a_bool or not isinstance(value, fits):  # type: ignore[arg-type]
            raise RecipeError(
                f"Option {key} of {name} is {value!r}, but must be of kind {option.kind}."
            )


def misfit(criterion: str, granularity: str) -> str | None:
    """Why a criterion has no meaning for a granularity, and the way out; None where it has one.

    A criterion that is not for all lists those it is for, and says why: `@criterion(granularities=("channel",), why="it ...")`.
    """
    tags = entry("criterion", criterion).tags
    fits = tags.get("granularities")
    if fits is None or granularity in fits:
        return None
    offered = " or ".join(name for name in fits if name in names("granularity"))
    way_out = f"Choose granularity {offered}, or another criterion, such as magnitude."
    return f"{criterion} does not work by {granularity}: {tags['why']}. {way_out}"


def forget(kind: str, name: str) -> None:
    """Take back a technique that was added from outside."""
    _added[kind].pop(name, None)
    _live[kind].pop(name, None)


@cache
def _shipped(kind: str) -> dict[str, Entry]:
    place = Path(__file__).parent / PLACES[kind].replace(".", "/")
    files = sorted(place.glob("[!_]*.py")) if place.is_dir() else [place.with_suffix(".py")]
    found: dict[str, Entry] = {}
    for file in files:
        module = f"pruning.{PLACES[kind]}" + (f".{file.stem}" if place.is_dir() else "")
        found.update(
            {
                entry.name: entry
                for entry in _read(kind, file.read_text(encoding="utf-8"), "", module)
            }
        )
    return found


def _read(kind: str, source: str, about: str, module: str) -> list[Entry]:
    tree = ast.parse(source)
    about = ast.get_docstring(tree) or about
    found = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        marks = [m for m in node.decorator_list if isinstance(m, ast.Call) and _called(m) == kind]
        if not marks:
            continue
        help = ast.get_docstring(node) or ""
        link = re.search(r"https?://[^\s)>,]+", f"{help}\n{about}")
        found.append(
            Entry(
                kind=kind,
                name=node.name.rstrip("_"),  # `global_`, because Python keeps `global`
                title=help.split("\n")[0],
                help=help,
                about=about,
                paper=link.group().rstrip(".") if link else None,
                tags={k.arg: ast.literal_eval(k.value) for k in marks[0].keywords if k.arg},
                options=_options(node, help),
                module=module,
            )
        )
    return found


def _called(mark: ast.Call) -> str:
    return mark.func.id if isinstance(mark.func, ast.Name) else getattr(mark.func, "attr", "")


def _options(node: ast.FunctionDef, help: str) -> tuple[Option, ...]:
    found = []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None:
            continue  # without a default it is given by the caller, not chosen by people
        kind, choices = "str", ()
        match arg.annotation:
            case ast.Name(id=name) if name in ("int", "float", "bool", "str"):
                kind = name
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                kind = "choice"
                values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                choices = tuple(ast.literal_eval(value) for value in values)
        said = re.search(
            rf"^\s*{arg.arg}: (.+?)(?=^\s*\w+: |^\s*$|\Z)", help, re.MULTILINE | re.DOTALL
        )
        text = " ".join(said.group(1).split()) if said else ""
        found.append(Option(arg.arg, kind, ast.literal_eval(default), choices, text))
    return tuple(found)
