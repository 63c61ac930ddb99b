"""Thirty visitors for two minutes while the sweep of one of them trains on the same cores.

Each has a browser's token of their own, on a server that others can reach: one looks at the sweep,
live, and all others move their slider. None of them may be shown the sweep. They speak Streamlit's
protocol over real websockets (bench/_session.py). `python3 run.py bench visitors`; with a number of
seconds, shorter: `PYTHONPATH=.:tests .venv/bin/python tests/bench/visitors.py 20`
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench._session import Tab
from bench._table import conditions
from bench.load import BEFORE, GATE, GOAL, RECIPE, TABS, Moves, memory, moving, row
from bench.page import processor_ms
from e2e import served
from e2e.served import Served

from dashboard import state, visitors
from pruning.runs.store import Store
from pruning.sweeps import sweeps
from pruning.sweeps.presets import which_technique
from pruning.sweeps.sweeps import Progress

RESULT = Path(__file__).parent / "results" / "visitors.md"
SECONDS = 120.0  # of moving
LOG = 6_000  # characters of the server's log that are shown, where something failed
GROWTH = 100.0  # MB that the server may grow by meanwhile
MODEL = "digits-cnn"
OPENED = 180.0  # seconds within which all tabs are drawn: the first of them wait for studies
TRAINING = 60.0  # seconds within which the sweep has begun
EPOCHS = 50
"""So many that the sweep lasts longer than anybody looks."""


@dataclass
class Visit:
    """What came of it. strangers: texts of the sweep that others were shown; growth: MB; drawn:
    times that the sweep's own visitor was shown more of it; before, after: the sweep's progress.
    """

    moves: Moves
    before: Progress
    after: Progress
    growth: float = 0.0
    drawn: int = 0
    strangers: list[str] = field(default_factory=list)


def of_sweep(text: str) -> bool:
    """Whether a text tells of a sweep that works: the strip at the bottom, or its bar."""
    return text.startswith("**Sweep**")


def come(url: str) -> tuple[Tab, str]:
    """A visitor with a token of their own; their tab, and who they are to the store."""
    token = secrets.token_hex(16)
    return Tab(url, headers={"Cookie": f"{visitors.COOKIE}={token}"}), visitors.named(token)


async def visit(app: Served, seconds: float) -> Visit:
    store = Store(app.home)
    tabs = [come(app.url) for _ in range(TABS)]
    (first, owner), *others = tabs
    shown: list[str] = []
    for tab, _ in others:
        await tab.open(f"room=prune&r={state.encode(RECIPE)}")
    for tab, _ in others:
        await tab.until(lambda tab=tab: "dial" in tab.components, OPENED)  # type: ignore[misc]
    plan = replace(which_technique([MODEL]), fields={"epochs": EPOCHS})
    sweep = sweeps.submit(store, plan, visitor=owner)
    await first.open(f"room=sweeps&sweep={sweep}")
    until = time.monotonic() + TRAINING
    while not sweeps.state(store, sweep).running:
        if time.monotonic() > until:
            raise TimeoutError(f"the sweep did not begin within {TRAINING:.0f} s")
        await asyncio.sleep(0.2)

    def note(text: str) -> bool:
        if of_sweep(text):
            shown.append(text)
        return False  # goes on watching

    watched = [tab.shows(note) for tab, _ in others]
    end = time.monotonic() + BEFORE
    warm = Moves()
    await asyncio.gather(*(moving(tab, i, end, warm) for i, (tab, _) in enumerate(others)))
    made = Visit(Moves(), sweeps.state(store, sweep), sweeps.state(store, sweep))
    size, drawn = memory(app.process.pid), first.reruns
    server, begin = processor_ms(app.process.pid), time.monotonic()
    end = begin + seconds
    await asyncio.gather(*(moving(tab, i, end, made.moves) for i, (tab, _) in enumerate(others)))
    made.moves.seconds = time.monotonic() - begin
    made.moves.server = processor_ms(app.process.pid) - server
    made.moves.errors = {error for tab, _ in tabs for error in tab.errors}
    made.growth = memory(app.process.pid) - size
    made.drawn = first.reruns - drawn
    made.strangers = shown
    made.after = sweeps.state(store, sweep)
    for future in watched:
        future.cancel()
    for tab, _ in tabs:
        await tab.close()
    sweeps.cancel(store, sweep)
    return made


def report(made: Visit) -> tuple[str, bool]:
    """The table and the verdicts; whether all of them are met."""
    times = sorted(made.moves.times)
    slow = times[min(len(times) - 1, int(0.95 * len(times)))]
    lines = [
        "| | moves | p50 ms | p95 ms | p99 ms | lost | errors | server, a move | of a core |",
        "|---|---|---|---|---|---|---|---|---|",
        row(f"{TABS - 1} sliders, and one who follows the sweep", made.moves),
        "",
    ]
    trained = made.after.done - made.before.done
    works = made.after.running + made.after.waiting
    checks = {
        f"p95 {slow:.2f} s (goal {GOAL} s, gate {GATE} s)": slow <= GATE,
        f"{made.moves.lost} moves lost, {len(made.moves.errors)} errors": (
            not made.moves.lost and not made.moves.errors
        ),
        f"the server grew by {made.growth:+.0f} MB (at most {GROWTH:.0f})": made.growth <= GROWTH,
        f"the sweep worked all the while: {trained} runs more done, {works} to come": works > 0,
        f"it was drawn {made.drawn} times for whoever follows it": made.drawn > 0,
        f"{len(made.strangers)} texts of it were shown to others": not made.strangers,
        "nobody stopped a run of it": made.after.stopped == 0 and made.after.state == "active",
    }
    lines += [f"- {text}: {'met' if met else '**missed**'}" for text, met in checks.items()]
    lines += [f"  {error}" for error in sorted(made.moves.errors)]
    return "\n".join(lines), all(checks.values())


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    head = f"# {TABS} visitors while a sweep trains\n\n{conditions()} {seconds:.0f} s.\n"
    print(head, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRUNING_HOME"] = str(Path(folder) / "own")  # not the server's: it is to build
        owner = {visitors.OWNER: secrets.token_hex(16)}
        app = served.serve(Path(folder) / "workspace", **owner)
        try:
            asyncio.run(visit(app, 3.0))  # the studies that the page asks for, and every cache
            text, passed = report(asyncio.run(visit(app, seconds)))
            if "Traceback" in (log := app.log.read_text(errors="replace")):
                print(f"The server's log:\n{log[-LOG:]}")
        finally:
            app.end()
    print(text)
    if seconds >= SECONDS:  # a shorter one is a look at whether it works
        RESULT.write_text(f"{head}\n{text}\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
