"""What Prune and a run's own page share: the run's heading, its standing, numbers and curves."""

from __future__ import annotations

import time
from functools import partial

import streamlit as st

from dashboard import glossary, jobs, models, state, visitors, words
from dashboard.charts import prune, results
from dashboard.charts.prune import RunHistory
from dashboard.components.live import live
from dashboard.views import _frame, _projector
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.store import Job

NEW = 5.0  # seconds in which a run counts as just started: its curves come into view


def start(recipe: Recipe) -> None:
    try:
        state.open_run(jobs.start(recipe))
    except PruningError as error:
        state.warn(str(error))


def name(job: Job) -> str:
    """`Run 3f2a91 on digits-cnn`, and of whom where it is somebody else's."""
    model = words.plain(models.title(job.spec.get("model", "")))
    by = visitors.by_another(job.visitor)
    return f"Run `{job.id[:6]}` on {model}{', ' + words.plain(by) if by else ''}"


# ---------------------------------------------------------------- a run that works


def follow(id: str) -> None:
    """A run that waits or works: drawn anew by itself, the same in every tab that looks at it."""
    _frame.live_part(f"run-{id}", [id], _look, id)


def _look(id: str) -> None:
    with _frame.guarded():
        job = jobs.job(id)
        if job.state not in jobs.LIVE:
            st.rerun()  # the whole page: what it shows of a run that ended is another thing
        history = jobs.history(job)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"## {name(job)}", width="stretch")
            if jobs.may_change(job):
                st.button(
                    "Stopping" if job.stopping else "Stop",
                    disabled=job.stopping,
                    icon=":material/stop_circle:",
                    on_click=jobs.stop,
                    args=(job.id,),
                    key=f"stop-{job.id}",
                )
            close(job)
        st.markdown(words.plain(words.sentence(jobs.recipe_of(job))))
        facts = jobs.facts(job)
        if facts is not None:
            st.markdown(words.plain(f"So far: {words.outcome(facts)}"))
        st.markdown(f":primary[●] {_frame.progress(job)}")
        if job.state == "queued":
            _frame.cluster_trouble()
        tiles(history)
        curves(job, history)


def close(job: Job) -> None:
    st.button(
        "Close",
        icon=":material/close:",
        type="tertiary",
        on_click=state.open_run,
        args=(None,),
        key=f"close-{job.id}",
    )


# ---------------------------------------------------------------- numbers and curves


def tiles(history: RunHistory) -> None:
    shown = results.tiles(history)
    # The first is an accuracy with its interval, the longest of them.
    with st.container(key="tiles"):  # page.css keeps its height until the numbers are drawn
        columns = st.columns([1.35, *[1] * (len(shown) - 1)], gap="small")
    for column, (label, value, beside) in zip(columns, shown, strict=True):
        with column:
            _frame.metric(label, value, beside or None, glossary.of_label(label))


def curves(job: Job, history: RunHistory, *, short: bool = False) -> None:
    """Nothing for a recipe that trains nothing: it has no epochs to draw over.

    short: accuracy and size alone, one above the other, to stand beside a picture.
    """
    recipe = jobs.recipe_of(job)
    if not recipe.epochs:
        return
    data = prune.curves(
        history,
        job.id,
        recipe.criterion,
        dark=state.dark(),
        arrive=job.state in jobs.LIVE and time.time() - job.submitted < NEW,
        short=short,
    )
    draw = partial(live, data, key=f"live-{job.id}")
    _projector.component(f"live-{job.id}", f"Run {job.id[:6]}: each epoch", draw)


def epochs_table(history: RunHistory) -> None:
    """The numbers of the curves."""
    newest = prune.newest_accuracy(history)
    percent = newest is None or prune.scale(newest.accuracy) == 100
    metric = newest.accuracy.name if newest else "accuracy"
    shares = (f"{metric}, validation", "from", "to", "sparsity") if percent else ("sparsity",)
    columns = {name: st.column_config.NumberColumn(name, format="percent") for name in shares}
    st.dataframe(
        prune.epochs_table(history),
        hide_index=True,
        column_config=columns,
        alt="Accuracy and loss after each epoch.",
    )
