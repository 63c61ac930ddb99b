"""A run's own page: what it did, on one screen; the tables folded below."""

from __future__ import annotations

import streamlit as st

from dashboard import handout, jobs, state, tables, words
from dashboard.charts import results
from dashboard.charts.prune import RunHistory
from dashboard.views import _follow_ups, _frame, _run_panel
from dashboard.views._predicted import predicted
from dashboard.views._result_panel import result_panel
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.recorded import refusal
from pruning.runs.records import record_of
from pruning.runs.store import Job

MOST_LISTED = 8  # runs offered where none is open


def page() -> None:
    id = state.run_id()
    if id is None:
        _frame.question("Which run do you want to see?")
        others()
        return
    try:
        job = jobs.job(id)
    except PruningError as error:
        _frame.question("This run cannot be shown")
        st.error(words.plain(str(error)), icon=":material/error:")
        others()
        return
    if job.state in jobs.LIVE:
        _run_panel.follow(id)
    else:
        ended(job)


def others() -> None:
    """Links to the newest finished runs."""
    finished = jobs.with_result(MOST_LISTED)
    if not finished:
        st.info(
            "No run has finished yet: start one on the Prune page.", icon=":material/content_cut:"
        )
        st.page_link(_frame.page_path("prune"), label="To the Prune page")
        return
    st.markdown("The newest results:")
    for job in finished:
        end = jobs.result(job)
        if end is None:
            continue
        numbers = "; ".join(f"{what} {after}" for what, _, after in tables.headline(end))
        _frame.result_link(job.id, f"{job.id[:6]} on {job.spec.get('model', '')}: {numbers}")


# ---------------------------------------------------------------- a run that ended


def ended(job: Job) -> None:
    recipe = jobs.recipe_of(job)
    history = jobs.history(job)
    with st.container(gap="xsmall"):  # all that one looks for stands on one screen
        heading(job, recipe, history)
        standing(job, recipe, history)
        if history.dense:
            _run_panel.tiles(history)
        if history.result:
            if state.recording():
                handout.record(record_of(jobs.store(), job.id), words.sentence(recipe))
            result_panel(job, history.result, recipe, history)
        elif history.trained:
            _run_panel.curves(job, history)
    if history.result:
        _follow_ups.comparison_runs(job, recipe, history.result)
    for text in history.notices:
        st.warning(words.plain(text), icon=":material/info:")
    if history.result:
        predicted(history, recipe)
        with st.expander("Every stage", icon=":material/steps:"):
            _frame.table(results.stage_table(history.result, recipe, history.validation))
    if history.trained:
        with st.expander("Every epoch", icon=":material/table:"):
            _run_panel.epochs_table(history)


def heading(job: Job, recipe: Recipe, history: RunHistory) -> None:
    """Which run it is, and what can be done with it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        _frame.question(_run_panel.name(job))
        actions(job, recipe, history)


def actions(job: Job, recipe: Recipe, history: RunHistory) -> None:
    """What can be done with a run: buttons and a link, on one line."""
    refused = refusal(recipe)
    with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
        _follow_ups.go_on(job, recipe, history.halted)
        st.button(
            "Run again",
            icon=":material/replay:",
            on_click=_run_panel.start,
            args=(recipe,),
            key=f"again-{job.id}",
            disabled=bool(refused),
        )
        label = "Its recipe" if recipe == state.recipe() else "Use its recipe"
        use = st.button(
            label, icon=":material/content_cut:", key=f"use-{job.id}", disabled=bool(refused)
        )
        if use:
            with _frame.guarded():
                state.put(recipe)
            st.switch_page(_frame.page_path("prune"))
        if history.result:
            compared = dict.fromkeys([*state.picked(), job.id])
            st.page_link(
                _frame.page_path("compare"),
                label="Compare",
                icon=":material/compare_arrows:",
                query_params={"c": ",".join(compared)},
            )


def standing(job: Job, recipe: Recipe, history: RunHistory) -> None:
    """What came of it, in one sentence, and the recipe in another."""
    if job.deleted is not None:
        st.warning(
            "This run was deleted: its files are kept for a while.", icon=":material/delete:"
        )
        if jobs.may_change(job):
            st.button(
                "Restore",
                icon=":material/restore_from_trash:",
                key=f"restore-{job.id}",
                on_click=jobs.restore,
                args=([job.id],),
            )
    if job.state in jobs.FAILED:
        message = job.message or "It failed without saying why."
        st.error(words.plain(message), icon=":material/error:")
    elif job.state == "stopped":
        st.info(words.plain(results.stopped(history)), icon=":material/stop_circle:")
    if history.result:
        st.markdown(f"**{words.plain(results.verdict(history.result, recipe, jobs.facts(job)))}**")
    st.caption(words.plain(words.sentence(recipe)))
    refused = refusal(recipe)
    if refused:
        text = f"This recipe of an earlier workbench is not run again: {refused}"
        st.info(words.plain(text), icon=":material/info:")


page()
