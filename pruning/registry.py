"""The registry: criteria, granularities, scopes and schedules, read from their source files.

A technique is a function with a decorator: `@criterion(...)`, `@granularity(...)`, `@scope(...)` or
`@schedule(...)`. Its name is the function's, its options are the keyword-only parameters, its help
is the docstring, and the decorator's keywords are its tags. Written once, there; everything else
(registry, form, shell flag) derives from it.

Sources are parsed and not imported, so that a page can list and draw techniques without torch. For
that, tags and defaults must be literals.
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

from pruning.errors import OutOfRange, RecipeError, UnknownName, shown
from pruning.ranges import ANY, Range

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
    """A keyword-only parameter of a technique. kind: "int", "float", "bool", "choice" or "str".

    range: of a number, as the signature annotates it; None for all other kinds.
    """

    name: str
    kind: str
    default: Any
    choices: tuple[Any, ...] = ()
    help: str = ""
    range: Range | None = None


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


# Functions by kind and name, once their module is imported.
_functions: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}
# Techniques from outside this package, which are known only while somebody imports them.
_added: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def _decorator(kind: str) -> Callable[..., Callable[[Function], Function]]:
    def with_tags(**tags: Any) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            # The tags themselves are read from the source, like all the rest.
            _functions[kind][_plain_name(function.__name__)] = function
            if not function.__module__.startswith("pruning."):
                _add(kind, function)
            return function

        return register

    return with_tags


def _add(kind: str, function: Callable[..., Any]) -> None:
    """Describe a technique from outside, from the function's own source."""
    source = textwrap.dedent(inspect.getsource(function))
    about = inspect.getdoc(inspect.getmodule(function)) or ""
    for entry in _read(kind, source, about, function.__module__):
        _added[kind][entry.name] = entry


def _plain_name(name: str) -> str:
    """`global_` is called global: Python keeps that word for itself."""
    return name.rstrip("_")


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
    if kind in KINDS:  # a page asks two hundred times: no table of all is made for that
        technique = _added[kind].get(name) or _shipped(kind).get(name)
        if technique is not None:
            return technique
    raise UnknownName(kind, name, entries(kind))


def get(kind: str, name: str) -> Callable[..., Any]:
    """The technique itself (imports it, and torch with it). Raises UnknownName."""
    module = entry(kind, name).module
    if name not in _functions[kind]:
        importlib.import_module(module)
    return _functions[kind][name]


def companion(name: str, what: str) -> Callable[..., Any] | None:
    """A function that stands beside a criterion in its file and that its tags announce.

    what: "compensate" (tag `compensates=True`): compensate(seen, masks, **options) -> name ->
    weights to set before the masks are applied; "skips" (tag `skips=True`): skips(seen) -> name of
    a layer that the criterion leaves dense -> why, a clause that ends in a full stop.
    Returns None where the criterion has none.
    """
    tag = {"compensate": "compensates", "skips": "skips"}[what]
    if not entry("criterion", name).tags.get(tag):
        return None
    module = sys.modules[get("criterion", name).__module__]
    function: Callable[..., Any] = getattr(module, what)
    return function


def gradients(kind: str, name: str, options: dict[str, Any]) -> float:
    """About how many gradients of one example a technique costs; 0 where it costs nearly nothing.

    By its tag `gradients=(factor, *names)`: the factor times each of these options. What it does
    besides, such as solving for a layer's weights, is counted as gradients that take as long.
    """
    technique = entry(kind, name)
    factor, *factors = technique.tags.get("gradients", (0,))
    values = {option.name: option.default for option in technique.options} | options
    for option in factors:
        factor *= values[option]
    return float(factor)


TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),  # people write 1 for 1.0
    "bool": (bool,),
    "str": (str,),
}
"""Kind of an option -> what its value may be."""


def check_options(kind: str, name: str, options: dict[str, Any]) -> None:
    """Raises RecipeError for an option the technique does not have, or a value of another kind."""
    known = {option.name: option for option in entry(kind, name).options}
    for key, value in options.items():
        if key not in known:
            raise UnknownName(f"option of {kind} {name}", key, known)
        _check_value(name, known[key], value)


def _check_value(technique: str, option: Option, value: object) -> None:
    what = f"Option {option.name} of {technique}"
    if option.kind == "choice":
        if value not in option.choices:
            raise OutOfRange(what, value, "one of " + ", ".join(map(str, option.choices)))
        return
    # True is an int in Python, and nobody means 1 by it.
    is_bool = isinstance(value, bool) and option.kind != "bool"
    if is_bool or not isinstance(value, TYPES[option.kind]):
        raise RecipeError(f"{what} is {shown(value)}, but must be of kind {option.kind}.")
    if option.range is not None:
        option.range.check(what, value, whole=option.kind == "int")


