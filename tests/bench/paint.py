"""The first page: how long a new tab waits for it on a warm server, and without torch."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench._table import report
from e2e import served, steps
from playwright.sync_api import Browser, expect, sync_playwright

TIMES = 10
LIMIT = 2000.0  # ms
HEADING = "How much of the current model can be pruned"


def open_tab(browser: Browser, url: str) -> tuple[float, float]:
    """Milliseconds until the page's heading shows, and until everything is there.

    A tab with an empty cache.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    expect(page.get_by_role("heading", name=HEADING)).to_be_visible(timeout=30_000)
    words = time.perf_counter() - start
    steps.settled(page)
    whole = time.perf_counter() - start
    context.close()
    return 1000 * words, 1000 * whole


def main() -> int:
    if reason := served.missing():
        print(f"Not measured: {reason}.")
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        app = served.serve(Path(folder) / "workspace")
        try:
            browser = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
            cold = open_tab(browser, app.url)
            torch = app.imports_torch()
            warm = [open_tab(browser, app.url) for _ in range(TIMES)]
            browser.close()
        finally:
            app.end()
    print(
        f"The server's very first page, studies and all: {cold[1]:.0f} ms. "
        f"torch in the web process: {'yes' if torch else 'no'}."
    )
    times = {
        "heading on the page": [words for words, _ in warm],
        "page complete": [whole for _, whole in warm],
    }
    return report(times, limit=LIMIT, what="A new tab on a warm server") or int(torch)


if __name__ == "__main__":
    sys.exit(main())
