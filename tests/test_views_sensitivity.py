"""Sensitivity: the page asks for the map, fills the recipe from it, and says why it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import streamlit as st

from dashboard import jobs, state, tables
from dashboard.charts import sensitivity as charts
from dashboard.components import grid
from dashboard.views._predicted import verdict
from pruning.events import Accuracy, Point
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.results import load_study
from pruning.runs.store import Store
from tests.pages import opened, settle, settled, texts, work_off

QUICK = replace(state.HOME, model="digits-mlp")


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def cell(
    level: float,
    correct: int,
    lost: int,
    *,
    layer: str = "a.weight",
    total: int = 100,
    final: bool = True,
) -> Point:
    tier = "exact" if total == 180 else "progressive"
    return Point(
        layer,
        level,
        50,
        round(50 * (1 - level)),
        tier,
        Accuracy(correct, total),
        0.5,
        0.1,
        lost,
        0,
        (-0.12, -0.02),
        final,
    )


GUESS = Point("b.weight", 0.5, 20, 10, "estimate", None, 0.3, 0.1)
ROWS = [
    charts.Row("a.weight", "conv", 50, None, 0.5),
    charts.Row("b.weight", "linear", 900),
    charts.Row("c.weight", "linear", 9, "no."),
]


VIEW = charts.MapView(
    name="n",
    title="t",
    mode="map",
    noun="weights",
    tolerated=1.0,
    images=180,
    pick=True,
    selected=None,
    dark=False,
)


# ---------------------------------------------------------------- the page


def test_while_it_scores_it_says_what_it_waits_for_and_the_map_is_queued():
    page = opened("sensitivity", r=state.encode(QUICK))
    assert "Scoring digits-mlp by magnitude" in texts(page)
    assert [job.spec["what"] for job in Store().jobs("study")].count("map") == 1


def test_the_map_is_there_and_fill_writes_every_layers_ratio_into_the_recipe_and_the_address():
    page = settled("sensitivity", r=state.encode(QUICK))
    assert not page.exception and not page.error
    job = next(job for job in Store().jobs("study") if job.spec["what"] == "map")
    assert job.state == "finished" and job.spec["tier"] == "exact"
    points = jobs.points(job)
    assert len(points) == 27 and {p.tier for p in points} == {"exact"}
    assert "Every validation image was asked." in texts(page)
    before = page.query_params["r"]
    page.button(key="map-fill").click().run()
    settle(page)
    link = page.query_params["r"]
    recipe = state.decode(link if isinstance(link, str) else link[0])
    assert page.query_params["r"] != before
    assert (
        recipe.scope == "manual"
        and set(recipe.ratios) <= {p.layer for p in points}
        and max(recipe.ratios.values()) >= 0.7
    )
    metrics = {metric.label: metric.value for metric in page.metric}
    predicted = metrics["Predicted (estimate)"].split()[0].replace("−", "-").lstrip("±+")
    assert float(predicted) >= -1.05
    assert metrics["The recipe prunes"] != "90.0 %"


def test_another_criterion_stands_beside_it():
    page = settled("sensitivity", r=state.encode(QUICK))
    page.selectbox(key="map-beside").set_value("random").run()
    settle(page)
    assert not page.exception
    criteria = [job.spec["criterion"] for job in Store().jobs("study") if job.spec["what"] == "map"]
    assert sorted(criteria) == ["magnitude", "random"]
    page.segmented_control(key="map-mode").set_value("curves").run()
    page.selectbox(key="map-sort").set_value("sensitivity").run()
    assert not page.exception and not page.error


def test_a_switch_asks_for_the_map_of_reconstructed_cells():
    recipe = replace(QUICK, granularity="channel")
    page = settled("sensitivity", r=state.encode(recipe))
    page.toggle(key=state.MAP_RECONSTRUCTED).set_value(True).run()
    page = settle(page)
    assert not page.exception
    maps = [job for job in Store().jobs("study") if job.spec["what"] == "map"]
    assert [job.spec.get("reconstruct") for job in maps] == [True, None]
    assert [job.state for job in maps] == ["finished", "finished"]
    repaired, plain = (jobs.points(job) for job in maps)
    assert {point.tier for point in repaired} == {"exact"}
    # Where a layer is pruned hard, the others make up for much of it.
    hard = {(p.layer, p.level): p.accuracy.correct for p in plain if p.level == 0.9}
    assert sum(p.accuracy.correct for p in repaired if p.level == 0.9) > sum(hard.values())
    # What a recipe is predicted to cost comes from maps of pruning alone.
    assert [job.id for job in jobs.maps_of(recipe)] == [maps[1].id]


def test_a_model_without_data_says_what_to_do():
    page = settled(
        "sensitivity", r=state.encode(replace(state.HOME, model="torchvision:squeezenet1_1"))
    )
    assert not page.exception
    assert len(page.info) == 1 and not page.selectbox


def test_a_map_that_was_stopped_goes_on():
    page = opened("sensitivity", r=state.encode(QUICK))
    job = next(job for job in Store().jobs("study") if job.spec["what"] == "map")
    Store().stop(job.id)
    work_off()
    page.run()
    assert "Stopped before it began" in texts(page)
    page.button(key=f"map-again-{job.id}").click().run()
    settle(page)
    assert "Every validation image was asked." in texts(page) and not page.exception


# ---------------------------------------------------------------- what is drawn


def test_a_cell_says_what_is_known_of_it():
    data = charts.grid(ROWS, [cell(0.5, 88, 7), GUESS], (0.5, 0.9), VIEW)
    first, missing = data["rows"][0]["cells"]
    assert missing is None
    known = "accuracy 88.0 % ± 5.0, −7.0 points from dense on the same 100 of 180 images."
    assert first["say"] == f"a, 50 % removed, 25 of 50 weights kept: {known}"
    assert (
        first["text"] == "88.0"
        and not first["guess"]
        and first["size"] < 1
        and 0 < first["place"] < 1
    )
    guess = data["rows"][1]["cells"][0]
    assert guess["guess"] and guess["say"].endswith(
        "loss +0.200, an estimate from one gradient pass."
    )
    assert (
        data["rows"][2]["fixed"] == "no."
        and data["dense"] == 0.95
        and data["tolerated"] == pytest.approx(0.94)
    )
    assert data["rows"][0]["at"] == 0.5


def test_rows_by_depth_size_and_sensitivity():
    points = [cell(0.5, 88, 7), replace(GUESS, loss=0.9)]
    names = {by: [row.name[0] for row in charts.ordered(ROWS, points, by)] for by in charts.SORTS}
    assert names == {
        "depth": ["a", "b", "c"],
        "size": ["b", "a", "c"],
        "sensitivity": ["b", "a", "c"],
    }


def test_the_finding_and_the_alternative_text_name_layers():
    points = [cell(0.5, 95, 0), cell(0.9, 50, 45), cell(0.5, 80, 15, layer="b.weight")]
    assert (
        charts.finding(ROWS, points, 1.0) == "Within 1 point, a can lose 50 % by itself, b nothing"
    )
    assert "the worst cell is a at 90 %, −45.0 points" in charts.alt(
        ROWS, points, (0.5, 0.9), "t", 1.0
    )
    assert "not measured yet" in charts.alt(ROWS, [GUESS], (0.5, 0.9), "t", 1.0)


@pytest.mark.parametrize("many", [1, 200])
def test_one_layer_and_two_hundred(many):
    rows = [charts.Row(f"blocks.{i}.conv.weight", "conv", 100) for i in range(many)]
    points = [cell(level, 90, 5, layer=row.name) for row in rows for level in (0.5, 0.9)]
    data = charts.grid(rows, points, (0.5, 0.9), replace(VIEW, images=100, dark=True))
    assert len(data["rows"]) == many and len(charts.table(rows, points)) == 2 * many
    assert (
        charts.progress(points, 2 * many)
        == f"{2 * many} of {2 * many} cells sure, {2 * many} measured"
    )


def test_a_forecast_is_judged_by_the_interval_of_the_measurement():
    once, dense = Recipe(scope="manual"), Accuracy(95, 100)
    assert "within the 95 % interval" in verdict(dense, Accuracy(93, 100), 0.01, once)
    assert verdict(dense, Accuracy(50, 100), 0.01, once).startswith("More was lost")
    assert verdict(dense, Accuracy(95, 100), 0.4, once).startswith("Less was lost")
    assert "4 steps" in verdict(
        dense, Accuracy(93, 100), 0.01, replace(once, steps=4, schedule="cubic")
    )


# ---------------------------------------------------------------- from the map to the recipe


def recipe_of(page):
    link = page.query_params["r"]
    return state.decode(link if isinstance(link, str) else link[0])


def test_the_first_click_starts_from_what_the_recipe_prunes_of_each_layer(monkeypatch):
    """page.md, fault 4: `Remove 90 % anywhere` became one layer's ratio, and 13.8 % in all."""

    def clickable(data, pick, key):
        st.button("click", on_click=pick, args=("fc2.weight", 0.3), key="click")

    monkeypatch.setattr(grid, "grid", clickable)  # the page imports it anew in each run
    page = settled("sensitivity", r=state.encode(QUICK))
    page.button(key="click").click().run()
    assert not page.exception
    recipe = recipe_of(page)
    spec = tables.scores_spec(QUICK)
    finished = [job for job in Store().jobs("study", ("finished",)) if job.spec["what"] == "scores"]
    study = next(job for job in finished if job.spec.items() >= spec.items())
    ranking = load_study(study.folder).ranking
    before, after = ranking.drops(QUICK), ranking.drops(recipe)
    assert recipe.scope == "manual" and recipe.ratios["fc2.weight"] == 0.3
    others = [name for name in before if name != "fc2.weight"]
    assert [after[name] for name in others] == [before[name] for name in others]
    assert after["fc2.weight"] == round(0.3 * len(ranking.units["fc2.weight"]))


