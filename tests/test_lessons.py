"""Lessons: each shipped one reads, rests on what was measured, and has goals that fail and pass;
a file that cannot be followed is refused with its line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import figures, opened, settled, texts
from streamlit.testing.v1 import AppTest

from dashboard import jobs, learning, lesson, state, words
from dashboard.charts import lesson as charts
from dashboard.lesson import Check, Lesson, LessonError
from dashboard.views import _lesson_panel
from pruning.errors import PruningError
from pruning.metrics import Accuracy
from pruning.storage import default_workspace

NAMES = [name for name in lesson.names() if lesson.files()[name].parent == lesson.SHIPPED]
LESSONS = [lesson.find(name) for name in NAMES]
GOALS = [
    (shown, number)
    for shown in LESSONS
    for number, step in enumerate(shown.steps, 1)
    if step.goal is not None
]
ROOT = Path(__file__).resolve().parents[1]
THIRD = "03-magnitude-against-random"


def places(shown: Lesson) -> list[str]:
    """Every text of a lesson in which numbers may stand."""
    made = []
    for step in shown.steps:
        made += [step.text, step.title]
        made += [step.predict.question] if step.predict else []
        made += [step.goal.text] if step.goal else []
        made += [step.reveal.text] if step.reveal else []
    return made


def test_nine_lessons_are_shipped_and_each_ends_with_what_it_did_not_show() -> None:
    assert [name[:2] for name in NAMES] == [f"0{number}" for number in range(1, 10)]
    for shown in LESSONS:
        assert 5 <= shown.minutes <= 10
        assert shown.steps[-1].title == "What this did not show"


@pytest.mark.parametrize("shown", LESSONS, ids=NAMES)
def test_every_number_of_a_lesson_was_measured(shown: Lesson) -> None:
    known = learning.results(shown)
    measured = learning.means(known)
    assert set(known.of) == set(shown.results), "python -m dashboard.lesson_results makes them"
    for name, experiment in shown.results.items():
        assert 1 <= len(known.of[name]) <= experiment.seeds
    for text in places(shown):
        filled = lesson.fill(text, measured)
        assert "not measured" not in filled, filled
        # A number of figures that nobody measured would be typed: percent, kilobytes, times.
        typed = re.findall(r"\d[\d.,]*\s?(?:kB|MB|×|ms)", lesson.PLACE.sub("", text))
        assert not typed, f"{typed} in {text!r}"
    for step in shown.steps:
        if step.predict:
            assert lesson.value_of(step.predict.figure, measured) is not None
        for row in step.reveal.results if step.reveal else ():
            assert all(measured[row][column] is not None for column in step.reveal.figures)


@pytest.mark.parametrize("shown", LESSONS, ids=NAMES)
def test_what_a_lesson_claims_is_so(shown: Lesson) -> None:
    measured = learning.means(learning.results(shown))
    assert shown.claims
    for claim in shown.claims:
        assert lesson.holds(claim, measured), str(claim)


# ---------------------------------------------------------------- goals


def goals() -> None:
    """A page that enters every step with a goal, before and after what the goal asks for."""
    import streamlit
    import test_lessons as tests

    from dashboard import learning, state

    state.begin()
    outcomes = {}
    for shown, number in tests.GOALS:
        step = shown.steps[number - 1]
        state.enter(shown.name, number)
        fresh = learning.is_met(step, step.page)
        tests.reach(step.goal.checks)
        outcomes[f"{shown.name} {number}"] = [fresh, learning.is_met(step, step.page)]
    streamlit.json(outcomes)


ABOVE = {"=": 0.0, ">=": 0.0, "<=": 0.0, ">": 0.01, "<": -0.01}


def reach(checks: tuple[Check, ...]) -> None:
    """Do on the page what the checks ask for, with whatever the step locks."""
    recipe: dict[str, Any] = {}
    for check in checks:
        what, _, rest = check.figure.partition(".")
        wanted = check.value
        if isinstance(wanted, float):
            wanted += ABOVE[check.comparison]
        if what == "layer":
            state.select_layer(str(wanted) if check.comparison == "=" else "conv3.weight")
        elif what == "recipe":
            whole = isinstance(getattr(state.recipe(), rest), int)
            recipe[rest] = int(wanted) if whole else wanted
        elif what == "ratio":
            recipe |= {"scope": "manual", "ratios": {rest: wanted}}
        elif what == "drop":
            recipe |= {"scope": "manual", "ratios": {rest: 0.9}}
    if recipe:
        state.change(**recipe)


def test_each_goal_can_fail_and_can_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the step's own preset it is not met; what it asks for is possible in spite of its locks,
    and meets it.
    """
    cell = SimpleNamespace(
        layer="conv1.weight", level=0.9, accuracy=Accuracy(120, 180), lost=55, won=0
    )
    monkeypatch.setattr(jobs, "maps_of", lambda recipe: [object()])
    monkeypatch.setattr(jobs, "points", lambda map: [cell])
    page = AppTest.from_function(goals, default_timeout=60).run()
    assert not page.exception, page.exception
    outcomes = json.loads(page.json[0].value)
    assert len(outcomes) == len(GOALS) >= 9
    assert {place: both for place, both in outcomes.items() if both != [False, True]} == {}