def misfit(criterion: str, granularity: str) -> str | None:
    """Why a criterion has no meaning for a granularity, and the way out; None where it has one.

    A criterion that is not for all lists those it is for, and says why:
    `@criterion(granularities=("channel",), why="it ...")`.
    """
    tags = entry("criterion", criterion).tags
    fits = tags.get("granularities")
    if fits is None or granularity in fits:
        return None
    # A granularity of the list may be missing here: it is not offered then.
    offered = " or ".join(name for name in fits if name in names("granularity"))
    way_out = f"Choose granularity {offered}, or another criterion, such as magnitude."
    return f"{criterion} does not work by {granularity}: {tags['why']}. {way_out}"


def forget(kind: str, name: str) -> None:
    """Remove a technique that was added from outside; tests do."""
    _added[kind].pop(name, None)
    _functions[kind].pop(name, None)


# ---------------------------------------------------------------- read from source


@cache
def _shipped(kind: str) -> dict[str, Entry]:
    """The techniques of this package: a folder with a file for each, or one file for them all."""
    place = Path(__file__).parent / PLACES[kind].replace(".", "/")
    if place.is_dir():
        files = sorted(place.glob("[!_]*.py"))  # `_name.py` is a helper of a technique
    else:
        files = [place.with_suffix(".py")]
    entries: dict[str, Entry] = {}
    for file in files:
        module = f"pruning.{PLACES[kind]}"
        if place.is_dir():
            module = f"{module}.{file.stem}"
        for entry in _read(kind, file.read_text(encoding="utf-8"), "", module):
            entries[entry.name] = entry
    return entries


def _read(kind: str, source: str, about: str, module: str) -> list[Entry]:
    """The techniques of a kind in a file. about: the docstring, where `source` has none."""
    tree = ast.parse(source)
    about = ast.get_docstring(tree) or about
    entries = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            tags = _tags(node, kind)
            if tags is not None:
                entries.append(_entry(kind, node, tags, about, module))
    return entries


def _tags(node: ast.FunctionDef, kind: str) -> dict[str, Any] | None:
    """Keywords of the decorator `@kind(...)`; None for a function without it."""
    for mark in node.decorator_list:
        # `@criterion(...)` or `@registry.criterion(...)`
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).split(".")[-1] == kind:
            return {k.arg: ast.literal_eval(k.value) for k in mark.keywords if k.arg}
    return None


def _entry(
    kind: str, node: ast.FunctionDef, tags: dict[str, Any], about: str, module: str
) -> Entry:
    help = ast.get_docstring(node) or ""
    link = re.search(r"https?://[^\s)>,]+", f"{help}\n{about}")
    return Entry(
        kind=kind,
        name=_plain_name(node.name),
        title=" ".join(help.split("\n\n")[0].split()),
        help=help,
        about=about,
        paper=link.group().rstrip(".;:") if link else None,
        tags=tags,
        options=_options(node, help),
        module=module,
    )


def _options(node: ast.FunctionDef, help: str) -> tuple[Option, ...]:
    options = []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None:
            continue  # without a default it comes from the caller, and is not for people to choose
        annotation, range = _annotated(arg.annotation)
        kind, choices = _kind(annotation)
        if kind in ("int", "float"):
            range = range or ANY
        value = ast.literal_eval(default)
        text = _option_help(arg.arg, help)
        options.append(Option(arg.arg, kind, value, choices, text, range))
    return tuple(options)


def _annotated(annotation: ast.expr | None) -> tuple[ast.expr | None, Range | None]:
    """`Annotated[int, Range(1, 1000)]`: the type, and the range; None where there is none."""
    match annotation:
        case ast.Subscript(
            value=ast.Name(id="Annotated"),
            slice=ast.Tuple(elts=[kind, ast.Call(func=ast.Name(id="Range")) as call]),
        ):
            limits = [ast.literal_eval(limit) for limit in call.args]
            ends = {end.arg: ast.literal_eval(end.value) for end in call.keywords if end.arg}
            return kind, Range(*limits, **ends)
    return annotation, None


def _kind(annotation: ast.expr | None) -> tuple[str, tuple[Any, ...]]:
    """An option's kind, and the choices of a Literal."""
    match annotation:
        case ast.Name(id=name) if name in TYPES:
            return name, ()
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return "choice", tuple(ast.literal_eval(value) for value in values)
    return "str", ()


def _option_help(name: str, help: str) -> str:
    """From `name: ` in a docstring up to the next option, an empty line or the end, on one line."""
    text = rf"^\s*{name}: (.+?)(?=^\s*\w+: |^\s*$|\Z)"
    match = re.search(text, help, re.MULTILINE | re.DOTALL)
    return " ".join(match.group(1).split()) if match else ""
