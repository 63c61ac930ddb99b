"""Compare: finished runs side by side, and what differs between their recipes."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard import forms, jobs, models, state, tables, words
from dashboard.charts import compare, compare_improvements
from dashboard.charts.compare import ComparedRun
from dashboard.charts.compare_improvements import RunImprovements
from dashboard.charts.results import WHOLE_MACS
from dashboard.views import _frame
from dashboard.views._result_panel import onnx, panel_of
from pruning.errors import PruningError
from pruning.metrics import Histogram
from pruning.runs.store import Job

LEGEND = 240  # pixels of an entry in the legend
MOST = 12  # runs side by side: more cannot be told apart
MOST_AT_FIRST = 8
COLUMN_HELP = {
    "accuracy": "On test data, as every accuracy here.",
    "against reference": "Difference of the accuracies, in points.",
    "verdict": "Within the interval: the test data cannot tell the two apart.",
    "as pruned": (
        "After the last pruning step, before the fine-tuning that follows it; with several steps, "
        "what earlier ones removed was fine-tuned already."
    ),
    "weights": "Of the compact model, where whole units were pruned; so are MACs, bytes, latency.",
    "MACs": "Of the weights kept.",
    WHOLE_MACS: "With those that belong to no weight, such as attention's products of queries, "
    "keys and values, which pruning weights does not change: what published figures count.",
    "bytes, bitmask": "A sparse file: a bit for each weight, and the values kept.",
    "bytes, compressed": "The sparse file by gzip, as it is taken home.",
}
COUNTS = ("weights", "MACs", WHOLE_MACS, "bytes, bitmask", "bytes, compressed")


# ---------------------------------------------------------------- which runs


def compared_runs(picked: list[Job]) -> list[ComparedRun]:
    """The runs with a result, named by what differs among them."""
    results = [(job, jobs.recipe_of(job), jobs.result(job)) for job in picked]
    with_result = [(job, recipe, end) for job, recipe, end in results if end]
    if not with_result:
        return []
    facts = [jobs.facts(job) for job, _, _ in with_result]
    recipes = [recipe for _, recipe, _ in with_result]
    labels = words.labels(list(zip(recipes, facts, strict=True)))
    labels = [label + until(job) for label, (job, _, _) in zip(labels, with_result, strict=True)]
    runs = []
    for letter, label, did, (job, recipe, end) in zip(
        compare.LETTERS, labels, facts, with_result, strict=False
    ):
        runs.append(ComparedRun(job.id, letter, label, recipe, end, did))
    return runs


def until(job: Job) -> str:
    """`, stopped after epoch 3 of 10`: such a run is compared by what it had reached."""
    if job.state != "stopped" or not job.message:
        return ""
    return f", {job.message[0].lower()}{job.message[1:].rstrip('.')}"


def option_name(job: Job) -> str:
    """A run's name in the list of runs: its model unless it is the current one, what it did."""
    model = job.spec.get("model", "")
    parts = [models.title(model)] if model != state.recipe().model else []
    parts.append(words.label(jobs.recipe_of(job), jobs.facts(job)))
    parts.append("example" if tables.is_example(job) else job.id[:4])
    return " · ".join(parts) + until(job)


def first_runs(finished: dict[str, Job]) -> list[str]:
    """The runs that are compared before any are picked: the newest of the current model."""
    model = state.recipe().model
    of_model = [job for job in finished.values() if job.spec.get("model") == model]
    # A lottery has dozens of runs, which would leave no room for those started one by one; and what
    # was stopped is compared when somebody picks it.
    of_model = [job for job in of_model if job.state == "finished"] or of_model
    of_model.sort(key=lambda job: job.batch is not None)
    return [job.id for job in of_model[:MOST_AT_FIRST]] or [next(iter(finished))]


def pick_runs(finished: dict[str, Job]) -> list[Job]:
    """The picked runs, the reference first. finished: by id."""
    picked = [id for id in state.picked() if id in finished] or first_runs(finished)
    # A link may name runs that were deleted since, or that another workspace has.
    missing = [id for id in state.picked() if id not in finished]
    if missing:
        text = (
            f"{words.plural(len(missing), 'run')} in the address cannot be shown: "
            "deleted, not finished, or of another workspace."
        )
        st.warning(text, icon=":material/warning:")

    def name(id: str) -> str:
        return option_name(finished[id])

    def lettered(id: str) -> str:
        return f"{compare.LETTERS[picked.index(id)]} · {name(id)}"

    def pick_first(id: str) -> None:
        state.pick([id, *picked])

    forms.bound(
        st.multiselect,
        "Runs",
        picked,
        state.pick,
        key="compare-runs",
        options=list(finished),
        format_func=name,
        max_selections=MOST,
        placeholder="Pick finished runs",
        wrap=True,
        width="stretch",
    )
    forms.bound(
        st.selectbox,
        "Reference",
        picked[0],
        pick_first,
        key="compare-reference",
        options=picked,
        format_func=lettered,
        width=420,
    )
    return [finished[id] for id in picked]


# ---------------------------------------------------------------- parts of the page


def accuracy_against_cost(runs: list[ComparedRun]) -> None:
    costs = list(compare.COSTS)
    kind = st.segmented_control(
        "Against",
        costs,
        format_func=compare.COSTS.__getitem__,
        default=costs[0],
        required=True,
        key="compare-cost",
    )
    if not any(run.quality for run in runs):
        text = (
            "None of these runs has an accuracy or another metric: there was no data to measure "
            "it on, or nothing to judge by. The table has the rest."
        )
        st.info(text, icon=":material/info:")
        return
    reference = runs[0]
    figure = compare.scatter(runs, reference, kind, dark=state.dark())
    against = compare.COSTS[kind].lower()
    metric = words.heading(reference.quality.name if reference.quality else "accuracy")
    alt = f"{metric} on test data against {against}. {compare.finding(runs, reference)}."
    _frame.chart(figure, alt=alt, name=f"compare-{kind}")


