"""Prune: say what goes, see what is left while you say it, run it and watch."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import streamlit as st

from dashboard import forms, jobs, models, state, tables, words
from dashboard.charts import preview, prune, results
from dashboard.components.dial import dial
from dashboard.components.live import live
from dashboard.views import _frame
from dashboard.views._result_panel import result_panel
from dashboard.views.predicted import predicted
from pruning import registry
from pruning.allocation.ranking import Ranking
from pruning.errors import PruningError
from pruning.recipe import DECAYS, OPTIMIZERS, REWINDS, STARTS, Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

DIAL = 420  # pixels
TICK = 0.6  # seconds between two looks at a run
NEW = 5.0  # seconds in which a run counts as just started: its curves come into view
ADVANCED = (
    *(
        "start",
        "recalibrate",
        "finetune_compact",
        "slimming",
        "distill",
        "temperature",
        "exclude",
        "min_units",
        "optimizer",
        "momentum",
    ),
    *("weight_decay", "batch", "rewind", "rewind_step", "controls", "decay", "seed"),
)
STEPS = 4  # when a schedule that needs several is picked


def scores(recipe: Recipe) -> Study | None:
    """Every unit's score, sorted: what answers the dial. None while a worker works it out."""
    spec = tables.scores_spec(recipe)
    try:
        return jobs.study("scores", **spec)
    except PruningError:
        st.button(
            "Score again",
            icon=":material/replay:",
            on_click=jobs.forget,
            args=("scores",),
            kwargs=spec,
        )
        raise


@st.cache_resource(max_entries=64)
def table(_ranking: Ranking, folder: str, rules: str) -> preview.Table:
    """One table for each set of rules: turning the dial asks nothing anew."""
    recipe = Recipe.from_json(rules)
    return preview.table(_ranking, recipe, preview.STOPS if recipe.budgeted else (recipe.sparsity,))


# ---------------------------------------------------------------- what goes


def what_goes(recipe: Recipe, ranked: Ranking | None) -> None:
    study = jobs.study("card", model=recipe.model)
    st.markdown("**By what score**")
    forms.pick("criterion", "Technique", look="chips", study=study)
    forms.about(registry.entry("criterion", recipe.criterion))
    st.markdown("**What goes together**")
    forms.pick("granularity", "What goes together", study=study)
    st.markdown("**Where**")
    forms.pick("scope", "Where", also=partial(hand_me_down, recipe, ranked))
    if recipe.scope == "manual" and ranked is not None:
        manual(recipe, ranked)


def hand_me_down(recipe: Recipe, ranked: Ranking | None, scope: str) -> dict[str, Any]:
    """By hand starts from what the dial said, the same for each layer."""
    if scope != "manual" or recipe.ratios or ranked is None:
        return {}
    return {"ratios": preview.uniform(ranked, recipe, recipe.sparsity)}


def manual(recipe: Recipe, ranked: Ranking) -> None:
    names = list(ranked.ranked(recipe).units)
    shown = {name: recipe.ratios.get(name, 0.0) for name in names}
    same = next(iter(set(shown.values()))) if len(set(shown.values())) == 1 else None
    fill = {
        "min_value": 0.0,
        "max_value": 99.9,
        "step": 1.0,
        "format": "%g",
        "placeholder": "differs",
    }
    forms.bound(
        st.number_input,
        "Same for all layers, %",
        None if same is None else round(same * 100, 6),
        lambda value: forms.attempt(ratios=dict.fromkeys(names, round(value / 100, 6))),
        key="form-same",
        **fill,
    )
    forms.ratios(shown, lambda ratios: forms.attempt(ratios=ratios))


def when(recipe: Recipe) -> None:
    st.markdown("**When**")
    forms.pick(
        "schedule",
        "When",
        also=lambda name: {"steps": 1 if name == "one_shot" else max(recipe.steps, STEPS)},
    )
    steps, epochs, rate = st.columns(3, gap="small")
    with steps:
        forms.number(
            "Steps",
            "steps",
            low=1,
            high=1000,
            step=1,
            disabled=recipe.schedule == "one_shot",
            help="Rounds of pruning and healing.",
        )
    with epochs:
        forms.number(
            "Healing epochs",
            "epochs",
            low=0,
            high=10_000,
            step=1,
            help="Passes over the training data after each step; 0 heals nothing.",
        )
    with rate:
        forms.number(
            "Learning rate",
            "lr",
            low=0.0,
            high=100.0,
            step=0.005,
            format="%g",
            help="At the start of each round, cosine to 0.",
        )
    advanced(recipe, Recipe())


