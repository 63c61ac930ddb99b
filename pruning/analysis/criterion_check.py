"""Does the score tell the truth? What a criterion says of a unit, against how the loss changes when that unit alone is removed.

The true change is measured unit by unit on validation data, in eval mode (leave-one-out, the "oracle" of Molchanov et al., 2019,
https://arxiv.org/abs/1906.10771), on a copy of the model whose weights are put back bit by bit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from pruning import masks as _masks
from pruning.errors import OutOfRange, PruningError, RecipeError, Stopped, UnknownName
from pruning.evidence import Evidence
from pruning.recipe import Recipe
from pruning.sensitivity_map.replay import Replay
from pruning.stats import Correlation, correlation, matrix
from pruning.types import Batches, Workpiece
from pruning.units import dependency
from pruning.units.dependency import Groups
from pruning.units.granularities import Granularity

EXAMPLES = 1024
"""Validation examples looked at, at most."""

UNITS = 64
"""Units of a layer, at most: all of them where it has fewer, else drawn from the seed."""


@dataclass(frozen=True)
class Question:
    """Which units of which layers are asked about. layers: () is all that this granularity covers; units: of each layer, at most."""

    layers: tuple[str, ...] = ()
    granularity: str = "weight"
    granularity_options: dict[str, Any] = field(default_factory=dict, hash=False)
    units: int = UNITS
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.units, int) or not 3 <= self.units <= 100_000:
            raise OutOfRange(
                "units",
                self.units,
                "a whole number from 3 to 100,000: fewer have no order worth a number",
            )

    def recipe(self, criterion: str = "magnitude", options: dict[str, Any] | None = None) -> Recipe:
        kind = {"granularity": self.granularity, "granularity_options": self.granularity_options}
        return Recipe(criterion=criterion, options=options or {}, seed=self.seed, **kind)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """What will be measured. units: layer -> how many of how many; loss: of the whole model; seconds: that the measuring will take
    (estimate); refused: criterion -> why it cannot be asked."""

    units: dict[str, tuple[int, int]]
    examples: int
    loss: float
    seconds: float
    refused: dict[str, str]


@dataclass(frozen=True)
class Point:
    """One unit. unit: its number in flat order; weights: that go with it; change: of the loss without it, signed; scores: by criterion."""

    layer: str
    unit: int
    weights: int
    change: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Truth:
    """How well scores order the units of a layer (layer "": of all of them together).

    size: ρ of each criterion with |change|, which is what most formulas claim to be; harm: with the signed change, for which a unit
    whose removal helps comes first; agreement: ρ of each pair of criteria, in the order of `criteria`.
    """

    layer: str
    units: int
    criteria: tuple[str, ...]
    size: dict[str, Correlation]
    harm: dict[str, Correlation]
    agreement: list[list[float | None]]


@dataclass(frozen=True)
class Told:
    """The end: one Truth for each layer, the last one over all where there are several."""

    layers: tuple[Truth, ...]
    seconds: float


def truth(
    work: Workpiece,
    question: Question,
    criteria: Mapping[str, dict[str, Any]],
    *,
    examples: int = EXAMPLES,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Plan | Point | Told]:
    """Scores of the units against the true change in loss, as each becomes known. criteria: name -> options.

    A criterion that this model, data or granularity does not suit is left out, with the reason in the Plan; the model stays as found.
    Raises RecipeError for a layer that is not there or stays whole, the criterion's own error when none is left, DataError without
    validation data, Stopped.
    """
    began = time.perf_counter()
    chosen = sampled(work, question)
    scores, refused = _scored(work, question, criteria, chosen)
    oracle = Oracle(work, question, examples)
    seconds = sum(len(units) * oracle.seconds(layer) for layer, units in chosen.items())
    counts = {layer: (len(units), oracle.count(layer)) for layer, units in chosen.items()}
    yield Plan(counts, len(oracle.data.x), oracle.loss, seconds, refused)
    points: list[Point] = []
    for layer, units in chosen.items():
        for i, (unit, weights, change) in enumerate(oracle.changes(layer, units)):
            if stop():
                raise Stopped(f"Stopped after {len(points):,} units.")
            points.append(
                Point(
                    layer,
                    unit,
                    weights,
                    change,
                    {name: held[layer][i] for name, held in scores.items()},
                )
            )
            yield points[-1]
    yield Told(told(points, tuple(scores)), time.perf_counter() - began)


def told(points: Sequence[Point], criteria: tuple[str, ...]) -> tuple[Truth, ...]:
    """One Truth for each layer, in order, and one over all where there are several."""
    layers = list(dict.fromkeys(point.layer for point in points))
    return tuple(
        _told(layer, [point for point in points if layer in ("", point.layer)], criteria)
        for layer in ([*layers, ""] if len(layers) > 1 else layers)
    )


def _told(layer: str, points: Sequence[Point], criteria: tuple[str, ...]) -> Truth:
    columns = {name: [point.scores[name] for point in points] for name in criteria}
    change = [point.change for point in points]
    size = {name: correlation(held, [abs(c) for c in change]) for name, held in columns.items()}
    harm = {name: correlation(held, change) for name, held in columns.items()}
    return Truth(layer, len(points), criteria, size, harm, matrix(columns))


# ---------------------------------------------------------------- which units


def sampled(work: Workpiece, question: Question) -> dict[str, list[int]]:
    """Layer -> its units that are asked about, ascending: all, or so many drawn from the seed and the layer's name."""
    held = _held(work, question)
    for layer in question.layers:
        if why := held.fixed.get(layer):
            raise RecipeError(
                f"{layer} stays whole by {question.granularity}: {why} Choose another layer, or single weights."
            )
        if layer in held.leaders:
            raise RecipeError(
                f"The units of {layer} go with those of {held.leaders[layer]}: ask about that layer."
            )
        if layer not in held.counts:
            raise UnknownName("layer", layer, held.counts)
    layers = question.layers or tuple(held.counts)
    if not layers:
        raise RecipeError(
            f"No layer has units by {question.granularity}: {next(iter(held.fixed.values()))} Choose another granularity."
        )
    return {layer: _sample(layer, held.counts[layer], question) for layer in layers}


