"""Model: how far the current model can be pruned, what it is made of, and which others exist."""

from __future__ import annotations

import streamlit as st

from dashboard import handout, jobs, models, parts, state, sweeps, tables, words
from dashboard.components.strip import HEIGHT as STRIP
from dashboard.components.strip import strip
from dashboard.components.top import to_top_when_changed
from dashboard.views import _frame, _model_picker, _sweep_picture
from pruning.runs.results import Study
from pruning.sweeps import presets, shipped
from pruning.sweeps.plan import Plan

TABLE_HEADER, TABLE_ROW = 37, 35  # pixels
MOST_ROWS = 10  # of the table of layers; more are scrolled
LAYER_TABLE = 500  # pixels of its columns: in less, the answers stand below it

YOURSELF = "Run it yourself"


def sweep(model: str) -> None:
    """The picture of the chosen sample, finished; where none came with it, that and the button."""
    # Here too: what is drawn by itself shows its own errors before they reach the page.
    with _frame.guarded():
        _sweep(model)


def _sweep(model: str) -> None:
    sweep = shipped.find(model)
    if sweep is None:
        title = words.plain(models.title(model))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(
                f"No sweep came with **{title}**: one shows how far it can be pruned, and by which "
                "technique."
            )
            _run_it(presets.which_technique([model]), YOURSELF)
        return
    own = sweeps.own_rows(sweep, model)
    paired = sweeps.shipped_pairing(sweep)
    _sweep_picture.picture(sweep.rows, sweep.plan, name="model", own=own, paired=paired)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _run_it(sweep.plan, YOURSELF)
        st.page_link(
            _frame.page_path("sweeps"),
            label="Ranks, budgets, every run",
            icon=":material/query_stats:",
            query_params={"sweep": f"{sweeps.SHIPPED}{model}"},
        )
        note = _sweep_picture.provenance(sweep.plan, sweep.date, sweep.machine)
        handout.text(note, soft=True)
        st.caption(words.plain(note), width="stretch")


def _run_it(plan: Plan, label: str) -> None:
    st.page_link(
        _frame.page_path("sweeps"),
        label=label,
        icon=":material/play_arrow:",
        query_params={"plan": state.encode_plan(plan)},
    )


def example() -> None:
    """A finished run, so that the first page has something to show."""
    job = tables.latest_finished()
    result = jobs.result(job) if job else None
    if job is None or result is None:
        return
    recipe = jobs.recipe_of(job)
    kind = "A finished example" if tables.is_example(job) else "The latest finished run"
    lines = [
        f"{label} **{words.plain(before)} → {words.plain(after)}**"
        for label, before, after in tables.headline(result)
    ]
    with st.container(border=True):
        left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
        title = f"**{kind}, on {words.plain(models.title(recipe.model))}.**"
        did = f"{words.outcome(jobs.facts(job))} {words.sentence(recipe)}"
        left.markdown(f"{title} {words.plain(did)}")
        with left:
            _frame.result_link(job.id)
        right.markdown("  \n".join(lines))


def current_model(model: str) -> None:
    """The strip of layers, their table, and answers to test inputs."""
    study = jobs.study("card", model=model)
    blocks = models.blocks_of(model, study)
    if blocks:
        weights = {block.name: block.weights for block in blocks}
        strip(blocks, state.layer_among(weights), key="strip-model")
    else:
        st.skeleton(height=STRIP)
    left, right = _frame.halves(LAYER_TABLE)
    if study is None:
        with left:
            _frame.waiting(
                f"Measuring {models.title(model)}: its layers, and its answers on the test data.",
                table_height(len(blocks) or MOST_ROWS),
                jobs.request("card", model=model),
            )
        right.skeleton(height=table_height(len(blocks) or MOST_ROWS))
        return
    with left:
        layer_table(study)
    with right:
        answers(study)


def table_height(layers: int) -> int:
    return TABLE_HEADER + TABLE_ROW * min(MOST_ROWS, layers)


def layer_table(study: Study) -> None:
    table = tables.layers(study)
    columns = {
        "weights": st.column_config.NumberColumn("weights", format="localized"),
        # No bar, which the strip above is already.
        "share": st.column_config.NumberColumn("share", format="%.1f %%", help="Of all weights."),
        "MACs": st.column_config.NumberColumn(
            "MACs", format="localized", help="Multiply-accumulates of one example."
        ),
    }
    st.dataframe(
        table,
        hide_index=True,
        column_config=columns,
        height=table_height(len(table)),
        alt=f"Layers of {study.data['model']}: shapes, weights and multiply-accumulates.",
        key="layers",
    )
    st.caption(words.plain(tables.totals(study)))
    # Weights that no technique prunes among them: the table shows only those that some does.
    for note in study.data["notes"]:
        st.caption(words.plain(note))


def answers(study: Study) -> None:
    """Some test inputs and the classes that the model predicts."""
    shown = tables.answers(study, state.dark())
    if not shown:
        reason = "there is no data to ask it about."
        if study.data["labelled_random"]:
            reason = "it has random weights, so there is nothing to ask it."
        st.info(f"No answers to show: {reason}", icon=":material/image_not_supported:")
        return
    wrong = any(not answer.right for answer in shown)
    note = "wrong ones first, framed" if wrong else "all of these right"
    st.markdown(f"**Its answers to some test inputs**, {note}")
    with st.grid(min_column_width=60, gap="small"):
        for answer in shown:
            st.image(answer.picture, caption=answer.caption, width="stretch", alt=answer.alt)


_frame.question("How much of the current model can be pruned, and what is it made of?")
to_top_when_changed(state.recipe().model, key="top")
with _frame.guarded():
    parts.part("model-sweep", sweep, state.recipe().model)
with _frame.guarded():
    example()
with _frame.guarded():
    current_model(state.recipe().model)
st.header("Use another model", anchor="models")
with _frame.guarded():
    _model_picker.choose()
