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
from pruning.structure.certify import Check, checks, control
from pruning.structure.closing import dead
from pruning.structure.coupling import Coupling, analyse
from pruning.structure.living import Living, Stuck
from pruning.structure.modules import build
from pruning.structure.rewrite import Rewrite
from pruning.types import Masks

LIMIT = 1e-9
"""Relative, in float64. What rounding does in a deep network is a thousand times less."""


@dataclass(frozen=True)
class Slim:
    """A smaller module, and the units it is without."""

    module: fx.GraphModule
    living: Living


def shrink(model: nn.Module, masks: Masks, example: Example) -> nn.Module:
    """A physically smaller module that computes what `model` under `masks` does.

    What a mask closes as a whole (every weight, bias, scale and shift of a channel, and the weights that read it) is gone; what it
    closes in part stays as zeros. Parameters keep their names; dropout, BatchNorm and stochastic depth act in training as before.
    example: one input, or a tuple of them. The model is left as found.

    Raises NotCaptured for a model that cannot be recorded, NotTheSame where no exact slim model was found.
    """
    return certified(model, masks, example)[0]


def certified(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[nn.Module, Certificate]:
    """`shrink`, and its certificate: groups that stand in the way of an exact copy keep their zeros, and are named."""
    slim, certificate = slimmed(model, masks, example, limit=limit)
    return slim.module, certificate


def slimmed(
    model: nn.Module, masks: Masks, example: Example, *, limit: float = LIMIT
) -> tuple[Slim, Certificate]:
    """`certified`, with what says which of the old indices the slim module holds."""
    coupling = analyse(model, example)
    masked = copy.deepcopy(model)
    apply(masks, masked)
    gone = dead(coupling, masks)
    frozen: list[Frozen] = []
    with evaluating(masked):
        double = copy.deepcopy(masked).double()
        tried = checks(double, masks, example)
        slim, gone = _slimmed(coupling, masked, gone, frozen)
        worst = _worst(slim, tried)
        while not worst <= limit:
            gone = _without_culprit(coupling, masked, gone, frozen, tried, limit)
            slim, gone = _slimmed(coupling, masked, gone, frozen)
            worst = _worst(slim, tried)
        distance = control(slim, tried[-1], model) if gone.any() else 0.0
    slim.module.train(model.training)
    return slim, _certificate(coupling, model, slim, gone, worst, limit, tried, distance, frozen)


def _slimmed(
    coupling: Coupling, masked: nn.Module, gone: NDArray[np.bool_], frozen: list[Frozen]
) -> tuple[Slim, NDArray[np.bool_]]:
    """A slim model without `gone`, or without as much of it as the graph can be rewritten around."""
    while True:
        work = Rewrite(coupling, gone)
        try:
            work.run()
            return Slim(build(masked, work), work.living), gone
        except Stuck as stuck:
            units = np.unique(coupling.unit_of_label[stuck.labels.numpy()])
            held = {
                int(np.searchsorted(coupling.starts, unit, "right")) - 1
                for unit in units[units >= 0]
            }
            if not held:
                raise NotTheSame(f"The slimmed model cannot be built: {stuck.why}.") from None
            gone = _freeze(coupling, gone, held, stuck.why, frozen)


def _freeze(
    coupling: Coupling, gone: NDArray[np.bool_], groups: set[int], why: str, frozen: list[Frozen]
) -> NDArray[np.bool_]:
    gone = gone.copy()
    for group in sorted(groups):
        start, end = coupling.starts[group : group + 2]
        frozen.append(Frozen(coupling.groups[group].name, int(gone[start:end].sum()), why))
        gone[start:end] = False
    return gone


def _worst(slim: Slim, tried: Sequence[Check]) -> float:
    """The largest relative difference of all checks; inf where the slim model does not run at all."""
    worst = 0.0
    for check in tried:
        error = check.error(slim.module, slim.living)
        if not error <= worst:  # NaN too
            worst = error
    return worst


def _without_culprit(
    coupling: Coupling,
    masked: nn.Module,
    gone: NDArray[np.bool_],
    frozen: list[Frozen],
    tried: Sequence[Check],
    limit: float,
) -> NDArray[np.bool_]:
    """`gone` without the group that first breaks the copy: the shortest prefix of groups that fails ends in it."""
    starts = coupling.starts
    ours = [i for i in range(len(coupling.groups)) if gone[starts[i] : starts[i + 1]].any()]
    if not ours:
        raise NotTheSame(
            "Even with every channel in place, the recorded graph does not compute what the model does: it is not handed out."
        )

    def fails(count: int) -> bool:
        part = np.zeros_like(gone)
        for i in ours[:count]:
            part[starts[i] : starts[i + 1]] = gone[starts[i] : starts[i + 1]]
        slim, _ = _slimmed(coupling, masked, part, [])
        return not _worst(slim, tried) <= limit

    if fails(0):
        raise NotTheSame(
            "Even with every channel in place, the recorded graph does not compute what the model does: it is not handed out."
        )
    low, high = 0, len(ours)  # prefixes of `low` pass, of `high` fail
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return _freeze(
        coupling,
        gone,
        {ours[high - 1]},
        f"without it the outputs differ by more than {limit:g} (relative)",
        frozen,
    )


def _certificate(
    coupling: Coupling,
    model: nn.Module,
    slim: Slim,
    gone: NDArray[np.bool_],
    worst: float,
    limit: float,
    tried: Sequence[Check],
    distance: float,
    frozen: list[Frozen],
) -> Certificate:
    held = set(dict(slim.module.named_parameters(remove_duplicate=False)))
    return Certificate(
        error=worst,
        limit=limit,
        checks=tuple(check.name for check in tried),
        control=distance,
        removed=int(gone.sum()),
        units=coupling.units,
        parameters=sum(p.numel() for p in model.parameters()),
        left=sum(p.numel() for p in slim.module.parameters()),
        frozen=tuple(frozen),
        unused=tuple(
            name for name, _ in model.named_parameters(remove_duplicate=False) if name not in held
        ),
    )
