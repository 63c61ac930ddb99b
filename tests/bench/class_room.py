"""A class room: thirty learners in one lesson on one server for five minutes, and their teacher.

The learners speak Streamlit's protocol without browsers (bench/_session.py), each with a cookie of
their own. They join by the form, predict, run the lesson's preset (one run for all of them), move
the slider and go through steps; the teacher's page is open meanwhile and hands out a recipe now and
then.

An interaction lasts from the press until the text that answers it has come and its drawing has
ended. People in a class read for a minute between two steps: here each does something every five
seconds, and every other time it is a step, which draws the whole page. That is kept, because it is
harder than a class.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from bench._session import Tab
from bench._table import conditions
from bench.page import processor_ms
from e2e import served
from e2e.served import Served

from dashboard import rooms, state, visitors, words
from pruning.recipe import Recipe
from pruning.runs.store import Store

LEARNERS = 30
EVERY = 5.0  # seconds between two things that a learner does
SECONDS = 300.0
HAND_OUT = 30.0  # seconds between two recipes of the teacher
LOST = 30.0  # seconds after which something counts as unanswered
GATE = 1.0  # seconds, of p95
CODE, OWNER = "K7M2QX", "f" * 32
RECIPE = Recipe(model="digits-mlp", sparsity=0.5, epochs=2)
LESSON = """
title = "Half"
question = "What does half cost?"
minutes = 5

[results.half]
recipe = {model = "digits-mlp", sparsity = 0.5, epochs = 2}

[[step]]
title = "Guess"
text = "What remains with half of the weights?"
page = "prune"
recipe = "half"

[step.predict]
question = "How accurate will it be?"
figure = "half.accuracy"

[[step]]
title = "Look"
text = "Move the slider."
page = "prune"
recipe = "half"
"""


@dataclass
class Done:
    """What came of it. times: kind of interaction -> seconds to the new picture; handed: seconds
    from the teacher's press until a learner's page shows it.
    """

    times: dict[str, list[float]] = field(default_factory=dict)
    handed: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def timed(self, kind: str, tab: Tab, text: Callable[[str], bool], act: object) -> None:
        """Do something (a coroutine) and wait until a text stands on the page."""
        shown = tab.shows(text)
        begin = time.perf_counter()
        try:
            await act  # type: ignore[misc]
            end = await asyncio.wait_for(shown, LOST)
            self.times.setdefault(kind, []).append(end - begin)
        except TimeoutError:
            self.lost.append(kind)


def cookies(token: str, owner: bool = False) -> dict[str, str]:
    also = f"; {visitors.OWNER_COOKIE}={OWNER}" if owner else ""
    return {"Cookie": f"{visitors.COOKIE}={token}{also}"}


def heading(title: str) -> Callable[[str], bool]:
    return lambda text: text == f"## {title}"


def begins(start: str) -> Callable[[str], bool]:
    return lambda text: text.startswith(start)


def is_run(text: str) -> bool:
    """Of a run that is live or has ended: the others' equal one may be there already."""
    return text.startswith(("## Run", "**Run"))


# ---------------------------------------------------------------- one learner


async def join(tab: Tab, number: int, done: Done) -> None:
    await tab.open(f"class={CODE}")
    await tab.until(lambda: "class-enter" in tab.widgets)
    tab.set_text("class-code", CODE)
    tab.set_text("class-name", f"Learner {number % 20}")  # some share a name
    await done.timed("join", tab, lambda text: "in this class." in text, tab.press("class-enter"))


async def learn(tab: Tab, number: int, until: Callable[[], bool], done: Done) -> None:
    """From the moment that the lesson has started for all."""
    await tab.until(lambda: "lesson-predict" in tab.widgets and "dial" in tab.components)
    await asyncio.sleep(EVERY * number / LEARNERS)
    await tab.set_number("lesson-predict-half-1", 50.0 + number)
    await done.timed("predict", tab, begins("You predicted"), tab.press("lesson-predict"))
    await asyncio.sleep(EVERY)
    await done.timed("run", tab, is_run, tab.press("run-now"))
    for turn in count():
        if until():
            return
        begin = time.monotonic()
        if turn % 2 and not at_end(tab):
            await done.timed("next step", tab, heading("Look"), tab.press("lesson-next"))
        elif turn % 2:
            await done.timed("step back", tab, heading("Guess"), tab.press("lesson-back"))
        else:
            await slide(tab, (20 + (7 * number + 37 * turn) % 70) / 100, done)
        await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - begin)))


def at_end(tab: Tab) -> bool:
    """Whether the lesson's last step is shown."""
    return "lesson-back" in tab.widgets and "lesson-back" not in tab.disabled


