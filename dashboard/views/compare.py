"""Compare: finished runs beside each other, and what differs between their recipes."""

from __future__ import annotations

import streamlit as st

from dashboard import forms, jobs, models, state, tables, words
from dashboard.charts import compare
from dashboard.charts import compare_improvements as together
from dashboard.charts.compare import Entry
from dashboard.charts.compare_improvements import Run
from dashboard.views import _frame
from dashboard.views._result_panel import onnx, panel_of
from pruning.errors import PruningError
from pruning.metrics import Histogram
from pruning.runs.store import Job

MOST = 12  # runs side by side: more cannot be told apart


def entries(held: list[Job]) -> list[Entry]:
    """The runs with a result, named by what differs among them."""
    read = [(job, jobs.recipe_of(job), end) for job in held if (end := jobs.result(job))]
    labels = words.labels([recipe for _, recipe, _ in read]) if read else []
    return [
        Entry(job.id, compare.LETTERS[i], label, recipe, end)
        for i, ((job, recipe, end), label) in enumerate(zip(read, labels, strict=True))
    ]


def chip(job: Job, several: bool) -> str:
    """A run's name in the list: what it is, and which. several: there are runs of more than one model."""
    model = [models.title(job.spec.get("model", ""))] if several else []
    said = [
        *model,
        f"{words.technique(job.spec.get('criterion', ''))} {words.share(round(1 - kept(job), 3))}",
    ]
    return " · ".join([*said, "example" if tables.is_example(job) else job.id[:4]])


def kept(job: Job) -> float:
    end = jobs.result(job)
    return end.final.kept / max(1, end.final.weights) if end else 1.0


def choose(known: dict[str, Job]) -> list[Job]:
    """The picked runs, the reference first."""
    held = [id for id in state.picked() if id in known] or [next(iter(known))]
    missing = [id for id in state.picked() if id not in known]
    if missing:
        st.warning(
            f"{words.plural(len(missing), 'run')} in the address cannot be shown: deleted, not finished, or of another workspace.",
            icon=":material/warning:",
        )
    several = len({job.spec.get("model") for job in known.values()}) > 1
    more = {
        "options": list(known),
        "format_func": lambda id: chip(known[id], several),
        "max_selections": MOST,
        "placeholder": "Pick finished runs",
        "wrap": True,
    }
    left, right = st.columns([3, 1], gap="medium")
    with left:
        forms.bound(st.multiselect, "Runs", held, state.pick, key="compare-runs", **more)
    with right:
        more = {
            "options": held,
            "format_func": lambda id: (
                f"{compare.LETTERS[held.index(id)]} · {chip(known[id], several)}"
            ),
        }
        forms.bound(
            st.selectbox,
            "Reference",
            held[0],
            lambda id: state.pick([id, *held]),
            key="compare-reference",
            **more,
        )
    return [known[id] for id in held]


def main_chart(held: list[Entry]) -> None:
    costs = list(compare.COSTS)
    kind = st.segmented_control(
        "Against",
        costs,
        format_func=lambda kind: compare.COSTS[kind],
        default=costs[0],
        required=True,
        key="compare-cost",
    )
    if not any(entry.end.final.accuracy for entry in held):
        st.info(
            "None of these runs has an accuracy: there was no data to measure it on. The table has the rest.",
            icon=":material/info:",
        )
        return
    figure = compare.scatter(held, held[0], kind, dark=state.dark())
    alt = f"Accuracy on test data against {compare.COSTS[kind].lower()}. {compare.finding(held, held[0])}."
    _frame.chart(figure, alt=alt, name=f"compare-{kind}")


def legend(held: list[Entry]) -> None:
    """What each letter stands for, and what differs from the reference."""
    reference = held[0]
    several = len({entry.recipe.model for entry in held}) > 1
    for entry in held:
        model = f" · {words.plain(models.title(entry.recipe.model))}" if several else ""
        said = f"Reference. {words.sentence(entry.recipe)}"
        if entry.id != reference.id:
            told = words.differences(reference.recipe, entry.recipe)
            said = "; ".join(map(str, told)) if told else "The same recipe, run again."
        with st.container(gap="xxsmall"):
            st.markdown(f"**{entry.letter}**{model} · {words.percent(entry.end.final.accuracy)}")
            st.caption(words.plain(said))