@dataclass(frozen=True)
class Held:
    """The units of a model by a granularity. counts: layer, or coupled group -> its units; parts: what goes with one of them."""

    counts: dict[str, int]
    fixed: dict[str, str]
    leaders: dict[str, str]
    parts: Callable[[str, int], dict[str, Tensor]]
    """(layer, unit) -> parameter name -> True for the weights that go with it."""


def _held(work: Workpiece, question: Question) -> Held:
    found = _masks.grouped(question.recipe(), work)
    if isinstance(found, Groups):
        counts = {
            name: found.dependencies.groups[number].units
            for name, number in zip(found.names, found.numbers, strict=True)
        }
        fixed, leaders = dependency.fixed(found, work.model, {})
        return Held(
            counts,
            fixed,
            leaders,
            lambda layer, unit: dependency.taken(found, layer, unit, work.model),
        )
    forms, fixed = _masks.fit(question.recipe(), work)
    if any(form.inside for form in forms.values()):
        raise RecipeError(
            f"By {question.granularity}, which weights of a unit go depends on the criterion, so that a unit has no one true change: "
            "choose granularity weight."
        )
    leaders = {name: form.leader for name, form in forms.items() if form.leader}
    numbers = {
        name: numbered(forms, name, work.model)
        for name in forms
        if name not in fixed and name not in leaders
    }
    counts = {name: count(held) for name, held in numbers.items()}
    return Held(
        counts,
        fixed,
        leaders,
        lambda layer, unit: {name: held == unit for name, held in numbers[layer].items()},
    )


