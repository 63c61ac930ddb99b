"""Sensitivity: how much accuracy each layer loses when it alone is pruned, as a map.

A click puts a ratio into the recipe; Fill sets all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st

from dashboard import (
    forms,
    glossary,
    handout,
    jobs,
    locks,
    models,
    refit,
    state,
    tables,
    waits,
    words,
)
from dashboard.charts import sensitivity as charts
from dashboard.charts.preview import weights_pruned
from dashboard.components.grid import grid
from dashboard.views import _frame, _projector
from pruning import registry
from pruning.allocation.ranking import Preview, Ranking
from pruning.errors import PruningError
from pruning.events import Point
from pruning.recipe import Recipe
from pruning.runs.store import Job
from pruning.sensitivity_map import planning

SMALL = 1000  # validation images up to which every one is asked straight away
LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
HEIGHT = 420  # pixels
NARROWEST = 400  # pixels of a map that stands beside another
DIGITS = 8  # of a ratio: enough for the same units of the largest layer, and short in a link
NOBODY = "none"
CLOSE = 0.0005  # shares nearer than this read the same in points
MOST_NAMED = 3  # layers named in the line of those that cannot be pruned


@dataclass(frozen=True)
class Map:
    """A map on the page. recipe: whose criterion and granularity are measured; costly: the map
    that waits for a press, where `job` is its estimate alone.
    """

    recipe: Recipe
    job: Job
    points: list[Point]
    costly: jobs.Costly | None = None


@dataclass(frozen=True)
class Started:
    """What was started for a recipe's map, by its job's id. costly: as of a Map."""

    recipe: Recipe
    id: str
    costly: jobs.Costly | None


def page() -> None:
    _frame.question("Which layers can be pruned, and how much?", "Sensitivity", "Points")
    recipe = state.recipe()
    with _frame.guarded():
        if not measurable(recipe):
            return
        _frame.no_longer_waiting()
        # page.css keeps its height until the controls are drawn.
        with st.container(
            horizontal=True, vertical_alignment="bottom", gap="small", key="map-controls"
        ):
            controls(recipe)
        # The map knows no ratios and no scope, so its rows come from the scores of any recipe.
        fields: dict[str, Any] = {"scope_options": {}, "ratios": {}, "removed": {}, "exclude": ()}
        plain = replace(recipe, scope="global", **fields)
        study = jobs.study("scores", **tables.scores_spec(plain))
        asked = compared(recipe)
        maps = [jobs.sensitivity_map(spec(one)) for one in asked]
        if study is None:
            scoring = jobs.request("scores", **tables.scores_spec(plain))
            _frame.waiting(forms.scoring(recipe), HEIGHT, scoring)
            return
        _frame.no_longer_waiting()
        rows = layers(recipe, study.ranking)
        if all(row.fixed for row in rows):
            granularity = words.capitalized(recipe.granularity)
            raise PruningError(f"{granularity} fits no layer of this model: choose another one.")
        live = [job.id for job, _ in maps if job.state in jobs.LIVE]
        started = [
            Started(one, job.id, costly) for one, (job, costly) in zip(asked, maps, strict=True)
        ]
        _frame.live_part("map", live, watch, recipe, started, rows, bool(live))


def measurable(recipe: Recipe) -> bool:
    """Whether there is data to measure on; says what to do where there is none."""
    facts = models.facts(recipe.model)
    model = models.title(recipe.model)
    if facts is None:
        _frame.waiting(f"Loading {model}.", HEIGHT, jobs.request("card", model=recipe.model))
        return False
    if not facts.has_data:
        st.info(
            f"There is no data for {words.plain(model)}, so its layers' sensitivity cannot be "
            "measured: use a sample model, or your weights in the architecture of one.",
            icon=":material/query_stats:",
        )
        icon = ":material/deployed_code:"
        st.page_link(_frame.page_path("model"), label="Choose a model", icon=icon)
    return facts.has_data


# ---------------------------------------------------------------- what is measured


def controls(recipe: Recipe) -> None:
    """Criterion and granularity are the recipe's own; the rest is how the map is shown."""
    criteria = [
        name
        for name in registry.names("criterion")
        if not registry.misfit(name, recipe.granularity)
    ]
    granularities = [
        name
        for name in registry.names("granularity")
        if not registry.misfit(recipe.criterion, name)
    ]
    forms.bound(
        st.selectbox,
        "Criterion",
        recipe.criterion,
        lambda name: forms.attempt(criterion=name, options={}),
        key="map-criterion",
        options=list(dict.fromkeys([*criteria, recipe.criterion])),
        format_func=words.capitalized,
        width=158,
        **forms.lock("criterion", {"help": glossary.of_field("criterion")}),
    )
    forms.bound(
        st.selectbox,
        "Granularity",
        recipe.granularity,
        refit.use_granularity,
        key="map-granularity",
        options=list(dict.fromkeys([*granularities, recipe.granularity])),
        format_func=words.capitalized,
        width=158,
        **forms.lock("granularity", {"help": glossary.of_field("granularity")}),
    )
    st.selectbox(
        "Compare with",
        [NOBODY, *(name for name in criteria if name != recipe.criterion)],
        format_func=words.capitalized,
        key=state.MAP_BESIDE,
        bind="query-params",
        width=158,
        help="Another criterion, on the same colours.",
    )
    st.selectbox(
        "Sort by",
        charts.SORTS,
        format_func=str.capitalize,
        key=state.MAP_SORT,
        width=130,
        bind="query-params",
    )
    st.segmented_control(
        "Shown as",
        ("map", "curves"),
        default="map",
        required=True,
        format_func=str.capitalize,
        key=state.MAP_MODE,
        bind="query-params",
    )

    st.toggle(
        "Reconstructed",
        key=state.MAP_RECONSTRUCTED,
        bind="query-params",
        help="Each cell with its layers solved anew before it is measured: what a layer costs when "
        "the others make up for it. Takes longer than the plain map.",
    )


