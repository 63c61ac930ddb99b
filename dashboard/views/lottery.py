"""Lottery: is there a small network inside that could have been trained alone? Rounds against controls, over seeds."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from dashboard import forms, jobs, models, state, words
from dashboard.charts import lottery, preview
from dashboard.views import _frame
from pruning.errors import PruningError, RunError
from pruning.events import Ticket
from pruning.recipe import CONTROLS, OPTIMIZERS, Recipe
from pruning.runs.store import Job

TICK = 1.0  # seconds between two looks at a set that is drawn
WHERE = {
    "init": "the first weights",
    "early": "the weights after an early step",
    "learning_rate": "the learning rate alone",
}
CONTROL = {
    "reinit": (
        "Re-initialised",
        "The ticket's mask on other first weights: what the ticket owes to its weights.",
    ),
    "random_mask": (
        "Random mask",
        "The ticket's first weights under a mask drawn by lot, as dense in each layer.",
    ),
    "one_shot": (
        "One shot",
        "The ticket's first weights under the mask that pruning the dense network once would give.",
    ),
}
DEMONSTRATION = "digits-mlp"
EXPLAINED = (
    "Train the dense network, remove the smallest weights, put the others back to where they were before training, and train again; "
    "round after round. What is left is a *ticket*: a small network that trains to the dense one's accuracy. Controls show what it "
    "owes to its mask and what to its first weights ([Frankle & Carbin, 2019](https://arxiv.org/abs/1803.03635))."
)


# ---------------------------------------------------------------- what is drawn


def settings(ticket: Recipe) -> None:
    left, right = st.columns(2, gap="small")
    with left:
        number(
            "Rounds",
            ticket.steps,
            "steps",
            low=1,
            high=40,
            help="Of pruning, rewinding and training.",
        )
        number(
            "Epochs",
            ticket.epochs,
            "epochs",
            low=1,
            high=1000,
            help="Of each training, the dense network's too.",
        )
    with right:
        help = "Share of the weights to remove by the last round; each round removes the same share of what is left."
        number(
            "Remove, %",
            ticket.sparsity,
            "sparsity",
            low=1.0,
            high=99.9,
            step=0.1,
            scale=100,
            help=help,
        )
        forms.bound(
            st.number_input,
            "Seeds",
            state.seeds(),
            state.set_seeds,
            key="lottery-seeds",
            min_value=1,
            max_value=10,
            step=1,
            help="Runs that differ in nothing but what is drawn at random: bands show their spread.",
        )
    st.caption(
        f"Each round removes {words.percent(1 - (1 - ticket.sparsity) ** (1 / ticket.steps))} of what is left."
    )
    help = "Where the weights that stay go back to after each pruning; or only the schedule of the learning rate does, and they stay."
    forms.bound(
        st.radio,
        "Rewind to",
        ticket.rewind,
        lambda where: change(rewind=where),
        key="lottery-rewind",
        options=list(WHERE),
        format_func=WHERE.__getitem__,
        help=help,
    )
    steps = trains(ticket)
    if ticket.rewind != "init" and steps:
        help = (
            f"Optimizer steps from the start; one training has {steps:,}, and 0 is its very start."
        )
        forms.bound(
            st.slider,
            "Rewind to step",
            min(ticket.rewind_step, steps - 1),
            lambda step: change(rewind_step=step),
            key="lottery-step",
            min_value=0,
            max_value=steps - 1,
            help=help,
        )
    st.markdown(":small[Train beside each ticket]")
    for kind, (name, help) in CONTROL.items():
        forms.bound(
            st.checkbox,
            name,
            kind in ticket.controls,
            partial(beside, kind),
            key=f"lottery-{kind}",
            help=help,
        )
    with st.expander("Training", key="lottery-training"):
        training(ticket)


def beside(kind: str, wanted: bool) -> None:
    """Train a control beside each ticket, or not; in the order they are named."""
    chosen = (
        {*state.lottery_recipe().controls, kind}
        if wanted
        else {*state.lottery_recipe().controls} - {kind}
    )
    change(controls=tuple(name for name in CONTROLS if name in chosen))


def training(ticket: Recipe) -> None:
    names = {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam"}
    forms.bound(
        st.segmented_control,
        "Optimiser",
        ticket.optimizer,
        lambda name: change(optimizer=name),
        key="lottery-optimizer",
        options=OPTIMIZERS,
        format_func=names.__getitem__,
        required=True,
    )
    left, right = st.columns(2, gap="small")
    with left:
        number("Learning rate", ticket.lr, "lr", low=0.0, high=100.0, step=0.005)
        number("Batch", ticket.batch, "batch", low=2, high=100_000, step=4)
    with right:
        number("Weight decay", ticket.weight_decay, "weight_decay", low=0.0, high=10.0, step=0.0001)
        number("First seed", ticket.seed, "seed", low=0, high=2**31)
    slow = ticket.scope == "per_layer"
    help = "The same share from each layer, and about half as much from the output layer, as in the paper. Off: anywhere in the model."
    forms.bound(
        st.toggle,
        "Layer by layer, the output layer slower",
        slow,
        by_layer,
        key="lottery-layers",
        help=help,
    )


def by_layer(wanted: bool) -> None:
    """0.47 = log 0.9 / log 0.8: where the others lose 20 % in a round, the output layer loses 10 %."""
    change(scope="per_layer", scope_options={"output": 0.4722}) if wanted else change(
        scope="global", scope_options={}
    )


def number(
    label: str,
    shown: float,
    field: str,
    *,
    low: float,
    high: float,
    step: float = 1,
    scale: float = 1,
    **more: Any,
) -> None:
    whole = isinstance(shown, int)
    kind = int if whole else float
    take = (
        (lambda entered: change(**{field: int(entered)}))
        if whole
        else (lambda entered: change(**{field: round(entered / scale, 10)}))
    )
    limits = {
        "min_value": kind(low),
        "max_value": kind(high),
        "step": kind(step),
        **({} if whole else {"format": "%g"}),
    }
    forms.bound(
        st.number_input,
        label,
        shown if whole else round(shown * scale, 8),
        take,
        key=f"lottery-{field}",
        **limits,
        **more,
    )


def change(**fields: Any) -> None:
    try:
        state.change_lottery_recipe(**fields)
    except PruningError as error:
        state.warn(str(error))


def trains(ticket: Recipe) -> int:
    """Optimizer steps of one training; 0 when the size of the data is not known here."""
    examples = models.examples(ticket.model)
    return ticket.epochs * ticket.steps_per_epoch(examples) if examples else 0


# ---------------------------------------------------------------- draw


def draw(ticket: Recipe) -> None:
    facts = models.facts(ticket.model)
    if facts is not None and facts.accuracy is None:
        st.info(
            f"There is no data for {words.plain(models.title(ticket.model))}: a lottery trains from scratch.",
            icon=":material/info:",
        )
        st.button(
            f"Put {DEMONSTRATION} on the bench",
            on_click=state.change,
            kwargs={"model": DEMONSTRATION},
        )
        return
    st.button(
        "Draw",
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        on_click=start,
        args=(ticket,),
        key="lottery-draw",
    )
    st.caption(
        words.plain(
            f"{words.plural(state.seeds(), 'run')} of {ticket.training_epochs():,} epochs. {duration(ticket)}"
        )
    )


def start(ticket: Recipe) -> None:
    try:
        state.open_lottery_set(jobs.start_set(lottery.recipes(ticket, state.seeds())))
    except PruningError as error:
        state.warn(str(error))


def duration(ticket: Recipe) -> str:
    past = [
        (held.spec, end)
        for held in jobs.finished(40)
        if held.spec.get("rewind", "none") != "none" and (end := jobs.result(held))
    ]
    seconds = preview.duration(past, ticket)
    if seconds is None:
        return (
            "Usually under two minutes."
            if ticket == state.LOTTERY_RECIPE
            else "Time: not measured yet."
        )
    return f"About {words.seconds(seconds * -(-state.seeds() // 2))} (estimate)."


# ---------------------------------------------------------------- what came of it


def the_set(id: str) -> None:
    held = jobs.runs_of_set(id)
    if not held:
        raise RunError(
            f"There is no set of runs {id!r} in this workspace: it was deleted, or belongs to another one. Draw one."
        )
    alive = any(job.state in jobs.LIVE for job in held)
    st.fragment(watch, run_every=TICK if alive else None)(id, alive)


def watch(id: str, alive: bool) -> None:
    with _frame.guarded():
        held = jobs.runs_of_set(id)
        if alive and not any(job.state in jobs.LIVE for job in held):
            st.rerun()
        drawn = [jobs.tickets(job) for job in held]
        found = lottery.rounds(drawn)
        head(held, drawn)
        if not any(row.kind == "ticket" for row in found):
            _frame.waiting(
                "The dense networks are being trained. The first round follows.", 400
            ) if alive else nothing(held)
            return
        pictures(found, alive)
        if not alive:
            agreement(held)


def head(held: list[Job], drawn: list[list[Ticket]]) -> None:
    recipe = jobs.recipe_of(held[0])
    live = [job for job in held if job.state in jobs.LIVE]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"#### {words.plain(models.title(recipe.model))}, {words.plural(len(held), 'seed')}",
            width="stretch",
        )
        if live:
            stopping = all(job.stopping for job in live)
            label = "Stopping" if stopping else "Stop"
            st.button(
                label,
                icon=":material/stop_circle:",
                on_click=stop,
                args=(held,),
                disabled=stopping,
                key="lottery-stop",
            )
        elif recipe != lottery.recipes(state.lottery_recipe(), 1)[0]:
            st.button(
                "Use its settings",
                icon=":material/content_copy:",
                on_click=use,
                args=(recipe, len(held)),
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
        wanted = len(held) * (1 + recipe.steps * (1 + len(recipe.controls)))
        done = sum(map(len, drawn))
        st.progress(min(1.0, done / wanted), f"{done} of {wanted} networks trained")
    for job in held:
        if job.state in ("failed", "stopped"):
            said = (
                f"Seed {job.spec.get('seed')} {job.state}: {job.message or 'it did not say why.'}"
            )
            st.warning(words.plain(said), icon=":material/error:")


def stop(held: list[Job]) -> None:
    for job in held:
        jobs.stop(job.id)


def use(recipe: Recipe, seeds: int) -> None:
    if recipe.model != state.recipe().model:
        state.change(model=recipe.model)
    change(**{field: getattr(recipe, field) for field in recipe.short() if field != "model"})
    state.set_seeds(seeds)


def nothing(held: list[Job]) -> None:
    if all(job.state == "finished" for job in held):
        st.info("These runs drew no tickets: they belong to another page.", icon=":material/info:")


def pictures(found: list[lottery.Round], alive: bool) -> None:
    said = lottery.finding(found)
    st.markdown(f"**{words.plain(said)}**")
    st.vega_lite_chart(
        lottery.accuracy(found, dark=state.dark()),
        key="lottery-accuracy",
        theme="streamlit",
        alt=f"Lines: {said}.",
    )
    st.caption("Lines are means over seeds, bands go from the lowest to the highest.")
    rows = lottery.table(found)
    share = st.column_config.NumberColumn(format="percent")
    shares = (
        "weights kept",
        "accuracy, mean",
        "lowest seed",
        "highest seed",
        "overlap, round before",
        "overlap, one shot",
    )
    with st.container(horizontal=True):
        with st.popover("Table", icon=":material/table:", type="tertiary", key="lottery-table"):
            st.dataframe(
                rows,
                hide_index=True,
                column_config=dict.fromkeys(shares, share),
                alt="Accuracy of each kind in each round.",
            )
        st.download_button(
            "CSV",
            rows.to_csv(index=False).encode(),
            "lottery.csv",
            "text/csv",
            icon=":material/download:",
            type="tertiary",
            disabled=alive,
            on_click="ignore",
            key="lottery-csv",
        )
    if any(row.shared is not None for row in found):
        st.markdown("**Do later rounds choose what one shot would have chosen?**")
        alt = "Overlap of the tickets' masks with one shot's mask, and what chance would give, over the rounds."
        st.vega_lite_chart(
            lottery.overlaps(found, dark=state.dark()),
            key="lottery-overlaps",
            theme="streamlit",
            alt=alt,
        )


def agreement(held: list[Job]) -> None:
    done = [job for job in held if job.state == "finished"]
    said = lottery.agreement(
        {str(job.spec.get("seed")): jobs.run_files(job).masks() for job in done}
    )
    if said:
        st.markdown(words.plain(said))


def page() -> None:
    _frame.question("Is there a small network inside that could have been trained alone?")
    left, right = st.columns([4, 9], gap="large")
    ticket = state.lottery_recipe()
    with left, _frame.guarded():
        draw(ticket)
        settings(ticket)
    with right, _frame.guarded():
        id = state.lottery_set()
        if id:
            the_set(id)
        else:
            st.markdown(EXPLAINED)
            st.markdown(words.plain(words.sentence(ticket)))


page()
