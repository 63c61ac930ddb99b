"""The dependency graph: channels, neurons and attention heads that must be removed together.

As DepGraph does (Fang et al., 2023, https://arxiv.org/abs/2301.12900), but on single indices
instead of whole layers, so that shuffles, splits and grouped convolutions need no special case.
`labels` says what labels, factors and classes are. A residual block, worked through:

    a = Conv2d(1, 6, 3)    b = Conv2d(6, 4, 1)    c = Conv2d(4, 6, 1)    h = Linear(6, 3)
    x = relu(a(input));  y = x + c(relu(b(x)));  output = h(mean(y, (2, 3)))

    a(input)    (1, 6, 4, 4)   needs rows of a; a.bias[i] is joined with row i
    b(x)        (1, 4, 4, 4)   b's column i is joined with row i of a; the result needs rows of b
    c(b(x))     (1, 6, 4, 4)   c's column j is joined with row j of b; the result needs rows of c
    x + c(...)  (1, 6, 4, 4)   the sum joins row i of c with row i of a
    mean        (1, 6)         positions carry no labels: the same rows of a and c
    h(...)      (1, 3)         h's column i is joined with row i of c; its rows are blocked,
                               because they are an output of the model

That leaves two groups. Unit i of "a.weight" (6 channels) is a.weight[i], a.bias[i],
b.weight[:, i], c.weight[i], c.bias[i] and h.weight[:, i]; unit j of "b.weight" (4 channels) is
b.weight[j], b.bias[j] and c.weight[:, j]. Kernels' positions carry labels too, and are blocked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.adapted import as_it_is
from pruning.devices import CPU, on_cpu, to
from pruning.structure import graph_files
from pruning.structure import rules as _rules  # noqa: F401  registers every rule
from pruning.structure.capture import Example, capture, inputs, tensors_of
from pruning.structure.captured import Captured
from pruning.structure.groups import Blocked, DependencyGroups, Group, Member, Numbering
from pruning.structure.labels import ALWAYS, Place, Reason
from pruning.structure.propagate import Propagation
from pruning.structure.zeros import Zeros

Share = tuple[Place, int]
"""A place, and how many of its indices belong to one unit."""


@dataclass(frozen=True)
class DependencyGraph(Numbering):
    """A model's dependency groups.

    Units are numbered through, group after group, in the order of their first member's indices.
    unit_of_index: (parameter or buffer, dimension) -> the unit of each index, -1 for what is
    always kept; unit_of_label: the same for labels.
    first_name: every name of a tied parameter -> the first.
    """

    groups: tuple[Group, ...]
    blocked: tuple[Blocked, ...]
    unit_of_index: dict[Place, NDArray[np.int64]]
    first_name: dict[str, str]
    captured: Captured
    propagation: Propagation = field(repr=False, compare=False)
    unit_of_label: NDArray[np.int64] = field(repr=False, compare=False)


def build_graph(captured: Captured) -> DependencyGraph:
    """Propagate labels through the captured operations and sort their classes into groups."""
    propagation = Propagation(captured)
    Zeros(propagation).run()
    labels = propagation.labels
    class_of_label = labels.solve()
    classes = {
        place: class_of_label[start : start + labels.sizes[place]]
        for place, start in labels.origins.items()
    }
    removable, reasons = _removable(propagation, class_of_label)
    heads = _marked(propagation, class_of_label, "head")
    groups, unit_of_class = _groups(propagation, classes, removable, heads)
    return DependencyGraph(
        groups=groups,
        blocked=_blocked(propagation, classes, removable, reasons),
        unit_of_index={place: unit_of_class[indices] for place, indices in classes.items()},
        first_name=captured.first_name,
        captured=captured,
        propagation=propagation,
        unit_of_label=unit_of_class[class_of_label],
    )


def _marked(
    propagation: Propagation, class_of_label: NDArray[np.int64], name: str
) -> NDArray[np.bool_]:
    """Which classes hold a label with this mark. (classes,)"""
    marked = np.zeros(int(class_of_label.max()) + 1, bool)
    for labels in propagation.labels.marks.get(name, ()):
        marked[class_of_label[labels.numpy()]] = True
    return marked


def _removable(
    propagation: Propagation, class_of_label: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[int, Reason]]:
    """(which classes may be removed, (classes,); why the others may not, as far as is known).

    A class may be removed that some layer makes, and that no operation blocks.
    """
    blocked = np.zeros(int(class_of_label.max()) + 1, bool)
    blocked[class_of_label[ALWAYS]] = True
    reasons: dict[int, Reason] = {}
    for labels, reason in propagation.labels.blocked:
        classes = np.unique(class_of_label[labels.numpy()])
        # Later operations often block a class again: the first reason is nearest to the cause.
        new = classes[~blocked[classes]]
        reasons.update(dict.fromkeys(new.tolist(), reason))
        blocked[classes] = True
    return _marked(propagation, class_of_label, "source") & ~blocked, reasons


def _groups(
    propagation: Propagation,
    classes: dict[Place, NDArray[np.int64]],
    removable: NDArray[np.bool_],
    heads: NDArray[np.bool_],
) -> tuple[tuple[Group, ...], NDArray[np.int64]]:
    """Classes with the same members (as many indices of the same places) make a group.

    Returns the groups, and the unit of each class, -1 for those that cannot be removed.
    """
    members: dict[int, list[Share]] = {}  # of each class
    position: dict[int, int] = {}  # class -> its index in its first place: the order of units
    for place, indices in classes.items():
        of_units = indices[removable[indices]]
        ones, counts = np.unique(of_units, return_counts=True)
        for one, count in zip(ones.tolist(), counts.tolist(), strict=True):
            members.setdefault(one, []).append((place, count))
        for i, one in enumerate(indices.tolist()):
            position.setdefault(one, i)

    together: dict[tuple[Share, ...], list[int]] = {}
    for one, shares in members.items():
        together.setdefault(tuple(shares), []).append(one)

    unit_of_class = np.full(len(removable), -1, np.int64)
    start = 0
    made = _made(propagation)
    groups: dict[str, Group] = {}
    for signature, units in together.items():
        units.sort(key=position.__getitem__)
        unit_of_class[units] = np.arange(start, start + len(units))
        start += len(units)
        head = bool(heads[units[0]])
        group = _group(propagation, signature, len(units), head, made, set(groups))
        groups[group.name] = group
    return tuple(groups.values()), unit_of_class


def _group(
    propagation: Propagation,
    shares: tuple[Share, ...],
    units: int,
    head: bool,
    made: set[Place],
    taken: set[str],
) -> Group:
    """Named after the first weight whose rows belong to it.

    made: the places that hold channels of a layer's making; taken: the names of other groups.
    """
    state = propagation.state
    # Buffers, such as BatchNorm's statistics, shrink with their channels but hold no weights.
    members = tuple(
        Member(name, dim, each) for (name, dim), each in shares if state[name].kind == "parameter"
    )
    ranks = {m.parameter: len(state[m.parameter].shape) for m in members}
    # A scale of shape (8, 1, 1) has rows too, but makes none.
    weights = [m for m in members if ranks[m.parameter] > 1]
    weights = [m for m in weights if (m.parameter, m.dim) in made] or weights
    rows = [m.parameter for m in weights if m.dim == 0]
    if not rows:
        rows = [m.parameter for m in members]
    name = next((row for row in rows if row not in taken), rows[0])
    number = 2
    while name in taken:  # two groups of one layer: "qkv.weight" and "qkv.weight (2)"
        name = f"{rows[0]} ({number})"
        number += 1
    if head:
        kind = "heads"
    elif max(ranks.values()) > 2:
        kind = "channels"
    else:
        kind = "neurons"
    return Group(name, kind, units, members)


def _made(propagation: Propagation) -> set[Place]:
    """The places of parameters whose indices are channels that a layer makes."""
    labels = propagation.labels
    sources = set(torch.cat([torch.zeros(0), *labels.marks.get("source", ())]).tolist())
    return {place for place, first in labels.origins.items() if first in sources}


def _blocked(
    propagation: Propagation,
    classes: dict[Place, NDArray[np.int64]],
    removable: NDArray[np.bool_],
    reasons: dict[int, Reason],
) -> tuple[Blocked, ...]:
    """What of each parameter cannot be removed, by dimension, with the first reason met."""
    unread = Reason("nothing", "no layer makes it, or its operations never meet it", "")
    blocked = []
    for (name, dim), indices in classes.items():
        fixed = indices[~removable[indices]]
        if propagation.state[name].kind != "parameter" or not len(fixed):
            continue
        known = (reasons[one] for one in fixed.tolist() if one in reasons)
        reason = next(known, unread)
        blocked.append(
            Blocked(
                parameter=name,
                dim=dim,
                count=len(fixed),
                size=len(indices),
                operation=reason.operation,
                why=reason.why,
                where=reason.where,
                shapes=reason.shapes,
            )
        )
    return tuple(blocked)


# ---------------------------------------------------------------- once for each architecture

_known: OrderedDict[Any, DependencyGraph] = OrderedDict()
_groups_known: OrderedDict[Any, DependencyGroups] = OrderedDict()
REMEMBERED = 8  # a graph holds labels and shapes, but no weights


def followed(model: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Model and example as they are recorded: as the class has it, on the CPU.

    Recorded elsewhere, a graph would hold that device's name wherever it makes a tensor.
    """
    model, example = as_it_is(model, example)
    return on_cpu(model), to(example, CPU)


