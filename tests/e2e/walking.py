"""What a learner does in a lesson: predict, do what a goal asks for, or something else first.

Elements are looked for by their keys: by their roles it takes the browser as long to find one as to
draw the page, and these are looked for in nine lessons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from e2e import steps
from e2e.served import READY
from playwright.sync_api import Locator, Page, TimeoutError, expect

from dashboard import learning, lesson
from dashboard.figures import FIGURES
from dashboard.lesson import Check, Goal, Lesson, Predict

NAMES = [name for name in lesson.names() if lesson.files()[name].parent == lesson.SHIPPED]
PATIENCE = 60_000  # milliseconds
SOON = 15_000  # milliseconds after which a press was lost, and not only late
CARDS = ("criterion", "granularity", "scope", "schedule")
NUMBERS = {"sparsity": "Remove, %", "epochs": "Fine-tuning epochs", "steps": "Steps"}
ROWS = ("conv1", "conv2", "conv3", "fc1", "fc2")
LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Of the sensitivity map of digits-cnn."""


def kinds(shown: Lesson) -> set[tuple[str, ...]]:
    """What its steps have in them, and what their goals ask for: a card, a number ..."""
    found: set[tuple[str, ...]] = set()
    for step in shown.steps:
        parts = {"predict": step.predict, "goal": step.goal, "reveal": step.reveal}
        found.add(("step", *(name for name, part in parts.items() if part is not None)))
        checks = () if step.goal is None else step.goal.checks
        found.add(("checks", "several" if len(checks) > 1 else "one at most"))
        for check in checks:
            found.add(("goal", kind_of(check)))
    return found


def kind_of(check: Check) -> str:
    what, _, rest = check.figure.partition(".")
    if what == "layer":
        return "layer"
    if rest in CARDS:
        return "card"
    return "number" if what == "recipe" else "cell"


def panel(page: Page) -> Locator:
    return page.locator(".st-key-lesson-panel")


def button(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key} button").first  # of a page that is left it may stand twice


def drawn(page: Page) -> None:
    page.wait_for_selector(READY, state="attached", timeout=PATIENCE)


def until(page: Page, act: Callable[[], None], seen: Locator) -> None:
    """Act until that is seen, again only where the page is at rest: what is late counts once."""
    for _ in range(4):
        drawn(page)
        if seen.is_visible():
            return
        with suppress(AssertionError, TimeoutError):
            act()
            expect(seen).to_be_visible(timeout=SOON)
            return
    expect(seen).to_be_visible(timeout=PATIENCE)


def at_step(page: Page, shown: Lesson, number: int) -> None:
    """Until that step of the lesson is there, and the page beside it."""
    title = shown.steps[number - 1].title
    expect(place(page, shown, number)).to_be_visible(timeout=PATIENCE)
    drawn(page)
    expect(panel(page).locator("h2")).to_contain_text(title, timeout=PATIENCE)


def place(page: Page, shown: Lesson, number: int) -> Locator:
    return panel(page).get_by_text(f"step {number} of {len(shown.steps)}")


def go_on(page: Page, shown: Lesson, number: int) -> None:
    """Next: done is what the step asked for."""
    following = button(page, "lesson-next")
    expect(following).to_have_text("Next", timeout=PATIENCE)
    until(page, lambda: following.click(timeout=PATIENCE), place(page, shown, number + 1))


def walk(page: Page, shown: Lesson, number: int, *, rightly: bool = True) -> None:
    """One step: nothing is revealed before the prediction and the goal.

    rightly: predicts what was measured and does what the goal asks for at once, not something else
    first.
    """
    step = shown.steps[number - 1]
    at_step(page, shown, number)
    if step.goal is not None:
        reach(page, step.goal.checks if rightly else miss(page, step.goal))
    if step.predict is not None:
        assert not revealed(page).count()
        predict(page, step.predict, measured(shown, step.predict) if rightly else 0.0)
    if step.reveal is not None:
        expect(revealed(page)).to_be_visible(timeout=PATIENCE)
        assert "not measured" not in panel(page).inner_text()


def revealed(page: Page) -> Locator:
    return panel(page).locator(".st-key-lesson-reveal")


def measured(shown: Lesson, asked: Predict) -> float:
    """As the page asks for it: of a share, in percent."""
    value = lesson.value_of(asked.figure, learning.means(learning.results(shown)))
    assert value is not None
    return value * (100 if FIGURES[asked.figure.partition(".")[2]].share else 1)