@pytest.mark.parametrize(
    ("figure", "comparison", "value", "passes", "fails"),
    [
        ("recipe.sparsity", ">=", 0.9, 0.9, 0.899),
        ("recipe.sparsity", "<", 0.5, 0.499, 0.5),
        ("recipe.epochs", "=", 10.0, 10, 9),
        ("recipe.criterion", "=", "taylor", "taylor", "random"),
        ("recipe.criterion", "!=", "random", "taylor", "random"),
        ("recipe.reconstruct", "=", True, True, False),
        ("layer", "=", "conv2.weight", "conv2.weight", None),
        ("page", "=", "inspect", "inspect", "prune"),
        ("run.accuracy", ">", 0.9, 0.91, 0.9),
        ("run.accuracy", "<=", 0.9, 0.9, None),
        ("drop.conv2", ">=", 10.0, 30.5, 9.9),
    ],
)
def test_a_check_passes_and_fails(
    figure: str, comparison: str, value: Any, passes: Any, fails: Any
) -> None:
    check = Check(figure, comparison, value)
    assert lesson.met(check, passes)
    assert not lesson.met(check, fails)


# ---------------------------------------------------------------- the reader

GOOD = """title = "A lesson"
question = "What?"
minutes = 5
claims = ["half.accuracy > 0.5"]

[results.half]
recipe = { model = "digits-mlp", sparsity = 0.5 }

[[step]]
title = "One"
text = '''
sparsity = {half.accuracy}
[step.goal]
'''
page = "prune"
recipe = "half"
lock = ["criterion"]

[step.predict]
question = "How many of 100?"
figure = "half.accuracy"

[step.goal]
text = "remove more"
check = ["recipe.sparsity >= 0.9"]

[step.reveal]
text = "{half.accuracy - half.dense}"
results = ["half"]
figures = ["accuracy"]
"""


def test_a_lesson_reads() -> None:
    shown = lesson.read(GOOD, "good")
    (step,) = shown.steps
    assert (shown.title, shown.minutes, step.page) == ("A lesson", 5, "prune")
    assert step.recipe == shown.results["half"].recipe and step.lock == {"criterion"}
    assert step.goal and step.goal.checks == (Check("recipe.sparsity", ">=", 0.9),)


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(GOOD.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("minutes = 5", "minutes = 500", "whole number from 1 to 60"),
        ("minutes = 5", "minutes = 5 5", "line 3"),
        ('page = "prune"', 'page = "prune2"', "no page 'prune2'"),
        ('lock = ["criterion"]', 'lock = ["colour"]', "no control 'colour'"),
        ('recipe = "half"', 'recipe = "most"', r"no \[results.most\]"),
        ("sparsity = 0.5 }", "sparsity = 1.5 }", "sparsity is 1.5"),
        ("sparsity = 0.5 }", "sparsty = 0.5 }", "sparsty"),
        ('figure = "half.accuracy"', 'figure = "half.colour"', "no figure 'colour'"),
        ('figure = "half.accuracy"', 'figur = "half.accuracy"', "no key 'figur'"),
        ('text = "remove more"', "text = 3", "text is a text"),
        ("recipe.sparsity >= 0.9", "recipe.sparsity about 0.9", "no comparison"),
        ("recipe.sparsity >= 0.9", "recipe.colour >= 0.9", "cannot look at"),
        ("recipe.sparsity >= 0.9", "recipe.sparsity >= much", "is a number"),
        ("recipe.sparsity >= 0.9", "recipe.criterion >= taylor", "is a name"),
        ("half.accuracy - half.dense", "half.accuracy - most.dense", "most.dense"),
        ('results = ["half"]', 'results = ["most"]', r"no \[results.most\]"),
        ('figures = ["accuracy"]', "figures = []", "needs both"),
        ('claims = ["half.accuracy > 0.5"]', 'claims = ["half.accuracy"]', "no comparison"),
    ],
)
def test_a_broken_lesson_is_refused_with_its_line(before: str, after: str, message: str) -> None:
    assert before in GOOD
    line = line_of(before)
    with pytest.raises(LessonError, match=message) as refused:
        lesson.read(GOOD.replace(before, after), "broken")
    near = (
        1 if "needs both" in message else 0
    )  # a table that lacks one of two is named by the other
    assert abs(refused.value.line - line) <= near
    assert str(refused.value).startswith(f"broken.toml, line {refused.value.line}: ")


