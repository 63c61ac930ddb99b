"""Every page for everybody: axe finds nothing serious, little jumps at first, keys do what they
say, and the console stays empty while work is live."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

import pytest
from e2e import steps
from e2e.served import READY, Served
from playwright.sync_api import Page, TimeoutError, expect

from dashboard import state
from pruning.recipe import Recipe
from pruning.runs.store import Store

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-playwright-python is absent: requirements-dev.txt names it",
)

COLD = {"": "digits-cnn", "prune": "digits-resnet", "sensitivity": "digits-mlp"}
"""Pages that wait for studies -> models, one for each, so that no page finds another's."""
SHIFTS = """
window.shift = 0;
window.moved = [];
new PerformanceObserver((list) => {
  const place = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join(" ");
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    window.shift += entry.value;
    for (const { node, previousRect, currentRect } of entry.sources) {
      const name = node?.dataset?.testid ?? node?.className ?? node?.nodeName;
      window.moved.push(`${name}: ${place(previousRect)} -> ${place(currentRect)}`);
    }
  }
}).observe({ type: "layout-shift", buffered: true });
"""
"""Of a page: how much has moved, and what, from where to where (x y width height)."""
PATIENCE = 120_000  # milliseconds
ALSO = ("heading-order", "page-has-heading-one", "empty-heading")  # moderate, and ours to keep
MOST_SHIFT = 0.1  # "good", as web.dev/cls has it
SCROLLED = "() => document.querySelector('[data-testid=stMain]').scrollTop"


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


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_little_jumps_on_the_first_visit_of_all(app: Served, tab: Page) -> None:
    """A cold server: each page waits for studies that nobody has asked for yet.

    conftest.py has it be the first of all tests.
    """
    shifts = {}
    for name, model in COLD.items():
        page = tab.context.new_page()
        page.add_init_script(SHIFTS)
        recipe = state.encode(replace(state.HOME, model=model))
        open_patiently(page, f"{app.url}/{name}?r={recipe}")
        page.wait_for_timeout(1000)  # what components draw comes a moment later
        shifts[name] = page.evaluate("window.shift")
        page.close()
    assert all(shift < MOST_SHIFT for shift in shifts.values()), shifts


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_keys_run_stop_and_undo_and_a_dialog_lists_them(app: Served, tab: Page) -> None:
    recipe = Recipe(model="digits-mlp", epochs=5000, lr=0.01)
    open_patiently(tab, f"{app.url}/prune?r={state.encode(recipe)}")
    dialog = tab.get_by_role("dialog")
    steps.key(tab, "?", lambda: expect(dialog).to_be_visible(timeout=steps.PRESSED))
    for keys in ("Ctrl+Enter", "Ctrl+Shift+Enter", "Ctrl+Z", "?"):
        expect(dialog.get_by_text(keys, exact=True)).to_be_visible()
    tab.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    before = tab.url
    steps.set_number(tab, "Fine-tuning epochs", "4000")
    # The page may be at rest before it has begun with the new number.
    tab.wait_for_function("before => location.href !== before", arg=before)
    steps.settled(tab)
    before = tab.url
    other = "before => location.href !== before"
    steps.key(
        tab, "Control+z", lambda: tab.wait_for_function(other, arg=before, timeout=steps.PRESSED)
    )
    steps.settled(tab)
    box = tab.get_by_role("spinbutton", name="Fine-tuning epochs", exact=True)
    expect(box).to_have_value("5000")

    started = re.compile("run=")
    steps.key(tab, "Control+Enter", lambda: tab.wait_for_url(started, timeout=steps.PRESSED))
    run = steps.run_in(tab.url)
    expect(tab.locator(f".st-key-strip-stop-{run}")).to_be_visible()
    stop = tab.locator(f".st-key-strip-stop-{run}")
    # Until it has stopped it says that it stops, or is no longer there.
    asked = stop.get_by_role("button", name="Stop", exact=True)
    steps.key(
        tab, "Control+Shift+Enter", lambda: expect(asked).to_have_count(0, timeout=steps.PRESSED)
    )
    expect(stop).to_have_count(0, timeout=60_000)
    assert Store(app.home).job(str(run)).state == "stopped"


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_another_model_is_in_sight_when_it_is_picked(app: Served, tab: Page) -> None:
    open_patiently(tab, app.url)
    tab.locator(".st-key-choose-digits-mlp").scroll_into_view_if_needed()
    assert tab.evaluate(SCROLLED) > 300
    steps.choose_model(tab, "digits-mlp")
    tab.wait_for_function(f"({SCROLLED})() < 100")


LIVE = ("Sensitivity", "Prune", "Compare")
"""Pages of a map that fills, of a run's curves, and one with neither."""
OTHERS = ("Model", "Inspect", "Structure", "Criteria")


@pytest.mark.parametrize(
    "names", [LIVE, pytest.param(LIVE + OTHERS, marks=pytest.mark.long)], ids=["some", "every"]
)
@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_the_console_stays_empty_while_work_is_live(
    app: Served, tab: Page, names: tuple[str, ...]
) -> None:
    """A lottery, a map and a run at once, seen from pages; `tab` looks at the console."""
    lottery = replace(state.LOTTERY_RECIPE, steps=2, epochs=3, sparsity=0.7)
    recipe = state.encode(Recipe(model="digits-mlp", epochs=60, seed=77))
    open_patiently(tab, f"{app.url}/lottery?r={recipe}&t={state.encode(lottery)}")
    steps.press_for(tab, tab.get_by_role("button", name="Find tickets"), "set=")
    lottery_url = tab.url
    steps.go(tab, "Prune")  # with the same recipe
    steps.press_for(tab, tab.locator(".st-key-run-now").get_by_role("button"), "run=")
    for name in names:
        steps.go(tab, name)
        tab.wait_for_timeout(500)  # a tick of what refreshes itself
    open_patiently(tab, lottery_url)
    csv = tab.locator(".st-key-lottery-csv").get_by_role("button")
    expect(csv).to_be_visible(timeout=120_000)
    assert steps.download(tab, csv).suggested_filename == "lottery.csv"
    with suppress(TimeoutError):  # it may have come to its end
        tab.locator(".st-key-lottery-stop").get_by_role("button").click(timeout=5_000)
