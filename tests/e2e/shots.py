"""Pictures of every page, for looking, and what overlaps or is cut in each.

    PYTHONPATH=tests:. python tests/e2e/shots.py [--only NAME ...] [--widths 1280 800]

Pictures go to tests/e2e/pictures, which git ignores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e import boxes, prepared, served, steps
from playwright.sync_api import Page, expect, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
HEIGHTS = {1920: 1080, 1280: 800, 1024: 768, 800: 1100, 390: 844}


RESTING = """([rest, most]) => new Promise((done) => {
    const places = () => {
        let sum = document.querySelector("[data-testid=stMain]").scrollHeight;
        for (const one of document.querySelectorAll("svg, canvas, text, p, [data-testid]")) {
            const { x, y, width, height } = one.getBoundingClientRect();
            sum += x + 3 * y + 5 * width + 7 * height;
        }
        return sum;
    };
    const start = performance.now();
    let [before, since] = [places(), start];
    const look = () => {
        const [now, at] = [performance.now(), places()];
        if (at !== before) [before, since] = [at, now];
        if (now - since >= rest || now - start >= most) done(now - start);
        else setTimeout(look, 40);
    };
    setTimeout(look, 40);
})"""
"""Until nothing has moved for `rest` ms, since charts follow the window later; at most `most`."""


def unfolded(page: Page, width: int) -> None:
    """Make the window as high as the page, so that nothing hides below the rim.

    It is never made lower: each change is drawn, which takes longer than all else.
    """
    before = page.viewport_size["height"] if page.viewport_size else 0
    height = max(before, HEIGHTS.get(width, 800))
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate(RESTING, [160, 2000])
    for _ in range(3):
        main = page.get_by_test_id("stMain")
        needed = main.evaluate("main => main.scrollHeight")
        if needed <= height:
            break
        height = needed + 40
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(RESTING, [160, 2000])
    steps.settled(page)
    page.evaluate(RESTING, [240, 2000])


def look(page: Page, name: str, widths: Sequence[int], scheme: str) -> None:
    """Pictures and a line for each width."""
    for width in widths:
        unfolded(page, width)
        page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png")
        seen = boxes.measure(page)
        pairs = boxes.overlaps(seen.boxes)
        counts = f"{len(seen.boxes)} texts, {len(pairs)} overlap, {len(seen.cut)} cut"
        print(f"{name} {width} {scheme}: {counts}")
        for pair in pairs:
            print("   overlap:", *pair, sep="  |  ")
        for text in dict.fromkeys([*seen.cut, *seen.paragraphs]):
            print("   cut:", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of pages")
    parser.add_argument("--widths", nargs="*", type=int, default=[1920, 1280, 1024, 800])
    parser.add_argument("--schemes", nargs="*", default=["light", "dark"])
    parser.add_argument("--home", type=Path, help="a workspace to keep for the next time")
    asked = parser.parse_args()
    expect.set_options(timeout=120_000)  # large networks take a while to read
    PICTURES.mkdir(exist_ok=True)
    home = asked.home or Path(tempfile.mkdtemp(prefix="shots-"))
    kept = home / "runs.txt"
    runs = kept.read_text().split() if kept.exists() else prepared.finished_runs(home)
    kept.write_text(" ".join(runs))
    running = served.serve(home)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
            for scheme in asked.schemes:
                for name, address in prepared.addresses(runs).items():
                    if asked.only and name not in asked.only:
                        continue
                    context = browser.new_context(color_scheme=scheme)
                    page = context.new_page()
                    page.set_default_timeout(120_000)
                    widest = max(asked.widths)
                    page.set_viewport_size({"width": widest, "height": HEIGHTS.get(widest, 800)})
                    steps.open_at(page, running.url + address)
                    steps.measured(page)
                    look(page, name, asked.widths, scheme)
                    context.close()
    finally:
        running.end()


if __name__ == "__main__":
    main()
