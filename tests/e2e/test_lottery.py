"""A lottery, as a person starts it: one button, curves that fill in, a link that reopens the
set.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from e2e import steps
from e2e.served import Served
from playwright.sync_api import Page, expect

from dashboard import state
from pruning.recipe import Recipe


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_lottery_starts_fills_in_and_opens_again(app: Served, tab: Page) -> None:
    quick = state.encode(replace(state.LOTTERY_RECIPE, steps=2, epochs=1, sparsity=0.5))
    steps.open_at(tab, f"{app.url}/lottery?r={state.encode(Recipe(model='digits-mlp'))}&t={quick}")
    expect(tab.get_by_role("heading", name="Is there a small network inside")).to_be_visible()
    steps.press_for(tab, tab.get_by_role("button", name="Find tickets"), "set=")
    finding = tab.get_by_text(re.compile("With .* of the weights, tickets reach"))
    # Quick runs may be over before anybody looks.
    expect(tab.get_by_role("progressbar").or_(finding).first).to_be_visible()
    expect(finding).to_be_visible(timeout=120_000)
    expect(tab.get_by_text("Tickets of different seeds keep")).to_be_visible(timeout=120_000)
    expect(tab.get_by_test_id("stVegaLiteChart").first).to_be_visible()
    again = tab.context.new_page()
    steps.open_at(again, tab.url)
    expect(again.get_by_text(re.compile("With .* of the weights, tickets reach"))).to_be_visible(
        timeout=60_000
    )
    assert "set=" in again.url
    again.close()
