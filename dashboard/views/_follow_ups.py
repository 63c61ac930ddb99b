"""What follows on a run: going on with a stopped one, and its comparison runs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import jobs, state, waits, words
from dashboard.charts import comparison_runs as charts
from dashboard.charts.comparison_runs import ComparisonRun
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.events import Finished, Halted
from pruning.metrics import Paired
from pruning.recipe import Recipe
from pruning.runs import follow_ups
from pruning.runs.store import Job, state_word

# ---------------------------------------------------------------- a stopped run


def go_on(job: Job, recipe: Recipe, halted: Halted | None) -> None:
    """A button that does what was left of a stopped run, from what it had reached."""
    rest = follow_ups.continued(recipe, job.id, halted) if halted else None
    if rest is None:
        return
    left = words.plural(rest.steps * rest.epochs, "epoch") if rest.epochs else ""
    st.button(
        "Continue",
        icon=":material/resume:",
        on_click=_start,
        args=(rest,),
        key=f"continue-{job.id}",
        help=f"A new run from the weights and masks that this one kept: {left or 'its last steps'}."
        " The learning rate begins anew.",
    )


def _start(recipe: Recipe) -> None:
    try:
        state.open_run(jobs.start(recipe))
    except PruningError as error:
        state.warn(str(error))


# ---------------------------------------------------------------- comparison runs


def comparison_runs(job: Job, recipe: Recipe, end: Finished) -> None:
    """A finished run beside its comparison runs: a button starts each that is not there yet.

    Draws nothing for a run that has none, or that was stopped, so that none is trained as long.
    """
    recipes = follow_ups.comparison_runs(recipe, job.id)
    if job.state != "finished" or not recipes:
        return
    runs = {kind: jobs.run_of(wanted) for kind, wanted in recipes.items()}
    live = [run.id for run in runs.values() if run and run.state in jobs.LIVE]
    _frame.live_part(f"comparison-{job.id}", live, _rows, job, recipe, end, bool(live))


def _rows(job: Job, recipe: Recipe, end: Finished, alive: bool) -> None:
    with _frame.guarded():
        recipes = follow_ups.comparison_runs(recipe, job.id)
        runs = {kind: jobs.run_of(wanted) for kind, wanted in recipes.items()}
        if alive and not any(run and run.state in jobs.LIVE for run in runs.values()):
            st.rerun()  # the whole page: it waits for the answers to be paired
        others = [_comparison(kind, job, recipe, run) for kind, run in runs.items() if run]
        st.header("Comparison runs", anchor=False)
        finding = charts.finding(end, others)
        if finding:
            st.markdown(words.plain(finding))
        if others:
            _frame.table(charts.table(end, others))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            for kind in [kind for kind, run in runs.items() if run is None]:
                _offer(job, kind, recipes[kind])
            ended = [run.id for run in runs.values() if run and run.state == "finished"]
            if ended:
                st.page_link(
                    _frame.page_path("compare"),
                    label="Compare all",
                    icon=":material/compare_arrows:",
                    query_params={"c": ",".join([job.id, *ended])},
                )


def _offer(job: Job, kind: str, wanted: Recipe) -> None:
    expected = jobs.expected("run", wanted.to_dict())
    time = f" Takes {waits.takes(expected)}." if expected else ""
    pressed = st.button(
        charts.NAMES[kind],
        icon=":material/play_arrow:",
        key=f"comparison-{kind}-{job.id}",
        help=charts.HELP[kind] + time,
    )
    if pressed:
        try:
            jobs.start_once(wanted)
        except PruningError as error:
            state.warn(str(error))
        st.rerun()  # the whole page: a press alone redraws only these rows, which then stand still


def _comparison(kind: str, job: Job, recipe: Recipe, run: Job) -> ComparisonRun:
    if run.state in jobs.LIVE:
        return ComparisonRun(kind, _frame.progress(run))
    end = jobs.result(run)
    return ComparisonRun(kind, state_word(run.state), end, _answers(recipe.model, job.id, run.id))


def _answers(model: str, run: str, other: str) -> Paired | None:
    """Both runs' answers to the same test examples; None while a worker pairs them, or cannot."""
    spec: dict[str, Any] = {"model": model, "run": run, "other": other}
    try:
        study = jobs.study("pair", **spec)
    except jobs.Costly as costly:
        _frame.ask(costly)
        return None
    except PruningError:  # without test data there is nothing to pair
        return None
    return Paired(**study.data["answers"]) if study else None
