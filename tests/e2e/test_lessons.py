"""Every shipped lesson, walked to its end as a learner does: predicted, done, revealed. Nothing is
trained: what a step reveals came with it.
"""

from __future__ import annotations

import re

import pytest
from e2e import steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Locator, Page, expect

from dashboard import lesson, state
from dashboard.lesson import Check, Step

NAMES = [name for name in lesson.names() if lesson.files()[name].parent == lesson.SHIPPED]
MOST_WAIT = 60_000
CARDS = ("criterion", "granularity", "scope", "schedule")
NUMBERS = {"sparsity": "Remove, %", "epochs": "Fine-tuning epochs", "steps": "Steps"}
ROWS = ("conv1", "conv2", "conv3", "fc1", "fc2")
LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Of the sensitivity map of digits-cnn."""

DARK = "03-magnitude-against-random"
"""The one that is looked at in the dark theme too."""


def panel(page: Page) -> Locator:
    return page.locator(".st-key-lesson-panel")


def button(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key}").get_by_role("button")


def drawn(page: Page) -> None:
    page.wait_for_selector(steps.READY, state="attached")


def do(page: Page, checks: tuple[Check, ...]) -> None:
    """What a goal asks for, by the page's own controls."""
    for check in checks:
        what, _, rest = check.figure.partition(".")
        value = check.value
        if rest in CARDS:
            card(page, rest, str(value))
        elif rest == "sparsity" and page.locator(".threshold").count():
            knob = page.get_by_role("slider")
            knob.focus()
            for _ in range(12):
                knob.press("PageUp")  # ten stops at once, to the end
        elif what == "recipe":
            shown = float(value) * (100 if rest == "sparsity" else 1)
            box = page.get_by_role("spinbutton", name=NUMBERS[rest], exact=True)
            box.fill(f"{shown:g}")
            box.press("Enter")
        elif what == "layer":
            # Another one than the step's where a certain one is not asked for.
            name = re.escape(str(value).removesuffix(".weight"))
            wanted = f"^{name}" if check.comparison == "=" else "^stages"
            layers = page.get_by_role("group", name="Layers")
            layers.get_by_role("button", name=re.compile(wanted)).first.click()
        else:  # a cell of the map: the layer's row, at 90 %
            row = ROWS.index(rest.removesuffix(".weight"))
            page.locator(".grid svg rect.cell").nth(len(LEVELS) * row + LEVELS.index(0.9)).click()
        drawn(page)


def card(page: Page, kind: str, name: str) -> None:
    """Pick a technique; its radio button lies under its label."""
    radio = page.locator(f'.st-key-cards-{kind} input[value="{name}"]')
    radio.locator("xpath=..").click()
    expect(radio).to_be_checked()
    page.wait_for_timeout(400)  # the choice is on its way: a number that is typed now would be lost
    drawn(page)


@pytest.mark.parametrize(("scheme", "name"), [*(("light", name) for name in NAMES), ("dark", DARK)])
def test_a_lesson_is_walked_to_its_end(app: Served, tab: Page, scheme: str, name: str) -> None:
    shown = lesson.find(name)
    tab.goto(f"{app.url}/?lesson={name}&step=1")
    for number, step in enumerate(shown.steps, 1):
        walk(tab, step, number, len(shown.steps))
        picture(tab, f"lesson-{name}-{number}-{scheme}")
        if number < len(shown.steps):
            go_on(tab, f"step {number + 1} of {len(shown.steps)}")
    button(tab, "lesson-leave").click()
    expect(tab.get_by_role("heading", name="What would you like to find out?")).to_be_visible()
    assert "lesson=" not in tab.url


def go_on(page: Page, to: str) -> None:
    """Next, again where the click was lost: a button that is drawn anew under the pointer loses it,
    as it may while a page of a residual network fills in.
    """
    for _ in range(3):
        drawn(page)
        button(page, "lesson-next").click()
        try:
            expect(panel(page)).to_contain_text(to, timeout=15_000)
            return
        except AssertionError:
            continue


def walk(page: Page, step: Step, number: int, of: int) -> None:
    """One step: nothing is revealed before the prediction and the goal."""
    at = panel(page)
    expect(at).to_contain_text(f"step {number} of {of}", timeout=MOST_WAIT)
    expect(at.get_by_role("heading", name=step.title)).to_be_visible()
    drawn(page)
    if step.goal is not None:
        expect(at.locator(".st-key-lesson-goal")).to_be_visible()
        assert not at.locator(".st-key-lesson-reveal").count()
        do(page, step.goal.checks)
        expect(at.locator(".st-key-lesson-goal-met")).to_be_visible(timeout=MOST_WAIT)
    if step.predict is not None:
        assert not at.locator(".st-key-lesson-reveal").count()
        box = at.get_by_role("spinbutton", name=re.compile("^Your prediction"))
        box.fill("42")
        box.press("Enter")
        predicted = at.get_by_text(re.compile("^You predicted 42")).first
        steps.press(button(page, "lesson-predict"), predicted)
    if step.reveal is not None:
        expect(at.locator(".st-key-lesson-reveal")).to_be_visible(timeout=MOST_WAIT)
        assert "not measured" not in at.inner_text()
    if number < of:
        expect(button(page, "lesson-next")).to_have_text("Next")


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_lock_without_a_lesson(app: Served, tab: Page) -> None:
    tab.goto(f"{app.url}/prune?lock=epochs,sparsity&r={state.encode(state.HOME)}")
    epochs = tab.get_by_role("spinbutton", name="Fine-tuning epochs")
    expect(epochs).to_be_disabled(timeout=MOST_WAIT)
    expect(steps.slider(tab)).to_be_disabled(timeout=MOST_WAIT)
    button(tab, "unlock").click()
    expect(epochs).to_be_enabled()
