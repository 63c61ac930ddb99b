"""Criterion check: what a criterion scores a unit, against the leave-one-out loss change when that
unit alone is removed.

The change is measured unit by unit on validation data, in eval mode (the "oracle" of Molchanov et
al., 2019, https://arxiv.org/abs/1906.10771), on a copy of the model whose weights are put back bit
by bit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from pruning.adapted import widen
from pruning.allocation.ranked import rank
from pruning.errors import ModelError, PruningError, RecipeError, Stopped, UnknownName
from pruning.evidence import Evidence
from pruning.prepare import ready
from pruning.ranges import Range
from pruning.recipe import Recipe
from pruning.sensitivity_map.replay import Replay
from pruning.stats import Correlation, correlation, matrix
from pruning.types import Batches, Workpiece
from pruning.units.layout import Units, lay_out

EXAMPLES = 1024
"""Validation examples looked at, at most."""

RANGES = {"units": Range(3, 100_000), "examples": Range(1, 10_000_000)}
"""What a check's numbers may be; its seed is a recipe's."""

UNITS = 256
"""Units of a layer, at most: all of them where it has fewer, else a random sample by the seed.

Of 64, random orders reach a ρ of ±0.25, and one by bad luck 0.38; of 256, ±0.12.
"""


@dataclass(frozen=True)
class Check:
    """Which units of which layers are checked.

    layers: () is all that this granularity covers; units: of each layer, at most.
    """

    layers: tuple[str, ...] = ()
    granularity: str = "weight"
    granularity_options: dict[str, Any] = field(default_factory=dict, hash=False)
    units: int = UNITS
    seed: int = 0

    def __post_init__(self) -> None:
        # Fewer have no order worth a number.
        RANGES["units"].check("units", self.units, whole=True)

    def recipe(self, criterion: str = "magnitude", options: dict[str, Any] | None = None) -> Recipe:
        """The recipe that would rank these units by a criterion."""
        return Recipe(
            criterion=criterion,
            options=options or {},
            granularity=self.granularity,
            granularity_options=self.granularity_options,
            seed=self.seed,
        )


@dataclass(frozen=True)
class CheckPlan:
    """What will be measured.

    units: layer -> (how many, of how many); loss: of the whole model; seconds: that the measuring
    will take (estimate); refused: criterion -> why it cannot be checked.
    """

    units: dict[str, tuple[int, int]]
    examples: int
    loss: float
    seconds: float
    refused: dict[str, str]


@dataclass(frozen=True)
class CheckedUnit:
    """One unit. unit: its number in flat order; weights: removed with it; scores: by criterion.

    change: of the loss without it, signed.
    """

    layer: str
    unit: int
    weights: int
    change: float
    scores: dict[str, float]


@dataclass(frozen=True)
class LayerCheck:
    """How well scores order the units of a layer (layer "": of all of them together).

    absolute: ρ of each criterion with |change|, which is what most formulas claim to be; signed:
    with the change itself, for which a unit whose removal helps comes first; agreement: ρ of each
    pair of criteria, in the order of `criteria`.
    """

    layer: str
    units: int
    criteria: tuple[str, ...]
    absolute: dict[str, Correlation]
    signed: dict[str, Correlation]
    agreement: list[list[float | None]]


@dataclass(frozen=True)
class CheckResult:
    """The end: a LayerCheck for each layer, the last one over all where there are several."""

    layers: tuple[LayerCheck, ...]
    seconds: float


def criterion_check(
    work: Workpiece,
    check: Check,
    criteria: Mapping[str, dict[str, Any]],
    *,
    examples: int = EXAMPLES,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[CheckPlan | CheckedUnit | CheckResult]:
    """Scores of units against the leave-one-out loss change, as each becomes known.

    criteria: name -> options. One that this model, data or granularity does not suit is left out,
    with the reason in the plan; the model is left as found.
    Raises RecipeError for a layer that is not there or stays dense, the criterion's own error when
    none is left, DataError without validation data, Stopped.
    """
    start = time.perf_counter()
    work = ready(work)
    # The same units for every criterion: only then do their correlations compare.
    chosen = sampled(work, check)
    scores, refused = _scores(work, check, criteria, chosen)
    measurer = LeaveOneOut(work, check, examples)
    seconds = sum(len(units) * measurer.seconds(layer) for layer, units in chosen.items())
    counts = {layer: (len(units), measurer.size(layer)) for layer, units in chosen.items()}
    yield CheckPlan(counts, measurer.data.examples, measurer.loss, seconds, refused)
    checked: list[CheckedUnit] = []
    for layer, units in chosen.items():
        for i, (unit, weights, change) in enumerate(measurer.changes(layer, units)):
            if stop():  # between units: one may take seconds
                raise Stopped(f"Stopped after {len(checked):,} units.")
            unit_scores = {name: by_layer[layer][i] for name, by_layer in scores.items()}
            checked.append(CheckedUnit(layer, unit, weights, change, unit_scores))
            yield checked[-1]
    yield CheckResult(layer_checks(checked, tuple(scores)), time.perf_counter() - start)


def layer_checks(units: Sequence[CheckedUnit], criteria: tuple[str, ...]) -> tuple[LayerCheck, ...]:
    """A LayerCheck for each layer, in order, and one over all where there are several."""
    layers = list(dict.fromkeys(unit.layer for unit in units))
    checks = []
    for layer in layers:
        checks.append(_layer_check(layer, [u for u in units if u.layer == layer], criteria))
    if len(layers) > 1:
        checks.append(_layer_check("", units, criteria))
    return tuple(checks)


def _layer_check(layer: str, units: Sequence[CheckedUnit], criteria: tuple[str, ...]) -> LayerCheck:
    scores = {name: [unit.scores[name] for unit in units] for name in criteria}
    change = [unit.change for unit in units]
    size = [abs(value) for value in change]
    return LayerCheck(
        layer=layer,
        units=len(units),
        criteria=criteria,
        absolute={name: correlation(column, size) for name, column in scores.items()},
        signed={name: correlation(column, change) for name, column in scores.items()},
        agreement=matrix(scores),
    )


# ---------------------------------------------------------------- which units


def sampled(work: Workpiece, check: Check) -> dict[str, list[int]]:
    """Layer -> its units that are checked, ascending.

    All of them, or a random sample by the seed and the layer's name: so a layer's sample does not
    depend on which other layers are checked.
    """
    units = _units(work, check)
    for layer in check.layers:
        if why := units.fixed.get(layer):
            raise RecipeError(
                f"{layer} stays whole by {check.granularity}: {why} "
                "Choose another layer, or single weights."
            )
        if layer in units.leaders:
            raise RecipeError(
                f"The units of {layer} are pruned with those of {units.leaders[layer]}: "
                "check that layer."
            )
        if layer not in units.names:
            raise UnknownName("layer", layer, units.names)
    layers = check.layers or tuple(name for name in units.names if name not in units.fixed)
    if not layers:
        why = next(iter(units.fixed.values()))
        raise RecipeError(
            f"No layer has units by {check.granularity}: {why} Choose another granularity."
        )
    return {layer: _sample(layer, units.size(layer), check) for layer in layers}


def _units(work: Workpiece, check: Check) -> Units:
    # By magnitude, which skips nothing: which units there are must not depend on the criterion.
    units = lay_out(check.recipe(), work)
    if any(tiling.removed_inside for tiling in units.tilings.values()):
        raise RecipeError(
            f"By {check.granularity}, which weights of a unit are removed depends on the "
            "criterion, so that a unit has no one loss change: choose granularity weight."
        )
    return units


def _sample(layer: str, size: int, check: Check) -> list[int]:
    if size <= check.units:
        return list(range(size))
    seed = (check.seed * 1_000_003 + crc32(layer.encode())) % 2**63
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu")
    return sorted(order[: check.units].tolist())


def _scores(
    work: Workpiece,
    check: Check,
    criteria: Mapping[str, dict[str, Any]],
    chosen: dict[str, list[int]],
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Criterion -> layer -> scores of the chosen units; and criteria that cannot be checked ->
    why.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    refused: dict[str, PruningError] = {}
    evidence = Evidence.of(work, seed=check.seed)  # gathered once for all criteria
    for name, options in criteria.items():
        try:
            by_layer = unit_scores(work, check.recipe(name, options), chosen, evidence)
            if unseen := [layer for layer in chosen if layer not in by_layer]:
                raise ModelError(f"{name} has no scores for {unseen[0]}: check other layers.")
            scores[name] = by_layer
        # One criterion that needs more than there is must not cost the others.
        except PruningError as error:
            refused[name] = error
    if not scores and refused:
        raise next(iter(refused.values()))
    if not scores:
        raise RecipeError("No criterion is named: name one or more, such as magnitude and taylor.")
    return scores, {name: str(error) for name, error in refused.items()}


def unit_scores(
    work: Workpiece,
    recipe: Recipe,
    chosen: dict[str, list[int]],
    evidence: Evidence | None = None,
) -> dict[str, list[float]]:
    """Layer -> scores of the chosen units, as pruning would rank them, higher = keep.

    Without the layers that the criterion has nothing to say of.
    """
    ranked = rank(recipe, work, evidence=evidence)
    covered = ranked.units.covered()
    return {
        layer: ranked.scores[layer][units].tolist()
        for layer, units in chosen.items()
        if layer in ranked.scores and ranked.units.touched(layer) & covered
    }


# ---------------------------------------------------------------- leave one out


class LeaveOneOut:
    """The loss without one unit. A class because it keeps a copy of the model that it may write
    into.
    """

    def __init__(self, work: Workpiece, check: Check, examples: int = EXAMPLES) -> None:
        data = work.need("validation", "The leave-one-out loss change")
        RANGES["examples"].check("examples", examples, whole=True)
        self.data: Batches = data.sample(examples).loaded()
        self.units = _units(work, check)
        # Eval mode: dropout and BatchNorm would move the loss by more than one unit does.
        self.model = copy.deepcopy(work.model).eval()
        # A single weight changes the loss by less than half precision resolves.
        widen(self.model)
        self.loss_of = work.loss
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self.replay = Replay(self.model, self.data)
        with torch.no_grad():
            self.dense = self.replay.outputs()
            self.loss = self.mean_loss(self.dense)

    def size(self, layer: str) -> int:
        """Units of a layer."""
        return self.units.size(layer)

    @torch.no_grad()
    def seconds(self, layer: str) -> float:
        """That one unit of the layer takes (estimate, from one batch)."""
        return self.replay.seconds(self._touched(layer))

    @torch.no_grad()
    def changes(self, layer: str, units: Sequence[int]) -> Iterator[tuple[int, int, float]]:
        """(unit, weights removed with it, loss without it − loss with it) of each unit."""
        for unit, weights, outputs in self.without(layer, units):
            yield unit, weights, self.mean_loss(outputs) - self.loss

    @torch.no_grad()
    def without(self, layer: str, units: Sequence[int]) -> Iterator[tuple[int, int, list[Tensor]]]:
        """(unit, weights removed with it, the outputs without it, batch by batch) of each unit."""
        # What the layer cannot reach is computed once for all its units.
        outputs = self.replay.outputs_under(self._touched(layer))
        for unit in units:
            owned = self.units.owned(layer, unit, self.model)
            places = {name: where.nonzero(as_tuple=True) for name, where in owned.items()}
            # Saved and put back bit by bit: 0 + (w - 0) would drift over thousands of units.
            saved = {name: self.parameters[name][at] for name, at in places.items()}
            for name, at in places.items():
                self.parameters[name][at] = 0
            without = outputs()
            for name, at in places.items():
                self.parameters[name][at] = saved[name]
            # Biases and norms have one dimension, and are not counted as weights.
            weights = sum(len(at[0]) for at in places.values() if len(at) > 1)
            yield unit, weights, without

    def _touched(self, layer: str) -> list[Tensor]:
        """The parameters that any unit of the layer changes."""
        return [self.parameters[name] for name in self.units.owned(layer, 0, self.model)]

    def mean_loss(self, outputs: list[Tensor]) -> float:
        """Mean over the examples, summed in double precision.

        A single weight changes it by less than float32 resolves.
        """
        total = 0.0
        for out, (_, y) in zip(outputs, self.data, strict=True):
            total += float(self._batch_loss(out, y)) * len(y)
        return total / self.data.examples

    def _batch_loss(self, out: Tensor, y: Tensor) -> Tensor:
        try:
            return self.loss_of(out.double(), y)
        # A loss that holds tensors of its own, in the model's precision; a device without float64.
        except (RuntimeError, TypeError):
            return self.loss_of(out, y)
