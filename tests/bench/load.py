"""A class on one server: thirty tabs with a slider each while a run trains, tabs that come and go,
and ten uploads at once.

The tabs speak Streamlit's protocol without browsers (bench/_session.py). Processor time is the web
server's alone; the run, its worker and the tabs share the machine with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
from bench._session import Tab
from bench._table import conditions
from bench.page import processor_ms
from e2e import served
from e2e.served import Served

from dashboard import state, words
from pruning.formats.architecture import expected
from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.storage import safetensors_header

TABS = 30
EVERY = 3.0  # seconds between two moves of a tab's slider
SECONDS = 60.0  # of moving
BEFORE = 6.0  # seconds until the figures begin: tabs open one after the other
LOST = 30.0  # seconds after which a move counts as unanswered
GOAL, GATE = 0.5, 1.0  # seconds, of p95
CYCLES = 300
GROWTH = 30.0  # MB that so many tabs may leave behind
UPLOADS, ARCHITECTURE = 10, "torchvision:resnet18"
ANSWERED, BACK = 20.0, 60.0  # seconds until all are answered, and until the memory is back
KEPT = 50.0  # MB, of one file: what the server may still have then
RECIPE = Recipe(model="digits-mlp", sparsity=0.5, epochs=2)


@dataclass
class Moves:
    """What came of the tabs' moves. times: seconds to the new picture; server: ms of processor."""

    times: list[float] = field(default_factory=list)
    lost: int = 0
    errors: set[str] = field(default_factory=set)
    reruns: int = 0
    server: float = 0.0
    seconds: float = 0.0


# ---------------------------------------------------------------- thirty tabs


async def release(tab: Tab, share: float) -> None:
    """Let the slider go, which counts its releases as its script does."""
    tab.releases += 1
    turn = tab.components["dial"].data["turn"] + tab.releases
    await tab.trigger("dial", "ratio", {"share": share, "turn": turn})


async def moving(tab: Tab, number: int, until: float, moves: Moves) -> None:
    """Let the slider go every EVERY seconds, each time at another share."""
    await asyncio.sleep(EVERY * number / TABS)
    turn = 0
    while time.monotonic() < until:
        turn += 1
        share = (20 + (7 * number + 37 * turn) % 70) / 100
        sentence = words.plain(words.sentence(replace(RECIPE, sparsity=share)))
        shown = tab.shows(lambda text, wanted=sentence: text == wanted)  # type: ignore[misc]
        begin = time.perf_counter()
        await release(tab, share)
        try:
            moves.times.append(await asyncio.wait_for(shown, LOST) - begin)
        except TimeoutError:
            moves.lost += 1
        await asyncio.sleep(max(0.0, EVERY - (time.perf_counter() - begin)))


async def a_class(app: Served, seconds: float, run: str = "") -> Moves:
    """TABS tabs on Prune; the first one has the run open."""
    tabs = [Tab(app.url) for _ in range(TABS)]
    for number, tab in enumerate(tabs):
        follow = f"&run={run}" if run and number == 0 else ""
        await tab.open(f"room=prune&r={state.encode(RECIPE)}{follow}")
    for tab in tabs:
        await tab.until(lambda tab=tab: "dial" in tab.components)  # type: ignore[misc]
    moves, warm = Moves(), Moves()
    end = time.monotonic() + BEFORE
    await asyncio.gather(*(moving(tab, i, end, warm) for i, tab in enumerate(tabs)))
    server, begin = processor_ms(app.process.pid), time.monotonic()
    reruns = sum(tab.reruns for tab in tabs)
    end = begin + seconds
    await asyncio.gather(*(moving(tab, i, end, moves) for i, tab in enumerate(tabs)))
    moves.seconds = time.monotonic() - begin
    moves.server = processor_ms(app.process.pid) - server
    moves.reruns = sum(tab.reruns for tab in tabs) - reruns
    moves.errors = {error for tab in tabs for error in tab.errors}
    for tab in tabs:
        await tab.close()
    return moves


def row(name: str, moves: Moves) -> str:
    times = sorted(1000 * seconds for seconds in moves.times)
    share = [times[min(len(times) - 1, int(at * len(times)))] for at in (0.5, 0.95, 0.99)]
    median, most, worst = (f"{one:.0f}" for one in share)
    count = len(times)
    cells = [name, count, median, most, worst, moves.lost, len(moves.errors)]
    cells += [f"{moves.server / count:.1f} ms", f"{moves.server / moves.seconds / 10:.0f} %"]
    return f"| {' | '.join(map(str, cells))} |"


# ---------------------------------------------------------------- tabs that come and go


def memory(process: int) -> float:
    """MB that a process has in memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def come_and_go(app: Served, cycles: int) -> tuple[float, float]:
    """Open, move the slider and close; MB before (after a tenth of them) and after."""
    before = memory(app.process.pid)
    for number in range(cycles + cycles // 10):
        if number == cycles // 10:
            before = memory(app.process.pid)
        tab = Tab(app.url)
        await tab.open(f"room=prune&r={state.encode(RECIPE)}")
        await tab.until(lambda tab=tab: "dial" in tab.components)  # type: ignore[misc]
        share = (20 + 37 * number % 70) / 100
        sentence = words.plain(words.sentence(replace(RECIPE, sparsity=share)))
        if share != RECIPE.sparsity:
            shown = tab.shows(lambda text, wanted=sentence: text == wanted)  # type: ignore[misc]
            await release(tab, share)
            await asyncio.wait_for(shown, LOST)
        await tab.close()
    await asyncio.sleep(75)  # the server forgets closed tabs after 60 s
    await one_tab(app)  # and frees them when the next one comes
    return before, memory(app.process.pid)


async def one_tab(app: Served) -> None:
    tab = Tab(app.url)
    await tab.open("room=model")
    await asyncio.sleep(3)
    await tab.close()


# ---------------------------------------------------------------- uploads


def weights(folder: Path, number: int) -> Path:
    """A sound file of resnet18's weights, 47 MB, and no two alike."""
    shapes = expected(ARCHITECTURE).shapes
    whole = expected(ARCHITECTURE).whole
    sizes = [
        (name, "I64" if name in whole else "F32", shape, (8 if name in whole else 4) * prod(shape))
        for name, shape in shapes.items()
    ]
    path = folder / f"weights-{number}.safetensors"
    generator = np.random.default_rng(number)
    with path.open("wb") as file:
        file.write(safetensors_header(sizes))
        for name, _, shape, _ in sizes:
            values = (
                np.zeros(shape, np.int64)
                if name in whole
                else np.abs(generator.standard_normal(shape, np.float32))
            )
            file.write(values.tobytes())
    return path