def advanced(recipe: Recipe, usual: Recipe) -> None:
    changed = [field for field in ADVANCED if getattr(recipe, field) != getattr(usual, field)]
    said = ", ".join(
        f"{words.FIELDS[field]} {words.value(field, getattr(recipe, field))}" for field in changed
    )
    with st.expander(
        "Advanced" + (f": {said}" if said else ""), expanded=bool(changed), key="form-advanced"
    ):
        starts = {"trained": "the trained weights", "random": "random weights"}
        forms.choice(
            "Start from",
            "start",
            STARTS,
            starts,
            help="Random weights, nothing removed and enough epochs: training from scratch.",
        )
        forms.layers(
            "Leave dense",
            recipe,
            [
                block.name
                for block in models.blocks_of(recipe.model, jobs.study("card", model=recipe.model))
            ],
        )
        left, right = st.columns(2, gap="small")
        with left:
            forms.choice(
                "Optimiser",
                "optimizer",
                OPTIMIZERS,
                {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam"},
            )
            forms.number(
                "Batch",
                "batch",
                low=2,
                high=1_000_000,
                step=16,
                help="Examples in one step of training.",
            )
            forms.number(
                "Seed",
                "seed",
                low=0,
                high=2**53 - 1,
                step=1,
                help="Of everything drawn at random; the same seed gives the same run.",
            )
        with right:
            forms.number(
                "Floor",
                "min_units",
                low=1,
                high=1_000_000,
                step=1,
                help="Units that every layer keeps at least, so that none is emptied.",
            )
            forms.number(
                "Momentum",
                "momentum",
                low=0.0,
                high=0.9999,
                step=0.05,
                format="%g",
                disabled=recipe.optimizer != "sgd",
            )
            forms.number(
                "Weight decay", "weight_decay", low=0.0, high=10.0, step=0.0001, format="%g"
            )
        after_pruning(recipe)
        after_rewinding(recipe)


def after_rewinding(recipe: Recipe) -> None:
    """Lottery tickets: where the kept weights go back to after each pruning."""
    names = {
        "none": "nothing",
        "init": "the first weights",
        "early": "an early step",
        "learning_rate": "the learning rate",
    }
    help = "After each pruning, train again from there instead of healing. The Lottery page runs a whole set, with controls."

    def take(where: str) -> None:
        more: dict[str, Any] = {} if where == "none" else {"epochs": max(1, recipe.epochs)}
        more |= {"start": "random"} if where in ("init", "early") else {}
        forms.attempt(rewind=where, controls=() if where == "none" else recipe.controls, **more)

    def named(where: str) -> str:
        return names[where]

    forms.bound(
        st.segmented_control,
        "Rewind",
        recipe.rewind,
        take,
        key="form-rewind",
        options=REWINDS,
        format_func=named,
        help=help,
        required=True,
    )
    if recipe.rewind in ("early", "learning_rate"):
        forms.number(
            "Back to step",
            "rewind_step",
            low=0,
            high=100_000_000,
            step=10,
            help="Optimizer steps from the start of training.",
        )
    forms.choice(
        "Learning rate over a round",
        "decay",
        DECAYS,
        {"cosine": "cosine to 0", "constant": "constant"},
    )


def after_pruning(recipe: Recipe) -> None:
    """What helps a network over its loss: fresh statistics for BatchNorm, the dense model as teacher."""
    card = jobs.study("card", model=recipe.model)
    has = card is None or card.data["norms"] > 0
    fresh = "Estimate BatchNorm's running statistics anew on training data after each pruning. Weights stay as they are."
    said = fresh if has else "This model has no BatchNorm: there is nothing to recalibrate."
    more = {"help": said, "disabled": not has and not recipe.recalibrate}
    forms.bound(
        st.toggle,
        "Recalibrate BatchNorm",
        recipe.recalibrate,
        lambda value: forms.attempt(recalibrate=value),
        key="form-recalibrate",
        **more,
    )
    said = "Fine-tune the slim model in the masked one's place: the same, in less time. Where whole channels or heads go."
    more = {
        "help": said,
        "disabled": not (recipe.dependency_groups and recipe.epochs)
        and not recipe.finetune_compact,
    }
    forms.bound(
        st.toggle,
        "Heal the slim model",
        recipe.finetune_compact,
        lambda value: forms.attempt(finetune_compact=value),
        key="form-heal-slim",
        **more,
    )
    compact = "L1 penalty on BatchNorm's scales in a training of as many epochs before anything goes (network slimming): 0.03 suits digits."
    off = not (has and recipe.epochs) and not recipe.slimming
    forms.number(
        "Slimming",
        "slimming",
        low=0.0,
        high=10.0,
        step=0.01,
        format="%g",
        help=compact,
        disabled=off,
    )
    left, right = st.columns(2, gap="small")
    with left:
        said = "Share of the loss that compares with the dense model's answers while healing (Hinton et al., 2015); 0 uses labels alone."
        off = not recipe.epochs and not recipe.distill
        forms.number(
            "Weight of the teacher, %",
            "distill",
            low=0.0,
            high=100.0,
            step=10.0,
            scale=100,
            format="%g",
            help=said,
            disabled=off,
        )
    with right:
        said = "Softens both models' answers before they are compared, so that the small ones count too."
        forms.number(
            "Temperature",
            "temperature",
            low=0.1,
            high=1000.0,
            step=1.0,
            format="%g",
            help=said,
            disabled=not recipe.distill,
        )


# ---------------------------------------------------------------- what is left


def controls(recipe: Recipe) -> None:
    """How much, as a number; and Run."""
    amount, estimate, run = st.columns([3, 4, 2], vertical_alignment="bottom", gap="small")
    with amount:
        help = "Share of the covered weights to remove. The slider below edits the same number."
        limits: dict[str, Any] = {
            "low": 0.0,
            "high": 99.9,
            "step": 0.1,
            "scale": 100,
            "format": "%g",
        }
        forms.number("Remove, %", "sparsity", help=help, disabled=not recipe.budgeted, **limits)
    with estimate:
        st.caption(words.plain(duration(recipe)), text_alignment="right")
    with run:
        st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            on_click=start,
            args=(recipe,),
            key="run-now",
        )