@given(text=st.text(max_size=200), at=st.integers(0, len(GOOD)), cut=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused_with_a_line(
    text: str, at: int, cut: int
) -> None:
    for whole in (text, GOOD[:at] + text[:20] + GOOD[at + cut :]):
        try:
            assert lesson.read(whole, "any").steps
        except LessonError as error:
            assert 1 <= error.line <= len(whole.splitlines()) + 1


# ---------------------------------------------------------------- on the page


def test_a_step_sets_its_preset_and_locks_and_leaving_frees_them() -> None:
    page = opened("lessons")
    page.button(f"lesson-start-{THIRD}").click().run()
    assert "How much can be pruned" in texts(page)  # the step's page
    page.switch_page("views/prune.py").run()  # AppTest does not follow by itself
    assert (page.query_params["lesson"], page.query_params["step"]) == (THIRD, "1")
    text = texts(page)
    assert "step 1 of 5" in text
    assert "Accuracy is measured here once you have predicted it" in text
    assert page.number_input(state.form_key("sparsity")).disabled
    assert page.button("run-now").disabled  # predict first
    assert state.form_key("epochs") not in [one.key for one in page.number_input]
    assert page.button("step-Undo").disabled
    page.button("step-Reset").click().run()
    assert page.number_input(state.form_key("sparsity")).value == 50
    page.button("lesson-predict").click().run()
    assert [one.value for one in page.warning] == [_lesson_panel.NO_NUMBER]
    page.number_input(f"lesson-predict-{THIRD}-1").set_value(60)
    page.button("lesson-predict").click().run()
    assert not page.button("run-now").disabled
    revealed = texts(page)
    assert "You predicted 60.0 %" in revealed and "apart" in revealed
    page.button("lesson-next").click().run()
    assert "step 2 of 5" in texts(page)
    page.button("lesson-leave").click().run()
    assert not page.number_input(state.form_key("sparsity")).disabled
    assert "lesson" not in page.query_params


def test_a_link_opens_a_step_with_its_preset_or_with_a_recipe_of_its_own() -> None:
    fourth = lesson.find(THIRD).steps[3]
    page = opened(lesson=THIRD, step="4")
    assert fourth.recipe and page.number_input(state.form_key("sparsity")).value == 50
    own = state.encode(fourth.recipe.__class__(**{**fourth.recipe.short(), "sparsity": 0.7}))
    page = opened("prune", lesson=THIRD, step="4", r=own)
    assert page.number_input(state.form_key("sparsity")).value == 70
    page = opened(lesson="no-such", step="x")
    assert "cannot be opened" in texts(page) and not page.exception


def test_a_broken_file_of_ones_own_is_told_on_the_page() -> None:
    folder = default_workspace() / lesson.OWN
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "broken.toml"
    file.write_text(GOOD.replace("minutes = 5", "minutes = 500"), encoding="utf-8")
    try:
        told = texts(opened("lessons")).replace("\\", "")
        assert "broken.toml, line 3: minutes is a whole number" in told
    finally:
        file.unlink()


def test_predictions_are_a_histogram_beside_what_was_measured() -> None:
    figure = charts.predictions([0.6, 0.62, 0.2, 0.95], 0.61, 0.2, share=True, dark=False)
    assert sum(figure["data"][0]["y"]) == 4
    assert figure["layout"]["title"]["text"].startswith("4 predictions, 2 within 5 points")
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [61, 20]


def test_lottery_and_criteria_open_on_a_finding() -> None:
    page = settled("lottery")
    assert "tickets reach" in texts(page)
    page = opened("criteria")  # nothing is worked off: what it shows came with the workbench
    assert "as the loss change does" in texts(page) and figures(page)


# ---------------------------------------------------------------- the README's


def test_the_readmes_lesson_can_be_taken() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Write a lesson")[2]
    match = re.search(r"```toml\n(.+?)```", section, re.DOTALL)
    assert match
    folder = default_workspace() / lesson.OWN
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "small-layers.toml"
    file.write_text(match[1], encoding="utf-8")
    try:
        page = opened(lesson="small-layers", step="1")
        assert not page.exception
        assert words.plain(lesson.find("small-layers").title) in texts(page)
        assert [lesson.find("small-layers").steps[0].page] == ["prune"]
    finally:
        file.unlink()
    with pytest.raises(PruningError):
        lesson.find("small-layers")
