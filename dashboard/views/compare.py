"""Compare: finished runs side by side, and what differs between their recipes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

import sample_models
from dashboard import forms, handout, jobs, models, state, sweeps, tables, words
from dashboard.charts import compare, compare_improvements, compare_inside
from dashboard.charts.compare import ComparedRun
from dashboard.charts.compare_improvements import RunImprovements
from dashboard.charts.compare_inside import AnsweredRun
from dashboard.charts.results import WHOLE_MACS
from dashboard.views import _frame
from dashboard.views._result_panel import onnx, panel_of
from pruning.errors import PruningError
from pruning.export.record import Record
from pruning.metrics import Histogram
from pruning.runs.records import record_of
from pruning.runs.results import Answers
from pruning.runs.store import Job

LEGEND = 240  # pixels of an entry in the legend
MOST = 12  # runs side by side: more cannot be told apart
MOST_AT_FIRST = 8
MOST_SHOWN = 12  # test examples that were lost, and as many that were gained
COLUMN_HELP = {
    "accuracy": "On test data, as every accuracy here.",
    "against reference": "Difference of the accuracies, in points; on the same test examples, with "
    "its 95 % interval, where both runs kept their answers.",
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
    labels = [
        (job.label or label) + until(job)
        for label, (job, _, _) in zip(labels, with_result, strict=True)
    ]
    runs = []
    for letter, label, did, (job, recipe, end) in zip(
        compare.LETTERS, labels, facts, with_result, strict=False
    ):
        data = models.data_of(recipe.model)
        runs.append(ComparedRun(job.id, letter, label, recipe, end, did, data, answers_of(job)))
    return runs


def answers_of(job: Job) -> Answers | None:
    try:
        return jobs.run_files(job).answers
    except PruningError:  # damaged: the others are compared
        return None


def alike(runs: list[ComparedRun]) -> list[ComparedRun]:
    """Without those that mean nothing beside the reference, each of which says why."""
    kept = []
    for run in runs:
        reason = compare.unlike(run, runs[0])
        if not reason:
            kept.append(run)
            continue
        text = (
            f"{run.letter}, {run.label}, is not compared: {reason}. Take it out, or make it the "
            "reference."
        )
        st.warning(words.plain(text), icon=":material/block:")
    return kept


def until(job: Job) -> str:
    """`, stopped after epoch 3 of 10`: such a run is compared by what it had reached."""
    if job.state != "stopped" or not job.message:
        return ""
    return f", {job.message[0].lower()}{job.message[1:].rstrip('.')}"


def option_name(job: Job) -> str:
    """A run's name in the list of runs: its model unless it is the current one, what it did."""
    model = job.spec.get("model", "")
    parts = [models.title(model)] if model != state.recipe().model else []
    parts.append(job.label or words.label(jobs.recipe_of(job), jobs.facts(job)))
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
    state.show_by_default("c", ",".join(picked))
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


def from_a_sweep() -> None:
    """A sweep's runs at one level and seed: its techniques side by side."""
    listed = sweeps.listed()
    if not listed:
        return

    def draw() -> None:
        by_id = {sweep.id: sweep for sweep in listed}

        def name(id: str) -> str:
            titles = ", ".join(models.title(model) for model in by_id[id].plan.get("models", ()))
            return f"{by_id[id].label or titles} · {id[:6]}"

        id = st.selectbox("Sweep", list(by_id), format_func=name, key="compare-sweep")
        done = [row for row in sweeps.rows(sweeps.progress(id)) if row["accuracy"] is not None]
        if not done:
            st.caption("None of its runs has a result yet.")
            return
        several = len({row["model"] for row in done}) > 1
        if several:
            options = list(dict.fromkeys(row["model"] for row in done))
            model = st.selectbox(
                "Model", options, format_func=models.title, key="compare-sweep-model"
            )
            done = [row for row in done if row["model"] == model]
        levels = sorted({row["sparsity"] for row in done if not row["control"]})
        level = st.selectbox("Level", levels, format_func=words.share, key="compare-sweep-level")
        seeds = sorted({row["seed"] for row in done if row["sparsity"] == level})
        seed = st.selectbox("Seed", seeds, key="compare-sweep-seed")
        ids = [row["run"] for row in done if (row["sparsity"], row["seed"]) == (level, seed)]
        st.button(
            f"Compare {words.plural(min(len(ids), MOST), 'run')}",
            key="compare-sweep-runs",
            on_click=state.pick,
            args=(ids[:MOST],),
        )

    _frame.popover("Runs of a sweep", draw, key="compare-from-sweep", icon=":material/stacks:")


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
        bind="query-params",
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
    handout.texts([f"{run.letter}: {in_words(run, reference)}" for run in runs])
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
    handout.table(compare.run_table(runs, runs[0]))
    numbers = compare.run_table(runs, runs[0])
    columns = _frame.columns(numbers, COLUMN_HELP)
    for name in COUNTS:
        help = COLUMN_HELP[name]
        columns[name] = st.column_config.NumberColumn(format="localized", help=help)
    st.dataframe(
        numbers,
        hide_index=True,
        column_config=columns,
        alt="The numbers of the runs that are compared.",
        key="compare-table",
    )
    with st.container(horizontal=True, gap="small"):
        text = partial(compare.csv, runs, runs[0])
        _frame.download(text, "compare.csv", key="compare-csv", quiet=False)
        own = [run for run in runs if jobs.may_change(jobs.job(run.id))]
        if own:
            delete_menu(own)


