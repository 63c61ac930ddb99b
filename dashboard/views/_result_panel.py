"""The result panel of a finished run: improvements over dense, what did not improve and why."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import jobs, state, words
from dashboard.charts import improvement_charts, improvements, reasons, structure
from dashboard.charts.improvements import NotImproved, ResultPanel
from dashboard.charts.prune import RunHistory
from dashboard.views import _frame, _run_panel
from dashboard.views._take_home import take_home
from pruning import registry
from pruning.errors import PruningError
from pruning.events import Finished, build
from pruning.metrics import Energy, Timing
from pruning.recipe import Recipe
from pruning.runs import follow_ups
from pruning.runs.store import Job

OnnxTimings = dict[str, tuple[Timing, ...]]
"""State -> its timings in ONNX Runtime."""

STATES = {"dense": "dense", "final": "masked", "compact": "compact"}
"""Names of a "runtimes" study -> the panel's states."""

COLUMNS = 3  # of folded lines

TIMING = (
    "Latency: median and middle half, dense and pruned interleaved in one process beside a copy "
    "of the dense model as control."
)


def panel_of(
    job: Job, end: Finished, recipe: Recipe, onnx_timings: OnnxTimings | None = None
) -> ResultPanel:
    granularity = registry.entry("granularity", recipe.granularity)
    return improvements.against_dense(
        end,
        structured=bool(granularity.tags.get("structured")),
        onnx_timings=onnx_timings,
        unmeasured=why_unmeasured(job, recipe),
    )


def why_unmeasured(job: Job, recipe: Recipe) -> str:
    """Why the run lacks figures that others have."""
    if job.state != "stopped":
        return reasons.NOT_IN_THIS_RUN
    halted = jobs.history(job).halted
    rest = follow_ups.continued(recipe, job.id, halted) if halted else None
    return reasons.why_stopped(can_continue=rest is not None)


def result_panel(job: Job, end: Finished, recipe: Recipe, history: RunHistory) -> None:
    """Curves beside the picture, then what did not improve and why, then the table, folded."""
    onnx_timings, onnx_status = onnx(job, recipe)
    panel = panel_of(job, end, recipe, onnx_timings)
    if recipe.epochs:
        left, right = st.columns([5, 7], gap="medium")
        with left:
            _run_panel.curves(job, history, short=True)
    else:  # nothing was trained: there are no epochs to draw over
        right = st.container()
    with right, st.container(gap=None):
        figure = improvement_charts.picture(panel, dark=state.dark())
        improved = "; ".join(improvements.improved(panel)) or "nothing"
        of = f"of the {panel.shown} model" if end.compact else ""
        alt = f"Improvements {of} over dense, with intervals. Improved: {improved}."
        _frame.chart(figure, alt=alt, name=f"improvements-{job.id}")
    no_improvement(improvements.not_improved(panel))
    take_home(job, recipe)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        protocol = improvement_charts.timing_protocol(
            end, onnx_timings, why_unmeasured(job, recipe)
        )
        st.caption(words.plain(protocol), width="stretch")
        offer_onnx(job, recipe, onnx_status)
    with st.expander("Every figure, side by side", icon=":material/table:"):
        every_figure(panel)
        if end.certificate is not None:
            st.caption(words.plain(structure.certificate_in_words(end.certificate)))
        st.download_button(
            "CSV",
            improvement_charts.csv(panel),
            f"improvements-{job.id[:6]}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key=f"csv-{job.id}",
        )


def no_improvement(lines: list[NotImproved]) -> None:
    """A folded line for each: what did not improve, and in it by how much and why."""
    if not lines:
        return
    heading, *columns = st.columns([2, *[3] * COLUMNS], gap="small")
    heading.markdown("**No improvement**")
    for i, column in enumerate(columns):
        with column, st.container(gap="xxsmall"):
            for line in lines[i::COLUMNS]:
                with st.expander(words.plain(line.names), type="compact"):
                    st.markdown(words.plain(f"{line.what}. {line.why}"))


def every_figure(panel: ResultPanel) -> None:
    table = improvement_charts.table(panel)
    aspect = table["aspect"]
    # An aspect is written once, above its figures, as in a printed table.
    table["aspect"] = aspect.where(aspect != aspect.shift(), "")
    _frame.table(table)
    energy = (
        f"Energy: modelled, {Energy.multiply:g} pJ a float32 multiply and {Energy.add:g} pJ an add "
        "in 45 nm (Horowitz, 2014), memory left out."
    )
    st.caption(f"{TIMING} {energy} Changes with 95 % intervals.")


# ---------------------------------------------------------------- ONNX Runtime


def onnx(job: Job, recipe: Recipe) -> tuple[OnnxTimings, str]:
    """(Timings, status): the status is "", "not requested", "working", or why it failed.

    Exporting takes seconds, so that nothing is timed before somebody asks for it.
    """
    spec = runtimes_spec(job, recipe)
    if not jobs.was_requested("runtimes", **spec):
        return {}, "not requested"
    try:
        study = jobs.study("runtimes", **spec)
    except PruningError as error:
        return {}, str(error)
    if study is None:
        return {}, "working"
    timings = {
        state: build(tuple[Timing, ...], study.data[name])
        for name, state in STATES.items()
        if name in study.data
    }
    return timings, ""


def runtimes_spec(job: Job, recipe: Recipe) -> dict[str, Any]:
    return {"model": recipe.model, "run": job.id}


def request_onnx(job: Job, recipe: Recipe) -> None:
    spec = runtimes_spec(job, recipe)
    try:
        jobs.forget("runtimes", **spec)
        jobs.study("runtimes", **spec)
    except PruningError as error:
        state.warn(str(error))


def offer_onnx(job: Job, recipe: Recipe, status: str) -> None:
    """A button, what is under way, or why it failed; nothing once it was timed."""
    if not status:
        return
    if status == "working":
        text = "Exporting the models and timing them in ONNX Runtime."
        _frame.awaiting(text, jobs.request("runtimes", **runtimes_spec(job, recipe)))
        return
    if status != "not requested":
        st.caption(words.plain(f"ONNX Runtime was not timed: {status}"))
    if st.button("Time it in ONNX Runtime", icon=":material/timer:", key=f"onnx-{job.id}"):
        request_onnx(job, recipe)
        # The whole page, which then waits for the study: a press alone redraws only the run.
        st.rerun()
