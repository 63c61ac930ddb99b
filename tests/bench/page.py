"""The page: what a release, a wait and a switch send and cost, how it starts, what it holds.

Sizes and messages are of the websocket, both ways; server time is processor time of the web
process; memory is PSS, which counts shared pages once.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench._table import conditions
from e2e import served, steps
from e2e.served import Served
from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright

from dashboard import state
from pruning.recipe import Recipe
from pruning.runs import pool

TIMES = 20
REMOVALS = 10
"""Filters that surgery removes, one after another."""
WAIT = 30.0  # seconds that a page waits for a study that does not come
MODEL = "digits-cnn"
CHANNELS = Recipe(
    model="digits-resnet", granularity="channel", scope="per_layer", sparsity=0.45, reconstruct=True
)
SHARES = (0.5, 0.4, 0.6, 0.3, 0.7)
"""Where the slider is let go for the accuracy of the reconstructed model: each is measured anew."""
PAGES = {
    "Inspect": "What is in this layer",
    "Sensitivity": "",
    "Prune": "How much can be pruned",
    "Compare": "",
    "Lottery": "",
    "Structure": "",
    "Criteria": "Criterion check",
    "Model": "How much of the current model can be pruned",
}
"""Page -> how its question begins; "" where any question will do."""

# Whether the page is whole: no script runs, nothing is waited for, every chart is drawn.
WHOLE = """() => {
    const app = document.querySelector('[data-testid=stApp]');
    const charts = [...document.querySelectorAll('[data-testid=stPlotlyChart]')];
    return app?.dataset.testScriptState === 'notRunning'
        && document.querySelector('h1')
        && !document.querySelector('[data-testid*=stSkeleton], [class*=st-key-awaiting-]')
        && !document.querySelector('[data-stale=true]')
        && charts.every((chart) => chart.querySelector('.main-svg'));
}"""

# Starts the clock at an event; stops it in the first frame in which the page is whole and `changed`
# holds, compared with what it was before.
WATCH = """([event, whole, changed]) => {
    const isWhole = eval(whole);
    const seen = eval(changed);
    const before = seen();
    window.__took = new Promise((done, fail) => window.addEventListener(event, () => {
        const start = performance.now();
        setTimeout(() => fail(new Error(`nothing followed ${event} within 30 s`)), 30_000);
        const look = () => {
            if (seen() !== before && isWhole())
                requestAnimationFrame(() => done(performance.now() - start));
            else requestAnimationFrame(look);
        };
        look();
    }, {once: true, capture: true}));
}"""
FOLLOWED = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState
    === 'notRunning'"""
SIDE = "() => document.querySelector('[data-testid=stSidebar]').innerText"
# What surgery measured last: the share is another with each filter.
OPERATED = """() => document.querySelector('[data-testid=stMain]').innerText
    .match(/Without [^]{1,8}% of the weights, on [^]*? now right/)?.[0]"""
HEADING = "() => document.querySelector('h1')?.innerText"

# Becomes true in the first frame that waits for a study. The numbers before it may stand there, and
# the next may be equal to them: to look at what they say would be to miss the end, or to see it
# before the beginning.
WAITED = """() => window.__waited ||=
    Boolean(document.querySelector('[class*=st-key-awaiting-]'))"""
RECONSTRUCTED = f"""() => ({WHOLE})() && [...document.querySelectorAll('[data-testid=stMetric]')]
    .some((metric) => /Reconstructed[^]*\\d %/.test(metric.innerText))"""


@dataclass
class Traffic:
    """What the websockets of a page carried. down: to the browser; in messages and bytes."""

    down: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        def opened(socket: WebSocket) -> None:
            socket.on("framereceived", lambda data: self.down.append(len(data)))
            socket.on("framesent", lambda data: self.up.append(len(data)))

        page.on("websocket", opened)

    @property
    def messages(self) -> int:
        return len(self.down) + len(self.up)

    @property
    def bytes(self) -> int:
        return sum(self.down) + sum(self.up)


