"""The direction of imports: which room may import which, no circles, no needless deferred imports.

Read with `ast`, so that imports inside functions and under TYPE_CHECKING count like all others:
a type is knowledge of a room too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pruning.recipe import Recipe
from pruning.selection import choose
from tests.toys import toy

ROOT = Path(__file__).resolve().parent.parent
OURS = ("pruning", "sample_models", "dashboard")

# The rooms of pruning/, the lowest first. A module imports from lower rooms and from its own;
# rooms of one line are neighbours and do not know each other.
ROOMS = (
    ("errors",),
    ("ranges", "tasks", "collect", "tables"),
    ("stats", "storage", "types", "registry"),
    ("metrics", "recipe", "adapted"),
    ("devices",),  # where a model is computed on
    ("events", "recorded", "outcomes"),
    ("evidence", "formats", "masks", "coverage", "describe", "frames", "progress"),
    ("prepare",),  # looks at what is covered, runs one pass
    ("measurement", "criteria", "structure"),
    ("units",),
    ("allocation",),
    ("sensitivity_map",),
    ("analysis",),  # re-runs what a change reaches with the map's replay
    ("selection",),
    ("training",),
    ("pipeline",),
    ("export",),  # what a result is taken home as; workers and the shell write it
    ("studies",),
    ("runs",),
    ("sweeps",),  # plans of many runs
    ("advice",),  # whether to prune at all, from what was measured
    ("cli",),
    ("__init__", "__main__"),  # the public names and the way in: nothing imports them
)
HEIGHT = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}
SAMPLES_IMPORT = {"errors", "types", "metrics", "storage"}  # of pruning
# Of pruning: what finds a model by its name, or knows how a sample was trained.
IMPORT_SAMPLES = {"formats", "studies", "runs", "advice", "cli"}

# Loading one of these takes from half a second to several: what does not need it at once waits
# for the first call.
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "timm", "distributed"}

# Imports inside functions that keep something else out than torch, and what.
DEFERRED_FOR_ANOTHER_REASON = {
    "pruning.formats.reader_process": "its limits are set before anything else of ours is loaded",
    "pruning.formats.datasets.reader_process": "likewise",
    "pruning.frames": "pandas takes half a second, and most runs make no table",
    "pruning.formats.datasets.source": "pandas takes as much time and memory as pictures need",
}


@dataclass(frozen=True)
class Import:
    source: str  # the module that imports, dotted
    target: str  # the module of ours, or the package of others
    line: int
    deferred: bool  # inside a function
    typing: bool  # under TYPE_CHECKING

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_of(path: Path) -> str:
    """The dotted name; a package's `__init__` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for top in OURS for path in sorted((ROOT / top).rglob("*.py"))}


def room_of(module: str) -> str:
    """pruning.structure.rules.moves -> structure; pruning itself -> __init__."""
    _, *rest = module.split(".")
    return rest[0] if rest else "__init__"


def is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    """What one statement loads.

    `from pruning import masks` and `from pruning.masks import apply` both load pruning.masks.
    """
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert node.level == 0, "imports here are absolute"
        module = node.module or ""
        longer = [f"{module}.{alias.name}" for alias in node.names]
        names = [name if name in MODULES else module for name in longer]
    return {name if name in MODULES else package_of(name) for name in names}


def package_of(name: str) -> str:
    """The package of others that an import loads; `safetensors.torch` is torch's."""
    parts = name.split(".")
    return "torch" if "torch" in parts else parts[0]


