"""The panel of a lesson beside the live page: its step, the prediction, the goal, the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import streamlit as st

from dashboard import figures, handout, jobs, learning, lesson, state, words
from dashboard.charts import lesson as charts
from dashboard.figures import FIGURES
from dashboard.lesson import Goal, Lesson, Predict, Reveal, Step
from dashboard.pages import PAGES
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.recipe import Recipe

TITLES = dict(PAGES)
YOURS = "yours"
NO_NUMBER = "Enter what you expect as a number, then press Predict."


@contextmanager
def beside(page: str) -> Iterator[None]:
    """The place of the page: beside the panel while a lesson is open. page: its name."""
    now = state.place()
    if now is None or page == "lessons":
        yield
        return
    # page.css puts one beside the other, or the panel on top where there is no room.
    with st.container(horizontal=True, gap="medium", key="lesson-beside"):
        with st.container(key="lesson-panel", border=True), _frame.guarded():
            panel(page)
        with st.container(key="lesson-page"):
            yield


def panel(page: str) -> None:
    now = state.place()
    assert now is not None
    try:
        shown = lesson.find(now.lesson)
    except PruningError as error:
        st.error(words.plain(str(error)), icon=":material/error:")
        leave_button()
        return
    number = min(now.step, len(shown.steps))  # a file that was edited may have fewer
    step = shown.steps[number - 1]
    measured = learning.means(learning.results(shown))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{words.plain(shown.title)} · step {number} of {len(shown.steps)}")
    st.markdown(f"## {words.plain(step.title)}")
    handout.heading(f"{shown.title}, step {number}: {step.title}")
    written(lesson.fill(step.text, measured))
    if page != step.page:
        st.button(
            f"Go to {TITLES[step.page]}",
            icon=":material/arrow_forward:",
            on_click=again,
            args=(shown.name, number),
            key="lesson-page-link",
        )
    if step.predict is not None:
        predict(step.predict, shown, measured)
    predicted = step.predict is None or state.own_prediction() is not None
    met = learning.is_met(step, page)
    learning.expect_run(step)
    if step.goal is not None:
        goal(step.goal, met, measured)
    if step.reveal is not None:
        if predicted and met:
            reveal(step, step.reveal, shown, measured)
        else:
            st.caption(":material/lock: The numbers follow once you have done that.")
    buttons(shown, number, predicted and met)


def written(markdown: str) -> None:
    """Text of a lesson, here and in a handout."""
    st.markdown(markdown)
    handout.written(markdown)


def again(name: str, number: int) -> None:
    """Back to the step's page. The recipe stays as it is."""
    try:
        state.enter(name, number, preset=False)
        state.want_page(lesson.find(name).steps[number - 1].page)
    except PruningError as error:
        state.warn(str(error))


def enter(name: str, number: int) -> None:
    try:
        state.enter(name, number)
    except PruningError as error:
        state.warn(str(error))


def buttons(shown: Lesson, number: int, done: bool) -> None:
    """Back, Next, Leave. Nobody is stuck: a step that is not done can be passed over."""
    last = number == len(shown.steps)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Back",
            disabled=number == 1,
            on_click=enter,
            args=(shown.name, number - 1),
            key="lesson-back",
        )
        if not last:
            st.button(
                "Next" if done else "Skip",
                type="primary" if done else "secondary",
                on_click=enter,
                args=(shown.name, number + 1),
                key="lesson-next",
            )
        leave_button(finished=last)


def leave_button(finished: bool = False) -> None:
    label = "Finish the lesson" if finished else "Leave the lesson"
    st.button(
        label,
        type="primary" if finished else "tertiary",
        on_click=finish if finished else state.leave_lesson,
        key="lesson-leave",
        help="What the lesson locks is free again; the recipe stays as it is.",
    )


def finish() -> None:
    """At its end back to the list, where the next one stands."""
    state.leave_lesson()
    state.want_page("lessons")


# ---------------------------------------------------------------- prediction