def numbered(forms: Mapping[str, Granularity], layer: str, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> which unit of `layer` each of its weights belongs to: the layer first, then those that go with it, and biases."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    for name in [layer, *(other for other, form in forms.items() if form.leader == layer)]:
        form, shape = forms[name], parameters[name].shape
        units = len(form.pool(torch.zeros(shape)))
        found[name] = form.spread(torch.arange(units), shape)
        bias = name.removesuffix("weight") + "bias"
        if form.rows and bias in parameters and len(parameters[bias]) == len(found[name]):
            found[bias] = found[name].flatten(1)[:, 0]
    return found


def count(numbers: dict[str, Tensor]) -> int:
    """How many units there are."""
    return 1 + int(next(iter(numbers.values())).max())


def _sample(layer: str, count: int, question: Question) -> list[int]:
    if count <= question.units:
        return list(range(count))
    chance = torch.Generator().manual_seed(
        (question.seed * 1_000_003 + crc32(layer.encode())) % 2**63
    )
    return sorted(torch.randperm(count, generator=chance)[: question.units].tolist())


def _scored(
    work: Workpiece,
    question: Question,
    criteria: Mapping[str, dict[str, Any]],
    chosen: dict[str, list[int]],
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Criterion -> layer -> scores of the chosen units; and the criteria that cannot be asked, with the reason."""
    scores: dict[str, dict[str, list[float]]] = {}
    refused: dict[str, PruningError] = {}
    seen = Evidence.of(work, seed=question.seed)
    for name, options in criteria.items():
        try:
            scores[name] = unit_scores(work, question.recipe(name, options), chosen, seen)
        except PruningError as error:
            refused[name] = error
    if not scores:
        raise next(
            iter(refused.values()),
            RecipeError("No criterion is named: name one or more, such as magnitude and taylor."),
        )
    return scores, {name: str(error) for name, error in refused.items()}


def unit_scores(
    work: Workpiece, recipe: Recipe, chosen: dict[str, list[int]], seen: Evidence | None = None
) -> dict[str, list[float]]:
    """Layer -> scores of the chosen units, as pruning would rank them, higher = keep."""
    units = _masks.rank(recipe, work, seen=seen).scores
    return {layer: units[layer][held].tolist() for layer, held in chosen.items()}


# ---------------------------------------------------------------- leave one out


class Oracle:
    """The loss without a unit. A class because it keeps a copy of the model that it may write into."""

    def __init__(self, work: Workpiece, question: Question, examples: int = EXAMPLES) -> None:
        self.data: Batches = work.need("validation", "The true change in loss").head(examples)
        self.held = _held(work, question)
        self.model, self._given = copy.deepcopy(work.model).eval(), work.loss
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self.rerun = Replay(self.model, self.data)
        with torch.no_grad():
            self.loss = self._loss(self.rerun.outputs())

    def count(self, layer: str) -> int:
        """Units of a layer."""
        return self.held.counts[layer]

    @torch.no_grad()
    def seconds(self, layer: str) -> float:
        """That one unit of the layer takes (estimate, from one batch)."""
        return self.rerun.seconds([self.parameters[name] for name in self.held.parts(layer, 0)])

    @torch.no_grad()
    def changes(self, layer: str, units: Sequence[int]) -> Iterator[tuple[int, int, float]]:
        """(unit, weights that go, loss without it − loss with it) of each unit."""
        again = self.rerun.outputs_under(
            [self.parameters[name] for name in self.held.parts(layer, 0)]
        )
        for unit in units:
            gone = {
                name: held.nonzero(as_tuple=True)
                for name, held in self.held.parts(layer, unit).items()
            }
            saved = {name: self.parameters[name][at] for name, at in gone.items()}
            self._write(gone, dict.fromkeys(gone, torch.zeros(())))
            change = self._loss(again()) - self.loss
            self._write(gone, saved)
            yield unit, sum(len(at[0]) for at in gone.values() if len(at) > 1), change

    def _write(
        self, places: Mapping[str, tuple[Tensor, ...]], values: Mapping[str, Tensor]
    ) -> None:
        for name, at in places.items():
            self.parameters[name][at] = values[name].to(self.parameters[name].dtype)

    def _loss(self, answers: list[Tensor]) -> float:
        """Mean over the examples, summed in double precision: a single weight changes it by less than float32 resolves."""
        total = sum(
            float(self._one(out, y)) * len(y)
            for out, (_, y) in zip(answers, self.data, strict=True)
        )
        return total / len(self.data.x)

    def _one(self, out: Tensor, y: Tensor) -> Tensor:
        try:
            return self._given(out.double(), y)
        except RuntimeError:  # a loss that holds tensors of its own, in the model's precision
            return self._given(out, y)