def start(recipe: Recipe) -> None:
    try:
        state.open_run(jobs.start(recipe))
    except PruningError as error:
        state.warn(str(error))


def duration(recipe: Recipe) -> str:
    """How long the run will take, from earlier ones on this machine."""
    past = [
        (held.spec, end)
        for held in jobs.finished(40)
        if held.batch is None and (end := jobs.result(held))
    ]
    seconds = preview.duration(past, recipe)
    return (
        "Time: not measured yet"
        if seconds is None
        else f"Takes about {words.seconds(seconds)} (estimate)"
    )


def what_is_left(recipe: Recipe, study: Study | None) -> None:
    if study is None:
        _frame.waiting(forms.scoring(recipe), DIAL)
        return
    ranked = study.ranking
    held = table(ranked, str(study.folder), preview.rules(recipe).to_json())
    dial(
        preview.dial(held, ranked, recipe, state.layer()),
        lambda ratio: forms.attempt(sparsity=ratio),
        state.select_layer,
        key="dial",
    )
    left = ranked.preview(recipe)
    warn(preview.thin(left, ranked, recipe), preview.missed(left, recipe))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(words.plain(preview.exactness(recipe)), width="stretch")
        with st.popover("Table", icon=":material/table:", type="tertiary"):
            share = st.column_config.NumberColumn("share left", format="percent")
            st.dataframe(
                preview.rows(left),
                hide_index=True,
                column_config={"share left": share},
                alt="Weights and MACs left in each layer.",
            )


def warn(thin: list[str], missed: str | None) -> None:
    if missed:
        st.caption(words.plain(missed))
    if thin:
        more = f", and {len(thin) - 3} more" if len(thin) > 3 else ""
        said = f"{'; '.join(thin[:3])}{more}. So thin a layer may pass no signal: raise the floor, leave it dense, or remove less."
        st.warning(words.plain(said), icon=":material/warning:")


def without_data(recipe: Recipe) -> None:
    """Some models come without data: say what that rules out, and what it does not."""
    facts = models.facts(recipe.model)
    if facts is None or facts.accuracy is not None:
        return
    name = models.title(recipe.model)
    st.info(
        f"There is no data for {words.plain(name)}: accuracy cannot be measured and nothing can be healed. "
        "Removing weights by magnitude or by lot works, and so do counting weights, MACs and bytes, and timing.",
        icon=":material/info:",
    )
    if recipe.epochs:
        st.button("Heal nothing: 0 epochs", on_click=forms.attempt, kwargs={"epochs": 0})


# ---------------------------------------------------------------- the run


def the_run(id: str) -> None:
    """The run in the address, live while it lives; the same in every tab that looks at it."""
    alive = jobs.job(id).state in jobs.LIVE
    st.fragment(watch, run_every=TICK if alive else None)(id, alive)


