"""Every page for everybody, looked at once for all: axe finds nothing serious in either theme,
nothing jumps, and no text lies on another and none is cut, from a projector's width to a phone's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from e2e import boxes, prepared, served, shots, steps
from e2e.conftest import WINDOW
from e2e.test_access import MOST_SHIFT, SHIFTS, open_patiently, serious
from few_passes import few_passes
from playwright.sync_api import Page, expect

from dashboard import colours, pages

WIDTHS = (1280, 1920, 1024, 800, 390)
LAPTOP, TABLET, PHONE = 1280, 800, 390
DENSE = {"model": 1920, "prune": 1024, "run": TABLET, "compare-8": PHONE, "sensitivity": PHONE}
"""Pages with the most on them -> the width at which they are measured each time, beside LAPTOP.

The rest of WIDTHS is for them alone, with --long.
"""
LIKE_ANOTHER = ("compare", "compare-3", "lottery")
"""Pages with less on them than another one of the same."""
AT = {name: (LAPTOP, width) for name, width in DENSE.items()}
AT |= {"glossary": (), "advisor": (LAPTOP,), "inspect": (LAPTOP, PHONE)}
"""Widths at which a page is measured, where they are not LAPTOP and TABLET.

Not the glossary, whose formulas are set of parts that overlap by design, nor names of points in the
advisor's picture where there is no room for them.
"""
NAMES = [
    name
    for name in prepared.addresses([str(number) for number in range(8)], large=False)
    if name not in LIKE_ANOTHER
]
RESERVED = {"strip-height": '[class*="st-key-strip-"]', "tiles-height": ".st-key-tiles"}
"""Heights that page.css reserves -> where."""
SHOWN_ON = {"strip-height": "structure", "tiles-height": "run"}
"""A page where each of these is."""
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
SLIDER_VALUES = """
() => [...document.querySelectorAll("[data-testid=stSliderThumbValue] *")]
  .filter((element) => element.textContent.trim() && !element.children.length)
  .map((element) => [
    element.textContent,
    getComputedStyle(element).color,
    getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor,
  ])
