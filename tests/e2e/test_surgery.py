"""Surgery, as a person does it: pick a filter, remove it, see what it did, and undo."""

from __future__ import annotations

import pytest
from e2e import steps, walking
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_filter_is_removed_measured_and_put_back(app: Served, tab: Page, scheme: str) -> None:
    steps.open_at(tab, f"{app.url}/inspect?layer=conv2.weight&unit=first", 180_000)
    units = tab.locator(".sparks .unit")
    expect(units).to_have_count(32)

    def pick_the_second() -> None:
        units.first.focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Enter")

    second = tab.locator(".sparks .unit:nth-child(2)[aria-pressed=true]")
    walking.until(tab, pick_the_second, second)
    number = units.nth(1).locator(".name").inner_text()
    heading = tab.get_by_text(f"Filter {number} of conv2: loss ")
    expect(heading).to_be_visible()
    measured = tab.get_by_text("On the same examples")
    steps.press(tab.get_by_role("button", name="Remove it"), measured)
    steps.settled(tab)
    expect(steps.sidebar(tab)).to_contain_text(f"Remove the channels conv2 {number}")
    expect(tab.get_by_role("button", name="Put it back")).to_be_visible()
    expect(units.nth(1)).to_have_class("unit removed")
    picture(tab, f"surgery-{scheme}")
    as_before = steps.sidebar(tab).get_by_text("90 % of weights").first
    steps.press(tab.get_by_role("button", name="Undo the last"), as_before)
    expect(units.nth(1)).to_have_class("unit")