def dependency_graph(model: nn.Module, example: Example) -> DependencyGraph:
    """The model's dependency graph, made once for each architecture. Raises NotCaptured.

    example: one input, or a tuple of them.
    """
    model, example = followed(model, example)
    key = _architecture(model, example)
    if key not in _known:
        graph = build_graph(capture(model, example))
        _forget_weights(graph)
        _remember(_known, key, graph)
    _known.move_to_end(key)
    return _known[key]


def dependency_groups(model: nn.Module, example: Example) -> DependencyGroups:
    """The groups of `dependency_graph`, which masks need no more of. Raises NotCaptured.

    Following a model takes seconds, so they are kept in the workspace too, where there is one.
    """
    model, example = followed(model, example)
    key = _architecture(model, example)
    if key not in _groups_known:
        file = graph_files.file_of(key, model)
        groups = None
        if file is not None and key not in _known:
            groups = graph_files.read(file, tensors_of(model))
        if groups is None:
            groups = _plain_groups(dependency_graph(model, example))
            if file is not None:
                graph_files.write(file, groups)
        _remember(_groups_known, key, groups)
    _groups_known.move_to_end(key)
    return _groups_known[key]


def forget() -> None:
    """Forget every architecture, as a new process has it."""
    _known.clear()
    _groups_known.clear()


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known[key] = value
    while len(known) > REMEMBERED:
        known.popitem(last=False)


