"""The recipe's panels on Prune: Criterion, Granularity, Scope, Schedule, Fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st

from dashboard import forms, glossary, jobs, models, refit, state, words
from dashboard.charts import preview
from pruning import registry
from pruning.allocation.ranking import Ranking
from pruning.recipe import BUDGETS, DECAYS, OPTIMIZERS, PRECISIONS, REWINDS, STARTS, Recipe

ADVANCED = (
    "start",
    "augment",
    "recalibrate",
    "reconstruct",
    "finetune_compact",
    "slimming",
    "distill",
    "temperature",
    "exclude",
    "embeddings",
    "min_units",
    "optimizer",
    "momentum",
    "weight_decay",
    "batch",
    "precision",
    "rewind",
    "rewind_step",
    "controls",
    "decay",
    "seed",
)
"""Fields that are folded away while they are at their defaults."""

STEPS = 4  # when a schedule that needs several is picked


@dataclass(frozen=True)
class Number:
    """A number field; how far it goes is the recipe's affair, what it means the glossary's.

    scale: what is shown for 1 (100 for percent); format: of fractions; more: help of this field
    alone, after the glossary's.
    """

    label: str
    step: float
    scale: float = 1
    format: str | None = None
    more: str = ""


NUMBERS = {
    "steps": Number("Steps", 1),
    "epochs": Number("Fine-tuning epochs", 1),
    "lr": Number("Learning rate", 0.005, format="%g"),
    "batch": Number("Batch", 16),
    "seed": Number("Seed", 1),
    "min_units": Number("Units kept at least", 1),
    "momentum": Number("Momentum", 0.05, format="%g"),
    "weight_decay": Number("Weight decay", 0.0001, format="%g"),
    "slimming": Number("Slimming", 0.01, format="%g"),
    "distill": Number("Weight of the teacher, %", 10.0, scale=100, format="%g"),
    "temperature": Number("Temperature", 1.0),
    "rewind_step": Number("Back to step", 10),
    "sparsity": Number(
        "Remove, %",
        0.1,
        scale=100,
        format="%g",
        more=" The slider below edits the same number.",
    ),
}

HELP = {
    "no augmentation": "Nothing is known of how this model's training data were augmented.",
    "reconstructed": "Reconstruction sets what recalibrating would overwrite: switch it off first.",
    "recalibrated": "Recalibrating BatchNorm would undo it: switch that off first.",
    "no BatchNorm": "This model has no BatchNorm: there is nothing to recalibrate.",
}
"""Why a control is off; what it means is the glossary's."""


def help_of(name: str) -> str:
    return HELP.get(name) or glossary.of_field(name)


def number(field: str, disabled: bool = False, taken: Callable[[], object] | None = None) -> None:
    """A number of the recipe. taken: called in the callback that changed it, last."""
    shown = NUMBERS[field]
    forms.number(
        shown.label,
        field,
        step=shown.step,
        scale=shown.scale,
        format=shown.format,
        help=f"{glossary.of_field(field)}{shown.more}",
        disabled=disabled,
        taken=taken,
    )


def toggle(label: str, field: str, value: bool, help: str, disabled: bool) -> None:
    """A yes or no of the recipe. One that is on can always be switched off, unless it is locked."""
    if state.hidden(field):
        return
    forms.bound(
        st.toggle,
        label,
        value,
        lambda on: forms.attempt(**{field: on}),
        key=state.form_key(field),
        **forms.lock(field, {"help": help, "disabled": disabled and not value}),
    )


# ---------------------------------------------------------------- what is pruned


def selection(recipe: Recipe, ranking: Ranking | None) -> None:
    """Criterion, Granularity and Scope. ranking: None while scores are worked out."""
    study = jobs.study("card", model=recipe.model)
    if heading("criterion"):
        forms.pick("criterion", "Criterion", look="chips", study=study)
        forms.about(registry.entry("criterion", recipe.criterion))
    if heading("granularity"):
        forms.pick("granularity", "Granularity", take=refit.use_granularity, study=study)
    if heading("scope"):
        forms.pick("scope", "Scope", also=partial(first_ratios, ranking))
    if recipe.budgeted and not state.hidden("budget"):
        budget(recipe)
    if recipe.scope == "manual" and ranking is not None and not state.hidden("scope"):
        manual(recipe, ranking)