async def slide(tab: Tab, share: float, done: Done) -> None:
    tab.releases += 1
    dial = tab.components["dial"]
    turn = dial.data["turn"] + tab.releases
    sentence = words.plain(words.sentence(replace(RECIPE, sparsity=share)))
    release = tab.trigger("dial", "ratio", {"share": share, "turn": turn})
    await done.timed("slider", tab, lambda text: text == sentence, release)


# ---------------------------------------------------------------- the teacher


async def teach(tab: Tab, tabs: list[Tab], until: Callable[[], bool], done: Done) -> None:
    while not until():
        await asyncio.sleep(HAND_OUT)
        shown = [one.shows(begins("Handed to the class")) for one in tabs]
        begin = time.perf_counter()
        await tab.press("class-offer")
        for one in asyncio.as_completed(shown, timeout=LOST):
            try:
                done.handed.append(await one - begin)
            except TimeoutError:
                done.lost.append("handed out")


async def a_class(app: Served, seconds: float) -> tuple[Done, set[str], float, int]:
    """What came of it, texts of errors, processor seconds of the server, and people joined."""
    done = Done()
    teacher = Tab(app.url, cookies("c" * 32, owner=True))
    await teacher.open(f"room=classroom&r={state.encode(RECIPE)}")
    await teacher.until(lambda: "class-start" in teacher.widgets)
    tabs = [Tab(app.url, cookies(f"{number:032x}")) for number in range(LEARNERS)]
    server = processor_ms(app.process.pid)
    await asyncio.gather(*(join(tab, number, done) for number, tab in enumerate(tabs)))
    room = rooms.current()
    assert room is not None
    joined = len({member.name for member in rooms.members(room.id)})
    rooms.start_lesson(room.id, "half", 1)
    for tab in tabs:
        await tab.until(lambda tab=tab: "dial" in tab.components)  # type: ignore[misc]
    end = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() > end

    learning = [learn(tab, number, over, done) for number, tab in enumerate(tabs)]
    await asyncio.gather(teach(teacher, tabs, over, done), *learning)
    spent = (processor_ms(app.process.pid) - server) / 1000
    errors = {error for tab in [teacher, *tabs] for error in tab.errors}
    rooms.end(room.id)
    for tab in [teacher, *tabs]:
        await tab.close()
    return done, errors, spent, joined


# ---------------------------------------------------------------- the report


def at(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name: str, times: list[float]) -> str:
    cells = [f"{1000 * at(times, share):.0f}" for share in (0.5, 0.95, 0.99)]
    return f"| {name} | {len(times)} | {' | '.join(cells)} |"


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(f"# {LEARNERS} learners in one room\n\n{conditions()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "workspace"
        (home / "lessons").mkdir(parents=True)
        (home / "lessons" / "half.toml").write_text(LESSON)
        os.environ["PRUNING_HOME"] = str(home)  # the room's file is looked into from here as well
        app = served.serve(home, **{rooms.CODE: CODE, visitors.OWNER: OWNER})
        try:
            done, errors, spent, joined = asyncio.run(a_class(app, seconds))
            runs = [run for run in Store(home).jobs("run") if run.spec.get("seed") == RECIPE.seed]
            equal = [run for run in runs if run.spec == RECIPE.to_dict()]
        finally:
            app.end()
        remains = [file for file in home.glob(f"{rooms.FILE}*")]
    print(f"A lesson of {seconds:.0f} s; each learner does something every {EVERY:.0f} s.\n")
    print("| | times | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|")
    for kind, times in done.times.items():
        print(row(kind, times))
    every = [one for times in done.times.values() for one in times]
    print(row("**all**", every))
    if done.handed:
        print(row("a recipe from the teacher's press to a learner's page", done.handed))
    slow = at(every, 0.95)
    clean = not errors and not done.lost and joined == LEARNERS and len(equal) == 1 and not remains
    print(
        f"\n{len(errors)} errors, {len(done.lost)} unanswered; {joined} people joined under names "
        f"of their own; the preset ran {len(equal)} times; {len(remains)} files of the room remain "
        f"after its end. Server {100 * spent / (seconds or 1):.0f} % of a core. p95 {slow:.2f} s "
        f"(gate {GATE:.0f} s): {'met' if slow <= GATE else 'missed'}. Load at the end "
        f"{os.getloadavg()[0]:.1f}."
    )
    for error in sorted([*errors, *set(done.lost)])[:5]:
        print(f"  {error}")
    return 0 if clean and slow <= GATE else 1


if __name__ == "__main__":
    sys.exit(main())
