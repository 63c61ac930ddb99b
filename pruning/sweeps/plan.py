"""A plan: which runs a sweep is made of. Plain data, like a recipe: a file, a link, an id.

Plurals are crossed: `{"models": ["digits-mlp"], "criteria": ["magnitude", "taylor"], "sparsities":
[0.5, 0.9], "seeds": [0, 1], "epochs": 3}` is two techniques at two levels with two seeds, and every
other field of a recipe is the same for all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import pairwise, product
from math import prod
from typing import Any

from pruning import registry
from pruning.errors import NewerVersion, OutOfRange, RecipeError, UnknownName, shown
from pruning.recipe import RANGES, Recipe
from pruning.runs.follow_ups import dense_run

VERSION = 1

PLURALS = {
    "models": "model",
    "criteria": "criterion",
    "granularities": "granularity",
    "scopes": "scope",
    "schedules": "schedule",
    "sparsities": "sparsity",
    "seeds": "seed",
}
"""Field of a plan that is crossed -> the recipe's field."""

OF_TECHNIQUES = ("criteria", "granularities", "scopes", "schedules")
"""Plurals that tell techniques apart."""

DENSE, DENSE_LONGER, RANDOM = "dense", "dense_longer", "random"
CONTROLS = (DENSE, DENSE_LONGER, RANDOM)
"""What a technique is compared with: the dense model as it is; trained on for as long as the
techniques train; as much pruned at random."""

SEARCH, RANDOM_SEARCH = "search", "random search"
SEARCHED = (SEARCH, RANDOM_SEARCH)
"""Names of single runs that a search made. Each is another recipe: no line joins them."""

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98)
"""Levels of sparsity of a plan that names none."""

MOST = 2000
"""Points of one plan."""

LONGEST_TECHNIQUE = 60
"""Characters of a technique's name."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep. control: which of CONTROLS it is, "" for a technique's own point."""

    model: str
    technique: str
    sparsity: float
    seed: int
    recipe: Recipe
    control: str = ""


