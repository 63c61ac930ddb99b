"""The criterion check, as a person does it: a layer, another layer, the loss alone, every layer."""

from __future__ import annotations

import re

import pytest
from e2e import steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_criterion_is_checked_by_leaving_units_out(app: Served, tab: Page, scheme: str) -> None:
    steps.open_at(tab, app.url)
    steps.go(tab, "Criteria")
    finding = tab.get_by_role("heading", name=re.compile("as the loss change does"))
    expect(finding).to_contain_text("conv3")
    tab.get_by_role("group", name="Layers").get_by_role("button", name=re.compile("^conv2")).click()
    expect(finding).to_contain_text("conv2")
    steps.settled(tab)
    expect(tab.get_by_test_id("stPlotlyChart")).to_have_count(
        3
    )  # the band, the units, the agreement
    picture(tab, f"criteria-{scheme}")
    tab.get_by_text("Rise of the loss").click()
    steps.settled(tab)
    expect(tab.get_by_text("change in loss without it, signed")).to_be_visible()
    tab.get_by_text("Every layer").click()
    expect(tab.get_by_text("Better than random, of 5 layers")).to_be_visible(timeout=60_000)
    steps.settled(tab)
    picture(tab, f"criteria-layers-{scheme}")
