"""Surgery, on Inspect: the units of a layer one by one, and what removing them does at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import forms, jobs, locks, models, state, surgery, tables, words
from dashboard.charts import one_layer
from dashboard.components.sparks import Spark, sparks
from dashboard.components.strip import Block
from dashboard.surgery import BY_LOSS, BY_NORM, BY_NUMBER, Operation, Profiles
from dashboard.views import _frame
from pruning import describe, registry
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study

HEIGHT = 380  # pixels, of the two halves while they are worked out
RESULT = 96  # pixels, of the numbers while they are measured
NO_DATA = (
    "This model has no data here, and what a unit does is measured on data: its weights and "
    "structure can be looked at."
)

KEEP: dict[str, Any] = {"persist_state": "session"}
"""What people pick stays when they go to another page and come back."""

SMALL = 64  # pixels of a test example's picture

ONLY_THESE = (
    "The recipe removes these units and nothing else. Undo brings back, click by click, what it "
    "removed before."
)
"""Said beside the units, not at the top, where it would move the page under the pointer."""


def page(
    recipe: Recipe, card: Study, blocks: list[Block], layer: str, look: Callable[[], None]
) -> None:
    """Below the strip of layers. look: draws the control that leads back to the weights."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
        look()
        granularity = unit_control(recipe, card)
    if card.data["measurement"]["loss"] is None:
        st.info(NO_DATA, icon=":material/database_off:")
        return
    shape = next(block.shape for block in blocks if block.name == layer)
    spec = profiles_spec(recipe, layer, granularity)
    study = None
    with _frame.guarded():
        study = profiled(spec, layer)
        if study is not None and study.data["refused"]:
            text = f"{words.layer_name(layer)} is kept whole: {study.data['refused']} "
            st.info(words.plain(f"{text}Click another layer."), icon=":material/info:")
        elif study is not None:
            removed = surgery.removed_of(recipe, granularity, study)
            shown = Profiles(study, surgery.noun(granularity, shape), removed)
            units(recipe, shown, granularity, layer)
            rest(spec, shown)
    if study is None or study.data["refused"]:
        # What is removed of other layers is measured all the same.
        with _frame.guarded():
            result(recipe, granularity)


def unit_control(recipe: Recipe, card: Study) -> str:
    """What a unit is: the recipe's own granularity where it is one, else whole channels."""
    plain = Recipe(model=recipe.model)
    entries = registry.entries("granularity")
    fitting = [
        name
        for name in surgery.GRANULARITIES
        if not models.why_not("granularity", entries[name], plain, card.data)
    ]
    own = recipe.granularity
    return str(
        st.segmented_control(
            "Unit",
            fitting,
            default=own if own in fitting else fitting[0],
            format_func=words.capitalized,
            required=True,
            key=f"surgery-unit-{recipe.model}-{own}",
            help="A channel is removed in every layer that holds it; of a row, what reads it "
            "stays.",
            **KEEP,
        )
    )


def profiles_spec(recipe: Recipe, layer: str, granularity: str) -> dict[str, Any]:
    spec = {
        "model": recipe.model,
        "layer": layer,
        "granularity": granularity,
        "units": surgery.UNITS,
        "seconds": surgery.SECONDS,
    }
    whole = {**spec, "seconds": surgery.LONG}
    return whole if jobs.was_requested("profiles", **whole) else spec


def profiled(spec: dict[str, Any], layer: str) -> Study | None:
    """The study; None while it is made, which is said."""
    study = jobs.study("profiles", **spec)
    if study is None:
        text = f"Leaving out each unit of {words.layer_name(layer)}, one at a time."
        _frame.waiting(text, HEIGHT, jobs.request("profiles", **spec))
        return None
    _frame.no_longer_waiting()
    return study