@dataclass(frozen=True)
class Technique:
    """A line of the picture. fields: of its recipes, what differs from the plan's other ones."""

    name: str
    fields: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Plan:
    """What a sweep runs: every technique at every level with every seed, on every model.

    models ... seeds: crossed; a technique is one of criteria × granularities × scopes × schedules
    techniques: for those that differ in more: {"name": ..., and fields of a recipe}, which win over
        a plural of one value, and are crossed with plurals of several
    controls: which of CONTROLS are added
    singles: runs beside what is crossed, as a search adds them: {"name": technique, and fields of
        a recipe}, on the first model, and with the first seed where they name none
    fields: of all recipes; in JSON they stand beside the plurals. A recipe's own `controls`, of
        lottery tickets, can be told in a technique alone

    Raises RecipeError (UnknownName, OutOfRange) for what cannot be run.
    """

    models: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ("magnitude",)
    granularities: tuple[str, ...] = ("weight",)
    scopes: tuple[str, ...] = ("global",)
    schedules: tuple[str, ...] = ("one_shot",)
    sparsities: tuple[float, ...] = LEVELS
    seeds: tuple[int, ...] = (0,)
    techniques: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    controls: tuple[str, ...] = CONTROLS
    singles: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    fields: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for plural, singular in PLURALS.items():
            values = _listed(plural, getattr(self, plural))
            object.__setattr__(self, plural, _each_once(singular, values))
        controls = _listed("controls", self.controls, least=0)
        for control in controls:
            if control not in CONTROLS:
                raise UnknownName("control of a sweep", control, CONTROLS)
        # In one order, so that equal plans are equal.
        object.__setattr__(self, "controls", tuple(c for c in CONTROLS if c in controls))
        fields = _of_recipe("plan", self.fields, crossed=(*PLURALS.values(), "controls"))
        changed = {name: value for name, value in fields.items() if value != _defaults()[name]}
        object.__setattr__(self, "fields", changed)
        techniques = _listed("techniques", self.techniques, least=0)
        several = [PLURALS[p] for p in OF_TECHNIQUES if len(getattr(self, p)) > 1]
        crossed = ("model", "sparsity", "seed", *several)
        named = tuple(_named("technique", each, crossed) for each in techniques)
        object.__setattr__(self, "techniques", named)
        singles = _listed("singles", self.singles, least=0)
        object.__setattr__(self, "singles", tuple(map(_single, singles)))
        self._check_size()
        self._check_recipes()

    def _check_size(self) -> None:
        # Counted before anything is made: lists from outside may be of any length.
        crossed = [len(getattr(self, plural)) for plural in PLURALS]
        self._check_count(prod(crossed) * max(1, len(self.techniques)) + len(self.singles))

    def _check_count(self, count: int) -> None:
        if count > MOST:
            raise RecipeError(
                f"This plan has {count:,} points: at most {MOST:,} are run. Take fewer levels, "
                "seeds or techniques, or make several plans."
            )

    def _check_recipes(self) -> None:
        techniques = self.all_techniques()
        names = [technique.name for technique in techniques]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"Two techniques are called {name!r}: name each once.")
        for technique in techniques:
            recipe = self.recipe(technique, self.models[0], self.sparsities[0], self.seeds[0])
            if not recipe.budgeted:
                raise RecipeError(
                    f"The scope {recipe.scope} has a rule of its own for how much is pruned, so "
                    "that all levels would be one: choose another scope."
                )
        added = len(_random(self, techniques))
        places = len(self.models) * len(self.seeds)
        each = len(self.sparsities) * (len(techniques) + added)
        crossed = places * (each + len(self.controls) - bool(added))
        self._check_count(crossed + len(self.singles))
        # Models' and numbers' own checks, by the recipe that nothing else can be wrong with.
        for model in self.models:
            Recipe(model=model)
        for sparsity in self.sparsities:
            Recipe(sparsity=sparsity)
        for seed in self.seeds:
            Recipe(seed=seed)
        for single in self.singles:
            self.single(single)

    # ---------------------------------------------------------------- what it is made of

    def all_techniques(self) -> list[Technique]:
        """The lines of the picture, without controls that are added."""
        several = [plural for plural in OF_TECHNIQUES if len(getattr(self, plural)) > 1]
        made = []
        for base in self.techniques or ({},):
            for values in product(*(getattr(self, plural) for plural in OF_TECHNIQUES)):
                crossed = dict(zip(OF_TECHNIQUES, values, strict=True))
                own = {PLURALS[plural]: value for plural, value in crossed.items()}
                own |= {key: value for key, value in base.items() if key != "name"}
                # A line is called by its criterion, and by what else tells it from the others.
                first = base.get("name", own["criterion"])
                named = several if base else [each for each in several if each != "criteria"]
                name = ", ".join([first, *(crossed[plural] for plural in named)])
                made.append(Technique(name, own))
        return made

    def recipe(self, technique: Technique, model: str, sparsity: float, seed: int) -> Recipe:
        """What one point runs."""
        place = {"model": model, "sparsity": sparsity, "seed": seed}
        return Recipe(**self.fields | technique.fields | place)

    def single(self, fields: dict[str, Any]) -> Point:
        """The point of one of `singles`."""
        own = {name: value for name, value in fields.items() if name != "name"}
        place = {"model": self.models[0], "seed": self.seeds[0]}
        recipe = Recipe(**self.fields | place | own)
        return Point(recipe.model, fields["name"], recipe.sparsity, recipe.seed, recipe)

    def points(self) -> list[Point]:
        """Every run, in an order that fills the picture evenly.

        The controls without levels first; then all techniques at one level with the first seed, the
        levels from both ends inwards; then the other seeds; single runs last.
        """
        return list(_points(self))

    def with_seeds(self, count: int) -> Plan:
        """The same with so many further seeds, the next after its largest."""
        first = max(self.seeds) + 1
        return replace(self, seeds=(*self.seeds, *range(first, first + count)))

    # ---------------------------------------------------------------- as text

    @property
    def id(self) -> str:
        """A hash of the plan: equal plans have equal ids. 12 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in (*PLURALS, "techniques", "controls")}
        # Left out where there are none, so that plans without have the ids that they had.
        singles = {"singles": list(self.singles)} if self.singles else {}
        return {"version": VERSION, **lists, **singles, **self.fields}

    def to_json(self) -> str:
        """Canonical: equal plans have equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Raises RecipeError: not an object, a field it does not know, no model, NewerVersion."""
        if not isinstance(data, dict):
            raise RecipeError(
                'A plan is a JSON object like {"models": ["digits-mlp"], "sparsities": [0.5, 0.9], '
                f'"epochs": 1}}; this is a {type(data).__name__}.'
            )
        values = dict(data)
        version = values.pop("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise NewerVersion(version, VERSION)
        for plural, singular in PLURALS.items():
            if singular in values and plural in values:
                raise RecipeError(
                    f"This plan names both {plural} and {singular}: {plural} is a list of them, "
                    "name that alone."
                )
            if singular in values:
                values[plural] = [values.pop(singular)]
        own = {field.name for field in dataclasses.fields(cls)} - {"fields"}
        known = own | set(_defaults())
        for name in values:
            if name not in known:
                raise UnknownName("field of a plan", name, known)
        plain = {name: value for name, value in values.items() if name in own}
        rest = {name: value for name, value in values.items() if name not in own}
        return cls(**plain, fields=rest)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Raises RecipeError, also for what is no JSON."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else error
            raise RecipeError(f"This is not a plan: it is not JSON ({reason}).") from None
        return cls.from_dict(data)


# ---------------------------------------------------------------- points


@lru_cache(maxsize=64)
def _points(plan: Plan) -> tuple[Point, ...]:
    techniques = plan.all_techniques()
    points = [*_dense(plan, techniques), *_dense_longer(plan, techniques)]
    lines = [*techniques, *_random(plan, techniques)]
    for seed in plan.seeds:
        for sparsity in inwards(plan.sparsities):
            for model in plan.models:
                for technique in lines:
                    recipe = plan.recipe(technique, model, sparsity, seed)
                    control = RANDOM if recipe.criterion == RANDOM else ""
                    name = technique.name
                    points.append(Point(model, name, sparsity, seed, recipe, control))
    points += [plan.single(single) for single in plan.singles]
    return tuple(points)


def inwards(levels: Sequence[float]) -> list[float]:
    """The ends, then the middle, then the middles of what is between: each fills the widest gap."""
    order = sorted({0, len(levels) - 1}) if levels else []
    while len(order) < len(levels):
        known = sorted(order)
        gaps = [(after - before, -before) for before, after in pairwise(known)]
        width, start = max(gaps)
        order.append(-start + width // 2)
    return [levels[place] for place in order]


def _dense(plan: Plan, techniques: Sequence[Technique]) -> list[Point]:
    """The model as it is: one point for each model, since no seed changes it."""
    points = []
    for model in plan.models if DENSE in plan.controls else ():
        first = plan.recipe(techniques[0], model, plan.sparsities[0], plan.seeds[0])
        if first.start == "random":  # untrained, it is nothing to compare with
            continue
        recipe = replace(dense_run(first), steps=1, epochs=0, rewind="none", slimming=0.0)
        points.append(Point(model, DENSE, 0.0, first.seed, recipe, DENSE))
    return points


def _dense_longer(plan: Plan, techniques: Sequence[Technique]) -> list[Point]:
    """The dense model trained as long as the technique that trains longest."""
    points = []
    for seed, model in product(plan.seeds, plan.models if DENSE_LONGER in plan.controls else ()):
        recipes = [plan.recipe(each, model, plan.sparsities[0], seed) for each in techniques]
        # A lottery trains its own dense network, inside the run.
        trained = [recipe for recipe in recipes if recipe.epochs and recipe.rewind == "none"]
        if trained:
            longest = max(trained, key=Recipe.training_epochs)
            recipe = dense_run(longest)
            points.append(Point(model, DENSE_LONGER, 0.0, seed, recipe, DENSE_LONGER))
    return points


def _random(plan: Plan, techniques: Sequence[Technique]) -> list[Technique]:
    """A technique that prunes at random, for each granularity that has none yet."""
    if RANDOM not in plan.controls:
        return []
    known = {own["granularity"] for own in _own(plan, techniques) if own["criterion"] == RANDOM}
    added: dict[str, dict[str, Any]] = {}
    for own in _own(plan, techniques):
        granularity = own["granularity"]
        if granularity not in known and not registry.misfit(RANDOM, granularity):
            added.setdefault(granularity, {**own, "criterion": RANDOM, "options": {}})
    several = len(added) > 1
    names = {technique.name for technique in techniques}
    plain = "random control" if RANDOM in names else RANDOM
    return [
        Technique(f"{plain}, {granularity}" if several else plain, own)
        for granularity, own in added.items()
    ]


def _own(plan: Plan, techniques: Sequence[Technique]) -> list[dict[str, Any]]:
    return [plan.fields | technique.fields for technique in techniques]


# ---------------------------------------------------------------- checks


@cache
def _defaults() -> dict[str, Any]:
    """Field of a recipe -> its default."""
    values = {each.name: getattr(Recipe(), each.name) for each in dataclasses.fields(Recipe)}
    # As JSON has them.
    return {n: list(value) if isinstance(value, tuple) else value for n, value in values.items()}


def _named(what: str, fields: Any, crossed: tuple[str, ...]) -> dict[str, Any]:
    """A technique or a single run, checked: its name, and fields of a recipe."""
    if not isinstance(fields, dict):
        raise RecipeError(
            f"A {what} is {shown(fields)}, but must be an object with a name and fields of a "
            "recipe."
        )
    name = fields.get("name")
    if not isinstance(name, str) or not _can_be_shown(name):
        allowed = f"a text of 1 to {LONGEST_TECHNIQUE} characters"
        raise OutOfRange(f"The name of a {what}", name, allowed)
    if name in (DENSE, DENSE_LONGER):
        raise RecipeError(f"A {what} is called {name!r}, as a control is: give it another name.")
    own = {key: value for key, value in fields.items() if key != "name"}
    return {"name": name, **_of_recipe(f"{what} {name!r}", own, crossed)}


def _single(fields: Any) -> dict[str, Any]:
    # A model of its own would be one that nobody checked before it was run.
    return _named("single run", fields, crossed=("model",))


def _can_be_shown(name: str) -> bool:
    return bool(name.strip()) and len(name) <= LONGEST_TECHNIQUE and name.isprintable()


def _listed(name: str, values: Any, least: int = 1) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)):
        raise RecipeError(f"{name} of a plan is {shown(values)}, but must be a list.")
    if len(values) < least:
        raise RecipeError(f"{name} of a plan is empty: name at least one.")
    return tuple(values)


def _each_once(singular: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values by their kind, in their order, without repetitions."""
    return tuple(dict.fromkeys(_plain(singular, value) for value in values))


def _plain(name: str, value: Any) -> Any:
    """A value of a recipe's field as equal recipes write it: 0 and 0.0 are one number."""
    default = _defaults()[name]
    if isinstance(default, float):
        RANGES[name].check(name, value)
        return float(value)
    if isinstance(default, str) and not isinstance(value, str):
        raise RecipeError(f"{name} is {shown(value)}, but must be a text.")
    if isinstance(default, int) and not isinstance(default, bool):
        RANGES[name].check(name, value, whole=True)
    return list(value) if isinstance(value, tuple) else value


def _of_recipe(where: str, fields: Any, crossed: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a recipe, checked by name. crossed: those that are named elsewhere."""
    plain = {}
    for name, value in fields.items():
        if name not in _defaults():
            raise UnknownName("field of a recipe", name, set(_defaults()) - set(crossed))
        if name in crossed:
            raise RecipeError(f"{name} is crossed in this plan: the {where} cannot name its own.")
        plain[name] = _plain(name, value)
    return plain