def _plain_groups(graph: DependencyGraph) -> DependencyGroups:
    return DependencyGroups(
        graph.groups, graph.blocked, graph.unit_of_index, graph.first_name, graph.captured.how
    )


OWN = frozenset(vars(nn.Module()))
"""What torch keeps in every module: tensors, modules, hooks and the mode, which is eval here."""


def _architecture(model: nn.Module, example: Example) -> Any:
    """What a captured graph depends on: classes, plain attributes, shapes and ties; no weights."""
    modules = tuple(
        (path, type(module), _attributes(module))
        for path, module in model.named_modules(remove_duplicate=False)
    )
    # Tied parameters are named once here, so ties make another key.
    named = (*model.named_parameters(), *model.named_buffers())
    tensors = [(name, tuple(t.shape), t.dtype) for name, t in named]
    # The batch is dynamic in the graph, so examples of any number share one.
    shapes = [(tuple(x.shape[1:]), x.dtype) for x in inputs(example)]
    return modules, tuple(tensors), tuple(shapes)


def _attributes(module: nn.Module) -> tuple[Any, ...]:
    # Private ones too: a forward may be a function that a module was made with.
    return tuple((name, _plain(value)) for name, value in vars(module).items() if name not in OWN)


def _plain(value: Any) -> Any:
    """Something hashable that differs where the graph might."""
    if isinstance(value, (bool, int, float, str, type(None), type)):
        return value
    # torch's own functions have no code, and relu is not tanh.
    if callable(value) and (hasattr(value, "__code__") or isinstance(value, BuiltinFunctionType)):
        return value
    if isinstance(value, (tuple, list, dict, set)):
        return repr(value)
    if isinstance(value, Tensor) and value.numel() < 100:
        return repr(value.tolist())
    return type(value)


def _forget_weights(graph: DependencyGraph) -> None:
    """Keep the graph without the weights of the model it was captured from."""
    root = graph.captured.graph
    for name, parameter in list(root.named_parameters(remove_duplicate=False)):
        path, _, short = name.rpartition(".")
        empty = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        setattr(root.get_submodule(path), short, empty)
