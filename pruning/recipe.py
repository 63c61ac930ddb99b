"""A recipe: what to prune, by which criterion, at which granularity, scope and schedule, and how to
fine-tune. Plain data: the link, undo, the cache key, the report and the script are functions of it.
No torch here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pruning import registry
from pruning.errors import NewerVersion, OutOfRange, RecipeError, UnknownName, shown
from pruning.ranges import SHARE, Range
from pruning.tables import html_table

VERSION = 2
RENAMED = {"floor": "min_units", "heal_slim": "finetune_compact"}
"""Fields as version 1 called them; stored runs and links that carry the old names still read."""
YOUNGER = ("precision", "removed")
"""Fields that recipes were stored without: at their defaults they are left out, so that the ids of
those recipes are what they were."""
TECHNIQUE = ("criterion", "granularity", "scope", "sparsity", "schedule", "steps", "epochs")
"""Fields that a recipe is shown by, whatever they are."""
RENAMED_SCOPES = {"by_hand": "manual"}

STARTS = ("trained", "random")
OPTIMIZERS = ("sgd", "adamw", "adam")
DECAYS = ("cosine", "constant")
BUDGETS = ("", "weights", "units", "macs", "bytes")
REWINDS = ("none", "init", "early", "learning_rate")
PRECISIONS = ("float32", "bfloat16", "float16")
CHOICES = {
    "start": STARTS,
    "budget": BUDGETS,
    "optimizer": OPTIMIZERS,
    "decay": DECAYS,
    "rewind": REWINDS,
    "precision": PRECISIONS,
}
"""Field -> what it may be; the names of techniques are the registry's."""
RANGES = {
    "sparsity": SHARE,
    "min_units": Range(1, 1_000_000),
    "steps": Range(1, 1000),
    "epochs": Range(0, 10_000),
    "batch": Range(2, 1_000_000),  # BatchNorm cannot train on one example
    "seed": Range(0, 2**63 - 1),  # what a torch generator takes
    "lr": Range(0, 100, above=True),
    "momentum": Range(0, 0.9999),
    "weight_decay": Range(0, 10),
    "slimming": Range(0, 10),
    "distill": Range(0, 1),
    "temperature": Range(0, 1000, above=True),
    "rewind_step": Range(0, 100_000_000),
}
"""Field -> what its number may be; options of techniques have theirs in their signatures."""
UNIT = Range(0, 10_000_000_000)
"""The number of a unit; how many a layer has is known with the model."""
LONGEST_NAME = 1000
"""Characters of a model's, layer's or option's name."""
REMOVES = "0.9 removes 90 %"
CONTROLS = ("reinit", "random_mask", "one_shot")
ONE_STEP = (
    "criterion",
    "options",
    "granularity",
    "granularity_options",
    "scope",
    "scope_options",
    "sparsity",
    "budget",
    "ratios",
    "removed",
    "exclude",
    "embeddings",
    "min_units",
    "seed",
)
"""Fields that decide what pruning in one step removes of a model."""