def compared(recipe: Recipe) -> list[Recipe]:
    """The recipe, and the same with the criterion that is shown beside it."""
    beside = state.widget_value(state.MAP_BESIDE)
    if beside == NOBODY:
        return [recipe]
    return [recipe, replace(recipe, criterion=beside, options={})]


def spec(recipe: Recipe) -> dict[str, Any]:
    """What a map depends on; the ratios, minimum units and exclusions of the recipe are no part."""
    fields = ("model", "criterion", "options", "granularity", "granularity_options", "seed")
    small = models.validation(recipe.model) <= SMALL
    reconstructed = bool(state.widget_value(state.MAP_RECONSTRUCTED))
    return {
        **{name: getattr(recipe, name) for name in fields},
        **({"embeddings": True} if recipe.embeddings else {}),
        **({"reconstruct": True} if reconstructed else {}),
        "tier": "exact" if small or reconstructed or state.every_image() else "progressive",
        "levels": list(LEVELS),
    }


def layers(recipe: Recipe, ranking: Ranking) -> list[charts.Row]:
    """Every layer in the order of the model; a dependency group is one row, named by its first."""
    blocks = models.blocks_of(recipe.model, jobs.study("card", model=recipe.model))
    kinds = {block.name: block.kind for block in blocks}
    pruned = pruned_shares(recipe)
    if recipe.scope == "manual":
        pruned = recipe.ratios  # as they were set, not rounded to whole units
    return [
        charts.Row(
            name,
            kind=kinds.get(name, "other"),
            weights=sum(map(ranking.total, ranking.group(name))),
            fixed=ranking.fixed.get(name),
            at=pruned.get(name) or None,
        )
        for name in ranking.names
        if name not in ranking.leaders
    ]


def pruned_shares(recipe: Recipe) -> dict[str, float]:
    """Share of its units that the recipe prunes of each layer; nothing while that is not known."""
    preview = preview_of(recipe)
    if preview is None:
        return {}
    return {
        name: round(preview.drops[name] / units, DIGITS)
        for name, units in preview.units.items()
        if units
    }


def preview_of(recipe: Recipe) -> Preview | None:
    """What the recipe would keep; None while that is not known."""
    study = jobs.study("scores", **tables.scores_spec(recipe))
    return study.ranking.preview(recipe) if study else None


# ---------------------------------------------------------------- the map


def watch(recipe: Recipe, started: Sequence[Started], rows: list[charts.Row], alive: bool) -> None:
    """The maps, live while they are measured. alive: one of them was when the page was made."""
    with _frame.guarded():
        current = [jobs.job(one.id) for one in started]
        measuring = any(job.state in jobs.LIVE for job in current)
        if state.recipe() != recipe or (alive and not measuring):
            st.rerun()
        for job in current if alive else ():
            jobs.mark_watched(job)
        maps = [
            Map(one.recipe, job, jobs.points(job), one.costly)
            for one, job in zip(started, current, strict=True)
        ]
        if refill(rows, maps[0]):
            st.rerun()
        draw(recipe, rows, maps)
        numbers(recipe, rows, maps[0].points)


def draw(recipe: Recipe, rows: list[charts.Row], maps: Sequence[Map]) -> None:
    """What the ratios come to, and below it one map, or two side by side where there is room."""
    plan(recipe, rows, maps[0].points)
    with st.grid(len(maps), min_column_width=NARROWEST, gap="medium") as places:
        for shown in maps:
            with places.cell():
                one_map(recipe, shown, rows)