def rest(spec: dict[str, Any], shown: Profiles) -> None:
    """What the time was not enough for, and a button for it."""
    of, measured = shown.data["of"], shown.data["measured"]
    if measured == of:
        return
    text = f"{measured:,} of {words.plural(of, 'unit')} were left out one by one"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if measured < shown.count:
            # Asked for once: from then on the whole study stands in its place.
            whole = {**spec, "seconds": surgery.LONG}
            start = partial(press, whole)
            st.button("Measure the rest", on_click=start, key="surgery-rest")
            text += f", the smallest first, in {spec['seconds']:.0f} s"
        else:
            text += ": a random sample by the seed"
        st.caption(words.plain(f"{text}."))


def press(spec: dict[str, Any]) -> None:
    jobs.press({"what": "profiles", **spec})
    with suppress(PruningError):
        jobs.request("profiles", **spec)


# ---------------------------------------------------------------- the matrix and one unit


def units(recipe: Recipe, shown: Profiles, granularity: str, layer: str) -> None:
    left, right = _frame.halves()
    with left:
        view, order = matrix_controls(shown)
        rows = shown.order(order, view)
        wanted = state.unit()
        row = shown.row(wanted) if wanted is not None and wanted >= 0 else None
        chosen = rows[0] if row is None else row
        matrix(shown, rows, chosen, view, layer)
    with right, _frame.guarded():
        one_unit(recipe, shown, chosen, granularity)


def matrix_controls(shown: Profiles) -> tuple[str, str]:
    """(What the sparklines show, by what they are sorted)."""
    views = shown.views()
    view = views[0] if views else surgery.RESPONSE
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if views:
            view = str(
                st.segmented_control(
                    "By class",
                    views,
                    default=view,
                    required=True,
                    key="surgery-view",
                    help="Response: the mean output for validation examples of each class. "
                    "Answers lost: right answers of each class that are wrong without the unit.",
                    **KEEP,
                )
            )
        classes = shown.classes if views else []
        order = st.selectbox(
            "Sorted by",
            [BY_LOSS, BY_NORM, BY_NUMBER, *classes],
            format_func=lambda name: f"class {name}" if name in classes else name,
            key="surgery-order",
            width=170,
            **KEEP,
        )
    return view, order


def matrix(shown: Profiles, rows: list[int], chosen: int, view: str, layer: str) -> None:
    units = [
        Spark(
            id=shown.number(row),
            label=str(shown.number(row)),
            note=note(shown.change(row)),
            values=shown.spark(row, view),
            removed=shown.is_removed(row),
            sentence=shown.sentence(row),
        )
        for row in rows
    ]
    name = words.layer_name(layer)
    label = f"{shown.noun}s of {name}, {view.lower()} by class"
    sparks(label, units, shown.number(chosen), state.open_unit, key="surgery-sparks")
    classes = shown.classes
    text = f"{words.plural(len(rows), 'unit')} of {name}; the number is the change of the loss "
    text += f"without it, on {shown.data['examples']:,} validation examples."
    if units and units[0].values:
        text += f" Bars: classes {classes[0]} to {classes[-1]}."
    st.caption(words.plain(text))
    _frame.popover(
        "Table", partial(table, shown, rows), key="open-table-surgery", icon=":material/table:"
    )


def note(change: float | None) -> str:
    if change is None:
        return ""
    # Rounded to 0, it has no direction.
    return "0.000" if abs(change) < 0.0005 else f"{change:+.3f}".replace("-", "−")


def table(shown: Profiles, rows: list[int]) -> None:
    frame = pd.DataFrame(
        {
            shown.noun.lower(): [shown.number(row) for row in rows],
            "loss change": [shown.change(row) for row in rows],
            "weights": shown.array("weights")[rows],
            "mean |w|": shown.array("norms")[rows],
            "removed": [shown.is_removed(row) for row in rows],
        }
    )
    for view in shown.views():
        values = np.array([shown.spark(row, view) or [np.nan] * len(shown.classes) for row in rows])
        for i, name in enumerate(shown.classes):
            frame[f"{view.lower()}, {name}"] = values[:, i]
    st.dataframe(frame, hide_index=True, alt="The numbers of every unit.", key="table-surgery")