def half_measured():
    """A map in progress: every cell an estimate, one of each layer measured."""
    store = Store()
    job = next(job for job in store.jobs("study") if job.spec["what"] == "map")
    work_off(until=job.id)
    return store, store.job(job.id)


LAYERS = ("fc1.weight", "fc2.weight", "fc3.weight")


def points(at_most, tier):
    """Cells of three layers whose loss rises with the ratio. at_most: of each layer at ratio 1."""
    for layer, most in zip(LAYERS, at_most, strict=True):
        for level in (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98):
            loss = most * level
            lost = round(100 * loss)
            accuracy = None if tier == "estimate" else Accuracy(178 - lost, 180)
            yield Point(
                layer, level, 100, 10, tier, accuracy, 0.1 + loss, 0.1, lost, 0, (-1.0, 1.0)
            )


def test_fill_follows_the_map_while_it_is_measured_and_says_when_it_costs_more():
    """page.md, fault 11: ratios filled from estimates stayed, and cost four times as predicted."""
    page = opened("sensitivity", r=state.encode(QUICK))
    store, job = half_measured()
    for point in [
        *points((0.0, 0.0, 0.0), "estimate"),
        *list(points((0.01, 0.5, 0.5), "exact"))[:9],
    ]:
        store.append(job, point)
    page.run()
    page.button(key="map-fill").click().run()
    filled = recipe_of(page)
    assert filled.ratios["fc2.weight"] == 0.98
    assert "filled again as it is measured" in texts(page)
    for point in points((0.01, 0.5, 0.5), "exact"):
        store.append(job, point)
    page.run()
    again = recipe_of(page)
    assert again.scope == "manual" and again.ratios != filled.ratios
    assert again.ratios.get("fc2.weight", 0.0) <= 0.1 and again.ratios["fc1.weight"] == 0.98
    assert "more than is tolerated" not in texts(page)
    # One step of undo for both.
    page.button(key="step-Undo").click().run()
    assert recipe_of(page) == QUICK
    for point in points((0.3, 0.5, 0.5), "exact"):
        store.append(job, point)
    page.run()
    assert recipe_of(page) == QUICK  # somebody who undid it is not overruled


def test_ratios_that_cost_more_than_is_tolerated_say_so():
    manual = replace(QUICK, scope="manual", ratios={"fc1.weight": 0.9, "fc2.weight": 0.9})
    page = opened("sensitivity", r=state.encode(manual))
    store, job = half_measured()
    for point in points((0.01, 0.5, 0.5), "exact"):
        store.append(job, point)
    page.run()
    assert "more than is tolerated" in texts(page)
    assert "all layers together" in page.button(key="map-fill").help