def one_map(recipe: Recipe, shown: Map, rows: list[charts.Row]) -> None:
    """A map with its status; ratios are picked on the recipe's own, not on the one beside it."""
    own = shown.recipe is recipe
    tolerated = float(state.widget_value(state.MAP_TOLERATED))
    title = charts.finding(rows, shown.points, tolerated)
    rows = charts.ordered(rows, shown.points, state.widget_value(state.MAP_SORT))
    if not own:
        title = f"{words.capitalized(shown.recipe.criterion)}: {title}"
        rows = [replace(row, at=None) for row in rows]
    view = charts.MapView(
        name=f"sensitivity-{recipe.model}-{shown.recipe.criterion}",
        title=title,
        mode=state.widget_value(state.MAP_MODE),
        noun=words.NOUNS.get(recipe.granularity, "units"),
        tolerated=tolerated,
        images=models.validation(recipe.model),
        pick=own and not state.locked("scope"),
        selected=state.layer(),
        dark=state.dark(),
    )
    data = charts.grid(rows, shown.points, LEVELS, view)
    if state.projector():
        data["title"] = ""  # it stands above
    handout.heading(title)
    handout.table(charts.table(rows, shown.points))
    key = f"grid-{'recipe' if own else 'beside'}"
    _projector.component(key, title, partial(grid, data, pick, key=key))
    status(shown, len(LEVELS) * sum(row.fixed is None for row in rows))


def pick(layer: str, share: float) -> None:
    """Set one layer's ratio; the others stay as they are, by whatever scope that is."""
    recipe = state.recipe()
    before = recipe.ratios if recipe.scope == "manual" else pruned_shares(recipe)
    if recipe.prunes and not before:
        state.warn("What the recipe prunes of each layer is still being worked out: click again.")
        return
    ratios = {name: ratio for name, ratio in {**before, layer: share}.items() if ratio}
    forms.attempt(scope="manual", scope_options={}, ratios=ratios)
    state.select_layer(layer)


def status(shown: Map, cells: int) -> None:
    """Where the measuring stands, and Stop; or why it ended."""
    job = shown.job
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if job.state in jobs.LIVE:
            stands = f"measuring, {waits.in_words(jobs.wait(job))}"
            if job.state == "queued":
                stands = waits.place(jobs.wait(job))
            progress = charts.progress(shown.points, cells)
            line = words.plain(f"{stands}: {progress}")
            st.caption(f":primary[●] {line}", width="stretch")
            st.button(
                "Stop",
                icon=":material/stop_circle:",
                on_click=jobs.stop,
                args=(job.id,),
                key=f"map-stop-{job.id}",
                type="tertiary",
            )
        elif job.state == "finished" and shown.costly is not None:
            start(shown.costly)
        elif job.state == "finished":
            finished(job)
        else:
            st.caption(words.plain(job.message or "Stopped."), width="stretch")
            if st.button("Go on", icon=":material/play_arrow:", key=f"map-again-{job.id}"):
                jobs.press(job.spec)
                jobs.forget(**job.spec)
                st.rerun()


def start(costly: jobs.Costly) -> None:
    """What measuring the map takes, and a button that starts it."""
    text = (
        "An estimate from one gradient pass. Measuring the map takes about "
        f"{words.seconds(costly.seconds)} on this machine."
    )
    st.caption(words.plain(text), width="stretch")
    criterion = costly.spec["criterion"]
    if st.button("Start", icon=":material/play_arrow:", key=f"map-start-{criterion}"):
        jobs.press(costly.spec)
        st.rerun()  # the whole page: a press alone redraws only the map


def finished(job: Job) -> None:
    """How exact the map is, and the way to an exact one."""
    exact = job.spec["tier"] == "exact"
    precision = "Each cell is within 2 points, or has surely collapsed."
    if exact:
        precision = "Every validation image was asked."
    st.caption(f"{precision} Intervals are 95 %, paired with the dense model.", width="stretch")
    if exact:
        return
    help = "Exact on the validation data; takes several times as long."
    if st.button("Ask every image", help=help, key=f"map-every-{job.id}", type="tertiary"):
        state.ask_every_image()
        jobs.press({**job.spec, "tier": "exact"})
        st.rerun()


# ---------------------------------------------------------------- from the map to the recipe


