"""Reconstruction, as a person sees it: its accuracy beside the dial, and a run that ends at it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from e2e import steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect

from dashboard import state

CHANNELS = replace(
    state.HOME,
    model="digits-resnet",
    granularity="channel",
    scope="per_layer",
    sparsity=0.4,
    schedule="one_shot",
    steps=1,
    epochs=0,
    reconstruct=True,
)


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_run_ends_at_the_accuracy_that_the_dial_showed(
    app: Served, tab: Page, scheme: str
) -> None:
    steps.open_at(tab, f"{app.url}/prune?r={state.encode(CHANNELS)}", 60_000)
    share = tab.get_by_role("spinbutton", name="Remove, %")
    share.fill("50")
    share.press("Enter")
    expect(steps.sidebar(tab)).to_contain_text("Remove the 50 % of channels")
    steps.settled(tab)
    solved = tab.get_by_test_id("stMetric").filter(has_text="Reconstructed")
    expect(tab.get_by_text(re.compile("layers solved in"))).to_be_visible()
    shown = solved.get_by_test_id("stMetricValue").inner_text()
    assert float(shown.removesuffix(" %")) > 90
    picture(tab, f"reconstructed-{scheme}")
    steps.start_run(tab)
    tab.get_by_role("link", name="Open result").click(timeout=60_000)
    tab.get_by_text("Every stage").click()
    row = tab.get_by_role("row").filter(has_text="accuracy (validation)")
    expect(row).to_contain_text(shown)
