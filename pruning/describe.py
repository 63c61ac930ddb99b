"""What a run did, as facts and as a sentence: page and shell say both from here.

The facts come from the recipe and from the last pruning's event, which was counted on the masks.
No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pruning import registry
from pruning.events import Pruned
from pruning.recipe import Recipe

# ---------------------------------------------------------------- names and numbers

NOUNS = {
    "weight": "weights",
    "channel": "channels",
    "row": "rows",
    "column": "columns",
    "kernel": "kernels",
    "block": "blocks",
    "head": "heads",
}
"""What each granularity prunes, in the plural."""

SPELLINGS = {
    "n_of_m": "N of M",
    "erk": "ERK",
    "lamp": "LAMP",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "obd": "OBD",
    "obs": "OBS",
    "taylor": "Taylor",
    "fisher": "Fisher",
    "wanda": "Wanda",
    "hutchinson": "Hutchinson",
    "bn_scale": "BatchNorm scale",
}
"""Names with capitals of their own: acronyms, and people."""


def technique(name: str) -> str:
    """A name without underscores: `per_layer` is per layer."""
    return name.replace("_", " ")


def display_name(name: str) -> str:
    """A technique's name within a sentence: `per layer`, `ERK`."""
    return SPELLINGS.get(name) or technique(name)


def option(kind: str, name: str, values: dict[str, Any], key: str) -> Any:
    """An option's value, or its default."""
    if key in values:
        return values[key]
    options = registry.entry(kind, name).options
    return next(option.default for option in options if option.name == key)


def noun(recipe: Recipe) -> str:
    """The granularity's units, in the plural: `weights`, `4 × 4 blocks`, `runs of 4`."""
    if recipe.granularity == "n_of_m":  # a unit is a run of m neighbours, of which n are kept
        return f"runs of {option('granularity', 'n_of_m', recipe.granularity_options, 'm')}"
    if recipe.granularity == "block":
        options = recipe.granularity_options
        sides = [option("granularity", "block", options, key) for key in ("rows", "columns")]
        return f"{sides[0]} × {sides[1]} blocks"
    return NOUNS.get(recipe.granularity, f"{technique(recipe.granularity)} units")


def counted(budget: str, noun: str) -> str:
    """What a budget counts, in the plural: `weights`, `channels`, `MACs`."""
    return {"units": noun, "macs": "MACs", "bytes": "bytes of the weights"}.get(budget, "weights")


def share(value: float) -> str:
    """A share as short as it is exact to a hundredth of a percent: `90 %`, `93.5 %`."""
    return f"{value * 100:.2f}".rstrip("0").rstrip(".") + " %"


def percent(value: float) -> str:
    """A share to a tenth of a percent, `77.4 %`; to more digits where it would read 0 or 100 and
    is not: `99.97 %`.
    """
    digits = 1
    while 0 < value < 1 and digits < 6 and float(f"{value * 100:.{digits}f}") in (0.0, 100.0):
        digits += 1
    return f"{value * 100:.{digits}f} %"


def run_started_from(recipe: Recipe) -> str | None:
    """`run 3f2a91`, whose masks hold from the start; None for a recipe that starts from none."""
    kind, _, id = recipe.model.partition(":")
    return f"run {id[:6]}" if kind == "run" else None


# ---------------------------------------------------------------- facts


@dataclass(frozen=True)
class Part:
    """So many of so many."""

    pruned: int
    of: int

    @property
    def share(self) -> float:
        """A share in [0, 1]; 0 of nothing."""
        return self.pruned / self.of if self.of else 0.0


@dataclass(frozen=True)
class RunFacts:
    """What a run did, by its last pruning so far.

    noun: of the units; budget: what `asked` and `share` are shares of; asked: the sparsity of the
    recipe, None where its scope decides otherwise (manual, threshold); share: pruned of the budget,
    None in runs of earlier versions, which did not count it; weights: of those that the recipe may
    prune (the covered ones), all of them where nothing was pruned; every: of all prunable weights
    of the model; units: channels, rows, blocks ..., None where they are weights and in runs of
    earlier versions; masks_of: the run whose masks these are, where this one pruned nothing itself;
    named: whether the recipe names units by their numbers: "all" where it removes no others, "some"
    where it does, else "".
    """

    criterion: str
    scope: str
    noun: str
    budget: str
    asked: float | None
    share: float | None
    weights: Part
    every: Part
    units: Part | None
    masks_of: str | None = None
    named: str = ""


