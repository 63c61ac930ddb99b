"""Runs the code that somebody named as a model's, and makes a workpiece of what it returns.

`build()` takes nothing and returns an nn.Module, (module, example) or a pruning.Workpiece. Of a
bare module the example input may be its own attribute: `example`, or `example_input_array` as
Lightning calls it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import ModelError, PruningError
from pruning.runs.own_models import OwnModel
from pruning.types import Inputs, Workpiece

LONGEST = 200
"""Characters of somebody else's message that ours quotes."""

EXAMPLES = ("example", "example_input_array")
RETURN = "return an nn.Module, (module, example) or a pruning.Workpiece."


def load(own: OwnModel) -> Workpiece:
    """The workpiece that the function builds. Raises ModelError, which names file and line.

    Weights that it draws at random are the same each time: several processes build it, and the same
    recipe must give the same numbers in all of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _load(own)


def _load(own: OwnModel) -> Workpiece:
    with _explained(own), _importing(own):
        module = _module(own)
    function = getattr(module, own.function, None)
    if not callable(function):
        offered = [name for name, value in vars(module).items() if _is_builder(value, module)]
        place = own.name.rpartition(":")[0]
        instead = f"it has {', '.join(offered[:5])}" if offered else "it has none"
        raise ModelError(
            f"{_file(module, own)} has no function {own.function}: {instead}; name the one that "
            f"builds the model, as in {place}:{offered[0] if offered else 'build'}."
        )
    with _explained(own), _importing(own):
        made = function()
    return _workpiece(made, own, _place(function, module, own))


def _module(own: OwnModel) -> ModuleType:
    """The module that holds the function, imported as Python would from its owner's folder."""
    place = own.name.rpartition(":")[0]
    if not place.endswith(".py"):
        importlib.invalidate_caches()
        return importlib.import_module(place)
    # A name of its own: a file called types.py must not stand in for Python's.
    name = f"own_{own.path.stem}"
    spec = importlib.util.spec_from_file_location(name, own.path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{own.path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importing(own: OwnModel) -> Iterator[None]:
    """What the code imports lies beside it: first while it is built, and last of all later, so that
    a file of its owner's called json.py is not taken for Python's by what we import late.

    Nothing compiled is left in its folder: Python would take that for the code as long as its size
    and the second in which it was saved are the same.
    """
    is_file = own.name.rpartition(":")[0].endswith(".py")
    folder = str(own.path.parent if is_file else own.folder)
    sys.path.insert(0, folder)
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


@contextlib.contextmanager
def _explained(own: OwnModel) -> Iterator[None]:
    """Whatever the code raises becomes one sentence; what it prints does not mix with ours."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (PruningError, KeyboardInterrupt):
        raise
    # SystemExit too: a script without a guard at its end parses our arguments.
    except (Exception, SystemExit) as error:
        reason = _reason(error, own)
    else:
        return
    raise ModelError(reason)


def _reason(error: BaseException, own: OwnModel) -> str:
    """Which line of whose file stops, and with what."""
    text = " ".join(str(error).split())[:LONGEST].rstrip(".")
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return (
            f"{_short(error.filename or own.path)}, line {error.lineno}, is no Python "
            f"({error.msg}): mend that line and start again."
        )
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).parent.is_relative_to(own.folder)]
    inside = inside or [frame for frame in frames if Path(frame.filename) == own.path]
    if not inside:
        advice = "check the name, and start from the folder that it lies in"
        return f"{own.name} cannot be imported ({what}): {advice}."
    return (
        f"{_short(inside[-1].filename)}, line {inside[-1].lineno}, stops {own.name} ({what}): "
        "mend that line and start again."
    )


def _short(file: str | Path) -> str:
    return Path(file).name


def _is_builder(value: Any, module: ModuleType) -> bool:
    return (
        callable(value)
        and getattr(value, "__module__", None) == module.__name__
        and not isinstance(value, type)
    )


def _file(module: ModuleType, own: OwnModel) -> str:
    return _short(getattr(module, "__file__", None) or own.path)


def _place(function: Callable[..., Any], module: ModuleType, own: OwnModel) -> str:
    """The function as a message names it: its name, file and line."""
    code = getattr(function, "__code__", None)
    line = f", line {code.co_firstlineno}" if code is not None else ""
    return f"{own.function} ({_file(module, own)}{line})"


def _workpiece(made: Any, own: OwnModel, place: str) -> Workpiece:
    if isinstance(made, Workpiece):
        return replace(made, name=made.name or own.name, model=_judged(made.model, place))
    example: Any = None
    if isinstance(made, tuple) and len(made) == 2:
        made, example = made
    model = _judged(made, place)
    if example is None:
        named = (getattr(model, name, None) for name in EXAMPLES)
        example = next((value for value in named if value is not None), None)
    return Workpiece(own.name, model, example=_example(example, place))


def _judged(model: Any, place: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        hint = "call the class, and " if isinstance(model, type) else ""
        raise ModelError(f"{place} returned {_kind(model)}: {hint}{RETURN}")
    return model.eval()


def _example(example: Any, place: str) -> Inputs | None:
    if example is None or isinstance(example, Tensor):
        return example
    if isinstance(example, list | tuple) and all(isinstance(part, Tensor) for part in example):
        return tuple(example)
    raise ModelError(
        f"{place} gives {_kind(example)} as example: give one batch of inputs, a tensor or a tuple "
        "of tensors."
    )


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
