"""What a search looks for, and among which recipes. Plain data and its arithmetic: no torch, no
Optuna.

`{"model": "digits-cnn", "find": "smallest", "within_points": 1}` is the smallest file whose
validation accuracy is at most one percentage point below the dense model's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any, Protocol

from pruning import registry
from pruning.errors import DataError, NewerVersion, OutOfRange, RecipeError, UnknownName, shown
from pruning.events import Finished, Measured
from pruning.metrics import Accuracy, Quality
from pruning.ranges import Range
from pruning.recipe import RANGES, Recipe, parsed

VERSION = 1

FINDS = {
    "smallest": "bytes",
    "fastest": "latency",
    "fewest macs": "macs",
    "most accurate": "accuracy",
    "front": "accuracy and bytes",
}
"""What can be looked for -> what it is judged by; all but accuracy are the better the less."""

LIMITS = {"most_bytes": "bytes", "most_weights": "weights", "most_macs": "macs"}
"""Limit of a goal -> the figure of an outcome that it holds down."""

WITHIN = 1.0
"""Points below dense that are tolerated where less is looked for and nobody says how many: without
any such limit, the smallest model is one that answers at random."""

GROUPS = 4
"""Groups of layers with a ratio of their own: a search of sixty trials learns few numbers."""

CHOSEN = ("criterion", "granularity", "scope", "schedule", "sparsity", "ratios")
"""Fields of a recipe that the search chooses, by names of their own."""

NOT_OF_A_SEARCH = ("start", "rewind", "controls")
"""Fields of a recipe without which there is a trained dense model to stay near to."""


@dataclass(frozen=True)
class Goal:
    """The model, what is looked for, its limits, and the recipes to look among.

    find: one of FINDS; "front" looks for all at once that no other beats in accuracy and bytes
    within_points: below the dense model, on validation data: percentage points of a share, percent
        of the dense model's value for any other metric
    most_bytes: of the file; most_weights, most_macs: shares of the dense model's that are kept
    epochs: of fine-tuning in all, the same for every trial, divided among its steps
    criteria, granularities, scopes, schedules, steps: what is tried; scope "manual" is a ratio for
        each of at most four groups of layers, of single weights alone
    kept, kept_units: from, to: the share that is kept, of weights, and of whole units
    reconstruct: try that, too
    seed: of the search and of its runs
    confirm: further seeds that an answer must keep its limits with, by the mean: the best of sixty
        by one seed is lucky, too. A front is not confirmed
    fields: of all recipes, such as lr; in JSON they stand beside the others

    Raises RecipeError (UnknownName, OutOfRange) for what cannot be looked for.
    """

    model: str
    find: str = "smallest"
    within_points: float | None = None
    most_bytes: int | None = None
    most_weights: float | None = None
    most_macs: float | None = None
    epochs: int = 4
    criteria: tuple[str, ...] = ("magnitude", "taylor", "fisher", "wanda")
    granularities: tuple[str, ...] = ("weight", "channel")
    scopes: tuple[str, ...] = ("global", "lamp", "erk", "manual")
    schedules: tuple[str, ...] = ("linear", "cubic")
    steps: tuple[int, ...] = (1, 2, 4)
    kept: tuple[float, ...] = (0.01, 0.5)
    kept_units: tuple[float, ...] = (0.1, 0.9)
    reconstruct: bool = True
    seed: int = 0
    confirm: int = 2
    fields: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.find not in FINDS:
            raise UnknownName("thing to find", self.find, FINDS)
        for name in ("criteria", "granularities", "scopes", "schedules", "steps"):
            object.__setattr__(self, name, _listed(name, getattr(self, name)))
        for name in ("kept", "kept_units"):
            object.__setattr__(self, name, _interval(name, getattr(self, name)))
        if self.within_points is None and FINDS[self.find] in ("bytes", "latency", "macs"):
            object.__setattr__(self, "within_points", WITHIN)
        self._check_limits()
        self._check_space()

    def _check_limits(self) -> None:
        if self.within_points is not None:
            Range(0, 1_000_000).check("within_points", self.within_points)
        if self.most_bytes is not None:
            Range(1, 1 << 50).check("most_bytes", self.most_bytes, whole=True)
        for name in ("most_weights", "most_macs"):
            if getattr(self, name) is not None:
                Range(0, 1, above=True).check(name, getattr(self, name))
        if self.find == "most accurate" and all(getattr(self, name) is None for name in LIMITS):
            raise RecipeError(
                "The most accurate model is the dense one, unless something is limited: name "
                f"{', '.join(LIMITS)} or several of them."
            )

    def _check_space(self) -> None:
        RANGES["epochs"].check("epochs", self.epochs, whole=True)
        RANGES["seed"].check("seed", self.seed, whole=True)
        Range(0, 20).check("confirm", self.confirm, whole=True)
        if not isinstance(self.reconstruct, bool):
            raise OutOfRange("reconstruct", self.reconstruct, "true or false")
        for steps in self.steps:
            RANGES["steps"].check("steps", steps, whole=True)
        for name in self.fields:
            if name in NOT_OF_A_SEARCH:
                raise RecipeError(
                    f"A search compares with a trained dense model, and {name} is for networks "
                    "that are trained anew: leave it out."
                )
            if name in CHOSEN:
                raise RecipeError(
                    f"{name} is what the search chooses: list what it may be, in criteria, "
                    "granularities, scopes, schedules, kept or kept_units."
                )
            if name not in _recipe_fields():
                own = {each.name for each in dataclasses.fields(self)} | _recipe_fields()
                known = own - {*CHOSEN, *NOT_OF_A_SEARCH, "fields"}
                raise UnknownName("field of a goal", name, known)
        for scope in self.scopes:
            made = self._recipe(scope=scope)
            if scope != "manual" and not made.budgeted:
                raise RecipeError(
                    f"The scope {scope} has a rule of its own for how much is pruned: choose "
                    "others."
                )
        for schedule in self.schedules:
            self._recipe(schedule=schedule)
        for granularity in self.granularities:
            self._recipe(granularity=granularity, criterion=self._fitting(granularity)[0])
            if not self._scopes(granularity):
                raise RecipeError(
                    f"Ratios by layer (scope manual) are tried of single weights alone: name "
                    f"another scope for {granularity}."
                )

    def _recipe(self, **values: Any) -> Recipe:
        return Recipe(**self.fields | {"model": self.model, "seed": self.seed} | values)

    def _fitting(self, granularity: str) -> tuple[str, ...]:
        """Criteria that have a meaning for it. Raises RecipeError where none has."""
        reasons = {name: registry.misfit(name, granularity) for name in self.criteria}
        fitting = tuple(name for name, reason in reasons.items() if reason is None)
        if not fitting:
            raise RecipeError(next(reason for reason in reasons.values() if reason))
        return fitting

    def _scopes(self, granularity: str) -> tuple[str, ...]:
        # Of dependency groups it is not each layer that has a ratio.
        return tuple(s for s in self.scopes if s != "manual" or granularity == "weight")

    # ---------------------------------------------------------------- recipes

    def propose(self, layers: Sequence[tuple[str, int]], suggest: Suggest) -> Recipe:
        """The recipe of one trial. layers: (name, weights) in the model's order."""
        granularity = suggest.suggest_categorical("granularity", self.granularities)
        # A choice that depends on another has a name of its own for each: Optuna takes one
        # name for one choice, with the same values whenever it is asked.
        criterion = suggest.suggest_categorical(
            f"criterion, {granularity}", self._fitting(granularity)
        )
        scope = suggest.suggest_categorical(f"scope, {granularity}", self._scopes(granularity))
        values = {"granularity": granularity, "criterion": criterion, "scope": scope}
        if scope == "manual":
            values |= self._ratios(layers, suggest)
        else:
            units = registry.entry("granularity", granularity).tags.get("dependency_groups")
            low, high = self.kept_units if units else self.kept
            name = "units kept" if units else "weights kept"
            kept = suggest.suggest_float(name, low, high, log=True)
            values["sparsity"] = round(1 - kept, 4)
        values |= self._steps(suggest)
        if self.reconstruct:
            values["reconstruct"] = suggest.suggest_categorical("reconstruct", (False, True))
        return self._recipe(**values)

    def _steps(self, suggest: Suggest) -> dict[str, Any]:
        """How the epochs are divided: every trial trains as long as any other."""
        possible = tuple(n for n in self.steps if n <= max(1, self.epochs)) or (1,)
        steps = suggest.suggest_categorical("steps", possible)
        values: dict[str, Any] = {"steps": steps, "epochs": self.epochs // steps}
        if steps > 1:
            values["schedule"] = suggest.suggest_categorical("schedule", self.schedules)
        return values

    def _ratios(self, layers: Sequence[tuple[str, int]], suggest: Suggest) -> dict[str, Any]:
        ratios: dict[str, float] = {}
        for number, group in enumerate(groups(layers), 1):
            kept = suggest.suggest_float(f"kept, group {number}", *self.kept, log=True)
            ratios |= {name: round(1 - kept, 4) for name, _ in group}
        total = sum(weights for _, weights in layers)
        removed = sum(ratios[name] * weights for name, weights in layers)
        # No scope reads it beside ratios: it is where the picture shows the point.
        return {"ratios": ratios, "sparsity": round(min(removed / total, 0.9999), 4)}

    # ---------------------------------------------------------------- what is good

    @property
    def minimised(self) -> tuple[bool, ...]:
        """Of each of `objectives`, whether less is better."""
        return {"most accurate": (False,), "front": (False, True)}.get(self.find, (True,))

    def objectives(self, outcome: Outcome) -> tuple[float, ...]:
        """What the search makes better. Raises DataError for what was not measured."""
        # Points below dense say for every metric alike which way is better.
        accuracy = -outcome.points
        if self.find == "most accurate":
            return (accuracy,)
        if self.find == "front":
            return accuracy, float(outcome.bytes)
        value = getattr(outcome, FINDS[self.find])
        if value is None:
            raise DataError(f"The {FINDS[self.find]} of a trial could not be measured.")
        return (float(value),)

    def excess(self, outcome: Outcome) -> dict[str, float]:
        """Limit -> by how much the outcome exceeds it; at most 0: kept.

        Of points in points; of all others in percent of the limit, so that they add up alike.
        """
        over = {}
        if self.within_points is not None:
            over["within_points"] = outcome.points - self.within_points
        for name, figure in LIMITS.items():
            most, value = getattr(self, name), getattr(outcome, figure)
            if most is not None:
                if value is None:
                    raise DataError(f"The {figure} of a trial could not be counted.")
                over[name] = 100 * (value / most - 1)
        return over

    def allows(self, outcome: Outcome) -> bool:
        """Whether it keeps every limit."""
        return all(by <= 0 for by in self.excess(outcome).values())

    def best(self, outcomes: Mapping[int, Outcome]) -> list[int]:
        """The keys of those that keep every limit and that no other beats, the best first.

        One, but for a front, which goes from the smallest on; none where no outcome keeps them.
        """
        ranked = self.ranked(outcomes)
        if self.find != "front":
            return ranked[:1]
        allowed = {key: self._costs(outcomes[key]) for key in ranked}
        front: list[int] = []
        # From the smallest on, and of equally small ones the most accurate first.
        for key in sorted(allowed, key=lambda key: (allowed[key][::-1], key)):
            if not front or allowed[key][0] < allowed[front[-1]][0]:
                front.append(key)
        return front

    def ranked(self, outcomes: Mapping[int, Outcome]) -> list[int]:
        """The keys of those that keep every limit, by the first objective, the best first."""
        allowed = {key: self._costs(each) for key, each in outcomes.items() if self.allows(each)}
        return sorted(allowed, key=lambda key: (allowed[key], key))

    def _costs(self, outcome: Outcome) -> tuple[float, ...]:
        """The objectives, all the better the less."""
        pairs = zip(self.objectives(outcome), self.minimised, strict=True)
        return tuple(value if less else -value for value, less in pairs)

    def in_words(self) -> str:
        """`the smallest within 1 point of dense`."""
        limits = []
        if self.within_points is not None:
            plural = "" if self.within_points == 1 else "s"
            limits.append(f"within {self.within_points:g} point{plural} of dense")
        if self.most_bytes is not None:
            limits.append(f"of at most {self.most_bytes:,} bytes")
        for name, what in (("most_weights", "weights"), ("most_macs", "MACs")):
            if getattr(self, name) is not None:
                limits.append(f"with at most {getattr(self, name):.1%} of the {what}")
        what = "front of accuracy and bytes" if self.find == "front" else self.find
        return " ".join([f"the {what}", ", ".join(limits)]).strip()

    # ---------------------------------------------------------------- as text

    @property
    def id(self) -> str:
        """A hash: equal goals have equal ids. 12 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        fields = own.pop("fields")
        lists = {name: list(value) for name, value in own.items() if isinstance(value, tuple)}
        return {"version": VERSION, **own, **lists, **fields}

    @classmethod
    def from_dict(cls, data: Any) -> Goal:
        """Raises RecipeError: not an object, a field it does not know, no model, NewerVersion."""
        if not isinstance(data, dict):
            raise RecipeError(
                'A goal is a JSON object like {"model": "digits-cnn", "find": "smallest", '
                f'"within_points": 1}}; this is a {type(data).__name__}.'
            )
        values = dict(data)
        version = values.pop("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise NewerVersion(version, VERSION)
        if "model" not in values:
            raise RecipeError('This goal names no model: add one, such as "model": "digits-cnn".')
        names = {each.name for each in dataclasses.fields(cls)} - {"fields"}
        own = {name: value for name, value in values.items() if name in names}
        rest = {name: value for name, value in values.items() if name not in names}
        return cls(**own, fields=rest)

    @classmethod
    def from_json(cls, text: str | bytes) -> Goal:
        """Raises RecipeError, also for what is no JSON."""
        return cls.from_dict(parsed(text))


class Suggest(Protocol):
    """What chooses values by name: an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


@dataclass(frozen=True)
class Outcome:
    """What a search sees of a run. All of quality is of validation data: it never sees the test's.

    accuracy, dense: of the final model and the dense one, by the task's metric; points: below
    dense, negative where it is better; weights, macs: shares of the dense model's; latency:
    milliseconds over the dense model's of the same rounds. None: not measured.
    """

    accuracy: float
    dense: float
    points: float
    bytes: int
    weights: float
    macs: float | None
    latency: float | None


def outcome(finished: Finished, stages: Iterable[Measured]) -> Outcome:
    """Of a run. Raises DataError where it was measured on no validation data."""
    qualities = {stage.stage: stage.validation_quality for stage in stages}
    final, dense = qualities.get("final"), qualities.get("dense")
    if final is None or dense is None:
        raise DataError(
            "A search chooses by validation data, so that test data stay unseen, and this model "
            "has none: give some (see Data in the README)."
        )
    small, whole = finished.deliverable, finished.dense
    times = (small.latency, whole.latency)
    macs = (small.all_macs_kept, whole.all_macs)
    return Outcome(
        accuracy=final.value,
        dense=dense.value,
        points=points_below(final, dense),
        bytes=small.size.sparse,
        weights=small.kept / whole.weights,
        macs=macs[0] / macs[1] if macs[0] is not None and macs[1] else None,
        latency=times[0].median / times[1].median if times[0] and times[1] else None,
    )


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Of the same recipe with several seeds; None where one of them was not measured."""
    means: dict[str, Any] = {}
    for each in dataclasses.fields(Outcome):
        values = [getattr(one, each.name) for one in outcomes]
        means[each.name] = None if None in values else fmean(values)
    return Outcome(**means | {"bytes": round(means["bytes"])})


def points_below(final: Quality, dense: Quality) -> float:
    """How much worse than dense: percentage points of a share, else percent of dense's value."""
    worse = dense.value - final.value if dense.higher_is_better else final.value - dense.value
    if isinstance(dense, Accuracy) or dense.unit == "%":
        # Counted on a few hundred examples: a difference of 1.0000000000000009 points is one.
        return round(100 * worse, 9)
    return round(100 * worse / (abs(dense.value) or 1.0), 9)


def groups(layers: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """At most GROUPS runs of neighbouring layers: the first and the last alone, as they differ most
    from the others, those between divided evenly.
    """
    if len(layers) <= GROUPS:
        return [[layer] for layer in layers]
    inner = list(layers[1:-1])
    count = GROUPS - 2
    cuts = [len(inner) * part // count for part in range(count + 1)]
    middle = [inner[a:b] for a, b in pairwise(cuts)]
    return [[layers[0]], *middle, [layers[-1]]]


# ---------------------------------------------------------------- checks


def _recipe_fields() -> set[str]:
    return {each.name for each in dataclasses.fields(Recipe)}


def _listed(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)) or not values:
        raise RecipeError(f"{name} of a goal is {shown(values)}, but must be a list of at least 1.")
    # In one order and once, so that equal goals are equal; names of techniques are checked by the
    # recipe that is made of each.
    if not all(isinstance(value, (str, int)) for value in values):
        raise RecipeError(f"{name} of a goal is {shown(values)}, but must be a list of names.")
    return tuple(dict.fromkeys(values))


def _interval(name: str, values: Any) -> tuple[float, ...]:
    allowed = "two numbers, from above 0 to at most 1, the smaller first"
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise OutOfRange(name, values, allowed)
    for value in values:
        Range(0, 1, above=True).check(name, value)
    low, high = float(values[0]), float(values[1])
    if low >= high or low < 1e-4:
        raise OutOfRange(name, values, allowed)
    return low, high
