"""Model: what is on the bench, what it is made of, and what else could be there."""

from __future__ import annotations

import streamlit as st

from dashboard import jobs, models, state, tables, words
from dashboard.components.strip import strip
from dashboard.views import _frame, _model_picker

TABLE, PICTURES = 330, 36  # pixels


def example() -> None:
    """A finished run, so that the first page has something to say."""
    job = tables.latest_finished()
    result = jobs.result(job) if job else None
    if job is None or result is None:
        return
    recipe = jobs.recipe_of(job)
    kind = "A finished example" if tables.is_example(job) else "The latest finished run"
    with st.container(border=True):
        left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
        left.markdown(
            f"**{kind}, on {words.plain(recipe.model)}.** {words.plain(words.sentence(recipe))}"
        )
        left.page_link(
            _frame.page_path("compare"),
            label="Open it in Compare",
            icon=":material/compare_arrows:",
            query_params={"c": job.id},
        )
        lines = [
            f"{label} **{words.plain(before)} → {words.plain(after)}**"
            for label, before, after in tables.headline(result)
        ]
        right.markdown("  \n".join(lines))


def on_the_bench(model: str) -> None:
    study = jobs.study("card", model=model)
    blocks = models.blocks_of(model, study)
    if blocks:
        strip(
            blocks,
            state.layer_among({block.name: block.weights for block in blocks}),
            key="strip-model",
        )
    else:
        st.skeleton(height=98)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        if study is None:
            _frame.waiting(
                f"Measuring {models.title(model)}: its layers, and its answers on the test data. Usually two seconds.",
                TABLE,
            )
        else:
            layer_table(study)
    with right:
        if study is None:
            st.skeleton(height=TABLE)
        else:
            answers(study)


def layer_table(study) -> None:
    table = tables.layers(study)
    columns = {
        "weights": st.column_config.NumberColumn("weights", format="localized"),
        "share": st.column_config.ProgressColumn(
            "share of weights", format="%.1f %%", min_value=0, max_value=100
        ),
        "MACs": st.column_config.NumberColumn(
            "MACs", format="localized", help="Multiply-accumulates of one example."
        ),
    }
    alt = f"Layers of {study.data['model']}: shapes, weights and multiply-accumulates."
    height = min(TABLE, 37 + 35 * len(table))
    st.dataframe(
        table, hide_index=True, column_config=columns, height=height, alt=alt, key="layers"
    )
    st.caption(words.plain(tables.totals(study)))


def answers(study) -> None:
    """Some test inputs and what the model says they are."""
    shown = tables.answers(study, state.dark())
    if not shown:
        random = study.data["labelled_random"]
        reason = (
            "it has random weights, so there is nothing to ask it."
            if random
            else "there is no data to ask it about."
        )
        st.info(f"No answers to show: {reason}", icon=":material/image_not_supported:")
        return
    wrong = (
        "wrong ones first, framed"
        if any(not answer.right for answer in shown)
        else "all of these right"
    )
    st.markdown(f"**Its answers to some test inputs**, {wrong}")
    with st.grid(min_column_width=60, gap="small"):
        for answer in shown:
            st.image(answer.picture, caption=answer.caption, width="stretch", alt=answer.alt)


_frame.question("Which model is on the bench, and what is it made of?")
with _frame.guarded():
    example()
with _frame.guarded():
    on_the_bench(state.recipe().model)
st.subheader("Put another model on the bench", anchor="models")
with _frame.guarded():
    _model_picker.choose()
