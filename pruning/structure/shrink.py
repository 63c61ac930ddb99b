"""Masks -> a compact model that computes what the masked one does, and the certificate of that."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from pruning.devices import device_of, moved
from pruning.errors import NotTheSame
from pruning.events import Certificate, Frozen
from pruning.masks import apply, check_names
from pruning.structure.capture import Example
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph, followed
from pruning.structure.liveness import CannotRewrite, Liveness
from pruning.structure.modules import build
from pruning.structure.positions import other_shapes, smaller_inputs
from pruning.structure.rewrite import Rewrite
from pruning.structure.unit_masks import removed_units
from pruning.structure.verify import Answer, Check, Comparisons, checks
from pruning.types import Masks

LIMIT = 1e-9
"""Relative, in float64. What rounding does in a deep network is a thousand times less."""


@dataclass(frozen=True)
class CompactModel:
    """A smaller module, and which of the old indices it keeps."""

    module: fx.GraphModule
    liveness: Liveness


def shrink(model: nn.Module, masks: Masks, example: Example) -> nn.Module:
    """A physically smaller module that computes what `model` under `masks` does.

    What masks remove whole (every weight, bias, scale and shift of a channel, and the weights that
    read it) is cut out; what they remove in part stays as zeros. Parameters keep their names;
    dropout, BatchNorm and stochastic depth act in training as before. The model is left as found.
    example: one input, or a tuple of them.

    Raises NotCaptured for a model that cannot be recorded, NotTheSame where no exact compact model
    was found.
    """
    return shrink_certified(model, masks, example)[0]


def shrink_certified(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[nn.Module, Certificate]:
    """`shrink`, and its certificate: max |masked - compact| / max |masked| of all checks.

    Groups that stand in the way of an exact copy keep their zeros, and are named in it.
    """
    compact, certificate = compact_model(model, masks, example, limit=limit)
    return moved(compact.module, device_of(model)), certificate


def compact_model(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[CompactModel, Certificate]:
    """`shrink_certified`, with what says which of the old indices the compact model keeps.

    On the CPU, wherever the model lies: float64 is not there on every device.
    """
    model, example = followed(model, example)
    search = Search.of(model, masks, example)
    graph = search.graph
    removed = removed_units(graph, masks)
    frozen: list[Frozen] = []
    compact, removed = search.build(removed, frozen)
    small = smaller_inputs(graph.captured, example)
    others = other_shapes(graph.captured, example)
    comparisons = checks(model, masks, example, small, others)
    limit = max(limit, comparisons.tolerance)
    answers = search.compare(compact, comparisons.checks)
    if not answers.error <= limit and comparisons.small:
        # A small input may fail for its size alone: only the example's own size refuses anything.
        comparisons = replace(checks(model, masks, example, None), others=comparisons.others)
        answers = search.compare(compact, comparisons.checks)
    # Each turn keeps the zeros of one more group, so that it ends.
    while not answers.error <= limit:  # NaN is no pass either
        removed = search.without_culprit(removed, frozen, comparisons, limit)
        compact, removed = search.build(removed, frozen)
        answers = search.compare(compact, comparisons.checks)
    at_others = search.compare(compact, comparisons.others)
    if not at_others.error <= limit:
        # Right at its own size: there it is handed out, and refuses every other.
        search = search.at_its_own_size()
        compact, removed = search.build(removed, frozen)
        comparisons, at_others = replace(comparisons, others=()), Answers(0.0, answers.last)
    compact.module.train(model.training)
    parameters = dict(compact.module.named_parameters(remove_duplicate=False))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    certificate = Certificate(
        error=max(answers.error, at_others.error),
        limit=limit,
        checks=tuple(check.name for check in (*comparisons.checks, *comparisons.others)),
        control=comparisons.control(answers.last) if removed.any() else 0.0,
        removed=int(removed.sum()),
        units=graph.units,
        parameters=sum(p.numel() for p in model.parameters()),
        kept=sum(p.numel() for p in compact.module.parameters()),
        frozen=tuple(frozen),
        unused=tuple(name for name in names if name not in parameters),
        sizes=search.graph.captured.sizes.in_words(),
    )
    return compact, certificate


class Answers(NamedTuple):
    """error: the largest of all checks; last: the answer to the last check."""

    error: float
    last: Answer


@dataclass(frozen=True)
class Search:
    """The search for an exact compact model. A class because each attempt needs all of this.

    model: as it is, unmasked; masks: what is kept of it. `removed` is (units,) True = removed
    everywhere; `frozen` collects the groups that keep their zeros.
    """

    graph: DependencyGraph
    model: nn.Module
    masks: Masks

    @classmethod
    def of(cls, model: nn.Module, masks: Masks, example: Example) -> Search:
        """Raises NotCaptured, UnknownName, or ModelError for masks of another model."""
        check_names(masks, model)
        graph = dependency_graph(model, example)
        pieces = {p.untyped_storage().data_ptr() for p in model.parameters()}
        if len(pieces) < len(list(model.parameters())):
            # Parameters that share memory see each other's masks: they are masked where they lie.
            model = copy.deepcopy(model)
            apply(masks, model)
            return cls(graph, model, {})
        by_first_name: Masks = {}
        for name, keep in masks.items():
            first = graph.first_name.get(name, name)
            both = by_first_name.get(first, keep) & keep
            by_first_name[first] = both
        return cls(graph, model, by_first_name)

    def build(
        self, removed: NDArray[np.bool_], frozen: list[Frozen]
    ) -> tuple[CompactModel, NDArray[np.bool_]]:
        """A compact model without `removed`, or as much of it as the graph can be rewritten for."""
        while True:
            rewrite = Rewrite(self.graph, removed)
            try:
                rewrite.run()
                module = build(self.model, rewrite, self.masks)
                return CompactModel(module, rewrite.liveness), removed
            except CannotRewrite as stuck:
                # The whole group is kept: its other units would meet the same operation.
                units = np.unique(self.graph.unit_of_label[stuck.labels.numpy()])
                units = units[units >= 0]
                groups = np.unique(np.searchsorted(self.graph.starts, units, "right") - 1)
                if not len(groups):
                    why = f"The compact model cannot be built: {stuck.why}."
                    raise NotTheSame(why) from None
                removed = self.freeze(removed, groups.tolist(), stuck.why, frozen)

    def freeze(
        self, removed: NDArray[np.bool_], groups: list[int], why: str, frozen: list[Frozen]
    ) -> NDArray[np.bool_]:
        """`removed` without these groups: they keep their zeros."""
        removed = removed.copy()
        for group in groups:
            start, end = self.graph.starts[group : group + 2]
            count = int(removed[start:end].sum())
            frozen.append(Frozen(self.graph.groups[group].name, count, why))
            removed[start:end] = False
        return removed

    def at_its_own_size(self) -> Search:
        """The same search, for compact models that refuse other sizes than the example's."""
        captured = self.graph.captured
        sizes = captured.sizes.fixed("the compact model differs from the masked one at others")
        return replace(self, graph=replace(self.graph, captured=replace(captured, sizes=sizes)))

    def compare(self, compact: CompactModel, checks: Sequence[Check]) -> Answers:
        """The answers of a compact model to these checks."""
        worst = 0.0
        last = Answer(float("inf"))
        for check in checks:
            last = check.compare(compact.module, compact.liveness)
            if not last.error <= worst:  # NaN too
                worst = last.error
        return Answers(worst, last)

    def without_culprit(
        self,
        removed: NDArray[np.bool_],
        frozen: list[Frozen],
        comparisons: Comparisons,
        limit: float,
    ) -> NDArray[np.bool_]:
        """`removed` without the group that first breaks the copy.

        Groups are removed in order, and the shortest prefix that fails ends in the culprit: found
        by bisection, because every attempt builds and checks a whole model.
        """
        starts = self.graph.starts
        count = len(self.graph.groups)
        units = [slice(starts[i], starts[i + 1]) for i in range(count)]  # of each group
        groups = [i for i in range(count) if removed[units[i]].any()]

        def fails(prefix: int) -> bool:
            part = np.zeros_like(removed)
            for i in groups[:prefix]:
                part[units[i]] = removed[units[i]]
            compact, _ = self.build(part, [])
            return not self.compare(compact, comparisons.checks).error <= limit

        if not groups or fails(0):
            raise NotTheSame(
                "Even with every channel in place, the recorded graph does not compute what the "
                "model does: it is not handed out."
            )
        low, high = 0, len(groups)  # prefixes of `low` pass, of `high` fail
        while high - low > 1:
            middle = (low + high) // 2
            if fails(middle):
                high = middle
            else:
                low = middle
        why = f"without it the outputs differ by more than {limit:g} (relative)"
        return self.freeze(removed, [groups[high - 1]], why, frozen)
