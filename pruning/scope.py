"""How the budget is spent over the layers. Numpy only: a page asks the same functions as the engine.

A scope says how many units each layer loses: the ones lost are the lowest by (score, flat index), so a number
says it all. By rank and never by threshold: ties never overspend, and equal scores fall by layer, then flat index,
lowest first. No layer is ever emptied: `floor` units of each stay whatever is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import RecipeError, UnknownName
from pruning.registry import scope

Array = NDArray[Any]


@dataclass(frozen=True)
class Ranked:
    """The layers a budget is spent on.

    units: layer -> scores of its units, ascending; sizes: weights in one unit of the layer; floor: units that stay;
    ratios: for by_hand, layer -> share; shapes: of the weights, for scopes that look at them.
    """

    units: dict[str, Array]
    sizes: dict[str, int]
    floor: int = 1
    ratios: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def spare(self, name: str) -> int:
        """Units the layer can lose."""
        return max(0, len(self.units[name]) - self.floor)

    @property
    def weights(self) -> int:
        return sum(len(u) * self.sizes[n] for n, u in self.units.items())


@scope(compares="units inside one layer")
def per_layer(layers: Ranked, sparsity: float) -> dict[str, int]:
    """The same share from each layer."""
    return {name: min(round(sparsity * len(units)), layers.spare(name)) for name, units in layers.units.items()}


@scope(compares="units of all layers")
def global_(layers: Ranked, sparsity: float) -> dict[str, int]:
    """The lowest scores anywhere in the model: layers that matter little give more."""
    return lowest(layers, layers.units, round(sparsity * layers.weights))


@scope(compares="units inside one layer")
def by_hand(layers: Ranked, sparsity: float) -> dict[str, int]:
    """A share for each layer, set by you; layers without one stay dense."""
    for name in layers.ratios:
        if name not in layers.units:
            raise UnknownName("layer to prune", name, layers.units)
    return {name: min(round(layers.ratios.get(name, 0.0) * len(units)), layers.spare(name)) for name, units in layers.units.items()}


def lowest(layers: Ranked, scores: dict[str, Array], budget: int) -> dict[str, int]:
    """Drop units of all layers, lowest score first, while the weights dropped stay within `budget`.

    scores: layer -> ascending scores that can be compared between layers, in the order of `layers.units`.
    """
    scores = {name: values[: layers.spare(name)] for name, values in scores.items()}
    if len(set(layers.sizes.values())) == 1:
        size = next(iter(layers.sizes.values()))
        return _lowest_of_equal_size(scores, budget // size)
    owner = np.repeat(np.arange(len(scores)), [len(values) for values in scores.values()])
    order = np.concatenate(list(scores.values())).argsort(kind="stable")
    spent = np.fromiter(layers.sizes.values(), np.int64)[owner[order]].cumsum()
    dropped = np.bincount(owner[order][spent <= budget], minlength=len(scores))
    return dict(zip(scores, dropped.tolist(), strict=True))


def _lowest_of_equal_size(scores: dict[str, Array], count: int) -> dict[str, int]:
    """The `count` lowest of several ascending arrays, by bisection on the bits of the threshold: no merge, no copy."""
    if count >= sum(map(len, scores.values())):
        return {name: len(values) for name, values in scores.items()}
    dtype = next(iter(scores.values())).dtype
    low, high = _key(dtype.type(-np.inf)), _key(dtype.type(np.inf))
    while low < high:  # the lowest threshold with at least `count` scores at or below it
        middle = (low + high) // 2
        threshold = _unkey(middle, dtype)
        if sum(int(values.searchsorted(threshold, "right")) for values in scores.values()) >= count:
            high = middle
        else:
            low = middle + 1
    threshold = _unkey(low, dtype)
    below = {name: int(values.searchsorted(threshold, "left")) for name, values in scores.items()}
    left = count - sum(below.values())
    for name, values in scores.items():  # ties at the threshold, in the order of layers
        tied = min(left, int(values.searchsorted(threshold, "right")) - below[name])
        below[name] += tied
        left -= tied
    return below


def _key(value: Any) -> int:
    """An integer that orders as the float does."""
    bits = int(value.view(np.int32 if value.dtype == np.float32 else np.int64))
    return bits if bits >= 0 else -(bits & (2**31 - 1 if value.dtype == np.float32 else 2**63 - 1)) - 1


def _unkey(key: int, dtype: Any) -> Any:
    wide = dtype == np.float64
    magnitude = key if key >= 0 else -key - 1
    kind = np.int64 if wide else np.int32
    value = kind(magnitude).view(dtype)
    return value if key >= 0 else -value


def spend(name: str, layers: Ranked, sparsity: float, options: dict[str, Any]) -> dict[str, int]:
    """Units that each layer loses under the scope called `name`. Raises RecipeError when there is no layer to spend on."""
    from pruning import registry

    if not layers.units:
        raise RecipeError("Every layer is excluded: leave at least one layer to prune.")
    drops: dict[str, int] = registry.get("scope", name)(layers, sparsity, **options)
    return drops
