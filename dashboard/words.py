"""Numbers and sentences, written the same way everywhere. Pure: no page, no model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pruning import describe
from pruning.describe import NOUNS as NOUNS
from pruning.describe import RunFacts
from pruning.describe import display_name as display_name
from pruning.describe import option as option
from pruning.describe import share as share
from pruning.describe import technique as technique
from pruning.events import Accuracy, Latency
from pruning.metrics import Quality, Score, Spread
from pruning.recipe import Recipe

NOT_MEASURED = "not measured"


# ---------------------------------------------------------------- numbers


def percent(value: Quality | float | None) -> str:
    """An accuracy with half the width of Wilson's interval, `98.1 % ± 1.4`; a share, `98.1 %`.

    Another metric in its own unit, with half the width of its interval where it has one.
    """
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Score):
        if value.spread is None:
            return value.text
        half = (value.spread.high - value.spread.low) / 2
        return f"{value.text} ± {value.shown(half).removesuffix(value.unit).strip()}"
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{value.value * 100:.1f} % ± {(high - low) * 50:.1f}"
    return describe.percent(value)


def points(after: Quality | float | None, before: Quality | float | None) -> str:
    """The signed difference of two accuracies: `+0.3 points`, `−1.4 points`; of two values of
    another metric in its unit: `+0.012`.
    """
    if after is None or before is None:
        return NOT_MEASURED
    if isinstance(after, Score) and after.unit != "%":
        return f"{_share(after) - _share(before):+.3g} {after.unit}".strip().replace("-", "−")
    difference = (_share(after) - _share(before)) * 100
    if abs(difference) < 0.05:
        sign = "±"  # rounded to 0.0, it has no direction
    elif difference > 0:
        sign = "+"
    else:
        sign = "−"
    return f"{sign}{abs(difference):.1f} points"


def heading(name: str) -> str:
    """A metric's name at the head of something, spelled as it is: `Mean IoU`."""
    return name[:1].upper() + name[1:]


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
    if latency.median < 0.3:
        digits = 3
    elif latency.median < 10:
        digits = 2
    elif latency.median < 100:
        digits = 1
    else:
        digits = 0
    median, low, high = (
        f"{value:.{digits}f}" for value in (latency.median, latency.low, latency.high)
    )
    return f"{median} ms ({low} to {high})"


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
    middle, low, high = (signed(v, plus=False) for v in (value.value, value.low, value.high))
    return f"{middle} points ({low} to {high})"


def change(change: Spread) -> str:
    """A signed difference of shares with its interval: `+0.6 points (−1.1 to +2.3)`."""
    return f"{signed(change.value)} points ({signed(change.low)} to {signed(change.high)})"


def signed(share: float, plus: bool = True) -> str:
    """A share as signed points, without the word: `+0.6`, `−1.4`, `0.0`."""
    text = f"{abs(share) * 100:.1f}"
    if text == "0.0":
        return text
    if share < 0:
        return "−" + text
    return "+" + text if plus else text


def energy(picojoules: float | int | None) -> str:
    """`231 nJ`, `2.8 µJ`, `8.4 mJ`."""
    if picojoules is None:
        return NOT_MEASURED
    return _short(float(picojoules), ("pJ", "nJ", "µJ", "mJ", "J"))


def runtime(name: str) -> str:
    """A runtime's name for people, with its device where that is no CPU."""
    own, on, device = name.partition(" on ")
    return {"torch": "PyTorch", "torch CSR": "PyTorch sparse"}.get(own, own) + on + device


