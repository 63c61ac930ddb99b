"""A class through one lesson: a teacher and two learners, each in a browser of their own, on a
server that `run.py --class` started."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e import served, steps
from e2e.conftest import complaints, picture
from e2e.served import READY
from e2e.test_access import serious
from playwright.sync_api import Browser, Page, expect

from pruning.recipe import Recipe
from pruning.runs.store import Store

START = "import sys; from dashboard import launch; sys.exit(launch.main(sys.argv[1:]))"
ROOT = Path(__file__).parents[2]
PATIENCE = 60_000  # milliseconds
LESSON = """
title = "Half"
question = "What does half cost?"
minutes = 5

[results.half]
recipe = {model = "digits-mlp", sparsity = 0.5}

[[step]]
title = "Guess"
text = "What remains with half of the weights?"
page = "classroom"
recipe = "half"

[step.predict]
question = "How accurate will it be?"
figure = "half.accuracy"

[[step]]
title = "Look"
text = "Look at it."
page = "prune"
"""


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


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    home = tmp_path_factory.mktemp("class") / "workspace"
    (home / "lessons").mkdir(parents=True)
    (home / "lessons" / "half.toml").write_text(LESSON)
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


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Browser]:
    """The browser; what was opened in it is closed at the end, however that comes."""
    before = list(browser.contexts)
    yield browser
    for context in browser.contexts:
        if context not in before:
            context.close()


def come(browser: Browser, url: str, passphrase: str, errors: list[list[str]]) -> Page:
    """A browser of its own, through the passphrase, to where the link leads."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(PATIENCE)
    errors.append(complaints(page))
    page.goto(url)
    page.get_by_label("Passphrase").fill(passphrase)
    page.get_by_role("button", name="Enter").click()
    page.wait_for_selector(READY, state="attached")
    return page


def join(page: Page, name: str) -> None:
    page.get_by_role("textbox", name="Name", exact=True).fill(name)
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_text("in this class.")).to_be_visible(timeout=PATIENCE)


def show(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)


def side(page: Page) -> str:
    return page.get_by_test_id("stSidebar").inner_text()


def cell(page: Page, name: str) -> None:
    """A table of numbers is a canvas; what stands in it is beside it for who cannot see it."""
    table = page.locator("table[role=grid]").first
    expect(table).to_contain_text(name, timeout=PATIENCE)


def test_a_class_goes_through_a_lesson_and_leaves_nothing(
    contexts: Browser, classroom: Class
) -> None:
    browser = contexts
    passphrase = classroom.line(r"passphrase +(\S+)")
    code = classroom.line(r"\n +code +(\S+)")
    address = classroom.line(r"open +(\S+)")
    owner = classroom.line(r"(http\S+\?owner=\S+)")
    errors: list[list[str]] = []

    # The code is in the QR's link, and a name is all that is asked for.
    teacher = come(browser, f"{owner}&room=classroom", passphrase, errors)
    show(teacher, code)
    anna = come(browser, f"{address}/?class={code}", passphrase, errors)
    join(anna, "Anna-Secret")
    ben = come(browser, f"{address}/?class={code}", passphrase, errors)
    join(ben, "Anna-Secret")
    show(ben, "Anna-Secret 2")
    show(teacher, "2 people")
    cell(teacher, "Anna-Secret 2")
    assert serious(teacher, "light") == []
    assert serious(anna, "light") == []

    # A recipe is offered to all, and taken by a click.
    teacher.get_by_role("button", name="Offer it to all").click()
    for learner in (anna, ben):
        show(learner, "Handed to the class")
    anna.get_by_role("button", name="Use this recipe").click()
    expect(anna.get_by_text("Handed to the class")).to_have_count(0)

    # A lesson starts for all; their predictions come as a histogram, without what was measured.
    steps.pick(teacher, teacher.get_by_role("combobox", name="Lesson"), "Half")
    teacher.get_by_role("button", name="Start for all").click()
    for learner, value in ((anna, "90"), (ben, "97")):
        show(learner, "What remains with half of the weights?")
        field = learner.get_by_label("Your prediction, %")
        field.fill(value)
        field.press("Enter")
        learner.get_by_role("button", name="Predict").click()
        show(learner, f"You predicted {value}")
        assert "digits-mlp" in side(learner)
    show(teacher, "2 predictions")
    picture(teacher, "class-teacher")
    picture(anna, "class-learner")

    # What is locked is disabled on everybody's page, with the reason.
    anna.get_by_role("button", name="Next").click()
    show(anna, "Look at it.")
    share = anna.get_by_role("spinbutton", name="Remove, %", exact=True)
    expect(share).to_be_enabled(timeout=PATIENCE)
    steps.pick(teacher, teacher.get_by_role("combobox", name="Locked"), "sparsity asked")
    expect(share).to_be_disabled(timeout=PATIENCE)
    teacher.keyboard.press("Escape")

    # The board shows who asked for it.
    teacher.get_by_role("button", name="Open the board").click()
    ben.get_by_text("Show me on the leader board").click()
    show(teacher, "Leader board")
    show(ben, "Leader board")
    assert Store(classroom.home).submit("run", Recipe(model="digits-mlp").to_dict())

    # Its end is told to all, and nothing of it remains.
    teacher.locator(".st-key-class-end-open").get_by_role("button").first.click()
    teacher.get_by_role("button", name="End the class").click()
    for learner in (anna, ben):
        show(learner, "The class has ended")
    show(teacher, "Open a class")
    for file in classroom.home.rglob("*"):
        assert not file.is_file() or b"Anna-Secret" not in file.read_bytes(), file
    assert "Anna-Secret" not in "".join(classroom.printed)
    # Browsers note that a page was answered with 401, which is what it is for.
    assert [line for each in errors for line in each if "401" not in line] == []
