"""One server and one browser for all end-to-end tests; each has a fresh tab, and a console without
errors and warnings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import served
from faults.stage import processes_of, until
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

PICTURES = Path(__file__).parent / "pictures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped, with the reason, where there is no browser."""
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
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tab(browser: Browser, scheme: str) -> Iterator[Page]:
    """A tab of 1280 by 800 in the scheme. Its console must show no error or warning at its end."""
    size: ViewportSize = {"width": 1280, "height": 800}
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors = complaints(page)
    yield page
    if os.environ.get("CI") is None:
        picture(page, f"last-{scheme}")
    context.close()
    assert errors == []


def complaints(page: Page) -> list[str]:
    """Errors and warnings of the page's console: a list that fills from now on."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            errors.append(f"{message.text} ({message.location.get('url')})")

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def picture(page: Page, name: str) -> None:
    """For looking: what the page shows now, beside the tests (git ignores it)."""
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