def seconds(value: float) -> str:
    """How long: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 9.95:
        return f"{value:.1f} s"
    rounded = round(value)  # before it is split: 59.7 s is a minute, not 60 s
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


def _share(value: Quality | float) -> float:
    return value.value if isinstance(value, Accuracy | Score) else value


def _short(value: float, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:  # 999.5 would be rounded to 1,000
        value /= 1000
        power += 1
    digits = 0 if power == 0 or abs(value) >= 99.95 else 1
    return f"{value:,.{digits}f} {units[power]}".rstrip()


# ---------------------------------------------------------------- sentences

CRITERIA = {
    "magnitude": "smallest in magnitude",
    "random": "chosen at random",
    "gradient": "with the smallest gradients",
    "taylor": "that change the loss least",
    "fisher": "with the least Fisher information",
    "obd": "along which the loss bends least (OBD)",
    "hutchinson": "along which the loss bends least (Hutchinson)",
    "obs": "for which the others can best compensate (OBS)",
    "snip": "that the loss depends on least (SNIP)",
    "grasp": "without which gradients flow best (GraSP)",
    "synflow": "that carry the least synaptic flow (SynFlow)",
    "wanda": "smallest in magnitude times input (Wanda)",
    "movement": "that training moves towards zero",
    "bn_scale": "with the smallest BatchNorm scale",
    "geometric_median": "most like the others of their layer",
    "activation": "with the smallest activations",
    "reconstruction": "that the layers reading them can best do without",
}
"""What each criterion removes, as the end of `Remove the 90 % of weights ...`."""

SCOPES = {
    "global": "anywhere in the model",
    "per_layer": "the same share in each layer",
    "erk": "more in large layers than in small ones (ERK)",
    "lamp": "anywhere in the model, relative to what their layer keeps (LAMP)",
    "threshold": "wherever they are",
    "by_sensitivity": "most in the least sensitive layers",
}


def sentence(recipe: Recipe) -> str:
    """The recipe, in words, made from nothing else."""
    parts = []
    named = describe.named(recipe)
    if named == "all":
        parts += [_by_number(recipe), *_slimming(recipe), _schedule(recipe)]
    elif recipe.prunes:
        parts += [removal(recipe), *_scope(recipe)]
        if named:
            parts.append(f"first of all {first_three(numbered(recipe.removed))}")
        parts += [*_slimming(recipe), _schedule(recipe)]
    else:
        if recipe.scope == "manual":  # somebody who set no ratio yet means to prune
            parts.append("Remove nothing: no layer has a share to remove yet")
        elif not recipe.epochs:
            parts.append("Remove nothing")
        if recipe.epochs:
            parts += _only_training(recipe)
        else:
            parts += _repair(recipe)
    if recipe.start == "random":
        parts.append("starting from random weights")
    text = ", ".join(parts) + "."
    earlier = describe.run_started_from(recipe)
    return text if earlier is None else f"{text} What {earlier} pruned stays pruned."


def _by_number(recipe: Recipe) -> str:
    """`Remove the channels conv2 3, 7`"""
    return f"Remove the {describe.noun(recipe)} {first_three(numbered(recipe.removed))}"


def _only_training(recipe: Recipe) -> list[str]:
    """`Train all weights for 40 epochs`: what a recipe does that prunes nothing."""
    which = "all weights"
    earlier = describe.run_started_from(recipe)
    if earlier is not None:
        which = f"the weights that {earlier} kept"
    train = "train" if recipe.scope == "manual" else "Train"
    parts = [f"{train} {which} for {plural(recipe.steps * recipe.epochs, 'epoch')}"]
    parts += _slimming(recipe)
    if recipe.rewind != "none":  # each round is a training of its own
        parts = [f"{train} {which}", f"in {recipe.steps} rounds", _rewinding(recipe)]
    elif recipe.steps > 1:  # the learning rate begins anew in each
        parts.append(f"in {recipe.steps} rounds of {recipe.epochs:,}")
    parts += _repair(recipe)
    aids = _augmented(recipe) + _taught(recipe)
    return [*parts[:-1], parts[-1] + aids]


def numbered(removed: dict[str, list[int]]) -> list[str]:
    """`conv2 3, 7 and 4 more` of each layer."""
    parts = []
    for name, numbers in removed.items():
        more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
        shown = ", ".join(map(str, numbers[:5]))
        parts.append(f"{layer_name(name)} {shown}{more}")
    return parts


def _slimming(recipe: Recipe) -> list[str]:
    if not recipe.slimming or not recipe.epochs:
        return []
    return [f"after {plural(recipe.epochs, 'epoch')} of slimming BatchNorm"]


def removal(recipe: Recipe) -> str:
    """`Remove the 90 % of weights smallest in magnitude`: criterion, granularity, sparsity."""
    criterion = technique(recipe.criterion)
    # A technique that somebody added has no phrase here, and its name must do.
    lowest = CRITERIA.get(recipe.criterion, f"lowest by {criterion}")
    noun = units(recipe)
    if recipe.scope == "threshold":
        limit = option("scope", "threshold", recipe.scope_options, "value")
        return f"Remove the {noun} that score below {limit:g} by {criterion}"
    # A scope with a rule of its own, as the manual one, does not look at the sparsity.
    if not recipe.budgeted:
        return f"Remove the {noun} {lowest}"
    single = recipe.granularity == "weight"
    if recipe.counted == ("weights" if single else "units") and recipe.granularity != "n_of_m":
        return f"Remove the {share(recipe.sparsity)} of {noun} {lowest}"
    return f"Remove {noun} {lowest}, {share(recipe.sparsity)} of the {counted(recipe)}"


def counted(recipe: Recipe) -> str:
    """What the recipe's sparsity is a share of: `weights`, `channels`, `MACs`."""
    return describe.counted(recipe.counted, describe.noun(recipe))