@dataclass(frozen=True)
class Cost:
    """One action. took: ms to the whole picture; server: ms of processor time."""

    took: float
    messages: int
    bytes: int
    server: float


def processor_ms(process: int) -> float:
    """Processor time of a process so far, ended threads included; in steps of 10 ms."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def whole(page: Page) -> None:
    page.wait_for_function(WHOLE, timeout=120_000)


def act(
    page: Page,
    app: Served,
    traffic: Traffic,
    event: str,
    changed: str,
    do: Callable[[], None],
    until: str = WHOLE,
) -> Cost:
    """Do something that begins with a browser's event; what came of it until the picture is whole,
    and 50 ms more.
    """
    page.evaluate(WATCH, [event, until, changed])
    messages, size = traffic.messages, traffic.bytes
    server = processor_ms(app.process.pid)
    do()
    took = float(page.evaluate("() => window.__took"))
    page.wait_for_timeout(50)
    return Cost(
        took,
        traffic.messages - messages,
        traffic.bytes - size,
        processor_ms(app.process.pid) - server,
    )


# ---------------------------------------------------------------- what is measured


def releases(page: Page, app: Served, traffic: Traffic, times: int) -> list[Cost]:
    """The slider on Prune, let go at other shares."""
    steps.go(page, "Prune")
    whole(page)

    def release(share: float) -> Cost:
        whole(page)  # the accuracies of the share before it, too, which a worker measures
        steps.drag_slider(page, share)
        return act(page, app, traffic, "pointerup", SIDE, page.mouse.up, FOLLOWED)

    release(0.5)  # fills caches, and allows Undo
    # Golden steps: far apart, and never the same share twice in a row.
    return [release(0.25 + 0.6 * (0.618 * i % 1)) for i in range(1, times + 1)]


def reconstructions(page: Page, app: Served, traffic: Traffic) -> list[Cost]:
    """The slider on Prune, let go at SHARES of the channels, until a worker has measured what the
    reconstructed model says of every validation image.
    """
    steps.open_at(page, f"{app.url}/prune?r={state.encode(CHANNELS)}", wait=120_000)
    costs = []
    for share in SHARES:
        whole(page)
        steps.drag_slider(page, share)
        page.evaluate("() => { window.__waited = false; }")
        costs.append(act(page, app, traffic, "pointerup", WAITED, page.mouse.up, RECONSTRUCTED))
    return costs


def removals(page: Page, app: Served, traffic: Traffic) -> list[Cost]:
    """Surgery on Inspect: REMOVALS filters of conv2 removed by a press, each until the page has the
    measured accuracy and the images that are answered otherwise.
    """
    steps.open_at(page, f"{app.url}/inspect?layer=conv2.weight&unit=first", wait=120_000)
    steps.pick(page, page.get_by_role("combobox", name="Sorted by"), "number")
    units = page.locator(".sparks .unit")
    costs = []
    for number in range(REMOVALS):
        whole(page)
        units.nth(number).click()
        expect(units.nth(number)).to_have_attribute("aria-pressed", "true")
        whole(page)
        button = page.get_by_role("button", name="Remove it")
        costs.append(act(page, app, traffic, "pointerdown", OPERATED, button.click))
    return costs


def switches(page: Page, app: Served, traffic: Traffic, times: int) -> dict[str, list[Cost]]:
    """Every page after another, by the navigation; the first round fills caches."""
    costs: dict[str, list[Cost]] = {name: [] for name in PAGES}
    for round in range(times + 1):
        for name in PAGES:
            link = steps.link_to(page, name)
            cost = act(page, app, traffic, "pointerdown", HEADING, link.click)
            if round == 0:  # what it waits for, too
                page.wait_for_timeout(300)
                whole(page)
            else:
                costs[name].append(cost)
    return costs


def waiting(page: Page, app: Served, traffic: Traffic) -> tuple[int, int]:
    """Messages and bytes while a page waits WAIT seconds for scores that do not come."""
    with stopped(workers(app)):
        recipe = Recipe(model=MODEL, criterion="taylor", sparsity=0.5, seed=int(time.time()))
        page.goto(f"{app.url}/prune?r={state.encode(recipe)}")
        page.wait_for_selector("[data-testid*=stSkeleton]")
        page.wait_for_timeout(1000)
        messages, size = traffic.messages, traffic.bytes
        page.wait_for_timeout(1000 * WAIT)
        return traffic.messages - messages, traffic.bytes - size


def start(browser: Browser, home: Path) -> tuple[Served, float, float]:
    """Start a server; it, and seconds until the page's question shows and until it is whole."""
    begin = time.perf_counter()
    app = served.serve(home)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(app.url, wait_until="commit")
    page.wait_for_selector("h1", timeout=120_000)
    question = time.perf_counter() - begin
    whole(page)
    complete = time.perf_counter() - begin
    page.close()
    return app, question, complete


