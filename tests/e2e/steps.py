"""What a person does on the page, in their words."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from e2e.served import READY
from playwright.sync_api import Download, Locator, Page, TimeoutError, expect

from dashboard.pages import MENU, UNDERSTAND

PATIENCE = 60_000  # milliseconds: a page on a busy machine waits for its studies
expect.set_options(timeout=PATIENCE)

PATHS = {"Model": "", "Result": "run"}
"""Pages whose path is not their title."""


def settled(page: Page, wait: float | None = None) -> None:
    """Until the script has run and what it waited for is there. wait: at most so many ms."""
    page.wait_for_selector(READY, state="attached")
    expect(page.get_by_test_id(re.compile("stSkeleton"))).to_have_count(0, timeout=wait)
    page.wait_for_selector(READY, state="attached")


def open_at(page: Page, url: str, wait: float | None = None) -> None:
    page.goto(url)
    settled(page, wait)


def measured(page: Page) -> None:
    """Until a sensitivity map that the page shows is whole."""
    expect(page.locator('[class*="st-key-map-stop-"]')).to_have_count(0, timeout=120_000)
    settled(page)


def go(page: Page, name: str) -> None:
    """To a page, by the navigation on top; again where a redraw lost the click."""
    path = PATHS.get(name, name.lower())
    there = re.compile(rf"//[^/]+/{path}(\?|$)")
    for _ in range(2):
        with suppress(TimeoutError):
            link_to(page, name).click(timeout=20_000)
            page.wait_for_url(there, timeout=20_000)
            break
    else:
        link_to(page, name).click()
        page.wait_for_url(there)
    settled(page)


def link_to(page: Page, name: str) -> Locator:
    """The link to a page: in the row on top, or in its menu, which is opened."""
    navigation = page.get_by_role("navigation", name="App pages")
    if PATHS.get(name, name.lower()) not in UNDERSTAND:
        return navigation.get_by_role("link", name=name, exact=True)
    navigation.get_by_text(MENU, exact=True).click()
    return page.get_by_test_id("stTopNavDropdownLink").filter(has_text=name)


def choose_model(page: Page, name: str) -> None:
    use = page.locator(f".st-key-choose-{name}").get_by_role("button", name="Use this model")
    press(use, sidebar(page).get_by_role("heading", name=name))
    settled(page)


def sidebar(page: Page) -> Locator:
    return page.get_by_test_id("stSidebar")


def pick(page: Page, box: Locator, text: str) -> None:
    """Choose the option with `text` from a list that filters while one types.

    Again when the page was drawn anew meanwhile, which closes the list.
    """
    option = page.get_by_role("option").filter(has_text=text)
    for _ in range(4):
        box.click()
        box.fill(text)
        try:
            option.first.click(timeout=5_000)
            break
        except TimeoutError:
            page.keyboard.press("Escape")
    settled(page)


def press(button: Locator, seen: Locator) -> None:
    """Press a button until what it brings is seen: one that is drawn anew loses a click."""
    for _ in range(3):
        with suppress(TimeoutError):  # once pressed it may not be there again
            button.click(timeout=20_000)
        try:
            expect(seen).to_be_visible(timeout=7_000)
            return
        except AssertionError:
            continue
    expect(seen).to_be_visible()


def choose_radio(page: Page, name: str) -> None:
    """Click an option until it is the chosen one, as `press` does."""
    option = page.get_by_role("radio", name=name)
    press(option, page.get_by_role("radio", name=name, checked=True))
    settled(page)


PRESSED = 10_000
"""Milliseconds for which a key's effect is waited for before it is pressed again."""


def key(page: Page, keys: str, seen: Callable[[], object], at: Locator | None = None) -> None:
    """Press keys until what they bring is seen: a page that begins with something else loses them.

    seen: returns once it is there; raises AssertionError or TimeoutError after a while.
    at: what has the focus then; else what has it now.
    """
    for _ in range(3):
        if at is not None:
            at.focus()
        page.keyboard.press(keys)
        with suppress(AssertionError, TimeoutError):
            seen()
            return
    seen()


