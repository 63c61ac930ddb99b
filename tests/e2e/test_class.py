"""A class goes through every lesson: a teacher and two learners, one of them in the dark theme, in
three browsers, on a server that `run.py --class` started; nothing comes from elsewhere.

One class for all tests of this file, in their order: the last one ends it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from e2e import served, steps, walking
from e2e.conftest import BROKEN, complaints, picture
from e2e.test_access import serious
from e2e.walking import PATIENCE
from long_forms import in_part
from playwright.sync_api import Browser, Locator, Page, expect

from dashboard import lesson
from dashboard.lesson import Lesson
from pruning.recipe import Recipe
from pruning.runs.store import Store

START = "import sys; from dashboard import launch; sys.exit(launch.main(sys.argv[1:]))"
ROOT = Path(__file__).parents[2]
NAME = "Anna-Secret"
"""Of both learners: the second is told apart by a number."""

APP = "[data-testid=stApp]"
NOBODY = "Nobody has asked to be on it yet."

LOOKED_AT = "03-magnitude-against-random"
"""The lesson that axe looks at: a histogram of predictions stands in its panel."""
EACH_TIME = (LOOKED_AT, "04-layers-differ", "05-zeros-are-not-speed")
"""Lessons with every kind of step and of goal: a card, a number, a layer, a cell of the map."""


@dataclass
class Class:
    """A server as its teacher started it. printed: its lines so far, the server's own too."""

    process: subprocess.Popen[str]
    home: Path
    printed: list[str] = field(default_factory=list)

    def line(self, pattern: str) -> str:
        """What the first group of a pattern is in what was printed."""
        match = re.search(pattern, "".join(self.printed))
        assert match, "".join(self.printed)
        return match[1]