def legend(runs: list[ComparedRun]) -> None:
    """What each letter stands for, and what differs from the reference."""
    reference = runs[0]
    several_models = len({run.recipe.model for run in runs}) > 1
    with st.grid(min_column_width=LEGEND, gap="medium") as entries:
        for run in runs:
            model = f" · {words.plain(models.title(run.recipe.model))}" if several_models else ""
            with entries.cell(), st.container(gap="xxsmall"):
                st.markdown(f"**{run.letter}**{model} · {words.percent(run.quality)}")
                st.caption(words.plain(in_words(run, reference)))
                _frame.result_link(run.id)


def in_words(run: ComparedRun, reference: ComparedRun) -> str:
    did = words.outcome(run.facts)
    if run.id == reference.id:
        return f"Reference. {did} {words.sentence(run.recipe)}"
    differences = words.differences(reference.recipe, run.recipe)
    return f"{did} {'; '.join(map(str, differences)) or 'The same recipe, run again'}."


def every_number(runs: list[ComparedRun]) -> None:
    columns = {name: st.column_config.Column(help=text) for name, text in COLUMN_HELP.items()}
    for name in COUNTS:
        help = COLUMN_HELP.get(name)
        columns[name] = st.column_config.NumberColumn(format="localized", help=help)
    st.dataframe(
        compare.run_table(runs, runs[0]),
        hide_index=True,
        column_config=columns,
        alt="The numbers of the runs that are compared.",
        key="compare-table",
    )
    with st.container(horizontal=True, gap="small"):
        text = partial(compare.csv, runs, runs[0])
        _frame.download(text, "compare.csv", key="compare-csv", quiet=False)
        with st.popover("Delete a run", icon=":material/delete:"):
            st.caption("A deleted run, its weights and its events cannot be recovered.")
            for run in runs:
                label = words.plain(f"Delete {run.letter}, {run.label}")
                st.button(label, key=f"delete-{run.id}", on_click=delete, args=(run.id,))


def delete(id: str) -> None:
    jobs.delete(id)
    # The address would go on naming it, and warn of it after every change.
    state.pick([other for other in state.picked() if other != id])
    if state.run_id() == id:
        state.open_run(None)


def improvements(runs: list[ComparedRun], finished: dict[str, Job]) -> None:
    """Each run's improvements over its own dense model."""
    panels = []
    for run in runs:
        # Timed only where somebody asked for it on the result: comparing starts no work.
        onnx_timings, _ = onnx(finished[run.id], run.recipe)
        panel = panel_of(finished[run.id], run.end, run.recipe, onnx_timings)
        panels.append(RunImprovements(run.letter, run.recipe.criterion, panel))
    if compare_improvements.figure_names(panels):
        finding = compare_improvements.finding(panels)
        alt = f"How many times better than its own dense model each run is. {finding}."
        figure = compare_improvements.chart(panels, dark=state.dark())
        table = compare_improvements.table(panels)
        _frame.chart(figure, alt=alt, table=table, name="compare-improvements")


def one_layer(runs: list[ComparedRun], finished: dict[str, Job]) -> None:
    """Histograms of one layer's weights, kept over dense, for each run that has the layer."""
    read = [(run, read_histograms(finished[run.id])) for run in runs]
    names = list(dict.fromkeys(name for _, histograms in read for name in histograms))
    if not names:
        return
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        selected = state.layer()
        layer = selected if selected in names else names[0]
        forms.bound(
            st.selectbox,
            "Layer",
            layer,
            state.select_layer,
            key="compare-layer",
            options=names,
            format_func=words.layer_name,
        )
    with right:
        log = st.toggle("Log counts", value=True, key="compare-log")
    shown = [(run, histograms[layer]) for run, histograms in read if layer in histograms]
    figure = compare.histograms(shown, layer, dark=state.dark(), log=log)
    name = words.layer_name(layer)
    alt = (
        f"Histograms of {name} for {words.plural(len(shown), 'run')}, on the same axes: "
        "kept over dense."
    )
    table = compare.bin_table(shown)
    _frame.chart(figure, alt=alt, table=table, name="compare-histograms", small=True)
    without = [run.letter for run, histograms in read if layer not in histograms]
    if without:
        st.caption(f"{', '.join(without)} has no layer called {words.plain(name)}.")


def read_histograms(job: Job) -> dict[str, Histogram]:
    try:
        return jobs.run_files(job).histograms
    except PruningError as error:
        st.warning(words.plain(str(error)), icon=":material/warning:")
        return {}


def nothing_yet() -> None:
    text = (
        "No run has finished yet. A run takes a model and a recipe: "
        "start one on the Prune page, and it can be compared here."
    )
    st.info(text, icon=":material/compare_arrows:")
    st.page_link(
        _frame.page_path("prune"), label="To the Prune page", icon=":material/content_cut:"
    )


def page() -> None:
    _frame.question("Which of these runs is worth keeping?")
    # A run whose files were deleted is finished too, but has no result to compare.
    finished = {job.id: job for job in jobs.with_result()}
    if not finished:
        nothing_yet()
        return
    runs = compared_runs(pick_runs(finished))
    with _frame.guarded():
        accuracy_against_cost(runs)
    with _frame.guarded():
        legend(runs)
    with _frame.guarded():
        every_number(runs)
    with _frame.guarded():
        improvements(runs, finished)
    with _frame.guarded():
        one_layer(runs, finished)
    if len(finished) == 1:
        st.caption("One run so far: finish another on the Prune page, and both stand here.")


page()
