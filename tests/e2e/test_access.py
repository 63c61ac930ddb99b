"""Every page for everybody: axe finds nothing serious, little jumps at first, keys do what they
say, and the console stays empty while work is live."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from e2e import boxes, served, steps
from e2e.served import READY, Served
from playwright.sync_api import Browser, Page, expect

from dashboard import state
from dashboard.pages import PAGE_NAMES
from pruning.recipe import Recipe
from pruning.runs.store import Store

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-playwright-python is absent: requirements-dev.txt names it",
)

RUN_OPEN = "a run open"
COLD = {"": "digits-cnn", "prune": "digits-mlp", "sensitivity": "digits-resnet"}
"""Pages that wait for studies -> models, one for each, so that no page finds another's."""
SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
SLIDER_VALUES = """
() => [...document.querySelectorAll("[data-testid=stSliderThumbValue] *")]
  .filter((element) => element.textContent.trim() && !element.children.length)
  .map((element) => [
    getComputedStyle(element).color,
    getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor,
  ])
"""
"""The value above each slider's thumb, and the page's ground."""
PATIENCE = 120_000  # milliseconds
ALSO = ("heading-order", "page-has-heading-one", "empty-heading")  # moderate, and ours to keep
MOST_SHIFT = 0.1  # "good", as web.dev/cls has it
SCROLLED = "() => document.querySelector('[data-testid=stMain]').scrollTop"


def address(app: Served, tab: Page, name: str) -> str:
    if name != RUN_OPEN:
        return f"{app.url}/{name}"
    open_patiently(tab, app.url)  # the first visit records the example
    (run, *_) = Store(app.home).jobs("run", ("finished",))
    return f"{app.url}/run?run={run.id}"


def open_patiently(page: Page, url: str) -> None:
    """As `steps.open_at`, however long a cold server takes for its first studies."""
    page.goto(url)
    page.wait_for_selector(READY, state="attached", timeout=PATIENCE)
    skeletons = page.get_by_test_id(re.compile("stSkeleton"))
    expect(skeletons).to_have_count(0, timeout=PATIENCE)
    page.wait_for_selector(READY, state="attached", timeout=PATIENCE)


