"""A sweep's picture on a page: what it is drawn against, the picture, and the point that is picked.

On the Model page it is what came with a sample, on the Sweeps page whatever sweep is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import handout, jobs, state, words
from dashboard.charts import sweep as charts
from dashboard.views import _frame
from pruning.recipe import Recipe
from pruning.sweeps import comparison
from pruning.sweeps.comparison import Pairing, Row
from pruning.sweeps.plan import Plan
from pruning.sweeps.sweeps import point_of_row


def picture(
    rows: Sequence[Row],
    plan: Plan,
    *,
    name: str,
    paired: Pairing,
    own: Sequence[Row] = (),
) -> str:
    """All of it, and what it is drawn against. name: of this picture's widgets; own: runs that
    stand beside the sweep.
    """
    cells = comparison.cells(rows)
    if not cells:
        st.info("No run of it has a result yet: the picture begins with the first.")
        return comparison.COSTS[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        cost = pick_cost(cells, name)
        near = st.toggle(
            "Near dense",
            key=f"{name}-near",
            bind="query-params",
            help=f"Only what lies within {100 * charts.NEAR:.0f} points of the dense model.",
        )
    figure = charts.picture(rows, cost, dark=state.dark(), near=near, own=own, paired=paired)
    finding = figure["layout"]["title"]["text"]
    numbers = charts.cell_table(rows)
    alt = f"Accuracy on test data against {charts.COSTS[cost].lower()}. {finding}."
    _frame.chart(figure, alt=alt, table=numbers, name=f"{name}-{cost}", on_point=_pick)
    handout.text(charts.seeds_text(rows), soft=True)
    st.caption(f"{charts.seeds_text(rows)} Click a point for its runs and its recipe.")
    with _frame.guarded():
        picked_point(cells, rows, plan, own, name)
    return cost


def pick_cost(cells: Sequence[comparison.Cell], name: str) -> str:
    """What the picture is drawn against, of what was measured."""
    measured = [cost for cost in charts.COSTS if any(cell.cost(cost) is not None for cell in cells)]
    picked = st.segmented_control(
        "Against",
        measured or ["weights_kept"],
        format_func=charts.COSTS.__getitem__,
        default=(measured or ["weights_kept"])[0],
        required=True,
        key=f"{name}-cost",
        bind="query-params",
    )
    return str(picked)


def _pick(carried: list[Any]) -> None:
    state.pick_point(str(carried[0]), float(carried[1]))


# ---------------------------------------------------------------- the picked point


def picked_point(
    cells: Sequence[comparison.Cell],
    rows: Sequence[Row],
    plan: Plan,
    own: Sequence[Row],
    name: str,
) -> None:
    """What was clicked: its figures, its runs, and its recipe."""
    picked = state.point()
    if picked is None:
        return
    technique, level = picked
    if technique.startswith(charts.RUN):
        id = technique.removeprefix(charts.RUN)
        row = next((row for row in own if row["run"] == id), None)
        if row is not None:
            cell = comparison.Cell(row["technique"], row["sparsity"], "", (row,))
            panel(
                cell, jobs.recipe_of(jobs.job(id)), {row["recipe"]: id}, charts.metric(rows), name
            )
        return
    chosen = [cell for cell in cells if (cell.technique, cell.sparsity) == (technique, level)]
    if chosen:
        # Of a shipped sweep, whose own runs were elsewhere, those that were run here since.
        runs = {row["recipe"]: row["run"] for row in [*own, *chosen[0].rows] if row["run"]}
        panel(chosen[0], _recipe(plan, chosen[0].rows[0]), runs, charts.metric(rows), name)


def _recipe(plan: Plan, row: Row) -> Recipe | None:
    point = point_of_row(plan, dict(row))
    return point.recipe if point else None


def panel(
    cell: comparison.Cell,
    recipe: Recipe | None,
    runs: dict[str, str],
    metric: str,
    name: str,
) -> None:
    """runs: id of a recipe -> its run in this workspace."""
    here = [(row["seed"], runs[row["recipe"]]) for row in cell.rows if row["recipe"] in runs]
    here = [(seed, id) for seed, id in here if jobs.exists(id)]
    with st.container(border=True, key=f"{name}-point"):
        st.markdown(words.plain(charts.sentence(cell, metric)))
        if recipe is not None:
            st.caption(words.plain(words.sentence(recipe)))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            for seed, id in here:
                _frame.result_link(id, f"Result of seed {seed}")
            if len(here) > 1:
                st.page_link(
                    _frame.page_path("compare"),
                    label="Compare the seeds",
                    icon=":material/compare_arrows:",
                    query_params={"c": ",".join(id for _, id in here)},
                )
            if recipe is not None:
                st.page_link(
                    _frame.page_path("prune"),
                    label="Use this recipe",
                    icon=":material/content_cut:",
                    query_params={"r": state.encode(recipe)},
                )
            st.button(
                "Close",
                icon=":material/close:",
                type="tertiary",
                on_click=state.close_point,
                key=f"{name}-point-close",
            )


# ---------------------------------------------------------------- where it comes from


def provenance(plan: Plan, date: str, machine: dict[str, Any]) -> str:
    """When and where a shipped sweep was made, and how its runs trained, in one line."""
    hardware = [machine.get(part) for part in ("accelerator", "processor", "system")]
    where = ", ".join(str(part) for part in hardware if part)
    threads = machine.get("threads")
    if threads:
        where += f", {words.plural(int(threads), 'thread')}"
    parts = [f"Made on {date}", where, f"torch {machine['torch']}" if "torch" in machine else ""]
    parts += [words.plural(len(plan.seeds), "seed"), epochs_text(plan)]
    return " · ".join(part for part in parts if part)


def epochs_text(plan: Plan) -> str:
    """`5 epochs of fine-tuning`, of all recipes of a plan."""
    place = (plan.models[0], plan.sparsities[0], plan.seeds[0])
    recipes = [plan.recipe(technique, *place) for technique in plan.all_techniques()]
    epochs = {recipe.training_epochs() for recipe in recipes}
    if len(epochs) > 1:
        return f"{min(epochs)} to {max(epochs)} epochs of training"
    return f"{words.plural(epochs.pop(), 'epoch')} of training"
