"""From the map to a recipe to a run: a click sets a ratio, Fill sets all, and a run measures it."""

from __future__ import annotations

import re

import pytest
from e2e import steps, walking
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_from_the_map_to_predicted_against_measured(app: Served, tab: Page, scheme: str) -> None:
    steps.open_at(tab, app.url)
    steps.go(tab, "Sensitivity")
    cells = tab.locator(".grid svg rect.cell")
    expect(cells).to_have_count(45)
    expect(tab.get_by_text("Every validation image was asked.")).to_be_visible()
    steps.settled(tab)
    picture(tab, f"sensitivity-{scheme}")
    read_and_click(tab)
    by_keyboard(tab)
    fill(tab)
    reopen(tab)
    run(tab, scheme)


def read_and_click(tab: Page) -> None:
    """The third cell of the first row: conv1 at 50 %."""
    cell, before = tab.locator(".grid svg rect.cell").nth(2), tab.url
    cell.hover()
    expect(tab.locator(".grid .tip")).to_contain_text(
        re.compile(r"conv1, 50.% removed, 72 of 144 weights kept: accuracy \d+\.\d % ± \d")
    )
    cell.click()
    tab.wait_for_function("before => location.href !== before", arg=before)
    steps.settled(tab)
    expect(tab.locator('.grid svg [data-at="conv1.weight"].ring')).to_have_count(1)
    # The other layers keep what the recipe removed of them before.
    shares = re.compile(r"a share for each layer \(.*conv1 50.%")
    expect(steps.sidebar(tab).get_by_text(shares)).to_be_visible()


def by_keyboard(tab: Page) -> None:
    """Down from the first cell, Enter: conv2 at 10 %; Backspace takes it back."""
    grid, before = tab.locator(".grid svg"), tab.url

    def at_conv2(key: str) -> None:
        grid.blur()  # without it the arrows go on from where they were
        grid.focus()
        for each in ("ArrowDown", "ArrowRight", key):
            tab.keyboard.press(each)

    ring = grid.locator('[data-at="conv2.weight"].ring')
    walking.until(tab, lambda: at_conv2("Enter"), ring)
    tab.wait_for_function("before => location.href !== before", arg=before)
    expect(ring).to_have_count(1)
    without = tab.locator('.grid svg:not(:has([data-at="conv2.weight"]))')
    walking.until(tab, lambda: at_conv2("Backspace"), without)
    steps.settled(tab)


def fill(tab: Page) -> None:
    rings = tab.locator(".grid svg .ring[data-at]")
    steps.press(tab.get_by_role("button", name="Fill within 1 point"), rings.nth(4))
    steps.settled(tab)
    expect(rings).to_have_count(5)


def reopen(tab: Page) -> None:
    """The address alone brings the map and the marks back."""
    other = tab.context.new_page()
    steps.open_at(other, tab.url)
    expect(other.locator(".grid svg .ring[data-at]")).to_have_count(5)
    other.close()


def run(tab: Page, scheme: str) -> None:
    steps.start_run(tab)
    tab.wait_for_url(re.compile("/prune"))
    tab.get_by_role("link", name="Open result").first.click(timeout=60_000)
    expect(tab.get_by_role("heading", name="Predicted against measured")).to_be_visible()
    expect(tab.get_by_test_id("stMetric").filter(has_text="Predicted, validation")).to_contain_text(
        re.compile(r"[−±+]\d\.\d points")
    )
    expect(
        tab.get_by_text(re.compile("The forecast lies within|was lost than predicted"))
    ).to_be_visible()
    steps.settled(tab)
    tab.get_by_role("heading", name="Predicted against measured").scroll_into_view_if_needed()
    picture(tab, f"predicted-{scheme}")