def predict(asked: Predict, shown: Lesson, measured: lesson.Measured) -> None:
    """A number to enter before the answer; afterwards what was entered stands there."""
    figure = asked.figure.partition(".")[2]
    own = state.own_prediction()
    written(f"**{lesson.fill(asked.question, measured)}**")
    if own is not None:
        handout.text(f"You predicted {figures.write(figure, own)}.")
        st.caption(f"You predicted {figures.write(figure, own)}.")
        return
    share = FIGURES[figure].share
    now = state.place()
    assert now is not None
    key = f"lesson-predict-{now.lesson}-{now.step}"
    # A form: the number comes with the press. Sent before, it would draw the page anew under the
    # pointer, and a press meanwhile would be lost.
    with (
        st.form("lesson-prediction", border=False, enter_to_submit=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        st.number_input(
            "Your prediction, %" if share else "Your prediction",
            min_value=0.0,
            max_value=100.0 if share else 1e9,
            value=None,
            step=1.0,
            format="%g",
            key=key,
            placeholder="a number",
        )
        st.form_submit_button(
            "Predict",
            icon=":material/psychology:",
            on_click=take_prediction,
            args=(key, 100.0 if share else 1.0),
            key="lesson-predict",
        )


def take_prediction(key: str, scale: float) -> None:
    value = state.widget_value(key)
    if isinstance(value, (int, float)):
        state.predict(value / scale)
    else:
        state.warn(NO_NUMBER)


# ---------------------------------------------------------------- goal


def goal(wanted: Goal, met: bool, measured: lesson.Measured) -> None:
    icon = ":material/check_circle:" if met else ":material/radio_button_unchecked:"
    word = "Done" if met else "To do"
    with st.container(key="lesson-goal-met" if met else "lesson-goal"):
        st.markdown(f"{icon} **{word}:** {lesson.fill(wanted.text, measured)}")
        handout.written(f"{word}: {lesson.fill(wanted.text, measured)}")


# ---------------------------------------------------------------- what came of it


def reveal(step: Step, shown: Reveal, of: Lesson, measured: lesson.Measured) -> None:
    with st.container(key="lesson-reveal"):
        if step.predict is not None:
            histogram(step.predict, measured)
        written(lesson.fill(shown.text, measured))
        if shown.results:
            table(shown, of)


def histogram(asked: Predict, measured: lesson.Measured) -> None:
    """The predictions beside what was measured: of one person in a sentence."""
    figure = asked.figure.partition(".")[2]
    value = lesson.value_of(asked.figure, measured)
    own = state.own_prediction()
    if value is None or own is None:
        return
    everybody = learning.predictions()
    if len(everybody) < 2:
        apart = figures.difference(figure, own, value).removeprefix("−")
        predicted, result = figures.write(figure, own), figures.write(figure, value)
        written(f"You predicted {predicted}; measured: **{result}**, {apart} apart.")
        return
    share = FIGURES[figure].share
    chart = charts.predictions(everybody, value, own, share=share, dark=state.dark())
    title = chart["layout"]["title"]["text"]
    frame = pd.DataFrame({"prediction": [figures.write(figure, each) for each in everybody]})
    measured_text = f"Measured: {figures.write(figure, value)}"
    _frame.chart(chart, alt=f"{title}. {measured_text}.", table=frame, name="predictions")


def table(shown: Reveal, of: Lesson) -> None:
    """The results, as they come with the lesson, and one's own beside them."""
    known = learning.results(of)
    means = learning.means(known)
    rows = []
    for name in shown.results:
        recipe = of.results[name].recipe
        rows.append([label(name), *(cell(known, means, name, each) for each in shown.figures)])
        own = learning.own_figures(recipe)
        if own is not None:
            values = [figures.write(each, own[each]) for each in shown.figures]
            rows.append([f"{label(name)}, {YOURS}", *values])
    heads = ["run", *(FIGURES[each].title for each in shown.figures)]
    _frame.table(pd.DataFrame(rows, columns=heads))
    if any(known.of.get(name) for name in shown.results):
        source = f"{seeds(shown, known)} Measured on {known.date}, it came with the lesson."
        handout.text(source, soft=True)
        st.caption(words.plain(source))
    else:
        st.caption("Not measured yet: `python -m dashboard.lesson_results` does that.")
    run_it(shown, of)


def seeds(shown: Reveal, known: learning.Results) -> str:
    """Over how many runs the numbers are means, a sentence or two."""
    counts = {name: len(known.of.get(name, ())) for name in shown.results}
    most = max(counts.values())
    if most == 1:
        return "One run each."
    fewer = [
        f"{label(name)}: {words.plural(count, 'run')}"
        for name, count in counts.items()
        if 0 < count < most
    ]
    but = f" ({', '.join(fewer)})" if fewer else ""
    return (
        f"Means of {words.plural(most, 'run')} with other random numbers{but}; in brackets the "
        "lowest and the highest."
    )


def label(name: str) -> str:
    return words.capitalized(name)


def cell(known: learning.Results, means: lesson.Measured, name: str, figure: str) -> str:
    value = means.get(name, {}).get(figure)
    text = figures.write(figure, value)
    between = learning.ranges(known, name, figure)
    if between is None or value is None:
        return text
    low, high = (figures.write(figure, each) for each in between)
    if low == high:
        return text
    return f"{text} ({low.removesuffix(' %')} to {high})"


def run_it(shown: Reveal, of: Lesson) -> None:
    """Run it yourself: what was measured for the lesson, on this machine, now."""
    waiting = []
    for name in shown.results:
        recipe = of.results[name].recipe
        job = learning.own_run(recipe)
        if job is not None and job.state in jobs.LIVE:
            st.caption(f":primary[●] {label(name)}: {words.plain(_frame.progress(job))}")
            state.expect(job.id)
        elif job is None:
            waiting.append(name)
    if not waiting:
        return
    with st.popover("Run it yourself", icon=":material/play_arrow:", key="lesson-run"):
        st.caption("It was measured before: this does it again, here, with the same recipe.")
        for name in waiting:
            st.button(
                label(name),
                on_click=start,
                args=(of.results[name].recipe,),
                key=f"lesson-run-{name}",
            )


def start(recipe: Recipe) -> None:
    """Equal recipes are run once for all who ask; its curves stand on Prune."""
    try:
        state.open_run(jobs.start_once(recipe))
    except PruningError as error:
        state.warn(str(error))
