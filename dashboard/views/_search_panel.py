"""The search on the Sweeps page: its goal, how far it is, and what it came to."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from dashboard import models, searches, state, waits, words
from dashboard.searches import Form
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.recipe import RANGES
from pruning.sweeps.driver import Asked, LineAnswer
from pruning.sweeps.goal import FINDS, WITHIN, Goal
from pruning.sweeps.plan import MOST, SEARCH
from pruning.sweeps.search import TRIALS
from pruning.sweeps.sweeps import Progress

KEEP: dict[str, Any] = {"persist_state": "session"}
MOST_TRIALS = MOST // 2 - 10
NO_OPTUNA = (
    "A search needs Optuna, which is not installed here: `pip install optuna` on the machine of "
    "this server, then open the page again."
)
UNLIMITED = (
    "The most accurate model is the dense one, unless something is limited: enter the most that "
    "its file, its weights or its MACs may be."
)
VALIDATION = (
    "Chosen by validation data alone, with further seeds where an answer is one recipe; the "
    "picture below shows the same runs on test data, which chose nothing."
)


# ---------------------------------------------------------------- the goal


def panel() -> None:
    """What is looked for in the current model, how long that takes, and the press."""
    if not searches.installed():
        st.info(NO_OPTUNA, icon=":material/info:")
        return
    model = state.recipe().model
    st.markdown(f"Among the recipes of **{words.plain(models.title(model))}**")
    form = entered()
    trials, control = size()
    if form.find == "most accurate" and not form.limited:
        st.info(UNLIMITED, icon=":material/info:")
        return
    try:
        goal = form.goal(model)
    except PruningError as error:
        st.info(words.plain(str(error)), icon=":material/info:")
        return
    run(goal, trials, control)


def entered() -> Form:
    find = st.selectbox(
        "Look for",
        list(FINDS),
        format_func=searches.FINDS.__getitem__,
        key="search-find",
        **KEEP,
    )
    by_cost = FINDS[find] in ("bytes", "latency", "macs")
    within = None
    if by_cost:
        within = st.number_input(
            "Within, points of dense",
            min_value=0.0,
            max_value=100.0,
            value=WITHIN,
            step=0.5,
            key="search-within",
            help="On validation data: percentage points of accuracy, percent of other metrics.",
            **KEEP,
        )
    with st.grid(3, min_column_width=110, gap="small"):
        kb = limit("At most, kB", "search-kb", 1e9, "Of the file that is taken home.")
        weights = limit("Weights, %", "search-weights", 100.0, "Of the dense model's, at most.")
        macs = limit("MACs, %", "search-macs", 100.0, "Of the dense model's, at most.")
    epochs = st.number_input(
        "Epochs of each trial",
        min_value=int(RANGES["epochs"].low),
        max_value=1_000,
        value=4,
        key="search-epochs",
        help="Of fine-tuning in all, divided among the steps of pruning: every trial trains as "
        "long.",
        **KEEP,
    )
    return Form(find, within, kb, weights, macs, int(epochs))


def limit(label: str, key: str, most: float, help: str) -> float | None:
    value = st.number_input(
        label,
        min_value=0.01,
        max_value=most,
        value=None,
        placeholder="any",
        key=key,
        help=help,
        **KEEP,
    )
    return None if value is None else float(value)


def size() -> tuple[int, bool]:
    """Trials of each line, and whether random search stands beside it."""
    trials = st.number_input(
        "Trials",
        min_value=1,
        max_value=MOST_TRIALS,
        value=TRIALS,
        key="search-trials",
        help="Recipes that are tried. With more than before the same search continues.",
        **KEEP,
    )
    control = st.toggle(
        "Random search beside it",
        value=True,
        key="search-control",
        help="The control: as many recipes, drawn at random from the same space.",
        **KEEP,
    )
    return int(trials), bool(control)


def run(goal: Goal, trials: int, control: bool) -> None:
    st.markdown(f"**{searches.runs_text(goal, trials, control)}**")
    seconds = searches.expected(goal, trials, control)
    time = waits.UNKNOWN if seconds is None else f"about {words.seconds(seconds)} (estimate)"
    st.caption(f"Time: {time}. It continues while this tab is closed, and after a restart.")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        pressed = st.button(
            "Search",
            type="primary",
            icon=":material/search:",
            key="search-run",
            shortcut=_frame.SHORTCUTS["Run"],
        )
        _frame.popover("JSON", lambda: as_text(goal, trials), key="search-json")
    if pressed:
        state.open_sweep(searches.start(goal, trials, control) or state.sweep())
        st.rerun()


def as_text(goal: Goal, trials: int) -> None:
    shell = f"python -m pruning search goal.json --trials {trials}"
    st.caption(f"The same search in a shell: {shell}")
    st.code(json.dumps(goal.to_dict(), indent=1), language="json", wrap_lines=True)


# ---------------------------------------------------------------- a search that was asked for


def standing(now: Progress, asked: Asked) -> None:
    """How far it is, and what it came to by now."""
    model = words.plain(models.title(asked.goal.model))
    st.markdown(f"**Search on {model}: {words.plain(asked.goal.in_words())}**")
    parts = [searches.tried_text(asked)]
    over = searches.is_over(now, asked)
    if now.state != "active":
        parts.append(now.state)
    elif not over and (seconds := searches.remaining(now, asked)) is not None:
        parts.append(f"about {words.seconds(seconds)} remaining (estimate)")
    st.progress(searches.share(now, asked), words.plain(" · ".join(parts)))
    if asked.why:
        st.error(words.plain(asked.why), icon=":material/error:")
    sentences = searches.sentences(asked)
    if sentences:
        st.markdown("\n".join(f"- {words.plain(text)}" for text in sentences))
        st.caption(VALIDATION)
    answers = searches.answers(asked, SEARCH)
    if answers:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            for answer in answers[: searches.MOST_OF_FRONT]:
                links(answer, several=len(answers) > 1)


def links(answer: LineAnswer, several: bool) -> None:
    """To the answer's run and its recipe."""
    size = f", {words.size(answer.mean.bytes)}" if several else ""
    if answer.run:
        _frame.result_link(answer.run, f"Result of the answer{size}")
    st.page_link(
        _frame.page_path("prune"),
        label=f"Use its recipe{size}",
        icon=":material/content_cut:",
        query_params={"r": state.encode(answer.recipe)},
    )


def optuna(asked: Asked) -> None:
    """The command for Optuna's own dashboard."""
    command = searches.dashboard_command()
    if command is None:
        return

    def draw() -> None:
        st.caption("In a shell on this machine, after: pip install optuna-dashboard")
        st.code(command, language=None, wrap_lines=True)

    _frame.popover("Optuna's dashboard", draw, key="search-optuna", icon=":material/monitoring:")