def serious(page: Page, scheme: str) -> list[str]:
    """What axe finds serious or critical, or is in ALSO: a line for each element.

    Of dark pages only what depends on colours: nothing else differs.
    """
    options: dict[str, list[str]] = {"resultTypes": ["violations"]}
    if scheme == "dark":
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    found = axe.Axe().run(page, options=options).response["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['any'] or node['all']}"
        for violation in found
        if violation["impact"] in ("serious", "critical") or violation["id"] in ALSO
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", [*(name for name in PAGE_NAMES if name != "run"), RUN_OPEN])
def test_axe_finds_nothing_serious_and_the_page_stays_put(
    app: Served, tab: Page, name: str, scheme: str
) -> None:
    url = address(app, tab, name)
    open_patiently(tab, url)  # what a model needs is measured once, for every visitor
    if scheme == "light":  # where things stand does not depend on their colours
        tab.add_init_script(SHIFTS)
        open_patiently(tab, url)
        assert tab.evaluate("window.shift") < MOST_SHIFT
    expect(tab.get_by_role("heading", level=1)).to_have_count(1)
    # Axe says nothing of text that lies over other elements, as a slider's value does.
    for ink, ground in tab.evaluate(SLIDER_VALUES):
        assert boxes.contrast(ink, ground) >= 4.5, (ink, ground)
    violations = serious(tab, scheme)
    for _ in range(3):
        if violations:  # Streamlit fades what a running script has not drawn yet
            tab.wait_for_timeout(1500)
            violations = serious(tab, scheme)
    assert violations == []


def test_little_jumps_on_the_first_visit_of_all(browser: Browser, tmp_path: Path) -> None:
    """A cold server: each page waits for studies that nobody has asked for yet."""
    running = served.serve(tmp_path / "workspace")
    shifts = {}
    try:
        for name, model in COLD.items():
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            page.add_init_script(SHIFTS)
            recipe = state.encode(replace(state.HOME, model=model))
            open_patiently(page, f"{running.url}/{name}?r={recipe}")
            page.wait_for_timeout(1000)  # what components draw comes a moment later
            shifts[name] = page.evaluate("window.shift")
            context.close()
    finally:
        running.end()
    assert all(shift < MOST_SHIFT for shift in shifts.values()), shifts


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_keys_run_stop_and_undo_and_a_dialog_lists_them(app: Served, tab: Page) -> None:
    recipe = Recipe(model="digits-mlp", epochs=400, lr=0.01)
    open_patiently(tab, f"{app.url}/prune?r={state.encode(recipe)}")
    tab.keyboard.press("?")
    dialog = tab.get_by_role("dialog")
    for keys in ("Ctrl+Enter", "Ctrl+Shift+Enter", "Ctrl+Z", "?"):
        expect(dialog.get_by_text(keys, exact=True)).to_be_visible()
    tab.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    before = tab.url
    steps.set_number(tab, "Fine-tuning epochs", "300")
    # The page may be at rest before it has begun with the new number.
    tab.wait_for_function("before => location.href !== before", arg=before)
    steps.settled(tab)
    before = tab.url
    tab.keyboard.press("Control+z")
    tab.wait_for_function("before => location.href !== before", arg=before)
    steps.settled(tab)
    box = tab.get_by_role("spinbutton", name="Fine-tuning epochs", exact=True)
    expect(box).to_have_value("400")

    tab.keyboard.press("Control+Enter")
    tab.wait_for_url(re.compile("run="))
    run = steps.run_in(tab.url)
    expect(tab.locator(f".st-key-strip-stop-{run}")).to_be_visible()
    tab.keyboard.press("Control+Shift+Enter")
    expect(tab.locator(f".st-key-strip-stop-{run}")).to_have_count(0, timeout=60_000)
    assert Store(app.home).job(str(run)).state == "stopped"


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_another_model_is_in_sight_when_it_is_picked(app: Served, tab: Page) -> None:
    open_patiently(tab, app.url)
    tab.locator(".st-key-choose-digits-mlp").scroll_into_view_if_needed()
    assert tab.evaluate(SCROLLED) > 300
    steps.choose_model(tab, "digits-mlp")
    tab.wait_for_function(f"({SCROLLED})() < 100")


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_the_console_stays_empty_while_work_is_live(app: Served, tab: Page) -> None:
    """A lottery, a map and a run at once, seen from every page; `tab` looks at the console."""
    lottery = replace(state.LOTTERY_RECIPE, steps=2, epochs=3, sparsity=0.7)
    recipe = state.encode(Recipe(model="digits-mlp", epochs=60, seed=77))
    open_patiently(tab, f"{app.url}/lottery?r={recipe}&t={state.encode(lottery)}")
    tab.get_by_role("button", name="Find tickets").click()
    tab.wait_for_url(re.compile("set="))
    lottery_url = tab.url
    open_patiently(tab, f"{app.url}/prune?r={recipe}")
    tab.locator(".st-key-run-now").get_by_role("button").click()
    tab.wait_for_url(re.compile("run="))
    for name in ("sensitivity", "prune", "model", "inspect", "compare", "structure", "criteria"):
        open_patiently(tab, f"{app.url}/{name}?r={recipe}")
        tab.wait_for_timeout(1000)  # a tick or two of what refreshes itself
    open_patiently(tab, lottery_url)
    csv = tab.locator(".st-key-lottery-csv").get_by_role("button")
    expect(csv).to_be_visible(timeout=120_000)
    tab.wait_for_timeout(3000)
    with tab.expect_download() as download:
        csv.click()
    assert download.value.suggested_filename == "lottery.csv"
    stop = tab.locator(".st-key-lottery-stop").get_by_role("button")
    if stop.count():
        stop.click()