def press_for_change(page: Page, button: Locator) -> None:
    """Press a button until the address is another one, as `press` does."""
    before = page.url
    changed = "before => location.href !== before"
    for patience in (15_000, 15_000, 30_000):
        with suppress(TimeoutError):  # once pressed it may not be there again
            button.click(timeout=patience)
        with suppress(TimeoutError):
            page.wait_for_function(changed, arg=before, timeout=patience)
            return
    page.wait_for_function(changed, arg=before)


def press_for(page: Page, button: Locator, pattern: str) -> None:
    """Press a button until the address is one that matches `pattern`, as `press` does."""
    for patience in (15_000, 15_000, 30_000):
        with suppress(TimeoutError):
            button.click(timeout=patience)
        with suppress(TimeoutError):
            page.wait_for_url(re.compile(pattern), timeout=patience)
            return
    page.wait_for_url(re.compile(pattern))


def download(page: Page, button: Locator) -> Download:
    """Press a button that hands out a file, again where the click was lost; the file."""
    for _ in range(2):
        with suppress(TimeoutError), page.expect_download(timeout=10_000) as coming:
            button.click(timeout=10_000)
        if coming.is_done():
            return coming.value
    with page.expect_download() as coming:
        button.click()
    return coming.value


def upload(page: Page, file: Path) -> None:
    page.get_by_test_id("stFileUploader").locator("input[type=file]").set_input_files(file)


def slider(page: Page) -> Locator:
    return page.get_by_role("slider", name="Share of the weights to remove")


def drag_slider(page: Page, share: float) -> None:
    """Take the slider's thumb with the mouse to a share of its width; the button stays down.

    Taken again where it was missed: what comes above it may have moved it meanwhile.
    """
    handle = slider(page)
    for attempt in range(3):
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box
        before = handle.input_value()
        at = float(before) / float(handle.get_attribute("max") or 1)
        level, inner = box["y"] + box["height"] / 2, box["width"] - 22  # the thumb has 22 pixels
        page.mouse.move(box["x"] + 11 + at * inner, level)
        page.mouse.down()
        page.mouse.move(box["x"] + 11 + share * inner, level, steps=4)
        try:
            expect(handle).not_to_have_value(before, timeout=PRESSED)
            return
        except AssertionError:
            page.mouse.up()
            if attempt == 2:
                raise


def weights_kept(page: Page) -> str:
    return page.locator('.dial .large[data-kind="weights"]').inner_text()


def set_number(page: Page, label: str, value: str) -> None:
    box = page.get_by_role("spinbutton", name=label, exact=True)
    box.fill(value)
    box.press("Enter")
    settled(page)


def start_run(page: Page) -> str:
    """Press Run; the id of the run that the address names then."""
    before = run_in(page.url)
    # Asked of the page: Playwright's own note of the address comes a moment later.
    another = """before => {
        const run = new URL(location).searchParams.get('run');
        return run !== before && run;
    }"""
    for patience in (10_000, 10_000, 20_000):  # pressed twice it is one run
        page.get_by_role("button", name="Run", exact=True).click()
        with suppress(TimeoutError):
            page.wait_for_function(another, arg=before, timeout=patience)
            break
    run = str(page.wait_for_function(another, arg=before).json_value())
    # In the heading of a run that works, or in the sentence of one that has ended already.
    expect(page.get_by_test_id("stMain").get_by_text(run[:6]).first).to_be_visible()
    return run


def run_in(url: str) -> str | None:
    match = re.search(r"[?&]run=([^&]+)", url)
    return match.group(1) if match else None


def points(page: Page) -> int:
    """Points of the first curve, accuracy."""
    curve = page.locator(".live figure").first.locator("path.line").first
    path = curve.get_attribute("d") if curve.count() else ""
    return len(re.findall("[ML]", path or ""))
