"""Numbers and sentences, written the same way everywhere. Pure: no page, no model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pruning import registry
from pruning.errors import UnknownName
from pruning.events import Accuracy, Latency
from pruning.metrics import Spread
from pruning.recipe import Recipe

NOT_MEASURED = "not measured"


# ---------------------------------------------------------------- numbers


def percent(value: Accuracy | float | None) -> str:
    """An accuracy with its interval, `98.1 % ± 1.4` (half the width of Wilson's); a bare share, `98.1 %`; None, not measured."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{value.value * 100:.1f} % ± {(high - low) * 50:.1f}"
    return f"{value * 100:.1f} %"


def share(value: float) -> str:
    """A share as short as it is exact to a hundredth of a percent: `90 %`, `93.5 %`."""
    return f"{value * 100:.2f}".rstrip("0").rstrip(".") + " %"


def points(after: Accuracy | float | None, before: Accuracy | float | None) -> str:
    """The signed difference of two accuracies: `+0.3 points`, `−1.4 points`."""
    if after is None or before is None:
        return NOT_MEASURED
    difference = (_share(after) - _share(before)) * 100
    sign = "±" if abs(difference) < 0.05 else "+" if difference > 0 else "−"
    return f"{sign}{abs(difference):.1f} points"


def whole(n: int | None) -> str:
    """Every digit: `61,706`."""
    return NOT_MEASURED if n is None else f"{n:,}"


def count(n: int | float | None) -> str:
    """Three digits and a unit: `842`, `61.7 k`, `11.7 M`, `1.8 G`."""
    return NOT_MEASURED if n is None else _short(float(n), ("", "k", "M", "G", "T"))


def size(bytes: int | float | None) -> str:
    """`812 B`, `247 kB`, `46.8 MB`; a kB is 1,000 bytes."""
    return NOT_MEASURED if bytes is None else _short(float(bytes), ("B", "kB", "MB", "GB", "TB"))


def ms(latency: Latency | None) -> str:
    """Median and the middle half: `0.42 ms (0.40 to 0.45)`."""
    if latency is None:
        return NOT_MEASURED
    digits = (
        3
        if latency.median < 0.3
        else 2
        if latency.median < 10
        else 1
        if latency.median < 100
        else 0
    )
    return f"{latency.median:.{digits}f} ms ({latency.low:.{digits}f} to {latency.high:.{digits}f})"


def times(ratio: float) -> str:
    """How many times: `3.4×`, `12×`."""
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:,.0f}×"


def ratio(value: float) -> str:
    """A ratio that may be near one, to two digits there: `0.98×`, `1.63×`, `8.4×`, `12×`."""
    return f"{value:.2f}×" if value < 1.995 else times(value)


def span(value: Spread | None) -> str:
    """A share with its interval, in points: `2.3 points (1.0 to 3.0)`."""
    if value is None:
        return NOT_MEASURED
    return f"{signed(value.value, plus=False)} points ({signed(value.low, plus=False)} to {signed(value.high, plus=False)})"


def change(change: Spread) -> str:
    """A signed difference of shares with its interval: `+0.6 points (−1.1 to +2.3)`."""
    return f"{signed(change.value)} points ({signed(change.low)} to {signed(change.high)})"


def signed(share: float, plus: bool = True) -> str:
    """A share as signed points, without the word: `+0.6`, `−1.4`, `0.0`."""
    text = f"{abs(share) * 100:.1f}"
    if text == "0.0":
        return text
    return ("−" if share < 0 else "+" if plus else "") + text


def energy(picojoules: float | int | None) -> str:
    """`231 nJ`, `2.8 µJ`, `8.4 mJ`."""
    return (
        NOT_MEASURED
        if picojoules is None
        else _short(float(picojoules), ("pJ", "nJ", "µJ", "mJ", "J"))
    )


def runtime(name: str) -> str:
    """A runtime's name for people."""
    return {"torch": "PyTorch", "torch CSR": "PyTorch sparse"}.get(name, name)


