"""A run's own page on a laptop: all that one looks for on one screen, nothing on anything."""

from __future__ import annotations

import pytest
from e2e import boxes, steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect

from pruning.runs.store import Store


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_result_stands_on_one_screen(app: Served, tab: Page, scheme: str) -> None:
    steps.open_at(tab, app.url)  # an empty workspace is given the example
    run = Store(app.home).jobs("run")[-1].id
    steps.open_at(tab, f"{app.url}/?run={run}")
    expect(tab.get_by_role("heading", name=f"Run {run[:6]}")).to_be_visible()
    size = tab.viewport_size
    assert size is not None
    for part in (
        tab.get_by_test_id("stMetric").last,
        tab.get_by_role("group", name="Curves of the run"),
        tab.get_by_test_id("stPlotlyChart"),
        tab.get_by_text("No improvement", exact=True),
        tab.get_by_text("Compact model", exact=True),  # the last of the folded lines
    ):
        expect(part).to_be_visible()
        # Components take their height a moment after they are there.
        for _ in range(20):
            box = part.bounding_box()
            assert box
            if box["y"] + box["height"] <= size["height"]:
                break
            tab.wait_for_timeout(100)
        assert box["y"] + box["height"] <= size["height"], part
    seen = boxes.measure(tab)
    assert boxes.overlaps(seen.boxes) == [] and seen.cut == []
    picture(tab, f"result-{scheme}")


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_an_unknown_run_is_said_where_one_looks(app: Served, tab: Page) -> None:
    steps.open_at(tab, f"{app.url}/prune?run=nope")
    alert = tab.get_by_test_id("stAlert")
    expect(alert).to_contain_text("nope")
    box = alert.bounding_box()
    assert box and box["y"] < 300