def watch(id: str, alive: bool) -> None:
    with _frame.guarded():
        job = jobs.job(id)
        if alive and job.state not in jobs.LIVE:
            st.rerun()
        recipe = jobs.recipe_of(job)
        told = prune.history(event for _, event in jobs.events(id))
        head(job, recipe)
        outcome(job, told)
        if job.state != "failed" or told.dense:
            tiles(told)
        if recipe.epochs:
            arrive = time.time() - job.submitted < NEW
            live(
                prune.curves(told, job.id, recipe.criterion, dark=state.dark(), arrive=arrive),
                key=f"live-{id}",
            )
            twin(told, id)
        ending(job, recipe, told)


def head(job: Job, recipe: Recipe) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"#### Run `{job.id[:6]}` on {words.plain(models.title(recipe.model))}", width="stretch"
        )
        if job.state in jobs.LIVE:
            stopping: dict[str, Any] = {
                "label": "Stopping" if job.stopping else "Stop",
                "disabled": job.stopping,
            }
            st.button(
                **stopping,
                icon=":material/stop_circle:",
                on_click=jobs.stop,
                args=(job.id,),
                key=f"stop-{job.id}",
            )
        else:
            st.button(
                "Run again",
                icon=":material/replay:",
                on_click=start,
                args=(recipe,),
                key=f"again-{job.id}",
            )
            if recipe != state.recipe():
                st.button(
                    "Use its recipe",
                    icon=":material/content_copy:",
                    on_click=state.put,
                    args=(recipe,),
                    key=f"use-{job.id}",
                )
        if job.state == "finished":
            st.page_link(
                _frame.page_path("compare"),
                label="Compare",
                icon=":material/compare_arrows:",
                query_params=to_compare(job.id),
            )
        st.button(
            "Close",
            icon=":material/close:",
            type="tertiary",
            on_click=state.open_run,
            args=(None,),
            key=f"close-{job.id}",
        )
    st.markdown(words.plain(words.sentence(recipe)))


def to_compare(id: str) -> dict[str, str]:
    return {"c": ",".join(dict.fromkeys([*state.picked(), id]))}


def outcome(job: Job, told: prune.RunHistory) -> None:
    """Where it stands, in one line; it keeps its place from the first moment to the last."""
    match job.state:
        case "failed":
            st.error(
                words.plain(job.message or "It failed without saying why."), icon=":material/error:"
            )
        case "stopped":
            reached = (
                f"after {words.plural(told.now, 'epoch')}"
                if told.now
                else "before the first epoch was done"
            )
            st.info(
                f"Stopped {reached}. Nothing was lost: Run again starts it anew.",
                icon=":material/stop_circle:",
            )
        case "finished" if told.finished:
            st.markdown(f"**{words.plain(results.verdict(told.finished, told.epochs > 0))}**")
        case _:
            st.markdown(f":primary[●] {_frame.progress(job)}")


def tiles(told: prune.RunHistory) -> None:
    for column, (label, value, beside) in zip(
        st.columns(4, gap="medium"), results.tiles(told), strict=True
    ):
        with column:
            st.metric(label, value, beside or None, delta_color="off", delta_arrow="off")


def ending(job: Job, recipe: Recipe, told: prune.RunHistory) -> None:
    for text in told.notices:
        st.warning(words.plain(text), icon=":material/info:")
    if told.finished:
        predicted(told.finished, recipe, told)
        result_panel(job, told.finished, recipe)
        with st.expander("Every stage", icon=":material/steps:"):
            st.table(
                results.result(told.finished, told.epochs > 0).set_index("measured"),
                border="horizontal",
            )


def twin(told: prune.RunHistory, id: str) -> None:
    with st.popover("Table", icon=":material/table:", type="tertiary", key=f"twin-{id}"):
        share = {
            name: st.column_config.NumberColumn(name, format="percent")
            for name in ("accuracy, validation", "from", "to", "sparsity")
        }
        st.dataframe(
            prune.rows(told),
            hide_index=True,
            column_config=share,
            alt="Accuracy and loss after each epoch.",
        )


def page() -> None:
    _frame.question("How much can go, and what is left?")
    recipe = state.recipe()
    left, right = st.columns([5, 7], gap="large")
    study = None
    with right, _frame.guarded():
        controls(recipe)
        without_data(recipe)
        study = scores(recipe)
        what_is_left(recipe, study)
    with left, _frame.guarded():
        what_goes(recipe, study.ranking if study else None)
    with right, _frame.guarded():
        when(recipe)
    id = state.run_id()
    if id:
        st.divider()
        with _frame.guarded():
            the_run(id)


page()