def seconds(value: float) -> str:
    """How long: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 9.95:
        return f"{value:.1f} s"
    rounded = round(value)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


def plural(n: int, noun: str) -> str:
    """`1 epoch`, `8 epochs`, `1,024 examples`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def shape(dims: Sequence[int]) -> str:
    """`16 × 1 × 3 × 3`."""
    return " × ".join(map(str, dims))


def _share(value: Accuracy | float) -> float:
    return value.value if isinstance(value, Accuracy) else value


def _short(value: float, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or abs(value) >= 99.95 else 1
    return f"{value:,.{digits}f} {units[power]}".rstrip()


# ---------------------------------------------------------------- sentences

CRITERIA = {
    "magnitude": "smallest in magnitude",
    "random": "drawn by lot",
    "gradient": "with the smallest gradients",
    "taylor": "that change the loss least",
    "fisher": "with the least Fisher information",
    "obd": "along which the loss bends least (OBD)",
    "hutchinson": "along which the loss bends least (Hutchinson)",
    "obs": "that the others can best make up for (OBS)",
    "snip": "that the loss depends on least (SNIP)",
    "grasp": "without which gradients flow best (GraSP)",
    "synflow": "that carry least of the flow (SynFlow)",
    "wanda": "smallest in magnitude times input (Wanda)",
    "movement": "that training moves towards zero",
    "bn_scale": "with the smallest BatchNorm scale",
    "geometric_median": "most like the others of their layer",
    "activation": "that answer least",
}
"""What each criterion removes, as the end of `Remove the 90 % of weights ...`."""

NOUNS = {
    "weight": "weights",
    "channel": "channels",
    "row": "rows",
    "column": "columns",
    "kernel": "kernels",
    "block": "blocks",
    "head": "heads",
}
SCOPES = {
    "global": "anywhere in the model",
    "per_layer": "the same share in each layer",
    "erk": "more in large layers than in small ones (ERK)",
    "lamp": "anywhere in the model, beside what its layer still holds (LAMP)",
    "threshold": "wherever they are",
    "by_sensitivity": "most in the layers that the answers depend on least",
}


def sentence(recipe: Recipe) -> str:
    """The recipe, in words, made from nothing else."""
    trained = plural(recipe.epochs, "epoch")
    start = " starting from random weights" if recipe.start == "random" else ""
    if not recipe.prunes:
        return (
            f"Train all weights for {trained}{',' if start else ''}{start}."
            if recipe.epochs
            else "Remove nothing."
        )
    compact_model = (
        [f"after {trained} of slimming BatchNorm"] if recipe.slimming and recipe.epochs else []
    )
    parts = [removal(recipe), *_where(recipe), *compact_model, _when(recipe)]
    if start:
        parts.append(start.strip())
    return ", ".join(parts) + "."


def removal(recipe: Recipe) -> str:
    """`Remove the 90 % of weights smallest in magnitude`."""
    by = CRITERIA.get(recipe.criterion, f"lowest by {technique(recipe.criterion)}")
    noun = units(recipe)
    if recipe.scope == "manual":
        return f"Remove the {noun} {by}"
    if recipe.scope == "threshold":
        limit = option("scope", "threshold", recipe.scope_options, "value")
        return f"Remove the {noun} that score below {limit:g} by {technique(recipe.criterion)}"
    return f"Remove the {share(recipe.sparsity)} of {noun} {by}"


def units(recipe: Recipe) -> str:
    """What goes as one, in the plural: `weights`, `4 × 4 blocks`, `weights, 2 of every 4 neighbours,`."""

    def held(name: str) -> Any:
        return option("granularity", recipe.granularity, recipe.granularity_options, name)

    if recipe.granularity == "n_of_m":
        return f"weights, {held('m') - held('n')} of every {held('m')} neighbours,"
    if recipe.granularity == "block":
        return f"{held('rows')} × {held('columns')} blocks"
    return NOUNS.get(recipe.granularity, f"{technique(recipe.granularity)} units")


def option(kind: str, name: str, held: dict[str, Any], key: str) -> Any:
    """An option's value, or its default."""
    return held.get(
        key,
        next(known.default for known in registry.entry(kind, name).options if known.name == key),
    )


def technique(name: str) -> str:
    """A technique's name for people: `global` is global, `by_hand` is by hand."""
    return name.replace("_", " ")


CALLED = {
    **{
        "n_of_m": "N of M",
        "erk": "ERK",
        "lamp": "LAMP",
        "snip": "SNIP",
        "grasp": "GraSP",
        "synflow": "SynFlow",
        "obd": "OBD",
    },
    **{"obs": "OBS", "bn_scale": "BatchNorm scale"},
}
"""Names that are more than their first letter in capitals."""


def capitalized(name: str) -> str:
    """A technique's name at the head of something: `Per layer`, `ERK`."""
    return CALLED.get(name) or technique(name).capitalize()


def display_name(name: str) -> str:
    """A technique's name within a sentence: `per layer`, `ERK`."""
    return CALLED.get(name) or technique(name)


def title(kind: str, name: str) -> str:
    """The first line of a technique's help; its name when the registry does not have it."""
    try:
        return registry.entry(kind, name).title
    except UnknownName:
        return technique(name)


def _where(recipe: Recipe) -> list[str]:
    if recipe.scope == "manual":
        set_ = {name: ratio for name, ratio in recipe.ratios.items() if ratio}
        shown = ", ".join(
            f"{layer_name(name)} {share(ratio)}" for name, ratio in list(set_.items())[:3]
        )
        more = f" and {len(set_) - 3} more" if len(set_) > 3 else ""
        where = [f"a share for each layer ({shown}{more})"]
    else:
        where = [SCOPES.get(recipe.scope, f"spread by {technique(recipe.scope)}")]
        if recipe.scope_options.get("output", 1) != 1:
            where[0] += ", less in the output layer"
    if recipe.exclude:
        names = ", ".join(layer_name(name) for name in recipe.exclude[:3])
        more = f" and {len(recipe.exclude) - 3} more" if len(recipe.exclude) > 3 else ""
        where.append(f"but not in {names}{more}")
    return where


def _when(recipe: Recipe) -> str:
    if recipe.steps == 1 or recipe.schedule == "one_shot":
        rounds = "in one step"
        return f"{rounds}, {_healing(recipe, recipe.steps * recipe.epochs)}"
    kinds = {"linear": "equal steps", "cubic": "steps", "geometric": "rounds of one rate"}
    rounds = (
        f"in {recipe.steps} {kinds.get(recipe.schedule, technique(recipe.schedule) + ' steps')}"
    )
    return f"{rounds}, {_healing(recipe, recipe.epochs, ' each')}"


def _healing(recipe: Recipe, epochs: int, each: str = "") -> str:
    """`recalibrating BatchNorm, healing 2 epochs each with the dense model as teacher`."""
    first = "recalibrating BatchNorm, " if recipe.recalibrate else ""
    taught = " with the dense model as teacher" if recipe.distill else ""
    if recipe.rewind != "none":
        return f"{_rewinding(recipe)}{taught}"
    healing = (
        "healing the slim model"
        if recipe.finetune_compact and recipe.dependency_groups
        else "healing"
    )
    return first + (
        f"{healing} {plural(epochs, 'epoch')}{each}{taught}" if epochs else "without healing"
    )


def _rewinding(recipe: Recipe) -> str:
    """`each time going back to the first weights and training 5 epochs`."""
    again = f"training {plural(recipe.epochs, 'epoch')}"
    if recipe.rewind == "learning_rate":
        return f"each time {again} at the learning rates of the first training"
    where = (
        "the first weights"
        if recipe.rewind == "init" or not recipe.rewind_step
        else f"the weights after step {recipe.rewind_step:,}"
    )
    return f"each time going back to {where} and {again}"


def plain(text: str) -> str:
    """Text as Markdown that shows it letter by letter: names from files and addresses carry no links, pictures or colours."""
    return glued(re.sub(r"([\\`*_{}\[\]()<>#~|$:!])", r"\\\1", " ".join(text.split())))


def glued(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(
        r"(?<=\d) (?=(?:%|± ?\d|[kMGT]?B\b|[kMGT]\b|m?s\b|points?\b))|(?<=±) (?=\d)", "\u00a0", text
    )


def layer_name(name: str) -> str:
    """A parameter's name without the `.weight` that all share: `conv1.weight` is conv1."""
    return name.removesuffix(".weight") or name


# ---------------------------------------------------------------- what differs

FIELDS = {
    "model": "model",
    "start": "start",
    "criterion": "technique",
    "options": "technique options",
    "granularity": "unit",
    "granularity_options": "unit options",
    "scope": "where",
    "scope_options": "where, options",
    "sparsity": "removed",
    "ratios": "share by layer",
    "exclude": "left dense",
    "min_units": "min_units",
    "schedule": "schedule",
    "schedule_options": "schedule options",
    "steps": "steps",
    "epochs": "epochs each",
    "recalibrate": "BatchNorm recalibrated",
    "finetune_compact": "slim model healed",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "batch": "batch",
    "slimming": "slimming",
    "distill": "weight of the teacher",
    "temperature": "temperature",
    "decay": "learning rate over a round",
    "rewind": "rewound to",
    "rewind_step": "rewound to step",
    "controls": "controls",
    "seed": "seed",
}


class Difference(NamedTuple):
    """One field in which two recipes differ. what: its name for people; a, b: the values, in words."""

    what: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.what}: {self.a} → {self.b}"


def differences(a: Recipe, b: Recipe) -> list[Difference]:
    """Every field in which the recipes differ, in the recipe's order; empty for equal recipes."""
    fields = [
        f.name for f in dataclasses.fields(Recipe) if getattr(a, f.name) != getattr(b, f.name)
    ]
    return [
        Difference(
            FIELDS.get(name, technique(name)),
            value(name, getattr(a, name)),
            value(name, getattr(b, name)),
        )
        for name in fields
    ]


def labels(recipes: Sequence[Recipe]) -> list[str]:
    """A short name for each recipe, of what differs among them: for legends. Technique and ratio when nothing else does."""
    names = [f.name for f in dataclasses.fields(Recipe)]
    differ = [
        name
        for name in names
        if any(getattr(r, name) != getattr(recipes[0], name) for r in recipes)
    ]
    shown = (
        dict.fromkeys(["criterion", *differ])
        if len(differ) < 4
        else dict.fromkeys(["criterion", "sparsity", *differ[:3]])
    )
    if not differ:
        shown = {"criterion": None, "sparsity": None}
    return [", ".join(_tagged(name, getattr(recipe, name)) for name in shown) for recipe in recipes]


def value(field: str, held: Any) -> str:
    """A recipe's field, in words."""
    if field in ("sparsity", "distill"):
        return share(held)
    if isinstance(held, bool):
        return "yes" if held else "no"
    if field == "ratios":
        return (
            ", ".join(f"{layer_name(name)} {share(ratio)}" for name, ratio in held.items())
            or "none"
        )
    if isinstance(held, dict):
        return ", ".join(f"{technique(key)} {held[key]}" for key in held) or "as usual"
    if isinstance(held, (tuple, list)):
        return ", ".join(layer_name(name) for name in held) or "none"
    if isinstance(held, float):
        return f"{held:g}"
    return technique(held) if isinstance(held, str) and field != "model" else str(held)


def _tagged(field: str, held: Any) -> str:
    plain = ("model", "criterion", "granularity", "scope", "sparsity", "schedule")
    tags = {"steps": "steps", "epochs": "epochs each"}
    if field in plain:
        return value(field, held)
    if field in tags:
        return f"{held} {tags[field]}"
    return f"{FIELDS.get(field, technique(field))} {value(field, held)}"
