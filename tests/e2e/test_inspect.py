"""The threshold's handle, as a person takes it: numbers follow at once, the recipe on release."""

from __future__ import annotations

import pytest
from e2e import steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_the_threshold_is_taken_by_hand_and_by_keys(app: Served, tab: Page, scheme: str) -> None:
    steps.open_at(tab, f"{app.url}/inspect", 60_000)
    knob, title = tab.get_by_role("slider"), tab.locator(".threshold .title")
    expect(title).to_contain_text("weights (93.3 %) removed")
    knob.scroll_into_view_if_needed()
    box = knob.bounding_box()
    assert box
    address, x, y = tab.url, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 20, y, steps=4)
    expect(title).not_to_contain_text("93.3 %")
    assert tab.url == address, "nothing is asked while the button is down"
    shown = title.inner_text()
    tab.mouse.up()
    changed = "before => location.href !== before"
    tab.wait_for_function(changed, arg=address)
    steps.settled(tab)
    expect(title).to_have_text(shown)
    share = f"{knob.get_attribute('aria-valuetext')}".split("; ")[1].split(" by the")[0]
    expect(steps.sidebar(tab)).to_contain_text(f"Remove the {share} of weights")
    address = tab.url
    steps.key(
        tab,
        "ArrowRight",
        lambda: tab.wait_for_function(changed, arg=address, timeout=steps.PRESSED),
        at=knob,
    )
    steps.settled(tab)
    expect(title).not_to_have_text(shown)
    picture(tab, f"threshold-{scheme}")
