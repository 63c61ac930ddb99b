"""The truth panel, on every result: what was gained, what was not and why, dense | masked | slimmed."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import jobs, state, words
from dashboard.charts import improvement_charts, improvements, structure
from dashboard.charts.improvements import Panel
from dashboard.views import _frame
from pruning import registry
from pruning.errors import PruningError
from pruning.events import Finished, build
from pruning.metrics import Timing
from pruning.recipe import Recipe
from pruning.runs.store import Job

Timed = dict[str, tuple[Timing, ...]]
STATES = {"dense": "dense", "final": "masked", "compact": "compact"}
"""A "runtimes" study's names -> the panel's."""


def panel_of(end: Finished, recipe: Recipe, elsewhere: Timed | None = None) -> Panel:
    structured = bool(registry.entry("granularity", recipe.granularity).tags.get("structured"))
    return improvements.panel(end, structured=structured, elsewhere=elsewhere)


def result_panel(job: Job, end: Finished, recipe: Recipe) -> None:
    """Pictures first, then what came and what did not, then the table."""
    elsewhere, standing = onnx(job, recipe)
    held = panel_of(end, recipe, elsewhere)
    st.markdown("##### What was gained, and what was not")
    left, right = st.columns([7, 5], gap="medium")
    with left:
        figure = improvement_charts.ratios(held, dark=state.dark())
        _frame.chart(
            figure,
            alt=alt(held),
            name=f"gains-{job.id}",
        )
        st.caption(words.plain(improvement_charts.protocol(end, elsewhere)))
    with right:
        figure = improvement_charts.points(held, dark=state.dark())
        said = "Differences from dense in points, with 95 % intervals: accuracy, under noise, train/test gap, calibration."
        _frame.chart(
            figure,
            alt=said,
            name=f"answers-{job.id}",
        )
        bullets("Gains that came", improvements.came(held))
        runtimes(job, recipe, standing)
    bullets("Gains that did not", [*improvements.missing(held), *absent(held)])
    with st.expander("Every figure, side by side", icon=":material/table:", expanded=True):
        table(held)
        if end.certificate is not None:
            st.caption(words.plain(structure.certified(end.certificate)))
        name = f"gains-{job.id[:6]}.csv"
        st.download_button(
            "CSV",
            improvement_charts.csv(held),
            name,
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key=f"csv-{job.id}",
        )


def alt(held: Panel) -> str:
    return f"How many times better than dense. Gained: {'; '.join(improvements.came(held)) or 'nothing'}."


def bullets(title: str, lines: list[str]) -> None:
    with st.container(gap="xsmall"):
        st.markdown(f"**{title}**")
        st.markdown("\n".join(f"- {words.plain(text)}" for text in lines) or "None.")


def absent(held: Panel) -> list[str]:
    return [f"{name[:1].upper()}{name[1:]}: none. {why}" for name, why in held.absent.items()]


def table(held: Panel) -> None:
    shown = improvement_charts.table(held)
    shown["promise"] = shown["promise"].where(
        shown["promise"] != shown["promise"].shift(), ""
    )  # said once, above its figures
    st.table(shown.set_index("promise"), border="horizontal")
    said = "Latency: median and middle half, dense and pruned interleaved in one process beside a copy of the dense model as control."
    st.caption(f"{said} Energy: modelled, {energy()}. Changes with 95 % intervals.")


def energy() -> str:
    from pruning.metrics import Energy

    return f"{Energy.multiply:g} pJ a float32 multiply and {Energy.add:g} pJ an add in 45 nm (Horowitz, 2014), memory left out"


# ---------------------------------------------------------------- ONNX Runtime


def spec(job: Job, recipe: Recipe) -> dict[str, Any]:
    return {"model": recipe.model, "run": job.id}


def onnx(job: Job, recipe: Recipe) -> tuple[Timed, str]:
    """(timings in ONNX Runtime, once they were asked for; how that stands: "", "working" or why it failed)."""
    if not jobs.was_requested("runtimes", **spec(job, recipe)):
        return {}, "not asked"
    try:
        study = jobs.study("runtimes", **spec(job, recipe))
    except PruningError as error:
        return {}, str(error)
    if study is None:
        return {}, "working"
    return {
        STATES[name]: build(tuple[Timing, ...], study.data[name])
        for name in STATES
        if name in study.data
    }, ""


def begin(job: Job, recipe: Recipe) -> None:
    try:
        jobs.forget("runtimes", **spec(job, recipe))
        jobs.study("runtimes", **spec(job, recipe))
    except PruningError as error:
        state.warn(str(error))


def runtimes(job: Job, recipe: Recipe, standing: str) -> None:
    """What stands where ONNX Runtime was not timed yet."""
    if standing == "working":
        st.caption("Exporting the models and timing them in ONNX Runtime. Usually ten seconds.")
    elif standing:
        if standing != "not asked":
            st.caption(words.plain(f"ONNX Runtime was not timed: {standing}"))
        if st.button("Time it in ONNX Runtime", icon=":material/timer:", key=f"onnx-{job.id}"):
            begin(job, recipe)
            st.rerun()  # all of the page, which then waits for it; a press alone redraws the run
