"""A lesson that somebody takes alone, and a lock that stands in a link.

Every lesson is walked to its end by a class, in test_class.py.
"""

from __future__ import annotations

import pytest
from e2e import steps, walking
from e2e.served import Served
from playwright.sync_api import Page, expect

from dashboard import lesson, state

ALONE = "08-the-lottery-ticket"
"""The shortest to walk: each step is predicted."""


@pytest.mark.parametrize("scheme", ["light"])  # the class has both
def test_a_lesson_is_taken_alone(app: Served, tab: Page) -> None:
    """Without a class a prediction stands in a sentence; at its end the list of lessons follows."""
    shown = lesson.find(ALONE)
    tab.goto(f"{app.url}/?lesson={ALONE}&step=1")
    for number in range(1, len(shown.steps)):
        walking.walk(tab, shown, number)
        walking.go_on(tab, shown, number)
    walking.at_step(tab, shown, len(shown.steps))
    question = tab.get_by_role("heading", name="What would you like to find out?")
    steps.press(walking.button(tab, "lesson-leave"), question)
    assert "lesson=" not in tab.url


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_a_lock_without_a_lesson(app: Served, tab: Page) -> None:
    tab.goto(f"{app.url}/prune?lock=epochs,sparsity&r={state.encode(state.HOME)}")
    epochs = tab.get_by_role("spinbutton", name="Fine-tuning epochs")
    expect(epochs).to_be_disabled(timeout=walking.PATIENCE)
    expect(steps.slider(tab)).to_be_disabled(timeout=walking.PATIENCE)
    free = tab.get_by_role("spinbutton", name="Fine-tuning epochs", disabled=False)
    steps.press(walking.button(tab, "unlock"), free)