def delete_menu(runs: list[ComparedRun]) -> None:
    with st.popover("Delete a run", icon=":material/delete:"):
        st.caption("It can be restored on the Runs page for a week.")
        for run in runs:
            label = words.plain(f"Delete {run.letter}, {run.label}")
            st.button(label, key=f"delete-{run.id}", on_click=delete, args=(run.id,))


def delete(id: str) -> None:
    jobs.trash([id])
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
        # A dozen cells with ratios in them are wider than a phone.
        _frame.chart(figure, alt=alt, table=table, name="compare-improvements", scrolls="cells")


def weights(runs: list[ComparedRun], finished: dict[str, Job]) -> None:
    """How the weights are distributed before and after: of the whole model, and of one layer."""
    read = [(run, read_histograms(finished[run.id])) for run in runs]
    with _frame.guarded():
        all_layers(read)
    with _frame.guarded():
        one_layer(read)


def all_layers(read: list[tuple[ComparedRun, dict[str, Histogram]]]) -> None:
    """The whole model's weights before and after, for each run in the same bins."""
    parts = compare.whole_model(read)
    if not parts:
        return
    log = st.toggle("Log counts", value=True, key="compare-log-all")
    finding = compare.magnitudes_finding(parts)
    figure = compare.histograms(parts, finding, dark=state.dark(), log=log)
    alt = f"Histograms of all weights for {words.plural(len(parts), 'run')}. {finding}."
    table = compare.magnitudes(parts)
    _frame.chart(figure, alt=alt, table=table, name="compare-all-weights", scrolls="small")


def one_layer(read: list[tuple[ComparedRun, dict[str, Histogram]]]) -> None:
    """Histograms of one layer's weights, kept over dense, for each run that has the layer."""
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
        log = st.toggle("Log counts", value=True, key="compare-log", bind="query-params")
    shown = [(run, histograms[layer]) for run, histograms in read if layer in histograms]
    name = words.layer_name(layer)
    title = f"{name}: weights kept (filled) and dense (line), on the same axes"
    figure = compare.histograms(shown, title, dark=state.dark(), log=log)
    alt = (
        f"Histograms of {name} for {words.plural(len(shown), 'run')}, on the same axes: "
        "kept over dense."
    )
    table = compare.bin_table(shown)
    _frame.chart(figure, alt=alt, table=table, name="compare-histograms", scrolls="small")
    without = [run.letter for run, histograms in read if layer not in histograms]
    if without:
        st.caption(f"{', '.join(without)} has no layer called {words.plain(name)}.")


def by_layer(runs: list[ComparedRun], finished: dict[str, Job]) -> None:
    """Which layers were pruned how much, and which of the same weights are kept."""
    left, right = _frame.halves()
    with left, _frame.guarded():
        figure = compare_inside.layers(runs, dark=state.dark())
        table = compare_inside.layer_table(runs)
        half_chart(figure, table, "compare-layers")
    if len(runs) < 2:
        return
    with right, _frame.guarded():
        letters = {run.id: run.letter for run in runs}
        overlaps = {
            (letters[one], letters[other]): value
            for (one, other), value in jobs.overlaps([finished[run.id] for run in runs]).items()
        }
        if not any(overlaps.values()):
            st.caption("Which weights are kept is compared where runs have the same layers.")
            return
        figure = compare_inside.overlap(list(letters.values()), overlaps, dark=state.dark())
        table = compare_inside.overlap_table(overlaps)
        half_chart(figure, table, "compare-overlap")
        st.caption(
            "Below the diagonal: weights that both keep, as a share of those that either keeps. "
            "Above it: the same for random masks that keep as many in each layer."
        )


def half_chart(figure: dict[str, Any], table: pd.DataFrame, name: str) -> None:
    """Cells for each run, in half of the page; its title is what a screen reader hears."""
    title = figure["layout"]["title"]["text"]
    _frame.chart(figure, alt=f"{title}.", table=table, name=name, scrolls="half-cells")