@dataclass(frozen=True)
class Recipe:
    """What to prune, by which criterion, where, when, and how to fine-tune.

    model: the name of a model (see `python -m pruning list models`); "" when the caller hands one
        over
    start: "trained" weights as found, or "random" ones from the seed (training from scratch)
    criterion, options: the score and its options; granularity, scope, schedule likewise
    sparsity: share to remove of what the recipe may prune, [0, 1)
    budget: what that is a share of: "weights", "units" (channels, heads ...), "macs" or "bytes" of
        the file; "": units where they are channels or heads, weights elsewhere
    ratios: for scope manual: layer name -> share to remove of that layer, [0, 1)
    removed: layer name -> numbers of its units, from 0, which are removed in the first step
        whatever they score; they count in the share that the scope removes. Units of one
        dependency group are removed together, whichever of its layers names them
    exclude: layers left dense
    embeddings: prune embeddings too, where units lie in single layers: they are looked up and not
        multiplied, so that this saves bytes but no MACs. Channels take their part of an embedding
        along in any case
    min_units: units that every layer keeps at least
    steps: rounds of pruning and fine-tuning; epochs: of fine-tuning after each round
    finetune_compact: fine-tune the compact model in the masked one's place, where whole channels
        or heads are pruned: the same, in less time
    augment: fine-tune on training data augmented as the model's first training had it, where the
        workpiece says how. Off, because few epochs gain nothing from it: on the digits models 10
        to 40 epochs end 0.8 to 2.8 percentage points lower with it. Never with distillation, whose
        teacher sees the data as they are
    recalibrate: after each pruning, estimate BatchNorm's running statistics anew on training data
    reconstruct: after each pruning, solve every layer anew by least squares, so that it gives what
        it gave before, on a few hundred unlabelled training examples. Never with recalibrate, which
        undoes it
    optimizer: "sgd" (with momentum), "adamw" or "adam"; lr: at the start of each round; decay:
        "cosine" to 0 or "constant"; batch: examples
    precision: what the products of training are computed in, "float32", "bfloat16" or "float16"
        (automatic mixed precision); weights, scores, masks and measurement stay in float32. Faster
        on accelerators alone
    slimming: weight of an L1 penalty on BatchNorm's scales, in a training of `epochs` before
        anything is pruned (network slimming); 0: no such training
    distill: share of the loss that compares with the dense model's answers, [0, 1]; temperature:
        that softens both
    rewind: lottery tickets: the dense network is trained first, and after each pruning the kept
        weights return to where they were at the start ("init") or after `rewind_step` optimizer
        steps ("early"), or stay while only the schedule of the learning rate returns there
        ("learning_rate"); then training is done again from there to its end. "none": fine-tuning
        continues from the pruned weights
    controls: trained beside each ticket: "reinit" (its mask, other weights), "random_mask" (its
        weights, another mask), "one_shot" (its weights, the mask that one pruning of the dense
        network gives)
    seed: of everything that is random

    Raises RecipeError (UnknownName, OutOfRange) for what cannot be followed.
    """

    # Dictionaries cannot be hashed; equal recipes still have equal hashes without them.
    model: str = ""
    start: str = "trained"
    criterion: str = "magnitude"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    granularity: str = "weight"
    granularity_options: dict[str, Any] = field(default_factory=dict, hash=False)
    scope: str = "global"
    scope_options: dict[str, Any] = field(default_factory=dict, hash=False)
    sparsity: float = 0.5
    budget: str = ""
    ratios: dict[str, float] = field(default_factory=dict, hash=False)
    removed: dict[str, list[int]] = field(default_factory=dict, hash=False)
    exclude: tuple[str, ...] = ()
    embeddings: bool = False
    min_units: int = 1
    schedule: str = "one_shot"
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)
    steps: int = 1
    epochs: int = 0
    augment: bool = False
    recalibrate: bool = False
    reconstruct: bool = False
    finetune_compact: bool = False
    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int = 64
    precision: str = "float32"
    slimming: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    decay: str = "cosine"
    rewind: str = "none"
    rewind_step: int = 0
    controls: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, default in _defaults().items():
            _same_kind(name, getattr(self, name), default)
        # JSON gives lists; a frozen dataclass is hashed by tuples.
        object.__setattr__(self, "exclude", tuple(self.exclude))
        object.__setattr__(self, "controls", tuple(self.controls))
        # In one order, so that recipes which name the same units are equal.
        object.__setattr__(self, "removed", _unit_numbers(self.removed))
        self._check_choices()
        self._check_numbers()
        self._check_rewind()

    def _check_choices(self) -> None:
        for name, known in CHOICES.items():
            _one_of(name, getattr(self, name), known)
        for control in self.controls:
            _one_of("control", control, CONTROLS)
        for kind in registry.KINDS:
            name = getattr(self, kind)
            # The criterion's options are called plainly `options`.
            options = self.options if kind == "criterion" else getattr(self, f"{kind}_options")
            registry.check_options(kind, name, options)
        if reason := registry.misfit(self.criterion, self.granularity):
            raise RecipeError(reason)
        for name in ("augment", "embeddings", "recalibrate", "reconstruct", "finetune_compact"):
            if not isinstance(getattr(self, name), bool):
                raise OutOfRange(name, getattr(self, name), "true or false")
        if self.recalibrate and self.reconstruct:
            raise RecipeError(
                "recalibrate and reconstruct are both on: BatchNorm's statistics of a batch undo "
                "what reconstruction made of them. Switch one of them off."
            )

    def _check_numbers(self) -> None:
        # A field whose default is whole takes whole numbers alone.
        defaults = _defaults()
        for name, range in RANGES.items():
            whole = isinstance(defaults[name], int)
            hint = REMOVES if name == "sparsity" else ""
            range.check(name, getattr(self, name), whole=whole, hint=hint)
        for layer, ratio in self.ratios.items():
            SHARE.check(f"The ratio of {layer[:80]}", ratio, hint=REMOVES)

    def _check_rewind(self) -> None:
        if len(set(self.controls)) < len(self.controls):
            raise RecipeError(f"controls are {', '.join(self.controls)}: name each once.")
        if self.rewind == "none":
            if self.controls:
                raise RecipeError(
                    "Controls are trained beside lottery tickets: set rewind to init, or name no "
                    "controls."
                )
            return
        # Only the run itself knows the weights before training, and only when it makes them.
        if self.rewind in ("init", "early") and self.start != "random":
            raise RecipeError(
                "Rewinding returns to the weights before training, and those of a trained model "
                "are not known: set start to random, so that the run makes the first weights "
                "itself."
            )
        if self.epochs == 0:
            why = f"where rewind is {self.rewind}: after a rewind the network has to be trained"
            raise OutOfRange("epochs", 0, f"1 or more {why}")

    @property
    def trains_first(self) -> bool:
        """Whether the dense network is trained before anything is pruned."""
        from_scratch = self.rewind != "none" and self.start == "random"
        return from_scratch or (self.slimming > 0 and self.epochs > 0)

    def steps_per_epoch(self, examples: int) -> int:
        """Optimizer steps of one pass over the training data; the last batch may be small."""
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
        """Epochs that a run trains in all: before the first pruning, after each, of controls."""
        first = self.epochs if self.trains_first else 0
        after = self.steps * self.rewound_epochs(steps_per_epoch)
        return first + after + self.control_epochs(steps_per_epoch)

    @property
    def counted(self) -> str:
        """What `sparsity` is a share of: "weights", "units", "macs" or "bytes"."""
        if self.budget:
            return self.budget
        # People who prune channels think in channels, as structured papers do.
        return "units" if self.dependency_groups else "weights"

    @property
    def budgeted(self) -> bool:
        """Whether `sparsity` says how much is pruned; some scopes have a rule of their own."""
        return bool(registry.entry("scope", self.scope).tags.get("budget", True))

    @property
    def dependency_groups(self) -> bool:
        """Whether units are followed through the model, so that a compact one can omit them."""
        return bool(registry.entry("granularity", self.granularity).tags.get("dependency_groups"))

    @property
    def prunes(self) -> bool:
        """Whether anything is asked to be removed."""
        if self.removed:
            return True
        if self.scope == "manual":
            return any(self.ratios.values())
        return self.sparsity > 0 or not self.budgeted

    @property
    def id(self) -> str:
        """A hash of the recipe: equal recipes have equal ids. 12 hexadecimal digits."""
        # 48 bits: among a million recipes, two share an id with a chance of 0.2 %.
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        data = {"version": VERSION, **dataclasses.asdict(self)}
        for name in YOUNGER:
            if data[name] == _defaults()[name]:
                del data[name]
        # As JSON would give them back, so that a dict and its JSON are equal.
        return data | {"exclude": list(self.exclude), "controls": list(self.controls)}

    def to_json(self) -> str:
        """Canonical: equal recipes have equal text, whatever the order of their options."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def short(self) -> dict[str, Any]:
        """Only what differs from the defaults: what a link carries."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = _defaults()
        return {name: value for name, value in values.items() if value != defaults[name]}

    def _repr_html_(self) -> str:
        """What it asks for, as a notebook shows it: the technique, and what is no default."""
        asked = {name: getattr(self, name) for name in TECHNIQUE} | self.short()
        rows = [(name.replace("_", " "), str(value)) for name, value in asked.items()]
        return html_table([f"Recipe {self.id}", ""], rows)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Raises RecipeError: not an object, a field it does not know, NewerVersion."""
        if not isinstance(data, dict):
            raise RecipeError(
                "A recipe is a JSON object with fields like criterion and sparsity; "
                f"this is a {type(data).__name__}."
            )
        values = {RENAMED.get(name, name): value for name, value in data.items()}
        version = values.pop("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise NewerVersion(version, VERSION)
        scope = values.get("scope", "global")
        if isinstance(scope, str):
            values["scope"] = RENAMED_SCOPES.get(scope, scope)
        if version < 2:
            _say_budget(values)
        defaults = _defaults()
        for name in values:
            if name not in defaults:
                raise UnknownName("field of a recipe", name, defaults)
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        return cls.from_dict(parsed(text))


def parsed(text: str | bytes) -> Any:
    """What JSON from outside holds. Raises RecipeError for what is none, or is nested too deep."""
    try:
        return json.loads(text)
    # A number of thousands of digits is a ValueError too.
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise RecipeError(
            f"This is not a recipe: it is not JSON ({reason}). "
            "Save one with the page's Link or `--json`."
        ) from None


def _say_budget(values: dict[str, Any]) -> None:
    """What a share of version 1 was a share of, which it did not say; in place."""
    options = values.get("scope_options")
    if isinstance(options, dict) and "of" in options:  # by_sensitivity alone could say of what
        values["budget"] = options["of"]
        values["scope_options"] = {key: value for key, value in options.items() if key != "of"}
    elif values.get("granularity") in ("channel", "head"):
        # A share of all layers was one of weights, also for channels; of each, one of its units.
        if values.get("scope", "global") in ("global", "lamp", "erk", "by_sensitivity"):
            values.setdefault("budget", "weights")


@cache
def _defaults() -> dict[str, Any]:
    """Field -> its default, of the recipe that nobody changed."""
    values = {}
    for one in dataclasses.fields(Recipe):
        made = one.default_factory
        values[one.name] = one.default if made is dataclasses.MISSING else made()
    return values


# ---------------------------------------------------------------- checks


def _same_kind(name: str, value: object, default: object) -> None:
    """Refuse what would not fail before the middle of a run. Numbers have their own checks."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise RecipeError(f"{name} is {shown(value)}, but must be a list of names.")
    elif isinstance(default, (dict, str)) and not isinstance(value, type(default)):
        kind = type(default).__name__
        raise RecipeError(f"{name} is {shown(value)}, but must be of kind {kind}.")
    for text in _texts(value):
        _check_text(name, text)


