"""From the slider's release to the new picture, in Chromium.

Recipe, numbers and bars have followed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench._table import report
from e2e import served, steps
from playwright.sync_api import Page, sync_playwright

MODELS = ("digits-mlp", "digits-cnn", "digits-resnet")
TIMES = 20
LIMIT = 300.0  # ms

# Starts the clock at the mouse's release; stops it in the first frame that shows the new share
# with no script running.
WATCH = """() => {
    const before = document.querySelector('[data-testid=stSidebar]').innerText;
    window.__took = new Promise((done, fail) => window.addEventListener('pointerup', () => {
        const start = performance.now();
        setTimeout(() => fail(new Error('nothing followed the release within 10 s')), 10_000);
        const look = () => {
            const state = document.querySelector('[data-testid=stApp]').dataset.testScriptState;
            const now = document.querySelector('[data-testid=stSidebar]').innerText;
            const followed = state === 'notRunning' && now !== before;
            if (followed) requestAnimationFrame(() => done(performance.now() - start));
            else requestAnimationFrame(look);
        };
        look();
    }, {once: true, capture: true}));
}"""


def release(page: Page, share: float) -> float:
    """Drag the slider to a share of its width and let go; milliseconds until the picture is new."""
    steps.drag_slider(page, share)
    page.evaluate(WATCH)
    page.mouse.up()
    return float(page.evaluate("() => window.__took"))


def measure(page: Page, url: str, model: str) -> list[float]:
    steps.open_at(page, url)
    if page.locator(f".st-key-choose-{model}").count():
        steps.choose_model(page, model)
    steps.go(page, "Prune")
    release(page, 0.5)  # the first one fills caches
    return [release(page, 0.25 + 0.6 * ((7 * i) % TIMES) / TIMES) for i in range(TIMES)]


def main() -> int:
    if reason := served.missing():
        print(f"Not measured: {reason}.")
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        app = served.serve(Path(folder) / "workspace")
        try:
            browser = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            times = {model: measure(page, app.url, model) for model in MODELS}
            browser.close()
        finally:
            app.end()
    return report(times, limit=LIMIT, what="Slider release to new picture")


if __name__ == "__main__":
    sys.exit(main())