# A tab in the background asks for no news. A browser without a window shows all of its tabs.
AWAY = """
window.away = false;
Object.defineProperty(document, "hidden", { get: () => window.away });
window.look = (away) => {
  window.away = away;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


@dataclass(frozen=True)
class People:
    """errors: of all consoles; elsewhere: addresses that were asked for, but the server's."""

    teacher: Page
    anna: Page
    ben: Page
    errors: list[list[str]]
    elsewhere: list[str]

    @property
    def learners(self) -> tuple[Page, Page]:
        return self.anna, self.ben

    def check(self) -> None:
        """Whether everything came from the server, and no console complained."""
        for page in (self.teacher, *self.learners):
            self.errors.append(page.evaluate(BROKEN))
        # Browsers note that a page was answered with 401, which is what it is for.
        assert [line for each in self.errors for line in each if "401" not in line] == []
        assert self.elsewhere == []


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    home = tmp_path_factory.mktemp("class") / "workspace"
    words = ["--class", "--host", "127.0.0.1", "--port", "8790", "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        cwd=ROOT,
        env=served.environment(home) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    running = Class(process, home)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.printed.append(line)
            if "You can now view" in line:
                ready.set()

    threading.Thread(target=read, daemon=True).start()
    assert ready.wait(60), running.printed
    yield running
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    stop = [sys.executable, "-m", "pruning.runs.pool", "--stop"]
    subprocess.run(stop, cwd=ROOT, env=served.environment(home), check=False, timeout=30)


@pytest.fixture(scope="module")
def people(browser: Browser, classroom: Class) -> Iterator[People]:
    """All three have come in; the learners have joined. Their browsers are closed at the end."""
    passphrase = classroom.line(r"passphrase +(\S+)")
    code = classroom.line(r"\n +code +(\S+)")
    address = classroom.line(r"open +(\S+)")
    owner = classroom.line(r"(http\S+\?owner=\S+)")
    errors: list[list[str]] = []
    elsewhere: list[str] = []

    def come(url: str, scheme: str) -> Page:
        """A browser of its own, through the passphrase, to where the link leads."""
        size = {"width": 1280, "height": 640}  # what is not in sight need not be painted
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        opened.append(context)
        context.add_init_script(AWAY)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        errors.append(complaints(page))
        context.on("request", lambda request: note(request.url))
        page.goto(url)
        page.get_by_label("Passphrase").fill(passphrase)
        page.get_by_role("button", name="Enter").click()
        walking.drawn(page)
        return page

    def note(url: str) -> None:
        asked = urlsplit(url)
        if asked.scheme not in ("data", "blob") and asked.netloc != urlsplit(address).netloc:
            elsewhere.append(url)

    opened = []
    teacher = come(f"{owner}&room=classroom", "light")
    show(teacher, code)
    # The code is in the QR's link, and a name is all that is asked for.
    anna, ben = (come(f"{address}/?class={code}", scheme) for scheme in ("light", "dark"))
    for learner in (anna, ben):
        learner.get_by_role("textbox", name="Name", exact=True).fill(NAME)
        joined = learner.get_by_text("in this class.")
        steps.press(learner.get_by_role("button", name="Join", exact=True), joined)
    yield People(teacher, anna, ben, errors, elsewhere)
    for context in opened:
        context.close()


def show(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)


def table(page: Page) -> Locator:
    """A table of numbers is a canvas; what stands in it is beside it for who cannot see it."""
    return page.locator("table[role=grid]").first


def test_a_teacher_offers_locks_and_lists(people: People, classroom: Class) -> None:
    teacher, anna, ben = people.teacher, people.anna, people.ben
    show(ben, f"{NAME} 2")
    show(teacher, "2 people")
    expect(table(teacher)).to_contain_text(f"{NAME} 2", timeout=PATIENCE)
    assert serious(teacher, "light") == []

    # A recipe is offered to all, and taken by a click.
    teacher.get_by_role("button", name="Offer it to all").click()
    for learner in people.learners:
        show(learner, "Handed to the class")
    offer = anna.locator(".st-key-class-take")
    taken = anna.locator(f"{APP}:not(:has(.st-key-class-take))")
    walking.until(anna, lambda: offer.get_by_role("button").click(), taken)

    # What is locked is disabled on everybody's page, with the reason.
    steps.go(anna, "Prune")
    share = anna.get_by_role("spinbutton", name="Remove, %", exact=True)
    expect(share).to_be_enabled(timeout=PATIENCE)
    steps.pick(teacher, teacher.get_by_role("combobox", name="Locked"), "sparsity asked")
    expect(share).to_be_disabled(timeout=PATIENCE)
    teacher.keyboard.press("Escape")

    # The board shows who asked for it.
    steps.press(
        teacher.get_by_role("button", name="Open the board"),
        teacher.get_by_role("button", name="Close the board"),
    )
    listed = ben.get_by_text("Show me on the leader board")
    walking.until(ben, lambda: listed.click(), teacher.locator(f"{APP}:not(:has-text('{NOBODY}'))"))
    expect(teacher.locator("table[role=grid]").nth(1)).to_contain_text(NAME, timeout=PATIENCE)
    show(ben, "Leader board")

    # Begun anew, nothing is locked and the board is gone.
    reset = teacher.get_by_role("button", name="Reset the class")
    steps.press(teacher.locator(".st-key-class-reset-open").get_by_role("button").first, reset)
    steps.press(reset, teacher.get_by_role("button", name="Open the board"))
    expect(share).to_be_enabled(timeout=PATIENCE)
    people.check()


def test_what_is_walked_each_time_has_every_kind_of_step_and_goal() -> None:
    kinds = {name: walking.kinds(lesson.find(name)) for name in walking.NAMES}
    assert set().union(*(kinds[name] for name in EACH_TIME)) == set().union(*kinds.values())


@pytest.mark.parametrize("name", in_part(walking.NAMES, EACH_TIME))
def test_a_class_walks_a_lesson_to_its_end(people: People, name: str) -> None:
    """Anna predicts rightly and does what is asked for; Ben does something else first. Meanwhile
    the teacher's tab is in the background; then it has what came.
    """
    shown = lesson.find(name)
    start_for_all(people.teacher, shown)
    people.teacher.evaluate("look(true)")
    for number in range(1, len(shown.steps) + 1):
        walking.walk(people.anna, shown, number)
        walking.walk(people.ben, shown, number, rightly=False)
        picture(people.ben, f"lesson-{name}-{number}-dark")
        if name == LOOKED_AT and number == 1:
            assert serious(people.anna, "light") == []
            assert serious(people.ben, "dark") == []
        if number < len(shown.steps):
            for learner in people.learners:
                walking.go_on(learner, shown, number)
    people.teacher.evaluate("look(false)")
    asked = [step.predict.question for step in shown.steps if step.predict is not None][-1]
    # The end of the last question: words in it are kept together, and numbers filled in.
    show(people.teacher, re.compile(re.escape(asked[-30:]).replace(r"\ ", r"\s")))
    show(people.teacher, "2 predictions")
    for who in (NAME, f"{NAME} 2"):
        at_end = re.compile(rf"{who}\s*{re.escape(shown.title)}\s*{len(shown.steps)}")
        expect(table(people.teacher)).to_contain_text(at_end, timeout=PATIENCE)
    picture(people.teacher, f"class-{name}")
    people.check()


def start_for_all(teacher: Page, shown: Lesson) -> None:
    box = teacher.get_by_role("combobox", name="Lesson")
    started = teacher.get_by_text(f"Started for all: {shown.title}, step 1.")

    def start() -> None:
        steps.pick(teacher, box, shown.title)
        teacher.get_by_role("button", name="Start for all").click()

    walking.until(teacher, start, started)


def test_its_end_is_told_to_all_and_nothing_remains(people: People, classroom: Class) -> None:
    assert Store(classroom.home).submit("run", Recipe(model="digits-mlp").to_dict())
    teacher = people.teacher
    end = teacher.get_by_role("button", name="End the class")
    steps.press(teacher.locator(".st-key-class-end-open").get_by_role("button").first, end)
    steps.press(end, teacher.get_by_role("button", name="Open a class"))
    for learner in people.learners:
        show(learner, "The class has ended")
    secret = NAME.encode()
    for file in classroom.home.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes(), file
    assert NAME not in "".join(classroom.printed)
    people.check()
