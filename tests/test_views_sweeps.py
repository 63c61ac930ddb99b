"""The Sweeps page and the picture that the Model page opens on: by keys, values and figures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dashboard import colours, jobs, plans, searches, state, sweeps, words
from dashboard.charts import sweep as charts
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store
from pruning.stats import Spread
from pruning.sweeps import comparison, driver, presets, shipped
from pruning.sweeps import sweeps as engine
from pruning.sweeps.comparison import Difference
from pruning.sweeps.plan import Plan
from tests.pages import figures, opened, texts

MLP = state.encode(Recipe(model="digits-mlp"))
SMALL = Plan(
    models=("digits-mlp",),
    criteria=("magnitude", "taylor"),
    sparsities=(0.5, 0.9),
    controls=("dense", "random"),
    fields={"epochs": 0},
)
"""Nine runs of a moment each."""


@pytest.fixture(autouse=True)
def no_pool(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    monkeypatch.setattr(driver, "ensure", lambda *_: False)


def ended(plan: Plan) -> str:
    """A sweep whose runs are all done, as a worker does them."""
    from pruning.runs.handlers import do

    store = Store()
    id = engine.submit(store, plan)
    while (job := store.claim(queues=("run",))) is not None:
        do(store, job, lambda: False)
    return id


def links(page: Any) -> dict[str, str]:
    """Label of a link to another page -> what it carries."""
    protos = [element.proto for element in page.get("page_link")]
    return {proto.label: f"{proto.page}?{proto.query_string}" for proto in protos}


# ---------------------------------------------------------------- the picture


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    sweep = shipped.find("digits-mlp")
    assert sweep is not None
    return sweep.rows


def test_the_picture_has_a_line_a_technique_a_band_each_and_the_front(rows: Any) -> None:
    figure = charts.picture(rows, "weights_kept", dark=False)
    lines = {trace.get("name"): trace for trace in figure["data"] if trace.get("customdata")}
    names = [each["name"] for each in presets.SIX]
    assert list(lines) == [*names, "random"]
    bands = [trace for trace in figure["data"] if trace.get("fill")]
    assert {trace["legendgroup"] for trace in bands} == set(lines)
    magnitude = lines["magnitude"]
    style = colours.technique("magnitude")
    assert magnitude["line"]["color"] == style.colour
    assert magnitude["marker"]["symbol"] == style.marker
    points = zip(magnitude["x"], magnitude["y"], magnitude["customdata"], strict=True)
    cells = {(c.technique, c.sparsity): c for c in comparison.cells(rows)}
    for x, y, (technique, level) in points:
        cell = cells[technique, level]
        assert x == cell.cost("weights_kept") and y == pytest.approx(100 * cell.mean)
        assert cell.low <= cell.mean <= cell.high
    assert lines["random"]["line"]["color"] == colours.palette(False).random
    assert lines["random"]["line"]["dash"] != "solid"
    (front,) = [trace for trace in figure["data"] if trace.get("name") == "Pareto front"]
    assert len(front["x"]) >= 2 and front["y"] == sorted(front["y"])


def test_dense_and_dense_trained_as_long_are_lines_with_names(rows: Any) -> None:
    figure = charts.picture(rows, "macs", dark=True)
    cells = comparison.cells(rows)
    levels = [shape["y0"] for shape in figure["layout"]["shapes"]]
    for control, level in zip(("dense", "dense_longer"), levels, strict=True):
        cell = comparison.reference(cells, control)
        assert cell is not None and level == pytest.approx(100 * cell.mean)
    (label,) = figure["layout"]["annotations"]
    assert label["text"].startswith("dense 97.5 %") and "n = 3" in label["text"]
    # Above every point too: it stood inside the circles of the front.
    highest = max(100 * cell.mean for cell in cells)
    assert label["y"] == pytest.approx(max(highest, *levels)) and label["yshift"] > 8


@pytest.mark.parametrize("cost", comparison.COSTS)
def test_every_cost_has_an_axis_that_holds_its_points(rows: Any, cost: str) -> None:
    figure = charts.picture(rows, cost, dark=False)
    axis = figure["layout"]["xaxis"]
    values = [x for trace in figure["data"] if trace.get("customdata") for x in trace["x"]]
    low, high = axis["range"]
    if axis.get("type") == "log":
        low, high = 10**low, 10**high
    assert low < min(values) and max(values) < high


def test_one_seed_is_said_and_has_no_band(rows: Any) -> None:
    one = [row for row in rows if row["seed"] == 0]
    figure = charts.picture(one, "weights_kept", dark=False)
    assert not any(trace.get("fill") for trace in figure["data"])
    assert charts.seeds_text(one).startswith("n = 1")
    assert "n = 1" not in charts.seeds_text(rows) and "3 seeds" in charts.seeds_text(rows)


def test_an_own_run_stands_in_the_picture(rows: Any) -> None:
    own = [{**rows[-1], "run": "abc", "technique": "wanda", "criterion": "wanda"}]
    figure = charts.picture(rows, "bytes", dark=False, own=own)
    (trace,) = [trace for trace in figure["data"] if trace.get("name") == "your runs"]
    assert trace["customdata"] == [["run:abc", own[0]["sparsity"]]]
    assert trace["x"] == [own[0]["bytes"]]


def test_two_techniques_of_one_picture_never_look_alike() -> None:
    names = [f"technique {i}" for i in range(20)] + ["magnitude", "taylor", "snip"]
    styles = colours.techniques(names)
    assert len({(style.colour, style.dash) for style in styles.values()}) == len(names)
    assert styles["magnitude"] == colours.technique("magnitude")
    assert colours.techniques(["lamp"])["lamp"] == colours.technique("lamp")


def test_ranks_have_an_interval_that_holds_the_rank(rows: Any) -> None:
    figure = charts.rank_picture(rows, dark=False)
    assert [trace["name"] for trace in figure["data"]] == [each["name"] for each in presets.SIX]
    for trace in figure["data"]:
        error = trace["error_y"]
        assert all(value >= 0 for value in [*error["array"], *error["arrayminus"]])


def test_parallel_coordinates_have_every_run_on_every_axis(rows: Any) -> None:
    (trace,) = charts.parallel(rows, dark=False)["data"]
    done = [row for row in rows if row["control"] not in ("dense", "dense_longer")]
    assert {len(axis["values"]) for axis in trace["dimensions"]} == {len(done)}
    assert trace["dimensions"][0]["label"] == "technique"


def test_a_budget_table_says_what_was_interpolated(rows: Any) -> None:
    measured = charts.budget_table(rows, "weights_kept", 0.1)
    assert set(measured["how"]) == {"measured"}
    between = charts.budget_table(rows, "weights_kept", 0.07)
    assert all("interpolated" in how for how in between["how"])
    assert len(between) == 7
    beyond = charts.budget_table(rows, "weights_kept", 0.001)
    assert set(beyond["accuracy"]) == {"not measured"}


def test_no_sentence_crowns_a_winner_that_the_ranks_do_not() -> None:
    for name in shipped.names():
        sweep = shipped.find(name)
        assert sweep is not None
        by_level = comparison.levels(comparison.cells(sweep.rows))
        sentences = charts.level_sentences(sweep.rows, sweep.paired)
        for cells, sentence in zip(by_level.values(), sentences, strict=True):
            assert ("no winner" in sentence) is (comparison.winner(cells, sweep.paired) is None)


def test_only_a_clear_difference_says_who_is_better() -> None:
    def text(seeds: Spread | None, images: Spread | None) -> str:
        return charts.difference_text("a", "b", Difference(0.05, seeds, images), "accuracy")

    clear, unclear = Spread(0.03, 0.05, 0.07), Spread(-0.01, 0.05, 0.11)
    assert "+5.0 points" in text(clear, clear) and text(clear, clear).endswith("a is better.")
    for seeds, images in ((clear, unclear), (unclear, clear), (None, clear)):
        assert "no winner" in text(seeds, images) and "better" not in text(seeds, images)
    worse = Difference(-0.05, Spread(-0.07, -0.05, -0.03), None)
    assert charts.difference_text("a", "b", worse, "accuracy").endswith("b is better.")


# ---------------------------------------------------------------- the plan


@pytest.mark.parametrize(
    ("text", "level"), [("90 %", 0.9), ("97.5", 0.975), ("0.9", 0.9), ("0,5 %", 0.005), ("0", 0)]
)
def test_levels_are_read_as_people_write_them(text: str, level: float) -> None:
    assert plans.level_of(text) == level


@pytest.mark.parametrize("text", ["", "much", "9o %"])
def test_what_is_no_level_is_refused_by_name(text: str) -> None:
    with pytest.raises(PruningError, match="level of sparsity"):
        plans.level_of(text)


def test_techniques_by_name_are_the_crossed_ones() -> None:
    named = plans.explicit(SMALL)
    assert [t["name"] for t in named.techniques] == ["magnitude", "taylor"]
    recipes = [point.recipe for point in SMALL.points()]
    assert [point.recipe for point in named.points()] == recipes
    fewer = plans.with_techniques(SMALL, ["taylor", "lamp"])
    assert [t["name"] for t in fewer.techniques] == ["taylor", "lamp"]


def test_the_current_recipe_becomes_a_technique_with_its_own_training() -> None:
    recipe = Recipe(model="digits-mlp", criterion="taylor", steps=4, epochs=2, schedule="cubic")
    plan = plans.with_recipe(SMALL, recipe)
    added = plan.all_techniques()[-1]
    assert added.name == "taylor 2"
    made = plan.recipe(added, "digits-mlp", 0.9, 3)
    assert made == replace(recipe, sparsity=0.9, seed=3)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_plan_in_an_address_is_the_plan(name: str) -> None:
    plan = presets.PRESETS[name](["digits-mlp", "digits-cnn"])
    text = state.encode_plan(plan)
    assert state.decode_plan(text) == plan and len(text) < state.LONGEST_LINK
    with pytest.raises(PruningError):
        state.decode_plan(text[:-9])


# ---------------------------------------------------------------- the pages


def test_the_model_page_opens_on_the_finished_picture() -> None:
    page = opened(r=MLP)
    assert not page.exception and not page.error
    sweep = shipped.find("digits-mlp")
    assert sweep is not None
    (figure,) = figures(page).values()
    assert figure["layout"]["meta"]["title"] == charts.finding(sweep.rows, sweep.paired)
    assert sweep.date in texts(page) and "3 seeds" in texts(page)
    assert "Run it yourself" in links(page)
    page.segmented_control(key="model-cost").set_value("bytes").run()
    (figure,) = figures(page).values()
    assert "Sparse file" in figure["layout"]["xaxis"]["title"]["text"]


@pytest.mark.parametrize("model", ["torchvision:squeezenet1_1", "fashion-resnet20"])
def test_a_model_without_a_shipped_sweep_says_so_and_offers_one(model: str) -> None:
    assert shipped.find(model) is None
    page = opened(r=state.encode(Recipe(model=model)))
    assert not figures(page) and not page.exception
    assert "No sweep came with" in texts(page)
    assert "Run it yourself" in links(page)


def test_run_it_yourself_fills_the_plan() -> None:
    sweep = shipped.find("digits-mlp")
    assert sweep is not None
    page = opened("sweeps", r=MLP, plan=state.encode_plan(sweep.plan))
    assert not page.exception and not page.error
    names = [each["name"] for each in presets.SIX]
    assert page.multiselect(key="plan-techniques").value == names
    assert page.multiselect(key="plan-models").value == ["digits-mlp"]
    assert page.multiselect(key="plan-seeds").value == ["0", "1", "2"]
    assert f"{len(sweep.plan.points())} runs" in texts(page)


def test_the_plan_is_edited_by_chips_and_refused_in_a_sentence() -> None:
    page = opened("sweeps", r=MLP, plan=state.encode_plan(SMALL))
    page.multiselect(key="plan-criteria").set_value(["magnitude"]).run()
    page.multiselect(key="plan-seeds").set_value(["0", "1"]).run()
    page.number_input(key="plan-epochs").set_value(2).run()
    plan = state.decode_plan(page.query_params["plan"])
    wanted = replace(SMALL, criteria=("magnitude",), seeds=(0, 1), fields={"epochs": 2})
    assert plan == wanted
    page.multiselect(key="plan-levels").set_value([]).run()
    assert any("sparsities" in warning.value for warning in page.warning)
    assert state.decode_plan(page.query_params["plan"]) == wanted
    page.selectbox(key="plan-preset").set_value("seeds").run()
    assert state.decode_plan(page.query_params["plan"]) == presets.seeds(["digits-mlp"])


def test_a_sweep_is_started_paused_resumed_and_cancelled() -> None:
    page = opened("sweeps", r=MLP, plan=state.encode_plan(SMALL))
    page.button(key="sweep-run").click().run()
    assert not page.exception and not page.error
    (sweep,) = sweeps.listed()
    assert page.query_params["sweep"] == sweep.id
    assert sweeps.progress(sweep.id).waiting == len(SMALL.points())
    # One line of the strip at the bottom, whatever a sweep's size, and none while it is paused.
    line = "**Sweep** · 0 running"
    assert sum(line in text.value for text in page.markdown) == 1
    assert not [button for button in page.button if str(button.key).startswith("strip-stop-")]
    page.button(key="sweep-pause").click().run()
    assert not any(line in text.value for text in page.markdown)
    assert sweeps.progress(sweep.id).state == "paused"
    page.button(key="sweep-resume").click().run()
    assert sweeps.progress(sweep.id).state == "active"
    page.button(key="sweep-cancel").click().run()
    now = sweeps.progress(sweep.id)
    assert now.state == "cancelled" and now.stopped == now.total


def test_a_sweep_of_which_dense_alone_is_done_says_what_it_waits_for() -> None:
    from pruning.runs.handlers import do

    store = Store()
    id = engine.submit(store, SMALL)
    job = store.claim(queues=("run",))
    assert job is not None and job.spec["sparsity"] == 0
    do(store, job, lambda: False)
    page = opened("sweeps", r=MLP, sweep=id)
    assert not page.exception and not page.error and not figures(page)
    assert sweeps.progress(id).done == 1 and "begins with a technique" in texts(page)


def test_a_finished_sweep_is_a_picture_whose_point_leads_to_its_run() -> None:
    id = ended(SMALL)
    page = opened("sweeps", r=MLP, sweep=id)
    assert not page.exception and not page.error
    known = sweeps.rows(sweeps.progress(id))
    title = charts.finding(known, sweeps.pairing)
    figure = figures(page)[title]
    (line,) = [t for t in figure["data"] if t.get("name") == "taylor"]
    assert line["customdata"] == [["taylor", 0.9], ["taylor", 0.5]]  # from few kept to many
    page.session_state["point"] = tuple(line["customdata"][1])
    page.run()
    shown = links(page)
    (run,) = {r["run"] for r in known if (r["technique"], r["sparsity"]) == ("taylor", 0.5)}
    assert f"run={run}" in shown["Result of seed 0"]
    recipe = shown["Use this recipe"].split("r=")[1]
    assert state.decode(recipe).criterion == "taylor" and state.decode(recipe).sparsity == 0.5
    for kind in ("Ranks", "Every run", "Two techniques", "Same budget"):
        page.segmented_control(key="sweep-beside").set_value(kind).run()
        assert not page.exception and not page.error
    (table,) = [t.value for t in page.table]
    assert set(table.index) == {"magnitude", "taylor", "random"}
    page.button(key="sweep-add-a-seed").click().run()
    assert sweeps.progress(id).plan.seeds == (0, 1) and not page.exception


def test_a_sweep_that_is_not_here_is_one_sentence_and_the_plan_stays() -> None:
    page = opened("sweeps", r=MLP, sweep="nothing-like-it")
    assert not page.exception and any("nothing-like-it" in e.value for e in page.error)
    assert page.button(key="sweep-run")


def test_a_pasted_plan_is_used_or_refused_by_its_field() -> None:
    page = opened("sweeps", r=MLP)
    page.session_state["plan-json"] = True
    page.run()
    page.text_area(key="plan-pasted").set_value(json.dumps({"models": ["a"], "criterions": []}))
    page.button(key="plan-paste").click().run()
    assert any("criterions" in error.value for error in page.error)
    page.text_area(key="plan-pasted").set_value(SMALL.to_json())
    page.button(key="plan-paste").click().run()
    assert page.multiselect(key="plan-criteria").value == ["magnitude", "taylor"]


def test_shipped_techniques_are_paired_example_by_example() -> None:
    sample = shipped.find("digits-cnn")
    assert sample is not None
    own, other = (
        next(c for c in comparison.cells(sample.rows) if (c.technique, c.sparsity) == (name, 0.95))
        for name in ("lamp", "wanda")
    )
    pairing = sweeps.shipped_pairing(sample)
    for row, against in zip(own.rows, other.rows, strict=True):
        pair = pairing(row, against)
        assert pair is not None
        difference = (pair.gained - pair.lost) / row["examples"]
        assert difference == pytest.approx(row["accuracy"] - against["accuracy"], abs=2e-6)
    assert comparison.difference(own, other, None, pairing).exact


def test_runs_of_this_workspace_are_paired_by_the_answers_that_they_kept() -> None:
    id = ended(replace(SMALL, sparsities=(0.9,), controls=()))
    first, second = sweeps.rows(sweeps.progress(id))
    pair = sweeps.pairing(first, second)
    assert pair is not None
    assert pair.both + pair.gained + pair.lost + pair.neither == first["examples"]
    difference = (pair.gained - pair.lost) / first["examples"]
    assert difference == pytest.approx(first["accuracy"] - second["accuracy"], abs=2e-6)
    assert sweeps.pairing({**first, "run": None}, second) is None


# ---------------------------------------------------------------- search


def search_panel() -> Any:
    page = opened("sweeps", r=MLP)
    return page.segmented_control(key="sweeps-kind").set_value("Search").run()


def test_a_goal_is_entered_and_what_cannot_be_looked_for_is_said() -> None:
    page = search_panel()
    assert not page.exception and "131 runs: 60 trials, 60 at random" in texts(page)
    page.toggle(key="search-control").set_value(False).run()
    assert "69 runs" in texts(page)
    page.selectbox(key="search-find").set_value("most accurate").run()
    assert not [button for button in page.button if button.key == "search-run"]
    assert "unless something is limited" in texts(page)
    page.number_input(key="search-weights").set_value(5.0).run()
    page.number_input(key="search-kb").set_value(200.0).run()
    page.number_input(key="search-trials").set_value(7).run()
    page.button(key="search-run").click().run()
    assert not page.exception and not page.error and not page.warning
    (sweep,) = sweeps.listed()
    asked = searches.of(sweep.id)
    assert asked is not None and page.query_params["sweep"] == sweep.id
    assert asked.goal.to_dict() | {"most_weights": 0.05, "most_bytes": 200_000} == (
        asked.goal.to_dict()
    )
    assert (asked.trials, asked.control, asked.goal.find) == (7, False, "most accurate")
    assert "at most 200,000 bytes" in texts(page)
    page.button(key="sweep-pause").click().run()
    assert sweeps.progress(sweep.id).state == "paused" and "paused" in texts(page)
    page.button(key="sweep-resume").click().run()
    assert sweeps.progress(sweep.id).state == "active"
    page.button(key="sweep-cancel").click().run()
    now = sweeps.progress(sweep.id)
    assert now.state == "cancelled" and now.stopped == now.total
    assert "cancelled" in texts(page)


def test_a_search_that_is_over_says_what_it_came_to_and_stands_in_the_picture() -> None:
    from pruning.runs.handlers import do

    goal = searches.Form(within=30.0, epochs=0).goal("digits-mlp")
    goal = replace(
        goal,
        criteria=("magnitude",),
        granularities=("weight",),
        scopes=("global",),
        reconstruct=False,
        confirm=1,
        kept=(0.3, 0.9),
    )
    store = Store()
    id = driver.ask(store, goal, 2)
    one = driver.Driver(store)
    while one.tick():
        while (job := store.claim(queues=("run",))) is not None:
            do(store, job, lambda: False)
    page = opened("sweeps", r=MLP, sweep=id)
    assert not page.exception and not page.error

    def said(sentence: str) -> str:
        return words.plain(sentence).replace("\u00a0", " ")

    asked = searches.of(id)
    assert asked is not None and asked.over and not asked.why
    text = texts(page)
    sentences = searches.sentences(asked)
    assert len(sentences) == 3 and all(said(each) in text for each in sentences)
    shown = links(page)
    (found,) = searches.answers(asked, "search")
    assert f"run={found.run}" in shown["Result of the answer"]
    assert state.decode(shown["Use its recipe"].split("r=")[1]) == found.recipe
    known = sweeps.rows(sweeps.progress(id))
    names = {
        trace.get("name") for trace in figures(page)[charts.finding(known, sweeps.pairing)]["data"]
    }
    assert {"search", "random search", "magnitude", "Pareto front"} <= names
    assert "searches.sqlite" in (searches.dashboard_command() or "")
    before = jobs.news([f"{jobs.SEARCHED}{id}"])
    driver.resume(store, id)
    assert jobs.news([f"{jobs.SEARCHED}{id}"]) != before
    assert jobs.news([f"{jobs.SEARCHED}../../x"]) == {f"{jobs.SEARCHED}../../x": "search.0"}


def test_sentences_begin_with_what_is_looked_for() -> None:
    from pruning.sweeps.driver import Asked, Line, LineAnswer
    from pruning.sweeps.goal import Outcome

    mean = Outcome(0.97, 0.98, 0.94, 12_345, 0.041, 0.2, 0.8)
    lines = (Line("search", 3, 3, 0, 1), Line("random search", 3, 2, 1, 0))

    def told(**goal: Any) -> list[str]:
        form = searches.Form(**goal)
        found = tuple(
            LineAnswer("search", n, Recipe(), replace(mean, bytes=mean.bytes + n), 3, None)
            for n in range(2 if form.find == "front" else 1)
        )
        asked = Asked("x", form.goal("digits-mlp"), 3, True, over=True, lines=lines, answers=found)
        return searches.sentences(asked)

    first, control, default = told()
    assert first.startswith("The search: 12.3 kB, 4.1 % of the weights, 0.94 points below dense")
    assert first.endswith("(mean of 3 seeds).")
    assert control == "Random search: none keeps the limit."
    assert default.startswith("The default technique: none")
    assert told(find="fastest")[0].startswith("The search: 80.0 % of dense's time")
    assert told(find="most accurate", weights=5.0)[0].startswith("The search: 0.94 points below")
    assert "2 recipes that no other beats, from 12.3 kB" in told(find="front")[0]
