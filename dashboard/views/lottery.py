"""Lottery: is there a small network inside that could have been trained alone?

Lottery tickets over rounds of pruning and rewinding, beside controls, over several seeds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from dashboard import forms, handout, jobs, models, refit, state, tickets, waits, words
from dashboard.charts import lottery, preview
from dashboard.views import _frame, _projector
from pruning.errors import PruningError, RunError
from pruning.events import Ticket
from pruning.recipe import CONTROLS, OPTIMIZERS, Recipe
from pruning.recorded import refusal
from pruning.runs.store import Job, state_word

RECENT = 40  # finished runs that the estimate of the time looks at
EXAMPLE = "digits-mlp"  # a model with data, offered where the current one has none
HEIGHT = 400  # pixels of the place that waits for the first chart

REWIND_TO = {
    "init": "the first weights",
    "early": "the weights after an early step",
    "learning_rate": "the learning rate alone",
}
CONTROL_NAMES = {"reinit": "Re-initialised", "random_mask": "Random mask", "one_shot": "One shot"}
OPTIMIZER_NAMES = {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam"}
HELP = {
    "steps": "Of pruning, rewinding and training.",
    "epochs": "Of each training, the dense network's too.",
    "sparsity": (
        "Share of the weights pruned by the last round; "
        "each round prunes the same share of what remains."
    ),
    "seeds": "Runs that differ only in their random numbers: bands show their spread.",
    "rewind": (
        "Where the kept weights go back to after each pruning; "
        "or only the schedule of the learning rate does, and they stay as they are."
    ),
    "reinit": (
        "The ticket's mask on other first weights: what the ticket owes to its first weights."
    ),
    "random_mask": "The ticket's first weights under a random mask, as dense in each layer.",
    "one_shot": (
        "The ticket's first weights under the mask that pruning the dense network once would give."
    ),
    "layers": (
        "The same share from each layer, and about half as much from the output layer, "
        "as in the paper. Off: anywhere in the model."
    ),
}
EXPLAINED = (
    "Train the dense network, prune the smallest weights, rewind the others to where they were "
    "before training, and train again; round after round. What remains is a *lottery ticket*: a "
    "small network that trains to the dense one's accuracy. Controls show what it owes to its mask "
    "and what to its first weights "
    "([Frankle & Carbin, 2019](https://arxiv.org/abs/1803.03635))."
)

# In the paper's setting the others lose 20 % in a round and the output layer 10 %:
# 0.8 ** 0.4722 = 0.9, which is log 0.9 / log 0.8.
OUTPUT_LAYER = 0.4722

SHARES = (
    "weights kept",
    "accuracy, mean",
    "lowest seed",
    "highest seed",
    "overlap, round before",
    "overlap, one shot",
)
"""Columns of the table that are shares."""


# ---------------------------------------------------------------- settings


def settings(recipe: Recipe) -> None:
    left, right = st.columns(2, gap="small")
    with left:
        number("Rounds", recipe, "steps", low=1, high=40)
        number("Epochs", recipe, "epochs", low=1, high=1000)
    with right:
        number("Prune, %", recipe, "sparsity", low=1.0, high=99.9, step=0.1, scale=100)
        forms.bound(
            st.number_input,
            "Seeds",
            state.seeds(),
            state.set_seeds,
            key="lottery-seeds",
            min_value=1,
            max_value=10,
            step=1,
            help=HELP["seeds"],
        )
    each_round = 1 - (1 - recipe.sparsity) ** (1 / recipe.steps)
    st.caption(f"Each round prunes {words.percent(each_round)} of what remains.")
    rewinding(recipe)
    st.markdown(":small[Train beside each ticket]")
    for control, name in CONTROL_NAMES.items():
        forms.bound(
            st.checkbox,
            name,
            control in recipe.controls,
            partial(set_control, control),
            key=f"lottery-{control}",
            help=HELP[control],
        )
    with st.expander("Training", key="lottery-training"):
        training(recipe)


def rewinding(recipe: Recipe) -> None:
    """Where weights are rewound to, and, if that is a step, to which."""
    forms.bound(
        st.radio,
        "Rewind to",
        recipe.rewind,
        lambda where: change(rewind=where),
        key="lottery-rewind",
        options=list(REWIND_TO),
        format_func=REWIND_TO.__getitem__,
        help=HELP["rewind"],
    )
    steps = trains(recipe)
    if recipe.rewind == "init" or not steps:
        return
    forms.bound(
        st.slider,
        "Rewind to step",
        min(recipe.rewind_step, steps - 1),
        lambda step: change(rewind_step=step),
        key="lottery-step",
        min_value=0,
        max_value=steps - 1,
        help=f"Optimizer steps from the start; one training has {steps:,}, 0 is its very start.",
    )


def set_control(control: str, wanted: bool) -> None:
    """Train a control beside each ticket, or not; the recipe names them in CONTROLS' order."""
    controls = set(state.lottery_recipe().controls)
    if wanted:
        controls.add(control)
    else:
        controls.discard(control)
    change(controls=tuple(name for name in CONTROLS if name in controls))


