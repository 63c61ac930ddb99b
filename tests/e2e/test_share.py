"""What is shared, as it arrives: a link in another browser, a handout without a network, a chart on
a projector, and a layout that the browser keeps.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from e2e import steps
from e2e.conftest import complaints
from e2e.served import Served
from e2e.test_access import open_patiently, serious
from playwright.sync_api import Browser, Page, ViewportSize, expect

PROJECTOR: ViewportSize = {"width": 1024, "height": 768}
SWEEP = "sweeps?sweep=shipped:digits-mlp"
LEAST = 18  # pixels of a letter that the last row reads
LETTERS = """
() => [...document.querySelectorAll(".st-key-projector svg text, .st-key-projector h1")]
  .filter((text) => text.getBoundingClientRect().width)
  .map((text) => parseFloat(getComputedStyle(text).fontSize))
"""

pytestmark = pytest.mark.parametrize("scheme", ["light"])  # only colours differ


def share(tab: Page) -> None:
    button = steps.sidebar(tab).get_by_role("button", name="Share", exact=True)
    steps.press(button, tab.get_by_role("dialog"))
    steps.settled(tab)


def link_of(tab: Page) -> str:
    return tab.get_by_role("dialog").get_by_test_id("stCode").inner_text().strip()


def what_it_shows(page: Page) -> str:
    steps.settled(page)
    return page.get_by_test_id("stMain").inner_text()


def test_a_link_opens_the_same_in_another_browser_with_its_locks(
    app: Served, tab: Page, browser: Browser
) -> None:
    open_patiently(tab, f"{app.url}/{SWEEP}&point=0.9+lamp")
    tab.locator(".st-key-sweep-near label").first.click()
    steps.settled(tab)
    steps.choose_radio(tab, "MACs kept")
    steps.choose_radio(tab, "Ranks")
    shown = what_it_shows(tab)
    share(tab)
    tab.get_by_role("dialog").get_by_text("Criterion", exact=True).click()
    expect(tab.get_by_role("dialog").get_by_test_id("stCode")).to_contain_text("lock=criterion")
    link = link_of(tab)
    context = browser.new_context(viewport=tab.viewport_size)
    other = context.new_page()
    errors = complaints(other)
    open_patiently(other, link)
    expect(other.locator(".st-key-sweep-point")).to_contain_text("lamp")
    assert what_it_shows(other) == shown
    for control in ("MACs kept", "Ranks"):
        expect(other.get_by_role("radio", name=control)).to_be_checked()
    expect(other.locator(".st-key-sweep-near input")).to_be_checked()
    expect(steps.sidebar(other)).to_contain_text("Locked by the link")
    assert errors == []
    context.close()


def test_a_handout_opens_offline_and_the_projector_is_read_from_the_last_row(
    app: Served, tab: Page, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    open_patiently(tab, f"{app.url}/{SWEEP}")
    share(tab)
    assert serious(tab, scheme) == []
    ready = tab.get_by_role("button", name="Download the handout")
    steps.press(tab.get_by_role("button", name="Make a handout"), ready)
    file = tmp_path / "handout.html"
    steps.download(tab, ready).save_as(file)
    asks_for_nothing(browser, file)
    chart = tab.locator(".st-key-projector .js-plotly-plot")
    steps.press(tab.get_by_role("button", name="Projector view"), chart)
    tab.set_viewport_size(PROJECTOR)
    steps.open_at(tab, tab.url)  # as somebody opens the link
    fills_the_projector(tab)
    assert serious(tab, scheme) == []
    navigation = tab.get_by_role("navigation", name="App pages")
    steps.key(tab, "Escape", lambda: expect(navigation).to_be_visible(timeout=steps.PRESSED))
    assert "view=" not in tab.url


def asks_for_nothing(browser: Browser, handout: Path) -> None:
    """Without a network it is whole all the same."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    errors = complaints(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(handout.as_uri())
    expect(page.locator(".plot .main-svg").first).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.locator(".plot .scatterlayer .trace").count() > 5
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert errors == [] and serious(page, "light") == []
    context.close()


def fills_the_projector(tab: Page) -> None:
    """The chart alone, with letters that are large enough."""
    chart = tab.locator(".st-key-projector .js-plotly-plot")
    expect(chart).to_be_visible()
    expect(tab.get_by_role("navigation", name="App pages")).to_have_count(0)
    expect(tab.get_by_role("heading", level=1)).to_have_count(1)
    expect(tab.get_by_role("button", name="Run", exact=True)).to_have_count(0)
    letters = tab.evaluate(LETTERS)
    assert len(letters) > 10 and min(letters) >= LEAST
    box = chart.bounding_box()
    assert box and box["y"] + box["height"] <= PROJECTOR["height"]
    assert box["x"] >= 0 and box["x"] + box["width"] <= PROJECTOR["width"]


def test_the_browser_keeps_the_simple_layout(app: Served, tab: Page, scheme: str) -> None:
    open_patiently(tab, f"{app.url}/prune")
    granularity = tab.locator(".st-key-cards-granularity")
    expect(granularity).to_be_visible()
    share(tab)
    tab.get_by_role("button", name="Simple layout").click()
    expect(granularity).to_have_count(0)
    expect(tab.get_by_role("dialog")).to_have_count(0)
    expect(tab.get_by_role("button", name="Run", exact=True)).to_be_visible()
    expect(tab.locator(".st-key-cards-criterion")).to_be_visible()
    assert re.search(r"[?&]layout=simple", tab.url)
    steps.open_at(tab, f"{app.url}/prune")
    expect(tab.locator(".st-key-cards-criterion")).to_be_visible()
    expect(granularity).to_have_count(0)
    assert serious(tab, scheme) == []
    share(tab)
    dialog = tab.get_by_role("dialog")  # at the side stands the same button
    dialog.get_by_role("button", name="Full layout").click()
    expect(granularity).to_be_visible()


def test_formulas_of_the_glossary_are_drawn(app: Served, tab: Page) -> None:
    open_patiently(tab, f"{app.url}/glossary?term=training.distill")
    expect(tab.locator(".katex").first).to_be_visible()
    assert tab.locator(".katex").count() == 2 and tab.locator(".katex-error").count() == 0