"""
"""The value above each slider's thumb, and the page's ground."""
GROUND = "e => e.style.getPropertyValue('--ground')"

pytestmark = pytest.mark.parametrize("scheme", ["light"])  # what is looked at in both turns dark


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[served.Served, list[str]]]:
    """A server on a workspace with a structured run, seven others and a lottery."""
    place = tmp_path_factory.mktemp("pages") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        few_passes(patch)
        runs = prepared.finished_runs(place)
    running = served.serve(place)
    yield running, runs
    running.end()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_sound(home: tuple[served.Served, list[str]], tab: Page, name: str) -> None:
    """One visit for all that is looked at, since a page takes longer to open than to look at.

    What is wrong is gathered, so that a failure names all of it at once.
    """
    running, runs = home
    url = running.url + prepared.addresses(runs, large=False)[name]
    faults = {"shift": jumps(tab, url)}
    steps.measured(tab)
    expect(tab.get_by_role("heading", level=1)).to_have_count(1)
    faults["light"] = hard_to_use(tab, "light")
    assert name != "sensitivity" or len(tab.evaluate(CELLS)) > 20
    turn_dark(tab)
    faults["dark"] = hard_to_use(tab, "dark")
    # Where things stand does not depend on their colours.
    for width in AT.get(name, (LAPTOP, TABLET)):
        shots.unfolded(tab, width)
        faults[f"layout at {width}"] = misplaced(tab, width)
        if width == LAPTOP:
            check_reserved_heights(tab, name)
    assert {what: found for what, found in faults.items() if found} == {}


@pytest.mark.long
@pytest.mark.parametrize("name", DENSE)
def test_a_page_is_sound_at_every_width(
    home: tuple[served.Served, list[str]], tab: Page, name: str
) -> None:
    """The widths that are not measured each time."""
    running, runs = home
    open_patiently(tab, running.url + prepared.addresses(runs, large=False)[name])
    steps.measured(tab)
    faults = {}
    for width in set(WIDTHS) - set(AT[name]):
        shots.unfolded(tab, width)
        faults[width] = misplaced(tab, width)
    assert {width: found for width, found in faults.items() if found} == {}


def jumps(page: Page, url: str) -> list[object]:
    """How much moves while a page opens, and what, where it is too much.

    Looked at again then: what a model needs is measured once, for every visitor.
    """
    page.add_init_script(SHIFTS)
    moved: list[object] = []
    for _ in range(2):
        open_patiently(page, url)
        shift = page.evaluate("window.shift")
        if shift < MOST_SHIFT:
            return []
        moved += [shift, *page.evaluate("window.moved")]
    return moved


def turn_dark(page: Page) -> None:
    """Also what has its colours from the server: strips, charts, pictures, the name."""
    strip = page.locator(".strip")
    light, dark = (colours.palette(dark=turned).ground for turned in (False, True))
    strips = strip.count()
    if strips:
        assert strip.first.evaluate(GROUND) == light
    page.emulate_media(color_scheme="dark")
    if strips:
        drawn = re.compile(f"--ground: ?{re.escape(dark)}")
        expect(strip.first).to_have_attribute("style", drawn)
    steps.settled(page)


def hard_to_use(page: Page, scheme: str) -> list[str]:
    """What axe finds, and text of little contrast where axe does not look.

    Axe says nothing of text that lies over other elements, as a slider's value does, and numbers
    on the cells of a map.
    """
    pairs = page.evaluate(SLIDER_VALUES) + page.evaluate(CELLS)
    pale = [pair for pair in pairs if boxes.contrast(pair[1], pair[2]) < 4.5]
    violations = serious(page, scheme)
    for _ in range(3):
        if violations:  # Streamlit fades what a running script has not drawn yet
            page.wait_for_timeout(1500)
            violations = serious(page, scheme)
    return [*violations, *(f"{text}: {ink} on {ground}" for text, ink, ground in pale)]


def misplaced(page: Page, width: int) -> list[object]:
    """Texts that lie on each other, those that are cut, and a page that moves sideways."""
    seen = boxes.measure(page)
    sideways = page.get_by_test_id("stMain").evaluate("e => e.scrollWidth - e.clientWidth")
    # The list of runs is a table, whose text is drawn on a canvas.
    assert len(seen.boxes) > 12, f"nothing is shown at {width}"
    # A phone is for reading: it scrolls charts, and shortens names where they are picked.
    cut = seen.paragraphs if width == PHONE else seen.cut
    wide = [f"{sideways} pixels wider than the window"] if sideways > 1 else []
    return [*boxes.overlaps(seen.boxes), *cut, *wide]


def check_reserved_heights(page: Page, name: str) -> None:
    """What page.css reserves for elements is what they take."""
    for length, selector in RESERVED.items():
        elements = page.locator(selector).all()
        assert elements or SHOWN_ON[length] != name
        for element in elements:
            natural = element.evaluate(NATURAL)
            assert abs(natural - pages.LENGTHS[length]) <= 1, f"{length}: it takes {natural}"


def test_narrow_windows_name_the_page_and_fold_the_sidebar(app: served.Served, tab: Page) -> None:
    sidebar = tab.get_by_test_id("stSidebar")
    name = tab.locator(".here")
    steps.open_at(tab, f"{app.url}/structure", wait=60_000)
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    expect(name).to_be_hidden()

    tab.set_viewport_size({"width": 1024, "height": 768})
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    expect(name).to_be_hidden()  # the navigation has room for every page
    tab.get_by_test_id("stExpandSidebarButton").click()
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    tab.set_viewport_size({"width": 800, "height": 1100})
    expect(name).to_have_text("Structure")
    expect(name).to_be_visible()
    # Whoever opened it keeps it open, until the window was wide again.
    expect(sidebar).to_have_attribute("data-collapsed", "false")

    tab.set_viewport_size(WINDOW)
    expect(name).to_be_hidden()
    tab.set_viewport_size({"width": 800, "height": 1100})
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    tab.set_viewport_size(WINDOW)
    expect(sidebar).to_have_attribute("data-collapsed", "false")
