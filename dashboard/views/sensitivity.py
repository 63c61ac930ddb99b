"""Sensitivity: which layers can give, each by itself; a click puts a ratio into the recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard import forms, jobs, models, state, tables, words
from dashboard.charts import sensitivity as charts
from dashboard.components.grid import grid
from dashboard.views import _frame
from pruning import registry
from pruning.allocation.ranking import Ranking
from pruning.errors import PruningError
from pruning.events import Point
from pruning.recipe import Recipe
from pruning.runs.store import Job
from pruning.sensitivity_map import planning

TICK = 0.5  # seconds between two looks at a map that is being measured
SMALL = 1000  # validation images up to which every one is looked at straight away
LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
HEIGHT = 420
NOBODY = "none"


def spec(recipe: Recipe, tier: str) -> dict[str, Any]:
    """What a map depends on. The ratios, floors and exclusions of the recipe are no part of it."""
    fields = ("model", "criterion", "options", "granularity", "granularity_options", "seed")
    return {
        **{name: getattr(recipe, name) for name in fields},
        "tier": tier,
        "levels": list(LEVELS),
    }


def page() -> None:
    _frame.question("Which layers can give, and how much?")
    recipe = state.recipe()
    with _frame.guarded():
        if not measurable(recipe):
            return
        plain = replace(recipe, scope="global", scope_options={}, ratios={}, exclude=())
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            ask(recipe)
        study = jobs.study("scores", **tables.scores_spec(plain))
        begun = begin(recipe)
        if study is None:
            _frame.waiting(forms.scoring(recipe), HEIGHT)
            return
        rows = layers(recipe, study.ranking, left(recipe))
        if all(row.fixed for row in rows):
            raise PruningError(
                f"{words.capitalized(recipe.granularity)} fits no layer of this model: choose another unit."
            )
        draw(recipe, rows, *begun)


def begin(recipe: Recipe) -> tuple[list[Recipe], list[Job]]:
    """The recipe's technique, and the one beside it; and their maps, which are measured from now on."""
    beside = state.widget_value(state.MAP_BESIDE)
    asked = (
        [recipe] if beside == NOBODY else [recipe, replace(recipe, criterion=beside, options={})]
    )
    tier = (
        "exact"
        if models.validation(recipe.model) <= SMALL or state.every_image()
        else "progressive"
    )
    return asked, [jobs.sensitivity_map(spec(one, tier)) for one in asked]


def measurable(recipe: Recipe) -> bool:
    """Whether there is data to measure on; says what to do where there is none."""
    facts = models.facts(recipe.model)
    if facts is None:
        _frame.waiting(f"Loading {models.title(recipe.model)}.", HEIGHT)
        return False
    if facts.accuracy is None:
        st.info(
            f"There is no data for {words.plain(models.title(recipe.model))}, so nobody can say what its layers are worth: "
            "put a sample model on the bench, or weights of yours in the architecture of one.",
            icon=":material/query_stats:",
        )
        st.page_link(
            _frame.page_path("model"), label="Choose a model", icon=":material/deployed_code:"
        )
    return facts.accuracy is not None


# ---------------------------------------------------------------- what is asked


def ask(recipe: Recipe) -> None:
    """Technique and unit are the recipe's own; the rest is how one looks."""
    fits = [
        name
        for name in registry.names("criterion")
        if not registry.misfit(name, recipe.granularity)
    ]
    units = [
        name
        for name in registry.names("granularity")
        if not registry.misfit(recipe.criterion, name)
    ]
    forms.bound(
        st.selectbox,
        "Technique",
        recipe.criterion,
        lambda name: forms.attempt(criterion=name, options={}),
        key="map-criterion",
        options=list(dict.fromkeys([*fits, recipe.criterion])),
        format_func=words.capitalized,
        width=158,
    )
    forms.bound(
        st.selectbox,
        "What goes together",
        recipe.granularity,
        lambda name: forms.attempt(granularity=name, granularity_options={}, ratios={}),
        key="map-granularity",
        options=list(dict.fromkeys([*units, recipe.granularity])),
        format_func=words.capitalized,
        width=158,
    )
    others = [NOBODY, *(name for name in fits if name != recipe.criterion)]
    st.selectbox(
        "Beside it",
        others,
        format_func=words.capitalized,
        key=state.MAP_BESIDE,
        width=158,
        help="Another technique, on the same colours.",
    )
    st.selectbox("Sort by", charts.SORTS, format_func=str.capitalize, key=state.MAP_SORT, width=130)
    st.segmented_control(
        "Shown as",
        ("map", "curves"),
        default="map",
        required=True,
        format_func=str.capitalize,
        key=state.MAP_MODE,
    )