def training(recipe: Recipe) -> None:
    forms.bound(
        st.segmented_control,
        "Optimiser",
        recipe.optimizer,
        lambda name: change(optimizer=name),
        key="lottery-optimizer",
        options=OPTIMIZERS,
        format_func=OPTIMIZER_NAMES.__getitem__,
        required=True,
    )
    left, right = st.columns(2, gap="small")
    with left:
        number("Learning rate", recipe, "lr", step=0.005)
        number("Batch", recipe, "batch", step=4)
    with right:
        number("Weight decay", recipe, "weight_decay", step=0.0001)
        number("First seed", recipe, "seed")
    forms.bound(
        st.toggle,
        "Layer by layer, the output layer slower",
        recipe.scope == "per_layer",
        set_layer_by_layer,
        key="lottery-layers",
        help=HELP["layers"],
    )


def set_layer_by_layer(wanted: bool) -> None:
    if wanted:
        change(scope="per_layer", scope_options={"output": OUTPUT_LAYER})
    else:
        change(scope="global", scope_options={})


def number(label: str, recipe: Recipe, field: str, **limits: Any) -> None:
    value = getattr(recipe, field)
    if isinstance(value, float):
        limits["format"] = "%g"
    forms.number_field(
        label,
        value,
        lambda entered: change(**{field: entered}),
        key=f"lottery-{field}",
        help=HELP.get(field),
        **{**forms.limits(field), **limits},
    )


def change(**fields: Any) -> None:
    try:
        state.change_lottery_recipe(**fields)
    except PruningError as error:
        state.warn(str(error))


def trains(recipe: Recipe) -> int:
    """Optimizer steps of one training; 0 when the size of the data is not known here."""
    examples = models.examples(recipe.model)
    return recipe.epochs * recipe.steps_per_epoch(examples) if examples else 0


# ---------------------------------------------------------------- start a set


def run(recipe: Recipe) -> None:
    """The button that starts a set of runs, one for each seed; a way out where there is no data."""
    facts = models.facts(recipe.model)
    if facts is not None and not facts.has_data:
        name = words.plain(models.title(recipe.model))
        text = f"There is no data for {name}: lottery tickets are trained from scratch."
        st.info(text, icon=":material/info:")
        st.button(f"Use {EXAMPLE}", on_click=refit.use_model, args=(EXAMPLE,))
        return
    st.button(
        "Find tickets",
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        on_click=start,
        args=(recipe,),
        key="lottery-run",
        shortcut=_frame.SHORTCUTS["Run"],
    )
    runs = words.plural(state.seeds(), "run")
    epochs = f"{recipe.training_epochs():,} epochs"
    st.caption(words.plain(f"{runs} of {epochs}. {duration(recipe)}"))


def start(recipe: Recipe) -> None:
    try:
        state.open_lottery_set(jobs.start_set(lottery.recipes(recipe, state.seeds())))
    except PruningError as error:
        state.warn(str(error))


def duration(recipe: Recipe) -> str:
    """How long a set will take, from earlier lottery runs on this machine."""
    past = []
    for job in jobs.finished(RECENT):
        result = jobs.result(job)
        if result and job.spec.get("rewind", "none") != "none":
            past.append((job.spec, result))
    seconds = preview.duration(past, recipe)
    if seconds is not None:
        # Two runs of a set work side by side.
        return f"About {words.seconds(seconds * -(-state.seeds() // 2))} (estimate)."
    return f"Time: {waits.UNKNOWN}."


# ---------------------------------------------------------------- a set of runs


def lottery_set(id: str) -> None:
    """The set in the address, live while any of its runs is."""
    runs = jobs.runs_of_set(id)
    if not runs:
        raise RunError(
            f"There is no set of runs {id!r} in this workspace: it was deleted, "
            "or belongs to another one. Find new tickets."
        )
    live = [job.id for job in runs if job.state in jobs.LIVE]
    _frame.live_part(f"set-{id}", live, watch, id, bool(live))


def watch(id: str, alive: bool) -> None:
    with _frame.guarded():
        runs = jobs.runs_of_set(id)
        if alive and not any(job.state in jobs.LIVE for job in runs):
            st.rerun()  # the whole page: this stops ticking, and masks can be compared
        trained = [jobs.tickets(job) for job in runs]
        rounds = lottery.rounds(trained)
        heading(runs, trained)
        if any(row.kind == "ticket" for row in rounds):
            charts(rounds)
            if not alive:
                seed_overlap(runs)
        elif alive:
            text = "The dense networks are being trained. The first round follows."
            _frame.waiting(text, HEIGHT)
        elif all(job.state == "finished" for job in runs):
            text = "These runs trained no lottery tickets: they belong to another page."
            st.info(text, icon=":material/info:")