def facts(recipe: Recipe, last: Pruned) -> RunFacts:
    """What a run did, by its last pruning so far."""
    pruned = sum(layer.total - layer.kept for layer in last.layers)
    total = sum(layer.total for layer in last.layers)
    # All that was pruned is covered, so its share of the covered weights says how many those are.
    covered = min(total, round(pruned / last.sparsity)) if pruned else total
    counted = noun(recipe)
    units = Part(*last.units) if last.units and counted != "weights" else None
    share = last.share
    # Earlier versions did not count other budgets.
    if share is None and recipe.counted == "weights":
        share = last.sparsity
    return RunFacts(
        criterion=recipe.criterion,
        scope=recipe.scope,
        noun=counted,
        budget=recipe.counted,
        asked=recipe.sparsity if recipe.prunes and recipe.budgeted else None,
        share=share,
        weights=Part(pruned, covered),
        every=Part(pruned, total),
        units=units,
        masks_of=None if recipe.prunes else run_started_from(recipe),
        named=named(recipe),
    )


def named(recipe: Recipe) -> str:
    """How much of what a recipe removes it names by number: "all", "some" or ""."""
    if not recipe.removed:
        return ""
    # Beside ratios of 0 as without ratios: nothing remains for the criterion to choose.
    alone = not replace(recipe, removed={}).prunes
    return "all" if alone else "some"


# ---------------------------------------------------------------- sentences


def outcome(facts: RunFacts | None) -> str:
    """`magnitude, manual, 77.4 % of the weights pruned (31,138 of 40,208)`.

    facts: None where nothing was pruned. What was asked is said where it is not what was pruned;
    where only some layers could be pruned, the share of all weights is said too.
    """
    if facts is None or not facts.every.pruned:
        return "nothing pruned"
    parts = [_way(facts), *_budget(facts), weights_pruned(facts.weights, facts.every)]
    same = facts.share is not None and percent(facts.share) == percent(facts.asked or 0.0)
    if facts.asked is not None and not same:
        parts.append(f"{share(facts.asked)} of the {counted(facts.budget, facts.noun)} asked")
    return ", ".join(parts)


def _budget(facts: RunFacts) -> list[str]:
    """`61 of 192 channels`, and the share of a budget that is none of weights."""
    parts = []
    counts_units = facts.budget == "units"
    if facts.share is not None and facts.budget in ("macs", "bytes"):
        parts.append(f"{percent(facts.share)} of the {counted(facts.budget, facts.noun)}")
    if facts.units is not None:
        text = f"{facts.units.pruned:,} of {facts.units.of:,} {facts.noun}"
        parts.append(f"{text} ({percent(facts.units.share)})" if counts_units else text)
    return parts


def weights_pruned(weights: Part, every: Part) -> str:
    """`50.0 % of the weights pruned (9,000 of 18,000)`. weights, every: as in `RunFacts`."""
    some = weights.of < every.of
    which = "the covered weights" if some else "the weights"
    counts = f"{weights.pruned:,} of {weights.of:,}"
    if some:
        counts += f"; {percent(every.share)} of all {every.of:,}"
    return f"{percent(weights.share)} of {which} pruned ({counts})"


def label(facts: RunFacts) -> str:
    """A name short enough for chips, buttons and lists: `magnitude, manual, 77.4 %`."""
    return f"{_way(facts)}, {amount(facts)}"


def amount(facts: RunFacts) -> str:
    """How much was pruned, in a word or two: `77.4 %` of the weights, `61 of 192 channels`."""
    if not facts.every.pruned:
        return "nothing pruned"
    if facts.units is not None:
        return f"{facts.units.pruned:,} of {facts.units.of:,} {facts.noun}"
    return percent(facts.weights.share)


def _way(facts: RunFacts) -> str:
    if facts.masks_of is not None:
        return f"masks of {facts.masks_of}"
    if facts.named == "all":
        return "units by number"
    way = f"{display_name(facts.criterion)}, {display_name(facts.scope)}"
    return f"{way}, some units by number" if facts.named else way