def heading(kind: str) -> bool:
    """The heading of a kind of technique, and why it is locked; False where it is not drawn."""
    if state.hidden(kind):
        return False
    st.markdown(f"**{kind.capitalize()}**", help=glossary.of_field(kind))
    if why := state.why_locked(kind):
        st.caption(words.plain(why))
    return True


def budget(recipe: Recipe) -> None:
    """What the ratio is a share of."""
    kinds = [kind for kind in BUDGETS if kind]
    if recipe.granularity == "weight":
        kinds.remove("units")  # its units are the weights
    default = replace(recipe, budget="").counted

    def take(kind: str) -> None:
        forms.attempt(budget="" if kind == default else kind)

    def name(kind: str) -> str:
        # Short: four of them share a narrow column.
        return "bytes" if kind == "bytes" else words.counted(replace(recipe, budget=kind))

    forms.bound(
        st.segmented_control,
        "A share of",
        recipe.counted,
        take,
        key=state.form_key("budget"),
        options=kinds,
        format_func=name,
        required=True,
        **forms.lock("budget", {"help": help_of("budget")}),
    )


def first_ratios(ranking: Ranking | None, scope: str) -> dict[str, Any]:
    """The manual scope starts from the dial's share, the same for each layer."""
    recipe = state.recipe()
    if scope != "manual" or recipe.ratios:
        return {}
    if ranking is None:  # without ratios it would prune nothing
        state.warn("Scores are still being made: choose Manual again when they are there.")
        return {"scope": recipe.scope, "scope_options": recipe.scope_options}
    return {"ratios": preview.uniform(ranking, recipe, recipe.sparsity)}


def manual(recipe: Recipe, ranking: Ranking) -> None:
    """A share for each layer, all at once or one by one."""
    names = list(ranking.layers_of(recipe).units)
    ratios = {name: recipe.ratios.get(name, 0.0) for name in names}
    shares = set(ratios.values())
    same = round(shares.pop() * 100, 6) if len(shares) == 1 else None

    def fill(percent: float) -> None:
        forms.attempt(ratios=dict.fromkeys(names, round(percent / 100, 6)))

    forms.bound(
        st.number_input,
        "Same for all layers, %",
        same,
        fill,
        key="form-same",
        min_value=0.0,
        max_value=99.9,
        step=1.0,
        format="%g",
        placeholder="differs",
        **forms.lock("scope", {}),
    )
    forms.ratios(ratios, lambda changed: forms.attempt(ratios=changed))


# ---------------------------------------------------------------- schedule and fine-tuning


def schedule(recipe: Recipe) -> None:
    if heading("schedule"):
        forms.pick("schedule", "Schedule", also=partial(schedule_steps, recipe))
    shown = [field for field in ("steps", "epochs", "lr") if not state.hidden(field)]
    if shown:
        st.markdown("**Fine-tuning**")
        columns = st.columns(3, gap="small", vertical_alignment="bottom")
        for field, column in zip(shown, columns, strict=False):
            with column:
                no_steps = field == "steps" and recipe.schedule == "one_shot"
                number(field, disabled=no_steps)
    if not all(state.hidden(field) for field in ADVANCED):
        advanced(recipe)


def schedule_steps(recipe: Recipe, name: str) -> dict[str, Any]:
    """One shot has one step; the other schedules need several."""
    return {"steps": 1 if name == "one_shot" else max(recipe.steps, STEPS)}