def plan(recipe: Recipe, rows: list[charts.Row], points: list[Point]) -> None:
    """What the recipe's ratios prune and are predicted to cost; Fill; Run."""
    ratios = {row.name: row.at for row in rows if row.at and not row.fixed}
    preview = preview_of(recipe)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="map-plan"):
        pruned, total = "—", None
        if preview is not None:  # units of several layers share weights: ratios do not add up
            _, every = weights_pruned(preview)
            pruned = words.percent(every.share)
            total = f"of {words.count(every.of)} weights"
        with st.container(width=140):
            _frame.metric("The recipe prunes", pruned, total, glossary.line("Sparsity"))
        with st.container(width=190):
            predicted(points, ratios)
        tolerated = st.number_input(
            "Tolerated drop, points",
            0.1,
            50.0,
            1.0,
            0.5,
            format="%g",
            key=state.MAP_TOLERATED,
            bind="query-params",
            width=150,
            help=glossary.line("Tolerated drop"),
        )
        st.button(
            f"Fill within {charts.within(tolerated)}",
            icon=":material/auto_fix_high:",
            on_click=fill_all,
            args=(points, rows, tolerated),
            key="map-fill",
            **forms.lock(
                "scope",
                {
                    "disabled": not any(point.accuracy for point in points),
                    "help": "Of each layer as much as the loss allows; "
                    "the tolerated drop is for all layers together.",
                },
            ),
        )
        run = not state.hidden(locks.RUN) and st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            key="map-run",
            shortcut=_frame.SHORTCUTS["Run"],
            width=100,
            **forms.lock(locks.RUN, {"disabled": not recipe.prunes}),
        )
    beyond(recipe, points, ratios, tolerated)
    if run:
        state.open_run(jobs.start(recipe))
        st.switch_page(_frame.page_path("prune"))


def predicted(points: list[Point], ratios: dict[str, float]) -> None:
    """The change of accuracy and loss that the map predicts for the ratios."""
    loss, drop = planning.predicted(points, ratios)
    if not ratios:
        value = "no change"
    elif drop is None:
        value = "not yet"
    else:
        value = words.points(-drop, 0.0)
    change = f"loss {loss:+.3f}".replace("-", "−") if points and ratios else None
    help = (
        "What layers cost alone is added up, as if they did not interact; accuracy is read off "
        "where single cells with that loss lie."
    )
    _frame.metric("Predicted (estimate)", value, change, help)


def fill_all(points: list[Point], rows: list[charts.Row], tolerated: float) -> None:
    """Every layer's ratio at once, as far as the tolerated drop allows. tolerated: in points."""
    weights = {row.name: row.weights for row in rows if not row.fixed}
    ratios = planning.fill(points, weights, tolerated / 100)
    if not ratios:
        state.warn(
            f"No layer can be pruned within {charts.within(tolerated)}, as far as is measured: "
            "tolerate more, or wait."
        )
        return
    if forms.changed(scope="manual", scope_options={}, ratios=ratios):
        state.follow_map(tolerated)


def refill(rows: list[charts.Row], shown: Map) -> bool:
    """Fill again as more of the map is measured, until something else changes the recipe.

    Whether that changed the recipe.
    """
    fill = state.followed()
    if fill is None:
        return False
    weights = {row.name: row.weights for row in rows if not row.fixed}
    ratios = planning.fill(shown.points, weights, fill.tolerated / 100)
    if shown.job.state == "finished":
        state.stop_following()
    # Without ratios nothing would be pruned: then `beyond` says that these cost more.
    if not ratios or ratios == fill.recipe.ratios:
        return False
    state.amend(replace(fill.recipe, ratios=ratios))
    if shown.job.state != "finished":
        state.follow_map(fill.tolerated)
    return True


def beyond(recipe: Recipe, points: list[Point], ratios: dict[str, float], tolerated: float) -> None:
    """That the ratios cost more than is tolerated, and that they still follow the map."""
    _, drop = planning.predicted(points, ratios)
    if recipe.scope == "manual" and drop is not None and drop > tolerated / 100 + CLOSE:
        text = f"Predicted to cost {words.points(drop, 0.0).lstrip('+')}, more than is tolerated."
        st.caption(f":material/warning: {words.plain(text)}")
    if state.followed() is not None:
        st.caption("Part of the map is an estimate: filled again as it is measured.")


# ---------------------------------------------------------------- the numbers


def numbers(recipe: Recipe, rows: list[charts.Row], points: list[Point]) -> None:
    """The map as a table and a file, and the layers that it leaves out."""
    table = charts.table(charts.ordered(rows, points, state.widget_value(state.MAP_SORT)), points)
    shares = ("removed", "accuracy")
    columns = {name: st.column_config.NumberColumn(name, format="percent") for name in shares}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Table", icon=":material/table:", type="tertiary"):
            st.dataframe(
                table,
                hide_index=True,
                column_config=columns,
                alt="Every cell of the map.",
                key="map-table",
            )
        file = f"sensitivity-{recipe.model}-{recipe.criterion}.csv".replace(":", "-")
        _frame.download(lambda: table.to_csv(index=False), file, key="map-csv")
        fixed = [f"{words.layer_name(row.name)}: {row.fixed}" for row in rows if row.fixed]
        if fixed:
            more = len(fixed) - MOST_NAMED
            rest = f" and {more} more." if more > 0 else ""
            st.caption(words.plain(f"Not pruned: {'; '.join(fixed[:MOST_NAMED])}{rest}"))


page()
