"""No text lies on another and none is cut, on any page, from a projector's width to a phone's; and
what helps in narrow windows is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from e2e import boxes, prepared, served, shots, steps
from e2e.conftest import complaints
from playwright.sync_api import Browser, Page, expect

from dashboard import colours, pages

WIDTHS = (1920, 1280, 1024, 800, 390)
LAPTOP, TABLET, PHONE = 1280, 800, 390
DENSE = ("model", "prune", "run", "compare-8", "sensitivity")
"""Pages with the most on them: measured at every width, the others at two."""
RESERVED = {"strip-height": '[class*="st-key-strip-"]', "tiles-height": ".st-key-tiles"}
"""Heights that page.css reserves -> where."""
NATURAL = """
element => {
  element.style.minHeight = "0";
  const height = element.getBoundingClientRect().height;
  element.style.minHeight = "";
  return height;
}
"""


CELLS = """
() => [...document.querySelectorAll("[data-testid=stApp] *")]
  .flatMap((e) => e.shadowRoot ? [...e.shadowRoot.querySelectorAll("text.value")] :
    e.matches("text.value") ? [e] : [])
  .map((text) => {
    let cell = text.previousElementSibling;
    while (!cell.classList.contains("cell")) cell = cell.previousElementSibling;
    return [text.textContent, getComputedStyle(text).fill, getComputedStyle(cell).fill];
  })
"""
"""Numbers of the map: each text with its ink and the colour that it stands on."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[served.Served, list[str]]]:
    """A server on a workspace with a structured run, seven others and a lottery."""
    place = tmp_path_factory.mktemp("layout") / "workspace"
    runs = prepared.finished_runs(place)
    running = served.serve(place)
    yield running, runs
    running.end()


LIKE_ANOTHER = ("compare-3", "lottery")
"""Pages with less on them than another one of the same."""


@pytest.fixture
def wide(browser: Browser) -> Iterator[Page]:
    """A tab as wide as a projector, whose console must show no error or warning at its end."""
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors = complaints(page)
    yield page
    context.close()
    assert errors == []


def test_no_text_lies_on_another_or_is_cut(
    home: tuple[served.Served, list[str]], wide: Page
) -> None:
    running, runs = home
    faults = {}
    measured = set()
    pages = prepared.addresses(runs, large=False)
    for name, address in pages.items():
        if name in LIKE_ANOTHER:
            continue
        wide.set_viewport_size({"width": WIDTHS[0], "height": 800})  # after a phone, a page high
        steps.open_at(wide, running.url + address, wait=60_000)
        steps.measured(wide)
        # One load for all: pages follow the window.
        for width in WIDTHS if name in DENSE else (LAPTOP, TABLET):
            shots.unfolded(wide, width)
            seen = boxes.measure(wide)
            # The list of runs is a table, whose text is drawn on a canvas.
            assert len(seen.boxes) > 12, f"{name} shows nothing at {width}"
            overlapping = boxes.overlaps(seen.boxes)
            # A phone is for reading: it scrolls charts, and shortens names where they are picked.
            cut = seen.paragraphs if width == PHONE else seen.cut
            if overlapping or cut:
                faults[name, width] = (overlapping, cut)
            if width == LAPTOP:
                measured |= check_reserved_heights(wide)
                if name == "sensitivity":
                    check_cells(wide)
    assert faults == {}
    assert measured == set(RESERVED)


def check_cells(page: Page) -> None:
    """Each number of the map can be read on the colour of its cell."""
    cells = page.evaluate(CELLS)
    assert len(cells) > 20
    for text, ink, ground in cells:
        assert boxes.contrast(ink, ground) >= 4.5, (text, ink, ground)


def check_reserved_heights(page: Page) -> set[str]:
    """What page.css reserves for elements is what they take; names of those that are here."""
    here = set()
    for name, selector in RESERVED.items():
        for element in page.locator(selector).all():
            natural = element.evaluate(NATURAL)
            assert abs(natural - pages.LENGTHS[name]) <= 1, f"{name}: it takes {natural}"
            here.add(name)
    return here


def test_narrow_windows_name_the_page_and_fold_the_sidebar(
    home: tuple[served.Served, list[str]], wide: Page
) -> None:
    running, _ = home
    sidebar = wide.get_by_test_id("stSidebar")
    name = wide.locator(".here")
    steps.open_at(wide, f"{running.url}/structure", wait=60_000)
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    expect(name).to_be_hidden()

    wide.set_viewport_size({"width": 1024, "height": 768})
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    expect(name).to_be_hidden()  # the navigation has room for every page
    wide.get_by_test_id("stExpandSidebarButton").click()
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    wide.set_viewport_size({"width": 800, "height": 1100})
    expect(name).to_have_text("Structure")
    expect(name).to_be_visible()
    # Whoever opened it keeps it open, until the window was wide again.
    expect(sidebar).to_have_attribute("data-collapsed", "false")

    wide.set_viewport_size({"width": 1280, "height": 800})
    expect(name).to_be_hidden()
    wide.set_viewport_size({"width": 800, "height": 1100})
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    wide.set_viewport_size({"width": 1280, "height": 800})
    expect(sidebar).to_have_attribute("data-collapsed", "false")


def test_a_page_is_drawn_anew_when_the_theme_turns(app: served.Served, wide: Page) -> None:
    """What has its colours from the server: strips, charts, pictures, the name."""
    steps.open_at(wide, app.url)
    strip = wide.locator(".strip").first
    ground = "e => e.style.getPropertyValue('--ground')"
    wide.emulate_media(color_scheme="light")
    steps.settled(wide)
    assert strip.evaluate(ground) == colours.palette(dark=False).ground
    wide.emulate_media(color_scheme="dark")
    dark = colours.palette(dark=True).ground
    expect(strip).to_have_attribute("style", re.compile(f"--ground: ?{re.escape(dark)}"))