def units(recipe: Recipe) -> str:
    """The granularity's units, in the plural: `weights`, `4 × 4 blocks`."""
    if recipe.granularity != "n_of_m":
        return describe.noun(recipe)
    n, m = (option("granularity", "n_of_m", recipe.granularity_options, key) for key in "nm")
    return f"weights, at most {m - n} of every {m} neighbours,"


def capitalized(name: str) -> str:
    """A technique's name at the head of something: `Per layer`, `ERK`."""
    return describe.SPELLINGS.get(name) or technique(name).capitalize()


def _scope(recipe: Recipe) -> list[str]:
    """Where units are removed: the scope, and the layers that stay dense."""
    if recipe.scope == "manual":
        ratios = [
            f"{layer_name(name)} {share(ratio)}" for name, ratio in recipe.ratios.items() if ratio
        ]
        parts = [f"a share for each layer ({first_three(ratios)})"]
    else:
        where = SCOPES.get(recipe.scope, f"spread by {technique(recipe.scope)}")
        if recipe.scope_options.get("output", 1) != 1:
            where += ", less in the output layer"
        parts = [where]
    if recipe.exclude:
        parts.append(f"but not in {first_three([layer_name(name) for name in recipe.exclude])}")
    return parts


def first_three(names: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _schedule(recipe: Recipe) -> str:
    """`in 4 steps, fine-tuning 2 epochs each`."""
    # One shot removes all in the first of its steps; the rest of them only train.
    if recipe.steps == 1 or recipe.schedule == "one_shot":
        return f"in one step, {_training(recipe, recipe.steps * recipe.epochs)}"
    kinds = {"linear": "equal steps", "cubic": "steps", "geometric": "rounds of one rate"}
    kind = kinds.get(recipe.schedule, f"{technique(recipe.schedule)} steps")
    return f"in {recipe.steps} {kind}, {_training(recipe, recipe.epochs, ' each')}"


def _training(recipe: Recipe, epochs: int, each: str = "") -> str:
    """`recalibrating BatchNorm, fine-tuning 2 epochs each with the dense model as teacher`."""
    aids = _augmented(recipe) + _taught(recipe)
    if recipe.rewind != "none":
        return _rewinding(recipe) + aids
    first = "".join(f"{repair}, " for repair in _repair(recipe))
    if not epochs:
        return f"{first}without fine-tuning"
    compact = recipe.finetune_compact and recipe.dependency_groups
    model = "the compact model " if compact else ""
    return f"{first}fine-tuning {model}{plural(epochs, 'epoch')}{each}{aids}"


def _repair(recipe: Recipe) -> list[str]:
    """What is done to a pruned network before it is trained."""
    if recipe.reconstruct:
        return ["reconstructing layers"]
    return ["recalibrating BatchNorm"] if recipe.recalibrate else []


def _augmented(recipe: Recipe) -> str:
    # Never with a teacher, who sees the data as they are, and never from random weights.
    augmented = recipe.augment and recipe.start == "trained" and not recipe.distill
    return " on augmented data" if augmented else ""


def _taught(recipe: Recipe) -> str:
    return " with the dense model as teacher" if recipe.distill else ""


def _rewinding(recipe: Recipe) -> str:
    """`each time rewinding to the first weights and training 5 epochs`."""
    training = f"training {plural(recipe.epochs, 'epoch')}"
    if recipe.rewind == "learning_rate":
        return f"each time {training} at the learning rates of the first training"
    if recipe.rewind == "init" or not recipe.rewind_step:
        weights = "the first weights"
    else:
        weights = f"the weights after step {recipe.rewind_step:,}"
    return f"each time rewinding to {weights} and {training}"


JOINER = "\u2060"
"""Word joiner: nobody sees it, and what it stands in is no address any more."""

# Streamlit's client looks for these in the text that is left once all escapes are undone: where
# escaping does not help, a joiner after the first part does.
_READ_LATER = re.compile(
    r"(www)(?=\.)"  # autolinks of GitHub's Markdown
    r"|(:)(?=//)"
    r"|(?<=[-.+\w])(@)(?=[-\w])"
    r"|(:)(?=[-+\w]+:)"  # emoji, and :streamlit:
    r"|(:)(?=material/)",
    re.IGNORECASE,
)
# Of a browser or terminal: what turns the direction of text around, and what cannot be drawn.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BLOCK = re.compile(r"^(\d*)([-+=.)])(?=\s|\2|$)")
"""At the beginning of a line: a list, a rule, or the underline of a heading."""


def plain(text: str) -> str:
    """Text as Markdown that shows it letter by letter. All that comes from a recipe, a link, a
    file or a name passes through here before it stands on a page.

    It makes no links, pictures, colours, icons, formulas or emoji, whatever it holds.
    """
    shown = _CONTROLS.sub("", " ".join(text.split()))
    shown = _READ_LATER.sub(lambda match: match.group() + JOINER, shown)
    shown = re.sub(r"([\\`*_{}\[\]()<>#~|$:!&])", r"\\\1", shown)
    return glued(_BLOCK.sub(r"\1\\\2", shown))


def glued(text: str) -> str:
    """A number and its unit stay on one line."""
    unit = r"%|± ?\d|[kMGT]?B\b|[kMGT]\b|m?s\b|points?\b"
    return re.sub(rf"(?<=\d) (?={unit})|(?<=±) (?=\d)", "\u00a0", text)


def layer_name(name: str, width: int | None = None) -> str:
    """A parameter's name without the `.weight` that all share: `conv1.weight` is conv1.

    width: most characters. A longer name is cut in the middle and keeps its numbers, which tell
    layers apart: `encoder…layer_3.mlp.0`.
    """
    short = name.removesuffix(".weight") or name
    if width is None or len(short) <= width:
        return short
    best = (
        _numbered_part(short, width) or f"{short[: width // 3]}…{short[1 - width + width // 3 :]}"
    )
    most = 0
    for head in range(width):
        for tail in range(width - head):
            value = _cut_value(short, head, len(short) - tail)
            if value > most:
                most = value
                best = f"{short[:head].rstrip('._')}…{short[len(short) - tail :].lstrip('._')}"
    return best


def _cut_value(name: str, start: int, end: int) -> int:
    """How good a name is without name[start:end]; 0 where a number is lost with it."""
    if any(letter.isdigit() for letter in name[start:end]):
        return 0
    value = len(name) - (end - start)
    # A cut between two words is worth some letters more than one inside a word, unless only a
    # number would follow it.
    if re.search(r"[._]", name[start - 1 : start + 1]):
        value += 5
    if re.search(r"[._]", name[end - 1 : end + 1]) and re.search(r"[a-z]", name[end:]):
        value += 5
    return value


def _numbered_part(name: str, width: int) -> str | None:
    """`layer_3…out_proj`: the last numbered part and the last one, shorter where they must be, as
    in `3…in_proj`; None where not even that fits.
    """
    *parts, last = name.split(".")
    numbered = next((part for part in reversed(parts) if re.search(r"\d", part)), None)
    if numbered is None:
        return None
    short = last.removesuffix("_weight")
    words = numbered.split("_")
    for head, tail in ((words[-2:], last), (words[-2:], short), (words[-1:], short)):
        cut = f"{'_'.join(head)}…{tail}"
        if len(cut) <= width:
            return cut
    return None


# ---------------------------------------------------------------- what differs

FIELDS = {
    "model": "model",
    "start": "start",
    "criterion": "criterion",
    "options": "criterion options",
    "granularity": "granularity",
    "granularity_options": "granularity options",
    "scope": "scope",
    "scope_options": "scope options",
    "budget": "budget",
    "sparsity": "sparsity asked",
    "ratios": "share by layer",
    "removed": "units removed by number",
    "exclude": "kept dense",
    "embeddings": "embeddings pruned",
    "min_units": "minimum units",
    "schedule": "schedule",
    "schedule_options": "schedule options",
    "steps": "steps",
    "epochs": "epochs each",
    "augment": "augmented data",
    "recalibrate": "BatchNorm recalibrated",
    "reconstruct": "layers reconstructed",
    "finetune_compact": "compact model fine-tuned",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "batch": "batch",
    "precision": "precision of training",
    "slimming": "slimming",
    "distill": "weight of the teacher",
    "temperature": "temperature",
    "decay": "learning rate over a round",
    "rewind": "rewound to",
    "rewind_step": "rewound to step",
    "controls": "controls",
    "seed": "seed",
}


def control(name: str) -> str:
    """A control that can be locked, as its field is called."""
    return FIELDS.get(name, name)


class Difference(NamedTuple):
    """One field in which two recipes differ. field: its name for people; a, b: values, in words."""

    field: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.field}: {self.a} → {self.b}"