def advanced(recipe: Recipe) -> None:
    """Options that are folded; open, and named in the label, where they differ from the default."""
    default = Recipe()
    changed = [field for field in ADVANCED if getattr(recipe, field) != getattr(default, field)]
    named = [
        f"{words.FIELDS[field]} {words.value(field, getattr(recipe, field))}" for field in changed
    ]
    label = words.plain(f"Advanced: {', '.join(named)}") if named else "Advanced"
    # Its twenty controls are a fifth of what the page costs the server: only who opens it pays.
    opens = state.opens(state.ADVANCED_OPEN, label, at_first=bool(changed))
    folded = st.expander(label, expanded=opens, key=state.ADVANCED_OPEN, on_change="rerun")
    if not folded.open:
        return
    with folded:
        starts = {"trained": "the trained weights", "random": "random weights"}
        forms.choice("Start from", "start", STARTS, starts, help=help_of("start"))
        card = jobs.study("card", model=recipe.model)
        blocks = models.blocks_of(recipe.model, card)
        forms.layers("Leave dense", recipe, [block.name for block in blocks])
        if recipe.embeddings or any(block.kind == "embedding" for block in blocks):
            toggle(
                "Prune embeddings",
                "embeddings",
                recipe.embeddings,
                help_of("embeddings"),
                disabled=recipe.dependency_groups,
            )
        optimizer(recipe)
        # A model counts as having BatchNorm until its card says that it has none.
        pruned_model(recipe, batchnorm=card is None or card.data["norms"] > 0)
        teacher(recipe)
        rewinding(recipe)


def optimizer(recipe: Recipe) -> None:
    left, right = st.columns(2, gap="small")
    with left:
        names = {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam"}
        forms.choice("Optimiser", "optimizer", OPTIMIZERS, names)
        number("batch")
        number("seed")
    with right:
        number("min_units")
        number("momentum", disabled=recipe.optimizer != "sgd")
        number("weight_decay")
    names = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    forms.choice("Precision of training", "precision", PRECISIONS, names, help=help_of("precision"))


def pruned_model(recipe: Recipe, batchnorm: bool) -> None:
    """What is done to the pruned model before and while it is trained."""
    toggle(
        "Reconstruct layers",
        "reconstruct",
        recipe.reconstruct,
        help_of("recalibrated" if recipe.recalibrate else "reconstruct"),
        disabled=recipe.recalibrate,
    )
    why = "recalibrate" if batchnorm else "no BatchNorm"
    toggle(
        "Recalibrate BatchNorm",
        "recalibrate",
        recipe.recalibrate,
        help_of("reconstructed" if recipe.reconstruct else why),
        disabled=not batchnorm or recipe.reconstruct,
    )
    known = models.is_sample(recipe.model)
    toggle(
        "Augment training data",
        "augment",
        recipe.augment,
        help_of("augment" if known else "no augmentation"),
        disabled=not known or not recipe.epochs,
    )
    toggle(
        "Fine-tune the compact model",
        "finetune_compact",
        recipe.finetune_compact,
        help_of("finetune_compact"),
        disabled=not (recipe.dependency_groups and recipe.epochs),
    )
    can_be_slimming = batchnorm and recipe.epochs
    number("slimming", disabled=not can_be_slimming and not recipe.slimming)


def teacher(recipe: Recipe) -> None:
    """Distillation: the dense model as the teacher while fine-tuning."""
    left, right = st.columns(2, gap="small")
    with left:
        number("distill", disabled=not recipe.epochs and not recipe.distill)
    with right:
        number("temperature", disabled=not recipe.distill)


def rewinding(recipe: Recipe) -> None:
    """Lottery tickets: where the kept weights are rewound to after each pruning."""
    if state.hidden("rewind"):
        return
    names = {
        "none": "nothing",
        "init": "the first weights",
        "early": "an early step",
        "learning_rate": "the learning rate",
    }
    forms.bound(
        st.segmented_control,
        "Rewind",
        recipe.rewind,
        partial(rewind_to, recipe),
        key=state.form_key("rewind"),
        options=REWINDS,
        format_func=names.__getitem__,
        required=True,
        **forms.lock("rewind", {"help": help_of("rewind")}),
    )
    if recipe.rewind in ("early", "learning_rate"):
        number("rewind_step")
    decays = {"cosine": "cosine to 0", "constant": "constant"}
    forms.choice("Learning rate over a round", "decay", DECAYS, decays)


def rewind_to(recipe: Recipe, where: str) -> None:
    """Choose where to rewind to, with the fields that it needs changed along."""
    if where == "none":
        forms.attempt(rewind=where, controls=())
        return
    fields: dict[str, Any] = {"rewind": where, "epochs": max(1, recipe.epochs)}
    if where in ("init", "early"):
        fields["start"] = "random"  # trained weights have no first training to go back into
    forms.attempt(**fields)