def imports_in(node: ast.AST, source: str, deferred: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in targets_of(child):
                yield Import(source, target, child.lineno, deferred, typing)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports_in(child, source, deferred or function, typing or is_typing(child))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    every = imports_in(tree, module, deferred=False, typing=False)
    return tuple(each for each in every if each.target != "__future__")


def inside(top: str) -> list[str]:
    return [module for module in MODULES if module.split(".")[0] == top]


def imports_from(top: str) -> Iterator[Import]:
    for module in inside(top):
        yield from imports_of(module)


def listed(wrong: list[str]) -> str:
    return "\n".join(["", f"{len(wrong)} found:", *sorted(wrong)])


def allowed(source: str, target: str) -> bool:
    """Whether one module of pruning may import another."""
    here, there = room_of(source), room_of(target)
    return here == there or HEIGHT[there] < HEIGHT[here]


def test_every_room_has_its_height() -> None:
    unknown = {room_of(module) for module in inside("pruning")} - set(HEIGHT)
    assert not unknown, "say in ROOMS where these stand"


def test_rooms_of_the_engine_import_downwards_only() -> None:
    wrong = [
        f"{each}: {room_of(each.target)} does not stand below {room_of(each.source)}"
        for each in imports_from("pruning")
        if each.target in inside("pruning") and not allowed(each.source, each.target)
    ]
    assert not wrong, listed(wrong)


def test_sample_models_and_the_engine_know_little_of_each_other() -> None:
    wrong = []
    for each in imports_from("sample_models"):
        if each.target in inside("pruning") and room_of(each.target) not in SAMPLES_IMPORT:
            wrong.append(f"{each}: sample_models uses {sorted(SAMPLES_IMPORT)} alone")
    for each in imports_from("pruning"):
        if each.target in inside("sample_models") and room_of(each.source) not in IMPORT_SAMPLES:
            wrong.append(f"{each}: only {sorted(IMPORT_SAMPLES)} find models by name")
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("top", OURS)
def test_no_files_import_each_other_in_a_circle(top: str) -> None:
    """Not even inside functions or under TYPE_CHECKING: a circle is one idea in two files."""
    modules = inside(top)
    place = {module: at for at, module in enumerate(modules)}
    edges = [
        (place[each.source], place[each.target])
        for each in imports_from(top)
        if each.target in place and each.target != each.source
    ]
    rows, columns = zip(*edges, strict=True)
    graph = csr_array(([1] * len(edges), (rows, columns)), shape=(len(modules), len(modules)))
    _, component = connected_components(graph, connection="strong")
    circles: dict[int, list[str]] = {}
    for module, number in zip(modules, component, strict=True):
        circles.setdefault(int(number), []).append(module)
    wrong = [" <-> ".join(circle) for circle in circles.values() if len(circle) > 1]
    assert not wrong, listed(wrong)


def loaded_by(module: str) -> set[str]:
    """All that `import module` loads, ours and others', the packages that it lies in included."""
    loaded: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in loaded:
            continue
        loaded.add(name)
        if name in MODULES:
            at_once = [each for each in imports_of(name) if not (each.deferred or each.typing)]
            waiting += [each.target for each in at_once]
            if "." in name:
                waiting.append(name.rpartition(".")[0])
    return loaded


def why_deferred(each: Import) -> str | None:
    """What is wrong with an import inside a function, or None."""
    if each.source in DEFERRED_FOR_ANOTHER_REASON or each.target in inside("sample_models"):
        return None
    already = loaded_by(each.source)
    if each.target not in MODULES and each.target not in HEAVY:
        return "it is light, so it belongs on top"
    if not (loaded_by(each.target) & HEAVY) - already:
        return "it loads nothing heavy that is not there already"
    return None


def test_imports_inside_functions_keep_torch_out_and_nothing_else() -> None:
    """Such an import stands in a module that loads nothing heavy, and what it imports does."""
    deferred = [each for each in imports_from("pruning") if each.deferred]
    wrong = [f"{each}: {why}" for each in deferred if (why := why_deferred(each))]
    assert not wrong, listed(wrong)


def test_every_exception_is_still_one() -> None:
    for module in DEFERRED_FOR_ANOTHER_REASON:
        assert any(each.deferred for each in imports_of(module)), f"{module} has none left"


# ---------------------------------------------------------------- one recipe on its way


def test_a_recipe_passes_through_few_files_and_never_climbs() -> None:
    """`choose(recipe, work)`: every call goes to the same room or a lower one, by few files."""
    recipe, work = Recipe(sparsity=0.5), toy("mlp")
    carried: set[str] = set()  # modules with a function that holds the recipe
    climbs: set[tuple[str, str]] = set()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        callee = frame.f_globals.get("__name__", "")
        caller = frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
        if event != "call" or not callee.startswith("pruning."):
            return
        if recipe in [value for value in frame.f_locals.values() if isinstance(value, Recipe)]:
            carried.add(callee)
        if caller.startswith("pruning.") and HEIGHT[room_of(callee)] > HEIGHT[room_of(caller)]:
            climbs.add((caller, callee))

    choose(recipe, work)  # once before, so that nothing is imported while it is watched
    sys.setprofile(watch)
    try:
        choose(recipe, work)
    finally:
        sys.setprofile(None)
    carried.discard("pruning.recipe")  # its own methods and properties
    assert "pruning.selection" in carried and len(carried) <= 6, carried
    assert not climbs