def differences(a: Recipe, b: Recipe) -> list[Difference]:
    """Every field in which the recipes differ, in the recipe's order; empty for equal recipes.

    A field that a recipe's scope does not look at is `unused`, whatever it holds.
    """
    return [
        Difference(FIELDS[name], _shown(name, a), _shown(name, b)) for name in differing([a, b])
    ]


def differing(recipes: Sequence[Recipe]) -> list[str]:
    """The fields in which not all recipes are alike, as far as they are used."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    return [
        name
        for name in names
        if any(_used(name, recipe) != _used(name, recipes[0]) for recipe in recipes)
    ]


def _used(field: str, recipe: Recipe) -> Any:
    """The value of a field; None where the recipe's scope does not look at it."""
    unused = not recipe.budgeted if field == "sparsity" else recipe.scope != "manual"
    if field in ("sparsity", "ratios") and unused:
        return None
    return getattr(recipe, field)


def _shown(field: str, recipe: Recipe) -> str:
    used = _used(field, recipe)
    return "unused" if used is None else value(field, used)


def outcome(facts: RunFacts | None) -> str:
    """What a run did, as a sentence. facts: None where it pruned nothing."""
    text = describe.outcome(facts)
    return f"{text[0].upper()}{text[1:]}."


def label(recipe: Recipe, facts: RunFacts | None) -> str:
    """A run's short name, on buttons and in lists: `magnitude, manual, 77.4 %`."""
    return labels([(recipe, facts)])[0]


