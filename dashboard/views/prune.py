"""Prune: set the recipe, see what it will keep while you set it, run it and watch."""

from __future__ import annotations

import time

import streamlit as st

from dashboard import forms, jobs, models, state, tables, waits, words
from dashboard.charts import preview, prune, results
from dashboard.components.dial import dial
from dashboard.components.live import live
from dashboard.views import _frame, _recipe_panel
from dashboard.views._predicted import predicted
from dashboard.views._result_panel import result_panel
from pruning.allocation.ranking import Ranking
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

DIAL = 420  # pixels
TICK = 0.6  # seconds between two looks at a run
NEW = 5.0  # seconds in which a run counts as just started: its curves come into view
MOST_WARNED = 3  # layers named in the warning of thin ones


def page() -> None:
    _frame.question("How much can be pruned, and what is kept?")
    recipe = state.recipe()
    left, right = st.columns([5, 7], gap="large")
    study = None
    with right, _frame.guarded():
        controls(recipe)
        without_data(recipe)
        study = scores(recipe)
        kept(recipe, study)
    with left, _frame.guarded():
        _recipe_panel.selection(recipe, study.ranking if study else None)
    with right, _frame.guarded():
        _recipe_panel.schedule(recipe)
    id = state.run_id()
    if id:
        st.divider()
        with _frame.guarded():
            run(id)


# ---------------------------------------------------------------- how much, and Run


def controls(recipe: Recipe) -> None:
    """How much, as a number; how long it takes; and Run."""
    amount, estimate, run = st.columns([3, 4, 2], vertical_alignment="bottom", gap="small")
    with amount:
        _recipe_panel.number("sparsity", disabled=not recipe.budgeted)
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
            shortcut=_frame.SHORTCUTS["Run"],
        )


def start(recipe: Recipe) -> None:
    try:
        state.open_run(jobs.start(recipe))
    except PruningError as error:
        state.warn(str(error))


def duration(recipe: Recipe) -> str:
    """How long the run will take, from earlier ones on this machine."""
    expected = jobs.expected("run", recipe.to_dict())
    if expected is None:
        return f"Time: {waits.UNKNOWN}"
    return f"Takes {waits.takes(expected)} (estimate)"


def without_data(recipe: Recipe) -> None:
    """Some models come without data: what that rules out, and what it does not."""
    facts = models.facts(recipe.model)
    if facts is None or facts.accuracy is not None:
        return
    name = words.plain(models.title(recipe.model))
    st.info(
        f"There is no data for {name}: accuracy cannot be measured and nothing can be fine-tuned. "
        "Pruning by magnitude or at random works, and so do counting weights, MACs and bytes, "
        "and timing.",
        icon=":material/info:",
    )
    if recipe.epochs:
        st.button("No fine-tuning: 0 epochs", on_click=forms.attempt, kwargs={"epochs": 0})


# ---------------------------------------------------------------- what is kept


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
def stop_table(_ranking: Ranking, folder: str, selection: str) -> preview.StopTable:
    """One table for each selection: turning the dial asks nothing anew.

    selection: `preview.selection` as JSON, for the cache hashes its arguments; folder: of the
    scores, in the place of the ranking, which cannot be hashed.
    """
    recipe = Recipe.from_json(selection)
    stops = preview.STOPS if recipe.budgeted else (recipe.sparsity,)
    return preview.stop_table(_ranking, recipe, stops)


def kept(recipe: Recipe, study: Study | None) -> None:
    """The dial with what it keeps of each layer, and what to know about it."""
    if study is None:
        job = jobs.request("scores", **tables.scores_spec(recipe))
        _frame.waiting(forms.scoring(recipe), DIAL, job)
        return
    ranking = study.ranking
    table = stop_table(ranking, str(study.folder), preview.selection(recipe).to_json())
    dial(
        preview.dial(table, ranking, recipe, state.layer()),
        lambda share: forms.attempt(sparsity=share),
        state.select_layer,
        key="dial",
    )
    kept = ranking.preview(recipe)
    both = preview.both(kept, ranking, recipe)
    if both:
        st.caption(words.plain(both))
    missed = preview.missed(kept, recipe)
    if missed:
        st.caption(words.plain(missed))
    warn_of_thin(preview.thin(kept, ranking, recipe))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(words.plain(preview.exactness(recipe)), width="stretch")
        with st.popover("Table", icon=":material/table:", type="tertiary"):
            share = st.column_config.NumberColumn("share kept", format="percent")
            st.dataframe(
                preview.rows(kept),
                hide_index=True,
                column_config={"share kept": share},
                alt="Weights and MACs kept in each layer.",
            )