def left(recipe: Recipe) -> dict[str, float]:
    """Share that the recipe takes from each layer; nothing while that is not known."""
    study = jobs.study("scores", **tables.scores_spec(recipe))
    if study is None:
        return {}
    found = study.ranking.preview(recipe)
    return {
        name: found.drops[name] / found.units[name] for name in found.units if found.units[name]
    }


def layers(recipe: Recipe, ranking: Ranking, taken: dict[str, float]) -> list[charts.Row]:
    """Every layer in the order of the model; layers that go together are one row, named by the first."""
    kinds = {
        block.name: block.kind
        for block in models.blocks_of(recipe.model, jobs.study("card", model=recipe.model))
    }
    rows = []
    for name in ranking.names:
        if name in ranking.leaders:
            continue
        weights = sum(map(ranking.total, ranking.group(name)))
        manual = recipe.ratios.get(name, 0.0) if recipe.scope == "manual" else taken.get(name, 0.0)
        rows.append(
            charts.Row(
                name, kinds.get(name, "other"), weights, ranking.fixed.get(name), manual or None
            )
        )
    return rows


# ---------------------------------------------------------------- the map


def draw(recipe: Recipe, rows: list[charts.Row], asked: list[Recipe], held: list[Job]) -> None:
    """The maps, live while they are measured."""
    alive = any(job.state in jobs.LIVE for job in held)
    st.fragment(watch, run_every=TICK if alive else None)(
        recipe, asked, [job.id for job in held], rows, alive
    )


def watch(
    recipe: Recipe, asked: list[Recipe], ids: list[str], rows: list[charts.Row], alive: bool
) -> None:
    with _frame.guarded():
        held = [jobs.job(id) for id in ids]
        if state.recipe() != recipe:
            st.rerun()
        if alive and not any(job.state in jobs.LIVE for job in held):
            st.rerun()
        for job in held if alive else ():
            jobs.mark_watched(job)
        found = [jobs.points(job) for job in held]
        if len(asked) == 1:
            picture, side = st.columns([10, 3], gap="medium")
            places = [picture]
        else:
            side, places = st.container(), list(st.columns(2, gap="medium"))
        with side:
            spend(recipe, rows, found[0], wide=len(asked) > 1)
        for place, one, job, points in zip(places, asked, held, found, strict=True):
            with place:
                one_map(recipe, one, job, points, rows)
        ending(recipe, rows, found[0], held[0])


def one_map(
    recipe: Recipe, one: Recipe, job: Job, points: list[Point], rows: list[charts.Row]
) -> None:
    tolerated, mine = float(state.widget_value(state.MAP_TOLERATED)), one is recipe
    shown = charts.ordered(rows, points, state.widget_value(state.MAP_SORT))
    said = charts.finding(rows, points, tolerated)
    grid(
        charts.grid(
            shown if mine else [replace(row, at=None) for row in shown],
            points,
            LEVELS,
            name=f"sensitivity-{recipe.model}-{one.criterion}",
            title=said if mine else f"{words.capitalized(one.criterion)}: {said}",
            mode=state.widget_value(state.MAP_MODE),
            noun=words.NOUNS.get(recipe.granularity, "units"),
            tolerated=tolerated,
            total=models.validation(recipe.model),
            pick=mine,
            selected=state.layer(),
            dark=state.dark(),
        ),
        pick,
        key=f"grid-{'recipe' if mine else 'beside'}",
    )
    status(job, points, len(LEVELS) * sum(row.fixed is None for row in rows))


def pick(layer: str, share: float) -> None:
    """One layer's ratio, by hand; the others stay as they were set."""
    recipe = state.recipe()
    before = recipe.ratios if recipe.scope == "manual" else {}
    ratios = {name: ratio for name, ratio in {**before, layer: share}.items() if ratio}
    forms.attempt(scope="manual", scope_options={}, ratios=ratios)
    state.select_layer(layer)


