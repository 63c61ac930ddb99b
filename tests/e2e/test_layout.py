"""No text lies on another and none is cut, on any page, on a laptop's and a projector's width."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e import boxes, prepared, served, shots, steps
from playwright.sync_api import Browser

WIDTHS = (1280, 1024)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[served.Served, list[str]]]:
    """A server on a workspace with a structured run and seven others."""
    place = tmp_path_factory.mktemp("layout") / "workspace"
    runs = prepared.finished_runs(place)
    running = served.serve(place)
    yield running, runs
    running.end()


def test_no_text_lies_on_another_or_is_cut(
    home: tuple[served.Served, list[str]], browser: Browser
) -> None:
    running, runs = home
    context = browser.new_context(
        viewport={"width": WIDTHS[0], "height": 800}, color_scheme="light"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults = {}
    for name, address in prepared.addresses(runs, large=False).items():
        steps.open_at(page, running.url + address, wait=60_000)
        for width in WIDTHS:
            shots.unfolded(page, width)
            texts, cut = boxes.measure(page)
            assert len(texts) > 20, f"{name} shows nothing at {width}"
            overlapping = boxes.overlaps(texts)
            if overlapping or cut:
                faults[name, width] = (overlapping, cut)
    context.close()
    assert faults == {}
