"""Masks -> a physically smaller module that computes what the masked one does, and the certificate that it does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from pruning.errors import NotTheSame
from pruning.events import Certificate, Frozen
from pruning.evidence import evaluating
from pruning.masks import apply
from pruning.structure.capture import Example
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph
from pruning.structure.liveness import CannotRewrite, Liveness
from pruning.structure.modules import build
from pruning.structure.rewrite import Rewrite
from pruning.structure.unit_masks import removed_units
from pruning.structure.verify import Check, checks, control
from pruning.types import Masks

LIMIT = 1e-9
"""Relative, in float64. What rounding does in a deep network is a thousand times less."""


@dataclass(frozen=True)
class CompactModel:
    """A smaller module, and the units it is without."""

    module: fx.GraphModule
    liveness: Liveness


def shrink(model: nn.Module, masks: Masks, example: Example) -> nn.Module:
    """A physically smaller module that computes what `model` under `masks` does.

    What a mask closes as a whole (every weight, bias, scale and shift of a channel, and the weights that read it) is gone; what it
    closes in part stays as zeros. Parameters keep their names; dropout, BatchNorm and stochastic depth act in training as before.
    example: one input, or a tuple of them. The model is left as found.

    Raises NotCaptured for a model that cannot be recorded, NotTheSame where no exact slim model was found.
    """
    return shrink_certified(model, masks, example)[0]


def shrink_certified(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[nn.Module, Certificate]:
    """`shrink`, and its certificate: groups that stand in the way of an exact copy keep their zeros, and are named."""
    compact, certificate = compact_model(model, masks, example, limit=limit)
    return compact.module, certificate


def compact_model(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[CompactModel, Certificate]:
    """`certified`, with what says which of the old indices the slim module holds."""
    dependencies = dependency_graph(model, example)
    masked = copy.deepcopy(model)
    apply(masks, masked)
    gone = removed_units(dependencies, masks)
    frozen: list[Frozen] = []
    with evaluating(masked):
        double = copy.deepcopy(masked).double()
        tried = checks(double, masks, example)
        compact, gone = _compact_model(dependencies, masked, gone, frozen)
        worst = _worst(compact, tried)
        while not worst <= limit:
            gone = _without_culprit(dependencies, masked, gone, frozen, tried, limit)
            compact, gone = _compact_model(dependencies, masked, gone, frozen)
            worst = _worst(compact, tried)
        distance = control(compact, tried[-1], model) if gone.any() else 0.0
    compact.module.train(model.training)
    return compact, _certificate(
        dependencies, model, compact, gone, worst, limit, tried, distance, frozen
    )


def _compact_model(
    dependencies: DependencyGraph, masked: nn.Module, gone: NDArray[np.bool_], frozen: list[Frozen]
) -> tuple[CompactModel, NDArray[np.bool_]]:
    """A slim model without `gone`, or without as much of it as the graph can be rewritten around."""
    while True:
        work = Rewrite(dependencies, gone)
        try:
            work.run()
            return CompactModel(build(masked, work), work.liveness), gone
        except CannotRewrite as stuck:
            units = np.unique(dependencies.unit_of_label[stuck.labels.numpy()])
            held = {
                int(np.searchsorted(dependencies.starts, unit, "right")) - 1
                for unit in units[units >= 0]
            }
            if not held:
                raise NotTheSame(f"The slimmed model cannot be built: {stuck.why}.") from None
            gone = _freeze(dependencies, gone, held, stuck.why, frozen)


def _freeze(
    dependencies: DependencyGraph,
    gone: NDArray[np.bool_],
    groups: set[int],
    why: str,
    frozen: list[Frozen],
) -> NDArray[np.bool_]:
    gone = gone.copy()
    for group in sorted(groups):
        start, end = dependencies.starts[group : group + 2]
        frozen.append(Frozen(dependencies.groups[group].name, int(gone[start:end].sum()), why))
        gone[start:end] = False
    return gone


def _worst(compact: CompactModel, tried: Sequence[Check]) -> float:
    """The largest relative difference of all checks; inf where the slim model does not run at all."""
    worst = 0.0
    for check in tried:
        error = check.error(compact.module, compact.liveness)
        if not error <= worst:  # NaN too
            worst = error
    return worst


def _without_culprit(
    dependencies: DependencyGraph,
    masked: nn.Module,
    gone: NDArray[np.bool_],
    frozen: list[Frozen],
    tried: Sequence[Check],
    limit: float,
) -> NDArray[np.bool_]:
    """`gone` without the group that first breaks the copy: the shortest prefix of groups that fails ends in it."""
    starts = dependencies.starts
    ours = [i for i in range(len(dependencies.groups)) if gone[starts[i] : starts[i + 1]].any()]
    if not ours:
        raise NotTheSame(
            "Even with every channel in place, the recorded graph does not compute what the model does: it is not handed out."
        )

    def fails(count: int) -> bool:
        part = np.zeros_like(gone)
        for i in ours[:count]:
            part[starts[i] : starts[i + 1]] = gone[starts[i] : starts[i + 1]]
        compact, _ = _compact_model(dependencies, masked, part, [])
        return not _worst(compact, tried) <= limit

    if fails(0):
        raise NotTheSame(
            "Even with every channel in place, the recorded graph does not compute what the model does: it is not handed out."
        )
    low, high = 0, len(ours)  # prefixes of `low` pass, of `high` fail
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return _freeze(
        dependencies,
        gone,
        {ours[high - 1]},
        f"without it the outputs differ by more than {limit:g} (relative)",
        frozen,
    )


def _certificate(
    dependencies: DependencyGraph,
    model: nn.Module,
    compact: CompactModel,
    gone: NDArray[np.bool_],
    worst: float,
    limit: float,
    tried: Sequence[Check],
    distance: float,
    frozen: list[Frozen],
) -> Certificate:
    held = set(dict(compact.module.named_parameters(remove_duplicate=False)))
    return Certificate(
        error=worst,
        limit=limit,
        checks=tuple(check.name for check in tried),
        control=distance,
        removed=int(gone.sum()),
        units=dependencies.units,
        parameters=sum(p.numel() for p in model.parameters()),
        kept=sum(p.numel() for p in compact.module.parameters()),
        frozen=tuple(frozen),
        unused=tuple(
            name for name, _ in model.named_parameters(remove_duplicate=False) if name not in held
        ),
    )
