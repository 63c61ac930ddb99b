"""Structure: which channels, neurons and heads live or die together, what a removal touches, and what cannot go."""

from __future__ import annotations

import streamlit as st

from dashboard import jobs, models, state, words
from dashboard.charts import structure
from dashboard.components.strip import strip
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.runs.results import Study

HEIGHT = 380


def followed(model: str) -> Study | None:
    """The study of the model's structure. None while a worker follows it."""
    try:
        return jobs.study("structure", model=model)
    except PruningError:
        st.button(
            "Follow it again",
            icon=":material/replay:",
            on_click=jobs.forget,
            args=("structure",),
            kwargs={"model": model},
        )
        raise


def one_group(study: Study, layer: str) -> None:
    """A group, picked: what goes with each of its units."""
    known = structure.names(study.data)
    near = structure.of_layer(study.data, layer)
    start = known.index(near[0]) if near else 0
    chosen = st.selectbox("Group", known, start, words.layer_name, key=f"structure-group-{layer}")
    group = study.data["groups"][known.index(chosen)]
    head = f"{words.layer_name(chosen)}: {words.plural(group['units'], group['kind'].removesuffix('s'))}."
    st.markdown(f"**{words.plain(head)}** {words.plain(structure.touches(group))}")
    figure = structure.lanes(study.data, chosen, dark=state.dark())
    alt = f"{structure.found(study.data)}. A full mark: the group is that layer's outputs; a ring: the layer reads it."
    st.caption(
        "● the group is the layer's outputs · ○ the layer reads it · the picked group stands out"
    )
    _frame.chart(figure, alt=alt, table=structure.table(study.data), name="structure")
    st.markdown(
        f"#### What goes with one of {words.plain(words.layer_name(chosen))}'s {group['kind']}"
    )
    st.dataframe(
        structure.members(group),
        hide_index=True,
        alt=f"What goes with one unit of {chosen}.",
        key="structure-members",
    )


def cannot_go(study: Study) -> None:
    st.markdown("#### What cannot go, and why")
    table = structure.blocked(study.data)
    if table.empty:
        st.markdown("Every output and input of every layer belongs to a group.")
        return
    alt = "Layers whose outputs or inputs cannot go, with the operation that blocks."
    st.dataframe(table, hide_index=True, alt=alt, key="structure-blocked")


def page() -> None:
    model = state.recipe().model
    study = followed(model)
    if study is None:
        _frame.waiting(
            f"Following channels through {models.title(model)}. Usually 1 to 10 seconds, once for each architecture.",
            HEIGHT,
        )
        return
    blocks = models.blocks_of(model, jobs.study("card", model=model))
    chosen = state.layer_among({layer["name"]: 1 for layer in study.data["layers"]})
    if blocks:
        strip(blocks, chosen, key="strip-structure")
    if study.data["refused"]:
        st.info(
            words.plain(f"Channels of this model go layer by layer. {study.data['refused']}"),
            icon=":material/info:",
        )
        return
    if study.data["groups"]:
        one_group(study, chosen)
    else:
        st.info(
            "No channel of this model can go on its own: the reasons are below.",
            icon=":material/info:",
        )
    cannot_go(study)


_frame.question("Which channels live or die together, and what cannot go?")
with _frame.guarded():
    page()