def heading(runs: list[Job], by_seed: list[list[Ticket]]) -> None:
    """Which set it is, what can be done with it, how far it is, and which runs ended badly."""
    recipe = jobs.recipe_of(runs[0])
    live = [job for job in runs if job.state in jobs.LIVE]
    current = lottery.recipes(state.lottery_recipe(), 1)[0]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        model = words.plain(models.title(recipe.model))
        st.markdown(f"## {model}, {words.plural(len(runs), 'seed')}", width="stretch")
        if live and jobs.may_change(runs[0]):
            stopping = all(job.stopping for job in live)
            st.button(
                "Stopping" if stopping else "Stop",
                icon=":material/stop_circle:",
                on_click=stop,
                args=(runs,),
                disabled=stopping,
                key="lottery-stop",
            )
        elif not live and not refusal(recipe) and recipe != current:
            st.button(
                "Use its settings",
                icon=":material/content_copy:",
                on_click=use_settings,
                args=(recipe, len(runs)),
                key="lottery-use",
            )
        st.button(
            "Close",
            icon=":material/close:",
            type="tertiary",
            on_click=state.open_lottery_set,
            args=(None,),
            key="lottery-close",
        )
    if live:
        # Of each seed the dense network, and in each round the ticket and its controls.
        total = len(runs) * (1 + recipe.steps * (1 + len(recipe.controls)))
        trained = sum(map(len, by_seed))
        st.progress(min(1.0, trained / total), f"{trained} of {total} networks trained")
    for job in runs:
        if job.state in (*jobs.FAILED, "stopped"):
            seed = job.spec.get("seed")
            text = f"Seed {seed} {state_word(job.state)}: {job.message or 'it did not say why.'}"
            st.warning(words.plain(text), icon=":material/error:")


def stop(runs: list[Job]) -> None:
    for job in runs:
        jobs.stop(job.id)


def use_settings(recipe: Recipe, seeds: int) -> None:
    if recipe.model != state.recipe().model:
        refit.use_model(recipe.model)
    change(**{field: getattr(recipe, field) for field in recipe.short() if field != "model"})
    state.set_seeds(seeds)


def charts(rounds: list[lottery.Round]) -> None:
    finding = lottery.finding(rounds)
    handout.heading(finding)
    handout.table(lottery.round_table(rounds))
    st.markdown(f"**{words.plain(finding)}**")
    _projector.component("lottery-accuracy", finding, partial(accuracy, rounds, finding))
    st.caption("Lines are means over seeds, bands go from the lowest to the highest.")
    numbers(rounds)
    if any(row.shared is not None for row in rounds):
        st.markdown("**Do later rounds choose what one shot would have chosen?**")
        alt = "Overlap of the tickets' masks with one shot's, and that of random masks, by round."
        with st.container(key="lottery-overlaps-place"):  # a chart's own key makes no class
            st.vega_lite_chart(
                lottery.overlaps(rounds, dark=state.dark()),
                key="lottery-overlaps",
                theme="streamlit",
                alt=alt,
            )


def accuracy(rounds: list[lottery.Round], finding: str) -> None:
    with st.container(key="lottery-accuracy-place"):
        st.vega_lite_chart(
            lottery.accuracy(rounds, dark=state.dark()),
            key="lottery-accuracy",
            theme="streamlit",
            alt=f"Lines: {finding}.",
        )


def numbers(rounds: list[lottery.Round]) -> None:
    table = lottery.round_table(rounds)
    share = st.column_config.NumberColumn(format="percent")
    with st.container(horizontal=True):
        with st.popover("Table", icon=":material/table:", type="tertiary", key="lottery-table"):
            st.dataframe(
                table,
                hide_index=True,
                column_config=dict.fromkeys(SHARES, share),
                alt="Accuracy of each kind in each round.",
            )
        _frame.download(lambda: table.to_csv(index=False), "lottery.csv", key="lottery-csv")


def seed_overlap(runs: list[Job]) -> None:
    finished = [job for job in runs if job.state == "finished"]
    masks = [jobs.run_files(job).packed_masks() for job in finished]
    text = lottery.seed_overlap(masks)
    if text:
        st.markdown(words.plain(text))


def shipped_set(recipe: Recipe) -> None:
    """What came with the workbench, while no set of one's own is open."""
    known = tickets.shipped()
    if known is None:
        st.markdown(words.plain(words.sentence(recipe)))
        return
    made = known.recipe
    if recipe != made:  # what the button would do, which is not what is shown
        st.markdown(words.plain(words.sentence(recipe)))
    seeds = words.plural(len(known.tickets), "seed")
    st.markdown(f"## {words.plain(models.title(made.model))}, {seeds}")
    charts(lottery.rounds(known.tickets))
    own = "*Find tickets* does it again here" if recipe == made else "*Use its settings* repeats it"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        note = f"It came with the workbench: measured on {known.date}. {own}."
        st.caption(note, width="stretch")
        if recipe != made:
            st.button(
                "Use its settings",
                icon=":material/content_copy:",
                on_click=use_settings,
                args=(made, len(known.tickets)),
                key="lottery-use",
            )


def page() -> None:
    _frame.question("Is there a small network inside that could have been trained alone?")
    left, right = st.columns([4, 9], gap="large")
    recipe = state.lottery_recipe()
    with left, _frame.guarded():
        run(recipe)
        settings(recipe)
    with right, _frame.guarded():
        id = state.lottery_set()
        if id:
            lottery_set(id)
        else:
            st.markdown(EXPLAINED)
            shipped_set(recipe)


page()