def numbers(held: list[Entry]) -> None:
    table = compare.rows(held, held[0])
    columns = {
        "weights": st.column_config.NumberColumn("weights", format="localized"),
        "MACs": st.column_config.NumberColumn("MACs", format="localized"),
        "bytes, packed": st.column_config.NumberColumn(
            "bytes, packed", format="localized", help="A bit for each weight and the values kept."
        ),
        "bytes, deflated": st.column_config.NumberColumn(
            "bytes, deflated", format="localized", help="That, as it travels in a zip file."
        ),
        "against reference": st.column_config.TextColumn(
            "against reference", help="Difference of the accuracies, in points."
        ),
        "verdict": st.column_config.TextColumn(
            "verdict", help="Within the interval: the test data cannot tell the two apart."
        ),
    }
    st.dataframe(
        table,
        hide_index=True,
        column_config=columns,
        alt="The numbers of the runs that are compared.",
        key="compare-table",
    )
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "CSV",
            compare.csv(held, held[0]),
            "compare.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        with st.popover("Delete a run", icon=":material/delete:"):
            st.caption("A deleted run, its weights and its events cannot be had back.")
            for entry in held:
                said = f"Delete {entry.letter}, {entry.label}"
                st.button(
                    words.plain(said), key=f"delete-{entry.id}", on_click=delete, args=(entry.id,)
                )


def delete(id: str) -> None:
    jobs.delete(id)
    state.pick([other for other in state.picked() if other != id])
    if state.run_id() == id:
        state.open_run(None)


def gained(held: list[Entry], known: dict[str, Job]) -> None:
    """Every promise for every run, each against its own dense model."""
    runs = []
    for entry in held:
        elsewhere, _ = onnx(known[entry.id], entry.recipe)
        runs.append(
            Run(entry.letter, entry.recipe.criterion, panel_of(entry.end, entry.recipe, elsewhere))
        )
    if together.figures(runs):
        alt = (
            f"How many times better than its own dense model each run is. {together.finding(runs)}."
        )
        _frame.chart(
            together.chart(runs, dark=state.dark()),
            alt=alt,
            table=together.table(runs),
            name="compare-gains",
        )


def one_layer(held: list[Entry], known: dict[str, Job]) -> None:
    found = [(entry, read) for entry in held if (read := read_histograms(known[entry.id]))]
    if not found:
        return
    names = list(dict.fromkeys(name for _, read in found for name in read))
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        wanted = state.layer()
        chosen = wanted if wanted in names else names[0]
        forms.bound(
            st.selectbox,
            "Layer",
            chosen,
            state.select_layer,
            key="compare-layer",
            options=names,
            format_func=words.layer_name,
        )
    with right:
        log = st.toggle("Log counts", value=True, key="compare-log")
    shown = [(entry, read[chosen]) for entry, read in found if chosen in read]
    figure = compare.histograms(shown, chosen, dark=state.dark(), log=log)
    alt = f"Histograms of {words.layer_name(chosen)} for {words.plural(len(shown), 'run')}, on the same axes: kept over dense."
    _frame.chart(figure, alt=alt, table=compare.bins(shown), name="compare-histograms")
    left_out = [entry.letter for entry in held if entry.id not in {other.id for other, _ in shown}]
    if left_out:
        st.caption(
            f"{', '.join(left_out)} has no layer called {words.plain(words.layer_name(chosen))}."
        )


def read_histograms(job: Job) -> dict[str, Histogram]:
    try:
        return jobs.run_files(job).histograms
    except PruningError as error:
        st.warning(words.plain(str(error)), icon=":material/warning:")
        return {}


def nothing_yet() -> None:
    st.info(
        "No run has finished yet. A run takes a model and a recipe: start one on the Prune page, and it can be compared here.",
        icon=":material/compare_arrows:",
    )
    st.page_link(
        _frame.page_path("prune"), label="To the Prune page", icon=":material/content_cut:"
    )


def page() -> None:
    _frame.question("Which of these runs is worth keeping?")
    known = {job.id: job for job in jobs.finished() if jobs.result(job)}
    if not known:
        nothing_yet()
        return
    picked = choose(known)
    held = entries(picked)
    left, right = st.columns([7, 4], gap="medium")
    with left, _frame.guarded():
        main_chart(held)
    with right, _frame.guarded():
        legend(held)
    with _frame.guarded():
        numbers(held)
    with _frame.guarded():
        gained(held, known)
    with _frame.guarded():
        one_layer(held, known)
    if len(known) == 1:
        st.caption("One run so far: finish another on the Prune page, and both stand here.")


page()