# ---------------------------------------------------------------- processes


def workers(app: Served) -> list[int]:
    """The processes of the workspace's workers."""
    parent = pool.pid(app.home)
    if not parent:
        return []
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(child) for child in children.split()]


@contextmanager
def stopped(processes: Sequence[int]) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def memory(process: int) -> float:
    """MB that a process holds, shared pages by their share."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def idle_memory(app: Served) -> dict[str, float]:
    """MB of every process, once the workers have imported what they need."""
    time.sleep(15)
    sizes = {"web server": memory(app.process.pid)}
    parent = pool.pid(app.home)
    if parent:
        sizes["pool"] = memory(parent)
    for i, worker in enumerate(workers(app), 1):
        sizes[f"worker {i}"] = memory(worker)
    return sizes


# ---------------------------------------------------------------- the report


def row(name: str, costs: Sequence[Cost]) -> str:
    took = [cost.took for cost in costs]
    low, median, high = statistics.quantiles(took, n=4, method="inclusive")
    messages = statistics.median(cost.messages for cost in costs)
    size = statistics.median(cost.bytes for cost in costs) / 1000
    server = statistics.mean(cost.server for cost in costs)
    return (
        f"| {name} | {median:.0f} ms ({low:.0f} to {high:.0f}) | {messages:.0f} | {size:.1f} kB "
        f"| {server:.0f} ms |"
    )


def main() -> int:
    if reason := served.missing():
        print(f"Not measured: {reason}.")
        return 1
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    print(f"# The page\n\n{conditions()} Medians of {times}, quartiles beside them;", end=" ")
    print(f"of {len(SHARES)} where a reconstructed model is measured,", end=" ")
    print(f"of {REMOVALS} where a filter is removed.\n")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        home = Path(folder) / "workspace"
        browser = play.chromium.launch(executable_path=str(served.CHROMIUM), args=served.FLAGS)
        app, question, complete = start(browser, home)
        print(f"First start: question {question:.1f} s, first page complete {complete:.1f} s.")
        app.end()
        app, question, complete = start(browser, home)
        print(f"Second start: question {question:.1f} s, complete {complete:.1f} s.")
        try:
            sizes = idle_memory(app)
            parts = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
            print(f"Memory, idle: {sum(sizes.values()):.0f} MB ({parts}).\n")
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            traffic = Traffic()
            traffic.listen(page)
            steps.open_at(page, app.url, wait=120_000)
            print("| | to the picture | messages | sent | server |\n|---|---|---|---|---|")
            print(row("Prune: release of the slider", releases(page, app, traffic, times)))
            solved = reconstructions(page, app, traffic)
            print(row("Prune: release to the reconstructed accuracy", solved))
            removed = removals(page, app, traffic)
            print(row("Inspect: remove a filter to its measured accuracy", removed))
            steps.open_at(page, app.url, wait=120_000)
            for name, costs in switches(page, app, traffic, times).items():
                print(row(f"to {name}", costs))
            messages, size = waiting(page, app, traffic)
            print(f"\nWaiting {WAIT:.0f} s for scores: {messages} messages, {size / 1000:.1f} kB.")
            print(f"Load at the end {os.getloadavg()[0]:.1f}.")
            browser.close()
        finally:
            app.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