def answers(runs: list[ComparedRun], finished: dict[str, Job]) -> None:
    """Which classes lost, and which test examples flipped, against the reference."""
    answered = [AnsweredRun(run.letter, run.answers) for run in runs if run.answers]
    reference = runs[0]
    others = [run for run in answered if run.letter != reference.letter]
    if len(runs) > 1 and (reference.answers is None or not others):
        st.caption(
            "Answers to single test examples were not kept of these runs: run one again to see "
            "which classes and examples it lost."
        )
        return
    if reference.answers is None or not others:
        return
    left, right = _frame.halves()
    base = AnsweredRun(reference.letter, reference.answers)
    names = class_names(reference.recipe.model)
    with left, _frame.guarded():
        figure = compare_inside.classes(others, base, names, dark=state.dark())
        table = compare_inside.class_table(others, base, names)
        half_chart(figure, table, "compare-classes")
    with right, _frame.guarded():
        flips(others, base, reference.recipe.model)


def class_names(model: str) -> list[str]:
    root = models.root_of(model)
    if models.is_sample(root):
        return list(sample_models.card(root).classes)
    study = jobs.study("card", model=model)
    return list(study.data["classes"]) if study else []


def flips(others: list[AnsweredRun], base: AnsweredRun, model: str) -> None:
    """How many test examples flipped, and on request the examples themselves."""
    by_letter = {run.letter: run for run in others}
    picked = state.widget_value(state.FLIPPED_OF)
    letter = picked if picked in by_letter else next(iter(by_letter))
    counts = compare_inside.flips(by_letter[letter].answers, base.answers)
    st.markdown(
        f"**Test examples that flipped: {letter} has {counts.gained:,} right that {base.letter} "
        f"has wrong, and {counts.lost:,} wrong that {base.letter} has right**"
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.selectbox("Run", list(by_letter), key=state.FLIPPED_OF, width=120, bind="query-params")
        show = st.toggle("Show them", key="compare-flips", bind="query-params")
    if show:
        examples(by_letter[letter], base, model)


def examples(run: AnsweredRun, base: AnsweredRun, model: str) -> None:
    """Pictures of what flipped: what was lost first."""
    gained, lost = compare_inside.flipped(run.answers, base.answers, MOST_SHOWN)
    if not gained and not lost:
        st.caption("Both have the same examples right.")
        return
    study = jobs.study("examples", model=model, examples=[*lost, *gained])
    if study is None:
        job = jobs.request("examples", model=model, examples=[*lost, *gained])
        _frame.awaiting("Reading the test examples.", job)
        return
    for title, numbers in (
        (f"Lost: {base.letter} is right, {run.letter} says", lost),
        (f"Gained: {run.letter} is right, {base.letter} said", gained),
    ):
        if not numbers:
            continue
        st.markdown(f"{title}")
        start = 0 if numbers is lost else len(lost)
        wrong = run.answers if numbers is lost else base.answers
        shown = tables.flips(study, start, numbers, wrong, state.dark())
        if not shown:
            st.caption("These examples are no pictures: the table of classes has their numbers.")
            continue
        with st.grid(min_column_width=64, gap="small"):
            for answer in shown:
                st.image(answer.picture, caption=answer.caption, width="stretch", alt=answer.alt)


def read_histograms(job: Job) -> dict[str, Histogram]:
    try:
        return jobs.run_files(job).histograms
    except PruningError as error:
        st.warning(words.plain(str(error)), icon=":material/warning:")
        return {}


def recorded(run: ComparedRun) -> Record:
    return record_of(jobs.store(), run.id)


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
    _frame.question("Which of these runs is worth keeping?", "Paired difference", "Interval")
    # A run whose files were deleted is finished too, but has no result to compare.
    finished = {job.id: job for job in [*jobs.with_result(), *jobs.linked(state.picked())]}
    if not finished:
        nothing_yet()
        return
    picked = pick_runs(finished)
    with _frame.guarded():
        from_a_sweep()
    runs = alike(compared_runs(picked))
    with _frame.guarded():
        accuracy_against_cost(runs)
    with _frame.guarded():
        legend(runs)
    with _frame.guarded():
        every_number(runs)
    with _frame.guarded():
        improvements(runs, finished)
    with _frame.guarded():
        answers(runs, finished)
    with _frame.guarded():
        by_layer(runs, finished)
    with _frame.guarded():
        weights(runs, finished)
    if state.recording():
        handout.sources([(run.letter, words.sentence(run.recipe), recorded(run)) for run in runs])
    if len(finished) == 1:
        st.caption("One run so far: finish another on the Prune page, and both stand here.")


page()
