"""Sweeps, as a person meets them: a point of the front page's picture becomes a run that stands in
it; a plan is run, paused and resumed, and its picture is finished.
"""

from __future__ import annotations

import re

import pytest
from e2e import steps
from e2e.served import Served
from playwright.sync_api import Locator, Page, expect

from dashboard import state
from pruning.recipe import Recipe
from pruning.sweeps.plan import Plan

MLP = state.encode(Recipe(model="digits-mlp"))
PLAN = Plan(
    models=("digits-mlp",),
    criteria=("magnitude", "taylor"),
    sparsities=(0.5, 0.9),
    controls=("dense",),
    fields={"epochs": 1},
)

PLACE = """([technique, level]) => {
    const figure = document.querySelector(".js-plotly-plot");
    const { xaxis, yaxis } = figure._fullLayout;
    const line = figure._fullData.find((one) => one.name === technique && one.customdata);
    const point = line.customdata.findIndex((carried) => carried[1] === level);
    const { x, y } = figure.getBoundingClientRect();
    return [
        x + xaxis._offset + xaxis.d2p(line.x[point]),
        y + yaxis._offset + yaxis.d2p(line.y[point]),
    ];
}"""
"""Where a technique's point stands in the window, in pixels."""


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def click_point(page: Page, technique: str, level: float) -> None:
    page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for()
    x, y = page.evaluate(PLACE, [technique, level])
    page.mouse.move(x, y, steps=3)  # plotly clicks what it has seen the pointer over
    page.mouse.click(x, y)


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_point_of_the_front_page_becomes_a_run_that_stands_in_the_picture(
    app: Served, tab: Page
) -> None:
    steps.open_at(tab, f"{app.url}?r={MLP}")
    click_point(tab, "lamp", 0.98)
    panel = tab.locator(".st-key-model-point")
    expect(panel).to_contain_text("lamp at 98 % sparsity")
    panel.get_by_role("link", name="Use this recipe").click()
    tab.wait_for_url(re.compile("/prune"))
    steps.settled(tab)
    expect(steps.sidebar(tab)).to_contain_text("LAMP")
    run = steps.start_run(tab)
    expect(tab.get_by_role("button", name="Stop", exact=True)).to_have_count(0, timeout=60_000)
    steps.go(tab, "Model")
    expect(tab.locator(".legendtext", has_text="your runs")).to_be_visible()
    click_point(tab, "lamp", 0.98)
    expect(panel.get_by_role("link", name="Result of seed 0")).to_have_attribute(
        "href", re.compile(run)
    )
    # It is branched from: the next run starts from its weights and masks.
    steps.go(tab, "Runs")
    box = tab.get_by_role("combobox", name="Marked runs")
    steps.pick(tab, box, run[:6])
    box.press("Escape")  # while its list is open, all else is hidden from readers
    current = tab.get_by_role("button", name="Is the current model")
    steps.press(tab.get_by_role("button", name="Continue from here"), current)
    expect(current).to_be_disabled()
    steps.go(tab, "Prune")
    branch = steps.start_run(tab)
    expect(tab.get_by_role("button", name="Stop", exact=True)).to_have_count(0, timeout=60_000)
    steps.go(tab, "Runs")
    one = tab.locator(".st-key-runs-one")  # the run that is marked still
    expect(one.locator(f'a[href*="{branch}"]')).to_be_visible()


@pytest.mark.parametrize("scheme", ["light"])
def test_a_sweep_is_started_paused_resumed_and_drawn(app: Served, tab: Page) -> None:
    steps.open_at(tab, f"{app.url}/sweeps?r={MLP}&plan={state.encode_plan(PLAN)}")
    expect(tab.get_by_text(re.compile("^5 runs: 2 techniques × 2 levels × 1 seed"))).to_be_visible()
    steps.press_for(tab, tab.get_by_role("button", name="Run", exact=True), "sweep=")
    paused, resume = tab.get_by_text(re.compile("paused: none")), button(tab, "Resume")
    done = tab.get_by_text(re.compile("^5 of 5 runs done"))
    # What is being trained goes on: a quick machine may be done with all before it has paused.
    steps.press(button(tab, "Pause"), paused.or_(done).first)
    if resume.count():
        steps.press(resume, button(tab, "Pause").or_(done).first)
    expect(done).to_be_visible(timeout=90_000)
    steps.settled(tab)
    for technique in PLAN.criteria:
        expect(tab.locator(".legendtext", has_text=technique)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light"])
def test_a_search_is_started_survives_its_tab_and_says_what_it_came_to(
    app: Served, tab: Page
) -> None:
    steps.open_at(tab, f"{app.url}/sweeps?r={MLP}")
    tab.locator(".st-key-sweeps-kind").get_by_text("Search", exact=True).click()
    steps.settled(tab)
    steps.set_number(tab, "Trials", "2")
    steps.set_number(tab, "Epochs of each trial", "0")
    steps.press_for(tab, tab.locator(".st-key-search-run").get_by_role("button"), "sweep=")
    place = tab.url
    tab.goto("about:blank")
    expect(tab).to_have_url("about:blank")
    steps.open_at(tab, place)
    expect(tab.get_by_text(re.compile("^search 2 of 2, random search 2 of 2"))).to_be_visible(
        timeout=120_000
    )
    expect(tab.get_by_role("button", name="Cancel")).to_have_count(0, timeout=60_000)
    steps.settled(tab)
    # Without training little of the weights can be removed; which trial it was, is its answer's.
    expect(tab.get_by_text(re.compile("^The default technique: "))).to_be_visible()
    for line in ("search", "random search"):
        expect(tab.locator(".legendtext", has_text=re.compile(f"^{line}$"))).to_be_visible()