def predict(page: Page, asked: Predict, value: float) -> None:
    box = panel(page).locator('input[aria-label^="Your prediction"]')
    predicted = panel(page).get_by_text("You predicted").first

    def enter() -> None:
        box.fill(f"{value:.1f}", timeout=PATIENCE)
        box.press("Enter")
        expect(button(page, "lesson-predict")).to_be_enabled(timeout=SOON)
        button(page, "lesson-predict").click(timeout=PATIENCE)

    until(page, enter, predicted)


# ---------------------------------------------------------------- goals


def reach(page: Page, checks: Sequence[Check]) -> None:
    """What a goal asks for, by the page's own controls."""

    def act() -> None:
        for check in checks:
            heard_of(page, check, hit=True)

    until(page, act, panel(page).locator(".st-key-lesson-goal-met"))


def miss(page: Page, goal: Goal) -> Sequence[Check]:
    """Something else, or not all of it: the panel goes on asking, and reveals nothing.

    What remains to be done.
    """
    *others, last = goal.checks
    for check in others:
        assert heard_of(page, check, hit=True)
    if not others:
        assert heard_of(page, last, hit=False)
    expect(panel(page).locator(".st-key-lesson-goal")).to_contain_text("To do")
    expect(button(page, "lesson-next")).to_have_text("Skip")
    assert not revealed(page).count()
    return [last]


def heard_of(page: Page, check: Check, hit: bool) -> bool:
    """Act, and whether the page has heard of it: what is done to it before that would be lost.

    hit: so that the check is met; else something that it does not want.
    """
    for _ in range(3):
        before = steps.sidebar(page).text_content() or ""
        act_on(page, check, hit)
        if check.figure == "layer":  # the recipe stays as it is, and the goal is looked at
            drawn(page)
            return True
        with suppress(AssertionError):
            expect(steps.sidebar(page)).not_to_have_text(before, timeout=SOON)
            drawn(page)
            return True
    return False


def act_on(page: Page, check: Check, hit: bool) -> None:
    rest = check.figure.partition(".")[2]
    kind = kind_of(check)
    if kind == "layer":
        pick_layer(page, check, hit)
    elif kind == "card":
        pick_card(page, rest, str(check.value), hit)
    elif kind == "number":
        set_number(page, rest, check, hit)
    else:  # a cell of the map, in the layer's row
        row, level = ROWS.index(rest.removesuffix(".weight")), 0.9 if hit else 0.1
        cells = page.locator(".grid svg rect.cell")
        cells.nth(len(LEVELS) * row + LEVELS.index(level)).click(timeout=PATIENCE)


def pick_card(page: Page, kind: str, name: str, hit: bool) -> None:
    """A technique; its radio button lies under its label."""
    cards = page.locator(f".st-key-cards-{kind}")
    wanted = f'input[value="{name}"]'
    other = f'input:not([value="{name}"]):not(:checked):not(:disabled)'
    cards.locator(wanted if hit else other).first.locator("xpath=..").click(timeout=PATIENCE)


def set_number(page: Page, field: str, check: Check, hit: bool) -> None:
    """By the slider over the histogram where there is one, else as a number."""
    knob = page.locator(".threshold .knob")
    if field == "sparsity" and knob.count():
        knob.focus(timeout=PATIENCE)
        for _ in range(12 if hit else 1):
            knob.press("PageUp" if hit else "PageDown")  # ten stops at once
        return
    scale = 100 if field == "sparsity" else 1
    value = float(check.value) * scale
    if not hit:
        value += 1 if check.comparison in ("=", "<=") else -1
    box = page.locator(f'input[aria-label="{NUMBERS[field]}"]')
    box.fill(f"{value:g}", timeout=PATIENCE)
    box.press("Enter")


def pick_layer(page: Page, check: Check, hit: bool) -> None:
    """Of the strip: the one that is named, or another."""
    named = re.escape(str(check.value).removesuffix(".weight"))
    pattern = f"^{named}" if hit == (check.comparison == "=") else f"^(?!{named})"
    layers = page.get_by_role("group", name="Layers")
    layers.get_by_role("button", name=re.compile(pattern)).first.click(timeout=PATIENCE)