def labels(runs: Sequence[tuple[Recipe, RunFacts | None]]) -> list[str]:
    """A short name for each run: criterion, scope, how much was pruned, and what else differs.

    facts: None for a run that pruned nothing. How much is what the masks say, never what was asked.
    """
    own = ("criterion", "scope", "sparsity", "ratios")  # said anyway, or by how much was pruned
    names = [name for name in differing([recipe for recipe, _ in runs]) if name not in own]
    # A legend has room for a few words.
    return [", ".join([_head(*run), *(_tag(name, run[0]) for name in names[:3])]) for run in runs]


def _head(recipe: Recipe, facts: RunFacts | None) -> str:
    if facts is not None:
        return describe.label(facts)
    return f"{display_name(recipe.criterion)}, {display_name(recipe.scope)}, nothing pruned"


def value(field: str, value: Any) -> str:
    """A recipe's field, in words."""
    if field in ("sparsity", "distill"):
        return share(value)
    if field == "ratios":
        shares = [f"{layer_name(name)} {share(ratio)}" for name, ratio in value.items()]
        return ", ".join(shares) or "none"
    if field == "removed":
        return "; ".join(numbered(value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{technique(key)} {value[key]}" for key in value) or "as usual"
    if isinstance(value, (tuple, list)):
        return ", ".join(layer_name(name) for name in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and field != "model":  # underscores of a model are its own
        return technique(value)
    return str(value)


def _tag(field: str, recipe: Recipe) -> str:
    """A field of a label: its value, and its name where the value does not say it."""
    shown = value(field, getattr(recipe, field))
    if field in ("model", "granularity", "schedule"):
        return shown
    if field == "steps":
        return plural(recipe.steps, "step")
    if field == "epochs":
        return f"{plural(recipe.epochs, 'epoch')} each"
    return f"{FIELDS[field]} {shown}"