def _unit_numbers(removed: dict[str, Any]) -> dict[str, list[int]]:
    """Layer -> its numbers, each once and ascending; without layers that name none.

    Raises RecipeError for anything else than whole numbers.
    """
    numbers: dict[str, list[int]] = {}
    for layer, units in removed.items():
        if not isinstance(units, (list, tuple)):
            raise RecipeError(
                f"The units to remove of {layer[:80]} are {shown(units)}, but must be a list of "
                "their numbers, from 0."
            )
        for unit in units:
            UNIT.check(f"A unit to remove of {layer[:80]}", unit, whole=True)
        if units:
            numbers[layer] = sorted(set(units))
    return numbers


def _texts(value: object) -> Iterator[str]:
    """Every text in a field: itself, the names of a list, names and values of options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (part for part in value if isinstance(part, str))
    elif isinstance(value, dict):
        yield from (part for pair in value.items() for part in pair if isinstance(part, str))


def _check_text(name: str, text: str) -> None:
    """Raises RecipeError for a text that no file or page could hold."""
    if len(text) > LONGEST_NAME:
        raise RecipeError(
            f"{name} holds a text of {len(text):,} characters: at most {LONGEST_NAME:,} are read."
        )
    # JSON may spell half of a pair of surrogates, which no UTF-8 holds.
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RecipeError(
            f"{name} holds {shown(text)}, which is no Unicode text: write the name anew."
        )


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownName(name, value, known)