async def uploads(app: Served, files: Sequence[Path]) -> tuple[float, list[str], list[float]]:
    """Every file in a tab of its own, at once; seconds until all are answered, refusals, and MB of
    the server before, at most, and at its end.
    """
    tabs = [Tab(app.url) for _ in files]
    recipe = replace(RECIPE, model=ARCHITECTURE)
    for tab in tabs:
        await tab.open(f"room=model&r={state.encode(recipe)}")
        await tab.until(lambda tab=tab: "way" in tab.widgets)  # type: ignore[misc]
        await tab.pick("way", "Your own weights")
        await tab.until(lambda tab=tab: "own-0" in tab.widgets)  # type: ignore[misc]
        tab.errors.clear()
    sizes = [memory(app.process.pid)]
    watch = asyncio.create_task(_most(app, sizes))
    begin = time.perf_counter()
    answers = []
    for tab in tabs:
        shown = tab.shows(lambda text: "is the current model" in text or "was refused" in text)
        answers.append(asyncio.wait_for(shown, 300))
    sending = [tab.upload("own-0", file) for tab, file in zip(tabs, files, strict=True)]
    *_, ends = await asyncio.gather(asyncio.gather(*sending), asyncio.gather(*answers))
    took = max(ends) - begin
    watch.cancel()
    await asyncio.sleep(BACK)
    refused = [error for tab in tabs for error in tab.errors]
    sizes = [sizes[0], max(sizes), memory(app.process.pid)]
    for tab in tabs:  # open until here: what is back is not back because they were closed
        await tab.close()
    return took, refused, sizes


async def _most(app: Served, sizes: list[float]) -> None:
    while True:
        sizes.append(memory(app.process.pid))
        await asyncio.sleep(0.1)


# ---------------------------------------------------------------- the report


def long_run(home: Path) -> str:
    """Start a run that goes on as long as anybody looks; its id."""
    recipe = replace(RECIPE, sparsity=0.9, epochs=10_000, seed=1)
    return Store(home).submit("run", recipe.to_dict())


def sliders(app: Served, seconds: float) -> bool:
    print("| | moves | p50 ms | p95 ms | p99 ms | lost | errors | server, a move | of a core |")
    print("|---|---|---|---|---|---|---|---|---|")
    asyncio.run(a_class(app, 3 * EVERY))  # the studies that the page asks for, and every cache
    print(row(f"{TABS} tabs", asyncio.run(a_class(app, seconds))), flush=True)
    store = Store(app.home)
    run = long_run(app.home)
    while len(store.events(run)) < 100:
        time.sleep(0.5)
    moves = asyncio.run(a_class(app, seconds, run))
    print(row(f"{TABS} tabs, a run of {len(store.events(run))} events at the end", moves))
    store.stop(run)
    slow = sorted(moves.times)[int(0.95 * len(moves.times))]
    verdict = "goal met" if slow <= GOAL else "gate met" if slow <= GATE else "missed"
    print(f"\nWith the run: p95 {slow:.2f} s, {verdict} (goal {GOAL} s, gate {GATE} s).\n")
    return slow <= GATE and not moves.lost and not moves.errors


def cycles(app: Served, count: int) -> bool:
    before, after = asyncio.run(come_and_go(app, count))
    growth = after - before
    print(
        f"{count} tabs opened, used and closed: {before:.0f} MB before, {after:.0f} MB after "
        f"({growth:+.0f}; at most {GROWTH:.0f}).\n",
        flush=True,
    )
    return growth <= GROWTH


def many_uploads(app: Served, folder: Path) -> bool:
    files = [weights(folder, number) for number in range(UPLOADS)]
    size = files[0].stat().st_size / 1e6
    took, refused, (before, most, after) = asyncio.run(uploads(app, files))
    print(
        f"{UPLOADS} uploads of {size:.0f} MB at once, the architecture's first use: all answered "
        f"after {took:.1f} s (at most {ANSWERED:.0f}), {len(refused)} refused. Server {before:.0f} "
        f"MB before, {most:.0f} at most, {after:.0f} after {BACK:.0f} s with all tabs open."
    )
    for error in sorted(set(refused)):
        print(f"  {error}")
    return took <= ANSWERED and not refused and after - before <= KEPT


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    count = int(sys.argv[2]) if len(sys.argv) > 2 else CYCLES
    print(f"# A class on one server\n\n{conditions()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRUNING_HOME"] = str(Path(folder) / "own")  # not the server's: it is to build
        app = served.serve(Path(folder) / "workspace")
        try:
            passed = [sliders(app, seconds), cycles(app, count)]
            passed.append(many_uploads(app, Path(folder)))
        finally:
            app.end()
    print(f"Load at the end {os.getloadavg()[0]:.1f}.")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
