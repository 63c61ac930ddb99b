"""Structure: dependency groups, what pruning one unit removes, and what cannot be pruned."""

from __future__ import annotations

import streamlit as st

from dashboard import jobs, models, state, words
from dashboard.charts import structure
from dashboard.components.strip import strip
from dashboard.views import _frame
from pruning.runs.results import Study

HEIGHT = 380  # pixels of the place that waits for the chart


def structure_study(model: str) -> Study | None:
    """The study of the model's structure. None while a worker traces it."""
    return jobs.study("structure", model=model)


def dependency_group(study: Study, layer: str) -> None:
    """A group to pick, all groups as a chart, and the members of the picked one."""
    names = structure.names(study.data)
    # Picking a layer in the strip picks the group of its outputs; its key is new for each layer,
    # so that an earlier choice does not outlive the layer it was made for.
    of_layer = structure.groups_of_layer(study.data, layer)
    start = names.index(of_layer[0]) if of_layer else 0
    key = f"structure-group-{layer}"
    chosen = st.selectbox("Dependency group", names, start, words.layer_name, key=key)
    group = study.data["groups"][names.index(chosen)]
    name = words.layer_name(chosen)
    units = words.plural(group["units"], group["kind"].removesuffix("s"))
    effect = structure.removal_effect(group)
    st.markdown(f"**{words.plain(f'{name}: {units}.')}** {words.plain(effect)}")
    st.caption(
        "● the group is the layer's outputs · ○ the layer reads it · the picked group stands out"
    )
    alt = (
        f"{structure.finding(study.data)}. "
        "A full mark: the group is that layer's outputs; a ring: the layer reads it."
    )
    figure = structure.lanes(study.data, chosen, dark=state.dark())
    table = structure.group_table(study.data)
    _frame.chart(figure, alt=alt, table=table, name="structure")
    st.markdown(f"## Pruned with one of {words.plain(name)}'s {group['kind']}")
    st.dataframe(
        structure.member_table(group),
        hide_index=True,
        alt=f"What is pruned with one unit of {chosen}.",
        key="structure-members",
    )


def not_prunable(study: Study) -> None:
    st.markdown("## Not prunable, and why")
    table = structure.blocked_table(study.data)
    if table.empty:
        st.markdown("Every output and input of every layer belongs to a dependency group.")
        return
    alt = "Layers whose outputs or inputs cannot be pruned, with the operation that blocks."
    st.dataframe(table, hide_index=True, alt=alt, key="structure-blocked")


def page() -> None:
    model = state.recipe().model
    study = structure_study(model)
    if study is None:
        text = f"Tracing channels through {models.title(model)}, once for each architecture."
        _frame.waiting(text, HEIGHT, jobs.request("structure", model=model))
        return
    blocks = models.blocks_of(model, jobs.study("card", model=model))
    # Every layer counts alike here: where none is selected, the first one is.
    layer = state.layer_among({layer["name"]: 1 for layer in study.data["layers"]})
    if blocks:
        strip(blocks, layer, key="strip-structure")
    if study.data["refused"]:
        text = f"Channels of this model are pruned layer by layer. {study.data['refused']}"
        st.info(words.plain(text), icon=":material/info:")
        return
    if study.data["groups"]:
        dependency_group(study, layer)
    else:
        text = "No channel of this model can be pruned on its own: the reasons are below."
        st.info(text, icon=":material/info:")
    not_prunable(study)


_frame.question("Which channels form dependency groups, and what cannot be pruned?")
with _frame.guarded():
    page()