def warn_of_thin(layers: list[str]) -> None:
    """layers: a sentence for each that keeps almost nothing."""
    if not layers:
        return
    named = "; ".join(layers[:MOST_WARNED])
    more = f", and {len(layers) - MOST_WARNED} more" if len(layers) > MOST_WARNED else ""
    text = (
        f"{named}{more}. So thin a layer may pass no signal: "
        "keep more units at least, leave it dense, or remove less."
    )
    st.warning(words.plain(text), icon=":material/warning:")


# ---------------------------------------------------------------- the run


def run(id: str) -> None:
    """The run in the address, live while it lives; the same in every tab that looks at it."""
    alive = jobs.job(id).state in jobs.LIVE
    st.fragment(watch, run_every=TICK if alive else None)(id, alive)


def watch(id: str, alive: bool) -> None:
    with _frame.guarded():
        job = jobs.job(id)
        if alive and job.state not in jobs.LIVE:
            st.rerun()  # the whole page: a finished run has more to show, and this stops ticking
        recipe = jobs.recipe_of(job)
        history = prune.history(event for _, event in jobs.events(id))
        heading(job, recipe)
        status(job, history)
        if job.state != "failed" or history.dense:
            tiles(history)
        if recipe.epochs:
            arrive = time.time() - job.submitted < NEW
            data = prune.curves(history, id, recipe.criterion, dark=state.dark(), arrive=arrive)
            live(data, key=f"live-{id}")
            epochs_table(history, id)
        result(job, recipe, history)


def heading(job: Job, recipe: Recipe) -> None:
    """Which run it is, what can be done with it, and its recipe as a sentence."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        model = words.plain(models.title(recipe.model))
        st.markdown(f"## Run `{job.id[:6]}` on {model}", width="stretch")
        if job.state in jobs.LIVE:
            st.button(
                "Stopping" if job.stopping else "Stop",
                disabled=job.stopping,
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
            compared = dict.fromkeys([*state.picked(), job.id])
            st.page_link(
                _frame.page_path("compare"),
                label="Compare",
                icon=":material/compare_arrows:",
                query_params={"c": ",".join(compared)},
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


def status(job: Job, history: prune.RunHistory) -> None:
    """Where the run stands, in one line; it keeps its place from the first moment to the last."""
    if job.state == "failed":
        message = job.message or "It failed without saying why."
        st.error(words.plain(message), icon=":material/error:")
    elif job.state == "stopped":
        reached = "before the first epoch was done"
        if history.done:
            reached = f"after {words.plural(history.done, 'epoch')}"
        st.info(
            f"Stopped {reached}. Nothing was lost: Run again starts it anew.",
            icon=":material/stop_circle:",
        )
    elif job.state == "finished" and history.finished:
        finding = results.verdict(history.finished, history.finetunes)
        st.markdown(f"**{words.plain(finding)}**")
    else:
        st.markdown(f":primary[●] {_frame.progress(job)}")


def tiles(history: prune.RunHistory) -> None:
    columns = st.columns(4, gap="medium")
    for column, (label, value, beside) in zip(columns, results.tiles(history), strict=True):
        with column:
            _frame.metric(label, value, beside or None)


def epochs_table(history: prune.RunHistory, id: str) -> None:
    """The numbers of the curves."""
    shares = ("accuracy, validation", "from", "to", "sparsity")
    columns = {name: st.column_config.NumberColumn(name, format="percent") for name in shares}
    with st.popover("Table", icon=":material/table:", type="tertiary", key=f"epochs-{id}"):
        st.dataframe(
            prune.epochs_table(history),
            hide_index=True,
            column_config=columns,
            alt="Accuracy and loss after each epoch.",
        )


def result(job: Job, recipe: Recipe, history: prune.RunHistory) -> None:
    """Notices; of a finished run also predicted against measured, improvements, and the stages."""
    for text in history.notices:
        st.warning(words.plain(text), icon=":material/info:")
    if history.finished is None:
        return
    predicted(history.finished, recipe, history.forecasts)
    result_panel(job, history.finished, recipe)
    with st.expander("Every stage", icon=":material/steps:"):
        stages = results.stage_table(history.finished, history.finetunes)
        st.table(stages.set_index("measured"), border="horizontal")


page()