def one_unit(recipe: Recipe, shown: Profiles, row: int, granularity: str) -> None:
    name = words.layer_name(shown.data["layer"])
    number = shown.number(row)
    heading = f"{shown.noun} {number} of {name}: {surgery.loss(shown.change(row))}"
    st.markdown(f"**{words.plain(heading)}**")
    text = f"{shown.most_felt(row)} {shown.group()}".strip()
    st.caption(words.plain(text))
    if not state.hidden("removed"):
        buttons(recipe, shown, row, granularity)
    # Beside the button: what a press does is seen where it was pressed. Drawn last, when a worker
    # has measured it meanwhile.
    beside = st.container()
    responses(shown, row)
    kernels(shown, row)
    with beside, _frame.guarded():
        result(recipe, granularity)


def buttons(recipe: Recipe, shown: Profiles, row: int, granularity: str) -> None:
    """Remove the unit, or put it back; disabled where a lock would leave the recipe as it is."""
    name, unit = shown.data["set"], shown.unit(row)
    if shown.is_removed(row):
        why = why_locked(recipe, surgery.without_unit(recipe, name, unit))
        st.button(
            "Put it back",
            icon=":material/undo:",
            on_click=partial(put_back, name, unit),
            disabled=bool(why),
            help=why or None,
            key="surgery-put-back",
        )
        return
    why = why_locked(recipe, surgery.with_unit(recipe, granularity, name, unit))
    st.button(
        "Remove it",
        icon=":material/content_cut:",
        type="primary",
        on_click=partial(remove, granularity, name, unit),
        disabled=bool(why),
        help=why or None,
        key="surgery-remove",
    )


def why_locked(before: Recipe, after: Recipe) -> str:
    """Why a press would not change the recipe so, a sentence; "" where it would."""
    refused = locks.differing(before, after, state.all_locked())
    return state.why_locked(refused[0]) if refused else ""


def remove(granularity: str, name: str, unit: int) -> None:
    """One unit more, measured at once: nothing that the page asks for comes before it."""
    after = surgery.with_unit(state.recipe(), granularity, name, unit)
    try:
        state.put(after)
    except PruningError as error:
        state.warn(str(error))
        return
    with suppress(PruningError, jobs.Costly):
        jobs.request("surgery", **tables.reconstruction_spec(after))


def put_back(name: str, unit: int) -> None:
    state.put(surgery.without_unit(state.recipe(), name, unit))


def responses(shown: Profiles, row: int) -> None:
    """The test examples that excite it most, and its activation maps."""
    if shown.data["silent"]:
        st.caption(words.plain(f"What it responds to is not shown: {shown.data['silent']}"))
        return
    dark = state.dark()
    tops = shown.array("top")[row]
    pictures = [(int(number), shown.picture(int(number))) for number in tops]
    if any(picture is None for _, picture in pictures):
        return
    st.markdown("Test examples that excite it most")
    peaks = shown.array("peaks")[row]
    with st.grid(min_column_width=SMALL, gap="small"):
        for (number, image), peak in zip(pictures, peaks, strict=True):
            assert image is not None
            picture = tables.picture(image, True, dark, SMALL)
            alt = f"Test example {number}; its highest response is {peak:.2f}."
            st.image(picture, caption=f"{peak:.2f}", width="stretch", alt=alt)
    if shown.array("maps").shape[-1] < 2:
        return  # a neuron's one number is no map
    st.markdown("Where it responds, on an example of each of some classes")
    with st.grid(min_column_width=SMALL, gap="small"):
        for at, number in enumerate(shown.array("shown")):
            image = shown.picture(int(number))
            assert image is not None
            example = tables.picture(image, True, dark, SMALL)
            where = tables.picture(shown.map_of(row, at), True, dark, SMALL)
            with st.container(gap="small"):
                st.image(example, width="stretch", alt=f"Test example {number}.")
                alt = f"Where the unit responds on test example {number}, as strong as it is drawn."
                st.image(where, width="stretch", alt=alt)


