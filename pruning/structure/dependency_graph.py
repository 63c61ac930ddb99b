"""Groups of channels, neurons and attention heads that live or die together, and why others cannot go."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.structure import rules as _rules  # noqa: F401  registers every rule
from pruning.structure.capture import Captured, Example, capture, inputs
from pruning.structure.groups import Blocked, Group, Member
from pruning.structure.labels import ALWAYS, Reason
from pruning.structure.propagate import Propagation
from pruning.structure.zeros import block_what_is_not_zero

Place = tuple[str, int]
"""(parameter, dimension)."""


@dataclass(frozen=True)
class DependencyGraph:
    """A model's groups. Units are numbered through, group after group, in the order of their first member's indices.

    unit_of_index: (parameter or buffer, dimension) -> the unit of each index, -1 for what always stays.
    first_name: every name of a tied parameter -> the first.
    """

    groups: tuple[Group, ...]
    blocked: tuple[Blocked, ...]
    unit_of_index: dict[Place, NDArray[np.int64]]
    first_name: dict[str, str]
    captured: Captured
    propagation: Propagation = field(repr=False, compare=False)
    unit_of_label: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def units(self) -> int:
        return sum(group.units for group in self.groups)

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first unit of each group, and the end. (groups + 1,)"""
        return np.concatenate(
            [[0], np.cumsum([group.units for group in self.groups], dtype=np.int64)]
        )


def build_graph(captured: Captured) -> DependencyGraph:
    """Propagation the graph, tie what lives together, and sort it into groups."""
    propagation = Propagation(captured)
    block_what_is_not_zero(propagation)
    labels = propagation.labels
    classes = labels.solve()
    open_, reasons = _judged(propagation, classes)
    held = {
        place: classes[start : start + labels.sizes[place]]
        for place, start in labels.origins.items()
    }
    groups, unit_of_class = _groups(propagation, held, open_, _marked(propagation, classes, "head"))
    unit_of_class = np.where(open_, unit_of_class, -1)
    places = {place: unit_of_class[found] for place, found in held.items()}
    return DependencyGraph(
        groups=groups,
        blocked=_blocked(propagation, held, open_, reasons),
        unit_of_index=places,
        first_name=captured.first_name,
        captured=captured,
        propagation=propagation,
        unit_of_label=unit_of_class[classes],
    )


