"""One server and one browser for all end-to-end tests; each has a fresh tab, and a console without
errors and warnings.

    PRUNING_PICTURES=1 python3 run.py test tests/e2e      leaves pictures of the pages, for looking
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from e2e import served, steps
from faults.stage import processes_of, until
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    ViewportSize,
    sync_playwright,
)

PICTURES = Path(__file__).parent / "pictures"
LOOKING = "PRUNING_PICTURES"
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
FLAGS = [*served.FLAGS, "--process-per-site"]
WINDOW: ViewportSize = {"width": 1280, "height": 800}


COLD = "test_little_jumps_on_the_first_visit_of_all"
"""What needs a server that nobody has visited comes first: it needs none of its own then."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped, with the reason, where there is no browser."""
    items.sort(key=lambda item: not item.name.startswith(COLD))
    reason = served.missing()
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.e2e)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    running = served.serve(tmp_path_factory.mktemp("e2e") / "workspace")
    yield running
    running.end()
    until(lambda: not processes_of(running.home), "nothing that it started is left running", 20)


@pytest.fixture(scope="session")
def play() -> Iterator[Playwright]:
    with sync_playwright() as play:
        yield play


@pytest.fixture(scope="session")
def browser(play: Playwright) -> Iterator[Browser]:
    """For windows of several people. Tabs of a window share a process."""
    chromium = play.chromium.launch(executable_path=str(served.CHROMIUM), args=FLAGS)
    yield chromium
    chromium.close()


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    chosen: Scheme = request.param
    return chosen


@pytest.fixture(scope="session")
def window(
    play: Playwright, app: served.Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Scheme], BrowserContext]]:
    """A window for each scheme that is asked for: its tabs share a process and what was loaded
    once, and it keeps on the disk what was compiled, as a person's browser does.

    Nothing in them moves by itself: pictures are drawn without a graphics card here.

    A tab that shows next to nothing stays open in each, since their process ends with the last one;
    without it, a page takes twice as long to open.
    """
    made: dict[Scheme, BrowserContext] = {}

    def of(scheme: Scheme) -> BrowserContext:
        if scheme not in made:
            made[scheme] = play.chromium.launch_persistent_context(
                tmp_path_factory.mktemp(f"browser-{scheme}"),
                executable_path=str(served.CHROMIUM),
                args=FLAGS,
                viewport=WINDOW,
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            made[scheme].pages[0].goto(f"{app.url}/_stcore/health")
        return made[scheme]

    yield of
    for context in made.values():
        context.close()


@pytest.fixture
def tab(window: Callable[[Scheme], BrowserContext], scheme: Scheme) -> Iterator[Page]:
    """A tab in the scheme. Its console must show no error or warning at its end."""
    context = window(scheme)
    page = context.new_page()
    page.set_default_timeout(steps.PATIENCE)
    errors = complaints(page)
    yield page
    picture(page, f"last-{scheme}")
    errors += page.evaluate(BROKEN)
    for other in context.pages[1:]:  # all but the one that keeps the process
        other.close()
    context.clear_cookies()
    assert errors == []


TWO_AT_ONCE = "Unexpected state: Multiple different fragmentIds detected"
"""Streamlit's own word for two parts of a page that report in the same moment, as a click and news
of a run may. It sends both, and both callbacks are called.
"""


BROKEN = "() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
"""Pictures that are shown and are none. The console also names those of a page that was left before
they arrived, which the server forgets by then.
"""


def complaints(page: Page) -> list[str]:
    """Errors and warnings of the page's console: a list that fills from now on."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url')})"
        ignored = text.startswith(TWO_AT_ONCE) or "/media/" in text
        if message.type in ("error", "warning") and not ignored:
            errors.append(text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def picture(page: Page, name: str) -> None:
    """For looking, where that is asked for: what the page shows now (git ignores it).

    A whole page, drawn without a graphics card, takes a second.
    """
    if not os.environ.get(LOOKING):
        return
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
