"""A sweep from the page over a restart: six techniques, five levels, three seeds on digits-cnn.

It is started by a press in a browser; in the middle the server, its pool and its workers are
killed; the next server's go on; then the page is opened until the picture is drawn. `python3 run.py
bench sweep_restart`; with any word after its file, a small one, to see that it works.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bench._table import conditions
from e2e import served, steps
from e2e.served import Served
from faults.stage import check, processes_of, until
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dashboard import state
from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.sweeps import sweeps
from pruning.sweeps.plan import Plan
from pruning.sweeps.presets import which_technique

RESULT = Path(__file__).parent / "results" / "sweep_restart.md"
MODEL = "digits-cnn"
LIMIT = 2.0  # seconds until the finished picture is drawn
TIMES = 5
PATIENCE = 3 * 3600.0  # seconds for all of it, on a busy machine
POINT = ".js-plotly-plot .scatterlayer .point"


def plan_of(small: bool) -> Plan:
    plan = which_technique([MODEL])
    if not small:
        return plan
    techniques = plan.techniques[:2]
    return replace(plan, sparsities=(0.5, 0.9), seeds=(0,), techniques=techniques, fields={})


def press(page: Page, app: Served, plan: Plan) -> str:
    """Start it as a person does; the sweep's id."""
    recipe = state.encode(Recipe(model=MODEL))
    steps.open_at(page, f"{app.url}/sweeps?r={recipe}&plan={state.encode_plan(plan)}", 120_000)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile("sweep="))
    match = re.search(r"[?&]sweep=([0-9a-f]+)", page.url)
    assert match
    return match.group(1)


def kill(app: Served) -> None:
    """All at once, as a machine that is switched off does."""
    for number in (app.process.pid, *processes_of(app.home)):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    app.process.wait()
    until(lambda: not processes_of(app.home), "all of it ends", 60)


def draw(browser: Browser, app: Served, sweep: str) -> float:
    """Seconds from the address to the last line of the picture, in a tab whose files are there."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)
    recipe = state.encode(Recipe(model=MODEL))
    url = f"{app.url}/sweeps?r={recipe}&sweep={sweep}"
    steps.open_at(page, url, 120_000)
    began = time.perf_counter()
    page.goto(url)
    page.locator(POINT).first.wait_for()
    took = time.perf_counter() - began
    context.close()
    return took


def main() -> int:
    small = len(sys.argv) > 1
    plan = plan_of(small)
    when = conditions()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        expect.set_options(timeout=120_000)
        browser = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
        app = served.serve(Path(folder) / "workspace")
        try:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            began = time.monotonic()
            sweep = press(page, app, plan)
            store = Store(app.home)
            points = len(sweeps.plan_of(store, sweep).points())
            third = max(1, points // 3)
            until(lambda: sweeps.state(store, sweep).done >= third, "a third of it", PATIENCE)
            kill(app)
            before = sweeps.state(store, sweep)
            again = time.monotonic()
            app = served.serve(app.home)
            page.close()
            page = browser.new_page()
            page.set_default_timeout(120_000)
            steps.open_at(page, f"{app.url}/sweeps?sweep={sweep}", 120_000)
            resumed = until(
                lambda: sweeps.state(store, sweep).done > before.done, "it continues", PATIENCE
            )
            until(lambda: sweeps.state(store, sweep).ended, "its end", PATIENCE)
            whole, after = time.monotonic() - began, time.monotonic() - again
            page.close()
            rows = sweeps.rows(store, sweep)
            check({one["state"] for one in rows} == {"done"}, f"{sweeps.state(store, sweep)}")
            check(len({one["run"] for one in rows}) == points, "each point is a run, and one")
            drawn = [draw(browser, app, sweep) for _ in range(TIMES)]
        finally:
            app.end()
            browser.close()
    median = statistics.median(drawn)
    verdict = "met" if median <= LIMIT else "**missed**"
    text = (
        f"# A sweep over a restart\n\n{when}\n\n"
        f"{points} runs of {MODEL} ({len(plan.all_techniques())} techniques, "
        f"{len(plan.sparsities)} levels, {len(plan.seeds)} seeds, controls), started by a press. "
        f"All processes killed with {before.done} done; the next was done {resumed:.0f} s after "
        f"the page was opened again, the last after {after:.0f} s. All {points} are done, each "
        f"once, {whole:.0f} s after the press.\n\n"
        f"Drawn in {median:.2f} s, {min(drawn):.2f} to {max(drawn):.2f} in {TIMES} looks (limit "
        f"{LIMIT:g} s): {verdict}.\n"
    )
    print(text)
    if not small:
        RESULT.write_text(text, encoding="utf-8")
    return 0 if median <= LIMIT or small else 1


if __name__ == "__main__":
    sys.exit(main())
