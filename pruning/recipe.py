"""A run as plain data. The link, undo, the cache key, the report and the script are functions of it. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from pruning import registry
from pruning.errors import NewerVersion, OutOfRange, RecipeError, UnknownName

VERSION = 2
RENAMED = {"floor": "min_units", "heal_slim": "finetune_compact"}
"""Fields as version 1 called them; stored runs and links that carry the old names still read."""
OLD_SCOPES = {"by_hand": "manual"}
STARTS = ("trained", "random")
OPTIMIZERS = ("sgd", "adamw", "adam")
DECAYS = ("cosine", "constant")
REWINDS = ("none", "init", "early", "learning_rate")
CONTROLS = ("reinit", "random_mask", "one_shot")


@dataclass(frozen=True)
class Recipe:
    """What to remove, by what score, where, when, and how to heal.

    model: the name of a model (see `python -m pruning list models`); "" when the caller hands one over
    start: "trained" weights as found, or "random": drawn afresh from the seed (training from scratch)
    criterion, options: the score and its options; granularity, scope, schedule likewise
    sparsity: share to remove of the covered weights, [0, 1)
    ratios: for scope by_hand: layer name -> share to remove of that layer, [0, 1)
    exclude: layers left dense
    floor: units that every layer keeps at least
    steps: rounds of pruning and healing; epochs: of fine-tuning after each round
    heal_slim: fine-tune the slim model in the masked one's place, where whole channels or heads go: the same, in less time
    recalibrate: after each pruning, estimate BatchNorm's running statistics anew on training data
    optimizer: "sgd" (with momentum), "adamw" or "adam"; lr: at the start of each round; decay: "cosine" to 0 or "constant"; batch: examples
    slimming: weight of an L1 penalty on BatchNorm's scales, in a training of `epochs` before anything is removed; 0: no such training
    distill: share of the loss that compares with the dense model's answers, [0, 1]; temperature: that softens both
    rewind: lottery tickets: the dense network is trained first, and after each pruning the kept weights go back to where they were
        at the start ("init") or after `rewind_step` optimizer steps ("early"), or stay while only the schedule of the learning rate goes
        back there ("learning_rate"); then training is done again from there to its end. "none" heals what was pruned
    controls: trained beside each ticket: "reinit" (its mask, other weights), "random_mask" (its weights, another mask), "one_shot"
        (its weights, the mask that one pruning of the dense network gives)
    seed: of everything drawn at random

    Raises RecipeError (UnknownName, OutOfRange) for what cannot be followed.
    """

    model: str = ""
    start: str = "trained"
    criterion: str = "magnitude"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    granularity: str = "weight"
    granularity_options: dict[str, Any] = field(default_factory=dict, hash=False)
    scope: str = "global"
    scope_options: dict[str, Any] = field(default_factory=dict, hash=False)
    sparsity: float = 0.5
    ratios: dict[str, float] = field(default_factory=dict, hash=False)
    exclude: tuple[str, ...] = ()
    min_units: int = 1
    schedule: str = "one_shot"
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)
    steps: int = 1
    epochs: int = 0
    recalibrate: bool = False
    finetune_compact: bool = False
    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int = 64
    slimming: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    decay: str = "cosine"
    rewind: str = "none"
    rewind_step: int = 0
    controls: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))
        object.__setattr__(self, "controls", tuple(self.controls))
        _one_of("start", self.start, STARTS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("decay", self.decay, DECAYS)
        _one_of("rewind", self.rewind, REWINDS)
        for control in self.controls:
            _one_of("control", control, CONTROLS)
        for kind in registry.KINDS:
            name = getattr(self, kind)
            registry.entry(kind, name)
            registry.check_options(
                kind, name, getattr(self, "options" if kind == "criterion" else f"{kind}_options")
            )
        if reason := registry.misfit(self.criterion, self.granularity):
            raise RecipeError(reason)
        _share("sparsity", self.sparsity)
        for layer, ratio in self.ratios.items():
            _share(f"The ratio of {layer}", ratio)
        _whole("min_units", self.min_units, 1, 1_000_000)
        _whole("steps", self.steps, 1, 1000)
        _whole("epochs", self.epochs, 0, 10_000)
        _whole("batch", self.batch, 2, 1_000_000)
        _whole("seed", self.seed, 0, 2**63 - 1)
        _number("lr", self.lr, 0, 100, open_low=True)
        _number("momentum", self.momentum, 0, 0.9999)
        _number("weight_decay", self.weight_decay, 0, 10)
        _number("slimming", self.slimming, 0, 10)
        _number("distill", self.distill, 0, 1)
        _number("temperature", self.temperature, 0, 1000, open_low=True)
        _whole("rewind_step", self.rewind_step, 0, 100_000_000)
        self._can_rewind()
        if not isinstance(self.recalibrate, bool):
            raise OutOfRange("recalibrate", self.recalibrate, "true or false")

    def _can_rewind(self) -> None:
        if len(set(self.controls)) < len(self.controls):
            raise RecipeError(f"controls are {', '.join(self.controls)}: name each once.")
        if self.rewind == "none" and self.controls:
            raise RecipeError(
                "Controls are trained beside lottery tickets: set rewind to init, or name no controls."
            )
        if self.rewind in ("init", "early") and self.start != "random":
            way_out = "set start to random, so that the run draws the first weights itself."
            raise RecipeError(
                f"Rewinding goes back to the weights before training, and those of a trained model are gone: {way_out}"
            )
        if self.rewind != "none" and self.epochs == 0:
            raise OutOfRange(
                "epochs",
                0,
                f"1 or more where rewind is {self.rewind}: after a rewind the network has to be trained",
            )

    @property
    def trains_first(self) -> bool:
        """Whether the dense network is trained before anything is removed."""
        return (self.rewind != "none" and self.start == "random") or (
            self.slimming > 0 and self.epochs > 0
        )

    def steps_per_epoch(self, examples: int) -> int:
        """Optimizer steps of one pass over so many training examples; the last batch may be small."""
        return -(-examples // self.batch)

    def rewound_epochs(self, steps_per_epoch: int | None = None) -> int:
        """Epochs of one training after a rewind; one that is resumed in its middle counts whole.

        steps_per_epoch: None where the size of the data is not known: then it counts in full.
        """
        if self.rewind in ("none", "init") or steps_per_epoch is None:
            return self.epochs
        return self.epochs - self.rewind_step // steps_per_epoch

    def control_epochs(self, steps_per_epoch: int | None = None) -> int:
        """Epochs that the controls of all lottery tickets are trained."""
        # New weights have no training to resume: theirs is a whole one.
        again = self.rewound_epochs(steps_per_epoch)
        one_step = sum(self.epochs if kind == "reinit" else again for kind in self.controls)
        return self.steps * one_step

    def training_epochs(self, steps_per_epoch: int | None = None) -> int:
        """Epochs that a run trains in all: before the first pruning, after each, and of controls."""
        first = self.epochs if self.trains_first else 0
        after = self.steps * self.rewound_epochs(steps_per_epoch)
        return first + after + self.control_epochs(steps_per_epoch)

    @property
    def budgeted(self) -> bool:
        """Whether `sparsity` says how much goes; some scopes have a rule of their own."""
        return bool(registry.entry("scope", self.scope).tags.get("budget", True))

    @property
    def dependency_groups(self) -> bool:
        """Whether units are followed through the model, so that what goes can be left out of it."""
        return bool(registry.entry("granularity", self.granularity).tags.get("dependency_groups"))

    @property
    def prunes(self) -> bool:
        """Whether anything is asked to go."""
        return (
            any(self.ratios.values())
            if self.scope == "manual"
            else self.sparsity > 0 or not self.budgeted
        )

    @property
    def id(self) -> str:
        """A hash of the recipe: equal recipes have equal ids. 12 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            **dataclasses.asdict(self),
            "exclude": list(self.exclude),
            "controls": list(self.controls),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def short(self) -> dict[str, Any]:
        """Only what differs from the defaults: what a link carries."""
        return {
            f.name: value
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) != _default(f)
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Raises RecipeError: not an object, a field it does not know, NewerVersion."""
        if not isinstance(data, dict):
            raise RecipeError(
                f"A recipe is a JSON object with fields like criterion and sparsity; this is a {type(data).__name__}."
            )
        rest = dict(data)
        version = rest.pop("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise NewerVersion(version, VERSION)
        rest = {RENAMED.get(name, name): value for name, value in rest.items()}
        if rest.get("scope") in OLD_SCOPES:
            rest["scope"] = OLD_SCOPES[rest["scope"]]
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name, value in rest.items():
            if name not in known:
                raise UnknownName("field of a recipe", name, known)
            wanted = _default(known[name])
            if isinstance(wanted, (dict, str)) and not isinstance(value, type(wanted)):
                raise RecipeError(
                    f"{name} is {value!r}, but must be of kind {type(wanted).__name__}."
                )
            if isinstance(wanted, tuple) and not (
                isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
            ):
                raise RecipeError(f"{name} is {value!r}, but must be a list of names.")
        return cls(**rest)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise RecipeError(
                f"This is not a recipe: it is not JSON ({error}). Save one with the page's Link or `--json`."
            ) from None
        return cls.from_dict(data)


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _one_of(thing: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownName(thing, value, known)


def _number(thing: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not (low < value if open_low else low <= value) or value > high:  # type: ignore[operator]
        raise OutOfRange(
            thing, value, f"a number {'above' if open_low else 'from'} {low:g}, up to {high:g}"
        )


def _share(thing: str, value: object) -> None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not 0 <= value < 1:  # type: ignore[operator]
        raise OutOfRange(thing, value, "a share from 0 up to, not including, 1 (0.9 removes 90 %)")


def _whole(thing: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OutOfRange(thing, value, f"a whole number from {low:,} to {high:,}")