def _marked(propagation: Propagation, classes: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    found = np.zeros(int(classes.max()) + 1, bool)
    for factor in propagation.labels.marks.get(name, ()):
        found[classes[factor.numpy()]] = True
    return found


def _judged(
    propagation: Propagation, classes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[int, Reason]]:
    """(which classes may go: made by some layer, and not blocked; why the others may not, as far as it was said)."""
    stays, reasons = np.zeros(int(classes.max()) + 1, bool), {}
    stays[classes[ALWAYS]] = True
    for factor, reason in propagation.labels.blocked:
        found = np.unique(classes[factor.numpy()])
        reasons.update(dict.fromkeys(found[~stays[found]].tolist(), reason))
        stays[found] = True
    return _marked(propagation, classes, "source") & ~stays, reasons


def _groups(
    propagation: Propagation,
    held: dict[Place, NDArray[np.int64]],
    open_: NDArray[np.bool_],
    heads: NDArray[np.bool_],
) -> tuple[tuple[Group, ...], NDArray[np.int64]]:
    """Classes that touch the same places, equally often, make a group. Returns the groups, and the unit of each class."""
    touched: dict[int, list[tuple[Place, int]]] = {}
    for place, found in held.items():
        for one, count in zip(*np.unique(found[open_[found]], return_counts=True), strict=True):
            touched.setdefault(int(one), []).append((place, int(count)))
    first: dict[
        int, int
    ] = {}  # class -> where it first stands in its first place, for the order of units
    for found in held.values():
        for position, one in enumerate(found.tolist()):
            if open_[one]:
                first.setdefault(one, position)
    together: dict[tuple[Any, ...], list[int]] = {}
    for one, members in touched.items():
        together.setdefault(tuple(members), []).append(one)
    unit_of_class, start = np.full(len(open_), -1, np.int64), 0
    groups: list[Group] = []
    for signature, ones in together.items():
        ones.sort(key=first.__getitem__)
        unit_of_class[ones] = np.arange(start, start + len(ones))
        start += len(ones)
        groups.append(
            _group(
                propagation, signature, len(ones), bool(heads[ones[0]]), {g.name for g in groups}
            )
        )
    return tuple(groups), unit_of_class


def _group(
    propagation: Propagation,
    members: tuple[tuple[Place, int], ...],
    units: int,
    head: bool,
    taken: set[str],
) -> Group:
    """Named after the first weight whose rows it holds."""
    held = tuple(
        Member(name, dim, each)
        for (name, dim), each in members
        if propagation.state[name].kind == "parameter"
    )
    rows = [
        m.parameter for m in held if m.dim == 0 and len(propagation.state[m.parameter].shape) > 1
    ] or [m.parameter for m in held]
    convolves = any(len(propagation.state[m.parameter].shape) > 2 for m in held)
    name = next((row for row in rows if row not in taken), rows[0])
    number = 2
    while name in taken:  # two groups of one layer: "qkv.weight" and "qkv.weight (2)"
        name, number = f"{rows[0]} ({number})", number + 1
    return Group(name, "heads" if head else "channels" if convolves else "neurons", units, held)


def _blocked(
    propagation: Propagation,
    held: dict[Place, NDArray[np.int64]],
    open_: NDArray[np.bool_],
    reasons: dict[int, Reason],
) -> tuple[Blocked, ...]:
    """What of each parameter cannot go, dimension by dimension, with the first reason met."""
    unread = Reason("nothing", "no layer makes it, or its operations never meet it", "")
    found = []
    for (name, dim), classes in held.items():
        shut = classes[~open_[classes]]
        if propagation.state[name].kind == "parameter" and len(shut):
            reason = next((reasons[one] for one in shut.tolist() if one in reasons), unread)
            found.append(
                Blocked(
                    name,
                    dim,
                    len(shut),
                    len(classes),
                    reason.operation,
                    reason.why,
                    reason.where,
                    reason.shapes,
                )
            )
    return tuple(found)


# ---------------------------------------------------------------- once for each architecture

_known: OrderedDict[Any, DependencyGraph] = OrderedDict()
REMEMBERED = 8


def dependency_graph(model: nn.Module, example: Example) -> DependencyGraph:
    """The model's coupling, captured and analysed once for each architecture. Raises NotCaptured."""
    key = _architecture(model, example)
    if key not in _known:
        _known[key] = build_graph(capture(model, example))
        _forget_weights(_known[key])
        while len(_known) > REMEMBERED:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def _architecture(model: nn.Module, example: Example) -> Any:
    """What a captured graph depends on: classes, plain attributes, shapes and ties, the input's shape; no weights."""
    modules = tuple(
        (path, type(module), _attributes(module))
        for path, module in model.named_modules(remove_duplicate=False)
    )
    tensors = tuple(
        (name, tuple(t.shape), t.dtype)
        for name, t in (*model.named_parameters(), *model.named_buffers())
    )
    given = tuple((tuple(x.shape[1:]), x.dtype) for x in inputs(example))
    return modules, tensors, given


def _attributes(module: nn.Module) -> tuple[Any, ...]:
    plain = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training"
    }
    return tuple((name, _plain(value)) for name, value in plain.items())


def _plain(value: Any) -> Any:
    """Something hashable that differs where the graph might."""
    if isinstance(value, (bool, int, float, str, type(None), type)) or (
        callable(value) and hasattr(value, "__code__")
    ):
        return value
    if isinstance(value, (tuple, list, dict, set)):
        return repr(value)
    return (
        repr(value.tolist()) if isinstance(value, Tensor) and value.numel() < 100 else type(value)
    )


def _forget_weights(dependencies: DependencyGraph) -> None:
    """The graph is kept without the weights of the model it was captured from."""
    graph = dependencies.captured.graph
    for name, parameter in list(graph.named_parameters(remove_duplicate=False)):
        parent, _, short = name.rpartition(".")
        setattr(
            graph.get_submodule(parent),
            short,
            nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad),
        )