def status(job: Job, points: list[Point], cells: int) -> None:
    """Where the measuring stands, and Stop; or why it ended."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if job.state in jobs.LIVE:
            waits = "waiting for a free worker" if job.state == "queued" else "measuring"
            st.caption(f":primary[●] {waits}: {charts.progress(points, cells)}", width="stretch")
            st.button(
                "Stop",
                icon=":material/stop_circle:",
                on_click=jobs.stop,
                args=(job.id,),
                key=f"map-stop-{job.id}",
                type="tertiary",
            )
        elif job.state == "finished":
            exact = job.spec["tier"] == "exact"
            said = (
                "Every validation image was asked."
                if exact
                else "Each cell is within 2 points, or has surely collapsed."
            )
            st.caption(f"{said} Intervals are 95 %, paired with the dense model.", width="stretch")
            help = "Exact on the validation data; takes several times as long."
            if not exact and st.button(
                "Ask every image", help=help, key=f"map-every-{job.id}", type="tertiary"
            ):
                state.ask_every_image()
                st.rerun()
        else:
            st.caption(words.plain(job.message or "Stopped."), width="stretch")
            if st.button("Go on", icon=":material/play_arrow:", key=f"map-again-{job.id}"):
                jobs.forget(**job.spec)
                st.rerun()


# ---------------------------------------------------------------- from the map to the recipe


def spend(recipe: Recipe, rows: list[charts.Row], points: list[Point], *, wide: bool) -> None:
    """What the recipe's ratios remove and foretell; and Fill. wide: side by side."""
    parts = (
        st.columns([3, 3, 3, 3, 2], vertical_alignment="bottom", gap="small")
        if wide
        else [st.container() for _ in range(5)]
    )
    ratios = {row.name: row.at for row in rows if row.at and not row.fixed}
    loss, fall = planning.predicted(points, ratios)
    weights = sum(row.weights for row in rows)
    gone = sum(row.weights * (row.at or 0.0) for row in rows) / weights
    parts[0].metric(
        "The recipe removes",
        words.percent(gone),
        f"of {words.count(weights)} weights",
        delta_color="off",
        delta_arrow="off",
    )
    change = f"loss {loss:+.3f}".replace("-", "−") if points and ratios else None
    value = "no change" if not ratios else "not yet" if fall is None else words.points(-fall, 0.0)
    help = "What layers do alone is added up, as if they did not meet; accuracy is read off where single cells with that loss lie."
    parts[1].metric(
        "Foretold (estimate)", value, change, delta_color="off", delta_arrow="off", help=help
    )
    tolerated = parts[2].number_input(
        "Tolerated drop, points", 0.1, 50.0, 1.0, 0.5, format="%g", key=state.MAP_TOLERATED
    )
    able = any(point.accuracy for point in points)
    parts[3].button(
        f"Fill within {charts.within(tolerated)}",
        icon=":material/auto_fix_high:",
        disabled=not able,
        on_click=fill_all,
        args=(points, rows, tolerated),
        key="map-fill",
        width="stretch",
        help="Of each layer as much as the loss allows.",
    )
    if parts[4].button(
        "Run",
        type="primary",
        icon=":material/play_arrow:",
        disabled=not recipe.prunes,
        key="map-run",
        width="stretch",
    ):
        state.open_run(jobs.start(recipe))
        st.switch_page(_frame.page_path("prune"))


def fill_all(points: list[Point], rows: list[charts.Row], tolerated: float) -> None:
    """Every layer's ratio at once, as far as the tolerated drop goes."""
    ratios = planning.fill(
        points, {row.name: row.weights for row in rows if not row.fixed}, tolerated / 100
    )
    if not ratios:
        state.warn(
            f"No layer can give anything within {charts.within(tolerated)}, as far as is measured: tolerate more, or wait."
        )
        return
    forms.attempt(scope="manual", scope_options={}, ratios=ratios)


def ending(recipe: Recipe, rows: list[charts.Row], points: list[Point], job: Job) -> None:
    """The same numbers as a table and a file."""
    table = charts.table(charts.ordered(rows, points, state.widget_value(state.MAP_SORT)), points)
    with st.container(horizontal=True, gap="small"):
        with st.popover("Table", icon=":material/table:", type="tertiary"):
            share = {
                name: st.column_config.NumberColumn(name, format="percent")
                for name in ("removed", "accuracy")
            }
            st.dataframe(
                table,
                hide_index=True,
                column_config=share,
                alt="Every cell of the map.",
                key="map-table",
            )
        name = f"sensitivity-{recipe.model}-{recipe.criterion}.csv".replace(":", "-")
        st.download_button(
            "CSV",
            table.to_csv(index=False),
            name,
            "text/csv",
            icon=":material/download:",
            type="tertiary",
            key="map-csv",
        )
        alone = [f"{words.layer_name(row.name)}: {row.fixed}" for row in rows if row.fixed]
        if alone:
            st.caption(
                words.plain(
                    f"Left alone: {'; '.join(alone[:3])}"
                    + (f" and {len(alone) - 3} more." if len(alone) > 3 else "")
                )
            )


page()