def kernels(shown: Profiles, row: int) -> None:
    if not shown.has("kernels"):
        return
    values = shown.array("kernels")[row]
    name = f"{shown.noun} {shown.number(row)}"
    title = f"{name}: its weights"
    if values.shape[0] > 1:
        title = f"{name}: its kernels, one for each of {values.shape[0]} inputs"
    figure = one_layer.filters(values, title=title, dark=state.dark())
    figure["layout"]["height"] = 200
    flat = values.reshape(len(values), -1)
    numbers = pd.DataFrame(flat).rename_axis("input").reset_index()
    alt = f"{title} as tiles; blue is negative, orange positive."
    _frame.chart(figure, alt=alt, table=numbers, name="surgery-kernels")


# ---------------------------------------------------------------- what it does at once


def result(recipe: Recipe, granularity: str) -> None:
    """Accuracy without what is removed, the answers that changed, and how to go on."""
    if not surgery.is_surgical(recipe, granularity):
        st.caption("No unit is removed yet: pick one and remove it.")
        return
    named = surgery.listed(recipe)
    count = words.plural(len(named), "unit")
    st.markdown(f"**Without {count}**")
    spec = tables.reconstruction_spec(recipe)
    study = jobs.study_soon("surgery", **spec)
    if study is None:
        job = jobs.request("surgery", **spec)
        _frame.waiting("Measuring the model without them.", RESULT, job)
    else:
        _frame.no_longer_waiting()
        measured(Operation(study))
    go_on(recipe, named)


def measured(operation: Operation) -> None:
    dense, pruned = (operation.accuracy(name) for name in ("dense", "pruned"))
    paired = operation.paired
    if dense is None or pruned is None or paired is None:
        losses = [operation.study.data[name]["loss"] for name in ("dense", "pruned")]
        st.markdown(f"Loss on test data {losses[1]:.4f}, dense {losses[0]:.4f}.")
        return
    with st.container(horizontal=True, gap="large"):
        _frame.metric("Accuracy", words.percent(pruned), words.points(pruned, dense))
        _frame.metric("Dense", words.percent(dense))
    share = words.percent(operation.study.data["sparsity"])
    text = f"Without {share} of the weights, on {dense.total:,} test examples, nothing trained. "
    text += f"{words.plural(operation.changed, 'answer')} changed: {paired.lost:,} now wrong, "
    text += f"{paired.gained:,} now right. On the same examples: {words.change(paired.change)}."
    st.caption(words.plain(text))
    flipped(operation)


def flipped(operation: Operation) -> None:
    """The test examples whose answer changed."""
    arrays = operation.study.arrays
    images = arrays.get("images", arrays.get("series"))
    if images is None:
        return
    dark = state.dark()
    with st.grid(min_column_width=SMALL, gap="small"):
        for image, number in zip(images, arrays["flipped"], strict=True):
            target, before, after = (
                int(arrays[name][number]) for name in ("targets", "before", "after")
            )
            picture = tables.picture(image, after == target, dark, SMALL)
            alt = f"Test example {number} of class {target}: {before} before, now {after}."
            st.image(picture, caption=f"{before} → {after}", width="stretch", alt=alt)
    if len(arrays["flipped"]) < operation.changed:
        st.caption(
            f"The first {len(arrays['flipped'])} of {operation.changed:,}; wrong ones first."
        )


def go_on(recipe: Recipe, named: list[tuple[str, int]]) -> None:
    """What is removed, each to be put back; Undo, and to the run."""

    def text(one: tuple[str, int]) -> str:
        return f"{words.layer_name(one[0])} {one[1]}"

    def take(kept: list[tuple[str, int]]) -> None:
        removed: dict[str, list[int]] = {}
        for name, unit in kept:
            removed.setdefault(name, []).append(unit)
        forms.attempt(removed=removed)

    forms.bound(
        st.multiselect,
        "Units that the recipe removes",
        named,
        take,
        key="surgery-removed",
        options=named,
        format_func=text,
        help="Take one out of this list to put it back.",
        disabled=state.locked("removed"),
    )
    if describe.named(recipe) == "all":
        st.caption(ONLY_THESE)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Undo the last",
            icon=":material/undo:",
            on_click=state.undo,
            disabled=not state.can_undo(),
            key="surgery-undo",
        )
        st.page_link(
            _frame.page_path("prune"), label="Run this recipe", icon=":material/content_cut:"
        )
