"""What every page shares: navigation, current model, question on top, running work, charts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitDuplicateElementKey

from dashboard import glossary, handout, jobs, models, parts, rooms, state, visitors, waits, words
from dashboard.charts import base, results
from dashboard.charts.checked import checked
from dashboard.charts.prune import RunHistory
from dashboard.components.here import here
from dashboard.components.keys import keys
from dashboard.components.wait import wait
from dashboard.pages import FIRST, IN_SIMPLE, MENU, PAGE_NAMES, PAGES, RENAMED, UNDERSTAND
from dashboard.views import _projector
from pruning.errors import Damaged, PruningError
from pruning.runs import server_device
from pruning.runs.store import Job
from pruning.runs.waits import Wait

HERE = Path(__file__).parent
MARKS = HERE.parent / "marks"
ABOUT = (
    "**Pruning Workbench.** Take a trained network, remove what it can do without, "
    "and see what happens."
)
SHORT = 5.0  # seconds up to which a study has no Stop
MOST_LINES = 3  # of running work at the bottom
MOST_DAMAGED = 3  # rows of the store that cannot be read
STOP = ":material/stop_circle:"
SHORTCUTS = {
    "Run": "Ctrl+Enter",
    "Stop": "Ctrl+Shift+Enter",
    "Undo": "Ctrl+Z",
    "Redo": "Ctrl+Shift+Z",
}
"""Button -> its keys, as Streamlit writes them; on a Mac it is Cmd. Run is each page's own."""


def pages() -> dict[str, list[Any]]:
    """By the menu that they stand in; "": in the row itself.

    A run's page stands there only while a run is open, and in the simple layout only what a first
    run needs: links still open the others.
    """
    shown = {name for name in PAGE_NAMES if name in IN_SIMPLE or not state.simple()}
    if not state.run_id():
        shown.discard("run")
    menus: dict[str, list[Any]] = {"": [], MENU: []}
    for name, title in PAGES:
        page = st.Page(
            HERE / f"{name}.py",
            title=title,
            default=name == "model",
            visibility="visible" if name in shown else "hidden",
        )
        menus[MENU if name in UNDERSTAND else ""].append(page)
    return menus


def go_to(name: str | None, at: str = FIRST) -> None:
    """Go to the page that the address or a lesson names. at: the one that is open."""
    name = RENAMED.get(name or "", name)
    id = state.run_id()
    # A link to a run opens the run; while it works, Prune has it beside its recipe.
    if id and state.opened_by_link_of_run():
        alive = jobs.exists(id) and jobs.job(id).state in jobs.LIVE
        name = "prune" if alive and name != "run" else "run"
    if name in PAGE_NAMES and name != at:
        # Without it controls that keep their values in the address would not find them there.
        st.switch_page(page_path(str(name)), query_params=state.widgets_in_address())


def page_path(name: str) -> str:
    """A page, as links name it."""
    return f"views/{name}.py"


def result_link(id: str, label: str = "Open result") -> None:
    """To a run's own page."""
    st.page_link(
        page_path("run"),
        label=words.plain(label),
        icon=":material/task_alt:",
        query_params={"run": id},
    )


def wordmark() -> None:
    st.logo(
        MARKS / ("wordmark-dark.svg" if state.dark() else "wordmark-light.svg"),
        size="large",
        icon_image=MARKS / "mark.svg",
    )


def question(text: str, *terms: str) -> None:
    """The page's question, in one line; above it the page's name where the navigation is short.

    terms: words of the glossary that the page speaks in: explained where somebody points at it.
    """
    state.set_question(text.replace("`", ""))
    with st.container(gap=None):
        here(state.page_title(), state.cookie())
        st.title(text, anchor=False, help=explained(terms))


def explained(terms: Sequence[str]) -> str | None:
    """A paragraph for each word of the glossary; None without any."""
    return "\n\n".join(f"**{name}:** {glossary.line(name)}" for name in terms) or None


@contextmanager
def guarded() -> Iterator[None]:
    """Shows errors on the page, our own as their sentence; the rest of the page is drawn."""
    try:
        yield
    except jobs.Costly as study:
        ask(study)
    except PruningError as error:
        if str(error) == str(state.trouble()):
            st.caption("Not available now: the line at the top of the page says why.")
        else:
            st.error(words.plain(str(error)), icon=":material/error:")
        if isinstance(error, jobs.StudyEnded):
            try_again(error.spec)
    except Exception as error:  # whatever it is, the rest of the page must not end with it
        logging.getLogger("dashboard").exception("A page failed")
        text = (
            f"This part of the page failed ({type(error).__name__}): "
            "the server's log has the details. The rest still works."
        )
        st.error(text, icon=":material/error:")


def ask(study: jobs.Costly) -> None:
    """A study that takes long waits for a press."""
    spec = study.spec
    by = f" by {words.display_name(spec['criterion'])}" if spec.get("criterion") else ""
    text = f"{study.doing}{by} takes about {words.seconds(study.seconds)} here (estimate)."
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        pressed = False
        with suppress(StreamlitDuplicateElementKey):
            key = f"press-{_digest(spec)}"
            pressed = st.button("Start", icon=":material/play_arrow:", key=key)
        st.caption(words.plain(text), width="stretch")
    if pressed:
        jobs.press(spec)
        st.rerun()  # the whole page, which then waits for it: a part alone would not


def try_again(spec: dict[str, Any]) -> None:
    """Of a study that ended badly: the next request starts it anew."""
    key = f"again-{_digest(spec)}"
    forget = partial(jobs.forget, **spec)
    # Several parts of a page may wait for one study: the first of them has the button.
    with suppress(StreamlitDuplicateElementKey):
        st.button("Try again", icon=":material/replay:", on_click=forget, key=key)


def _digest(spec: dict[str, Any]) -> str:
    """Of a study, for the key of its button: two studies of one page have one each."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def troubles() -> None:
    """What is wrong with the workspace: as a whole, with single rows; and what happened to it."""
    trouble = state.trouble()
    if trouble is not None:
        st.error(words.plain(str(trouble)), icon=":material/database_off:")
    if isinstance(trouble, Damaged):
        st.button(
            "Move it aside and begin a new one", on_click=jobs.set_aside, key="store-set-aside"
        )
    for text in state.take_notices(jobs.notices(), jobs.old_notices()):
        st.warning(words.plain(text), icon=":material/database_off:")
    damaged = jobs.damaged()
    for id, text in list(damaged.items())[:MOST_DAMAGED]:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.warning(words.plain(text), icon=":material/warning:", width="stretch")
            delete = partial(jobs.delete, id)
            st.button("Delete", on_click=delete, type="tertiary", key=f"damaged-{id}")
    more = len(damaged) - MOST_DAMAGED
    if more > 0:
        st.caption(f"and {words.plural(more, 'more row')} of the store that cannot be read")


def cluster_trouble() -> None:
    """Why runs wait for a cluster, where they do."""
    text = jobs.cluster_trouble()
    if text:
        st.warning(words.plain(text), icon=":material/lan:")


def warnings() -> None:
    """What went wrong, and what was changed in the recipe beyond what people asked for."""
    for text in state.warnings():
        st.warning(words.plain(text), icon=":material/warning:")
    adjusted = state.adjustment()
    if adjusted:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.info(words.plain(adjusted), icon=":material/info:", width="stretch")
            st.button(
                "Undo",
                on_click=state.undo,
                disabled=not state.can_undo(),
                type="tertiary",
                key="adjustment-undo",
            )


def popover(label: str, draw: Callable[[], None], *, key: str, icon: str | None = None) -> None:
    """A popover whose content is drawn, and sent, only while it is open."""
    content = parts.content(key)
    # The widget belongs to no part, but tells its content to be drawn: of two in parts of their
    # own, of which one closes as the other opens, Streamlit's client would draw only one anew.
    with st.popover(
        label,
        icon=icon,
        type="tertiary",
        key=key,
        on_change=parts.draw_anew,
        args=(content,),
    ):
        parts.part(content, _content, draw, key)


def _content(draw: Callable[[], None], key: str) -> None:
    if state.is_open(key):
        with guarded():
            draw()


def no_longer_waiting() -> None:
    """Stands where `waiting` stood, before a container is drawn there.

    Streamlit keeps the elements of a container that is drawn where another one was until new ones
    replace them: the old ones, as high as what was waited for, would push the new ones about.
    """
    st.empty()


def waiting(text: str, height: int, job: Job | None = None) -> None:
    """A skeleton of the final size, and what it waits for; of a job also how long, and how much of
    that is done.
    """
    st.skeleton(height=height)
    if job is None:
        st.caption(words.plain(text))
    else:
        awaiting(text, job)


def awaiting(text: str, job: Job) -> None:
    """What a page waits for, how long that takes on this machine, and a bar."""
    now = jobs.wait(job)
    times = waits.times(now)
    # It asks nothing itself: what draws the page anew stands at its end.
    wait({}, _nothing, key=f"awaiting-{job.id}", text=text, times=times)
    _stop_study(job, now)


def _stop_study(job: Job, now: Wait) -> None:
    """Stop, unless the study is over before anybody could press it."""
    expected = now.expected
    if expected is not None and expected.same_model and expected.seconds < SHORT:
        return
    st.button(
        "Stopping" if job.stopping else "Stop",
        icon=STOP,
        type="tertiary",
        disabled=job.stopping,
        on_click=jobs.stop,
        args=(job.id,),
        key=f"stop-study-{job.id}",
    )


def awaiting_numbers(labels: Sequence[str], text: str, job: Job, part: str) -> None:
    """The same in a part of a page, which alone is drawn anew once the job has ended."""
    state.unexpect(job.id)
    now = jobs.wait(job)
    times = waits.times(now)
    wait(_live([job.id]), _nothing, key=f"awaiting-{part}", text=text, times=times, numbers=labels)
    _stop_study(job, now)


# ---------------------------------------------------------------- the side


def current_model() -> None:
    """The model, the recipe as a sentence, and Undo, Redo, Reset and Share."""
    recipe = state.recipe()
    st.caption("CURRENT MODEL")
    if there := server_device.words():
        st.caption(f"Runs and maps are computed on {words.plain(there)}.")
    with guarded():
        _facts(recipe.model)
    st.divider()
    st.caption("THE RECIPE")
    parts.part(parts.SENTENCE, _sentence)
    with st.container(horizontal=True, gap="small"):
        with st.container(width="content"):
            parts.part(parts.HISTORY, _history)
        st.button(
            "Share",
            icon=":material/ios_share:",
            type="tertiary",
            on_click=state.ask_share,
            key="open-share",
        )
    if state.simple():
        st.button(
            "Full layout",
            icon=":material/view_agenda:",
            type="tertiary",
            on_click=state.set_layout,
            args=(False,),
            key="full-layout",
            help="Every page and every control of the recipe.",
        )
    _locked()
    # Such a name stays: in a class people have one that is deleted when it ends.
    if visitors.shared() and visitors.me() and rooms.current() is None:
        your_name()
    keys(state.ask_help, key="keys")


def _locked() -> None:
    """What the address locks, and the way out of it."""
    locked = state.address_locks()
    if not locked:
        return
    named = ", ".join(words.control(name) for name in sorted(locked.locked | locked.hidden))
    st.caption(f":material/lock: {words.plain(f'Locked by the link: {named}.')}")
    st.button(
        "Unlock",
        icon=":material/lock_open:",
        type="tertiary",
        on_click=state.set_address_locks,
        key="unlock",
    )


def your_name() -> None:
    """What whoever looks is called, where others can see it."""
    st.text_input(
        "Your name here, if you like",
        visitors.name_of(visitors.me()),
        max_chars=visitors.LONGEST_NAME,
        key=state.OWN_NAME,
        on_change=_take_name,
        placeholder="Nobody in particular",
        help="Stands beside your runs, for whoever started this server and whom you send a link.",
    )


def _take_name() -> None:
    try:
        visitors.set_name(state.widget_value(state.OWN_NAME, ""))
    except PruningError as error:
        state.warn(str(error))


def _sentence() -> None:
    st.markdown(words.plain(words.sentence(state.recipe())))


def _history() -> None:
    with st.container(horizontal=True, gap="small"):
        _history_button("Undo", state.undo, state.can_undo())
        _history_button("Redo", state.redo, state.can_redo())
        _history_button("Reset", state.reset, True)


def _facts(model: str) -> None:
    st.markdown(f"## {words.plain(models.title(model))}")
    facts = models.facts(model)
    if facts is None:  # samples have theirs at once, from their cards
        waiting(f"Loading {models.title(model)}.", 74)
        return
    if facts.random:
        st.badge(
            "random weights",
            icon=":material/casino:",
            color="gray",
            help="Never trained: for looking and structure only.",
        )
    if facts.accuracy is not None:
        help = (
            f"Right answers on {facts.accuracy.total:,} test examples, dense; "
            "± is half the width of the 95 % Wilson interval."
        )
        st.metric("Accuracy, dense", words.percent(facts.accuracy), help=help)
    elif facts.score is not None:
        name = words.heading(facts.score.name)
        help = f"On {facts.score.examples:,} test examples, dense."
        st.metric(f"{name}, dense", words.percent(facts.score), help=help)
    else:
        st.markdown("Accuracy not measured: there is no data for it.")
    st.markdown(f"{words.whole(facts.weights)} weights · {words.size(facts.bytes)}")


def _history_button(label: str, action: Callable[[], None], possible: bool) -> None:
    def pressed() -> None:
        action()
        st.rerun()  # the whole page: a press alone draws this row anew

    st.button(
        label,
        on_click=pressed,
        disabled=not possible,
        type="tertiary",
        key=f"step-{label}",
        shortcut=SHORTCUTS.get(label),
    )


def help_asked_for() -> None:
    """The keyboard's dialog, in the run of the script after somebody asked for it."""
    if state.take_help():
        _help()


@st.dialog("Keyboard shortcuts")
def _help() -> None:
    meaning = {
        "Run": "Run the recipe, or find lottery tickets",
        "Stop": "Stop the run that is open, or the only one that works",
        "Undo": "Undo the last change of the recipe",
        "Redo": "Redo it",
    }
    rows = [f"| {meaning[name]} | `{keys}` |" for name, keys in SHORTCUTS.items()]
    own = ["| Show this list | `?` |"]
    st.markdown("\n".join(["| To | Press |", "|---|---|", *rows, *own]))
    st.caption(
        "On a Mac, Cmd in the place of Ctrl. Tab moves between controls, arrow keys inside "
        "the slider, the cards and the sensitivity map, and Enter picks."
    )


# ---------------------------------------------------------------- work in progress


def follow() -> None:
    """Draw the page anew when a study it waits for ends, or a class's teacher asks for something;
    and show the runs that work.
    """
    asked = _live(state.expected()) if state.expected() else {}
    room = state.room()
    if room is not None:
        asked |= rooms.orders(room)
    if asked:
        wait(asked, _nothing, key="awaiting")
    if jobs.live() and not state.projector():
        with st.bottom:
            live_part("work", [jobs.WORK], _work)


def _live(ids: Iterable[str]) -> dict[str, str]:
    """The states of jobs that wait or work."""
    # One that has ended since the page asked counts as waiting, so that the answer comes at once.
    states = jobs.states(ids)
    return {id: now if now in jobs.LIVE else jobs.LIVE[0] for id, now in states.items()}


def _nothing() -> None:
    """Nothing is changed: what was waited for shows when the page is drawn."""


def live_part(key: str, ids: Sequence[str], draw: Callable[..., None], *args: Any) -> None:
    """Draw a part of the page now, and anew whenever there is news of these jobs.

    On a timer each tab would draw it each second, whether or not there is anything new.
    """

    def whole() -> None:
        # The same containers with and without news: of one that is drawn where another stood,
        # Streamlit keeps the elements until new ones replace them, and they would jump.
        with st.container(gap=None):
            if ids:
                # Asked before it is drawn: what comes meanwhile is told at once.
                wait(jobs.news(ids), _nothing, key=f"news-{key}")
            else:
                st.empty()
            with st.container():
                draw(*args)

    st.fragment(whole)()


def _work() -> None:
    """At most three lines: sets of runs first, then single runs; and one of all sweeps."""
    with guarded():
        _work_lines()


def _work_lines() -> None:
    live = jobs.live()
    if not live:
        st.rerun()
    of_sweeps = [job for job in live if jobs.of_sweep(job)]
    live = [job for job in live if not jobs.of_sweep(job)]
    if of_sweeps:
        _sweeps(of_sweeps)
    sets = dict.fromkeys(job.batch for job in live if job.batch)
    single = [job for job in live if not job.batch]
    # The run or set that is open comes first: its line is there however many work.
    batches = sorted(sets, key=lambda id: id != state.lottery_set())
    single.sort(key=lambda job: job.id != state.run_id())
    by_keys = _stopped_by_keys(live)
    for id in batches[:MOST_LINES]:
        runs = [job for job in live if job.batch == id]
        _set(runs, SHORTCUTS["Stop"] if by_keys == id else None)
    for job in single[: max(0, MOST_LINES - len(sets))]:
        _line(job, SHORTCUTS["Stop"] if by_keys == job.id else None)
    more = len(sets) + len(single) - MOST_LINES
    if more > 0:
        st.caption(f"and {more} more")


def _sweeps(runs: list[Job]) -> None:
    """A sweep has hundreds of runs, which are followed and paused on its own page."""
    working = [job for job in runs if job.state == "running"]
    text = f"**Sweep** · {len(working)} running, {len(runs) - len(working)} queued"
    sweep = jobs.sweep_of((working or runs)[0])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(text, width="stretch")
        st.page_link(
            page_path("sweeps"), label="Show", query_params={"sweep": sweep} if sweep else None
        )


def _stopped_by_keys(live: list[Job]) -> str | None:
    """The run or set that the Stop keys stop: the one that is open, or the only one that works.

    None where that is not clear: keys must not stop the work of somebody else.
    """
    work = list(dict.fromkeys(job.batch or job.id for job in live))
    for id in (state.run_id(), state.lottery_set()):
        if id in work:
            return id
    return work[0] if len(work) == 1 else None


def _set(runs: list[Job], shortcut: str | None) -> None:
    """Runs that were started together, in one line."""
    id = str(runs[0].batch)
    name = words.plain(models.title(runs[0].spec.get("model", "")))
    working = [job for job in runs if job.state == "running"]
    # Where none works, the one that is next; the newest comes first.
    reached = progress(working[0] if working else runs[-1])
    text = f"**{name}** · a set, {words.plural(len(runs), 'run')} remaining · {reached}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(text, width="stretch")
        st.page_link(page_path("lottery"), label="Show", query_params={"set": id})
        st.button(
            "Stop",
            key=f"strip-stop-{id}",
            on_click=_stop,
            args=(runs,),
            icon=STOP,
            shortcut=shortcut,
        )


def _stop(runs: list[Job]) -> None:
    for job in runs:
        jobs.stop(job.id)


def _line(job: Job, shortcut: str | None) -> None:
    """One run: what it does now, Show, and Stop."""
    name = words.plain(models.title(job.spec.get("model", "")))
    by = words.plain(visitors.by_another(job.visitor))
    text = " · ".join(filter(None, [f"**{name}**", by, progress(job)]))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(text, width="stretch")
        if job.id != state.run_id():
            st.page_link(page_path("prune"), label="Show", query_params={"run": job.id})
        st.button(
            "Stopping" if job.stopping else "Stop",
            key=f"strip-stop-{job.id}",
            on_click=jobs.stop,
            args=(job.id,),
            disabled=job.stopping,
            icon=STOP,
            shortcut=shortcut,
        )


def progress(job: Job) -> str:
    """`running · step 2 of 4 · epoch 3 of 8 · about 12 s of training remaining`.

    Of one that was asked to stop, whether its training has ended.
    """
    if job.state == "queued":
        return waits.place(jobs.wait(job))
    history = jobs.history(job)
    if job.stopping and job.state == "running":
        return results.stopping(history)
    return " · ".join([job.state, *_reached(history)])


def _reached(run: RunHistory) -> list[str]:
    """How far a run came; or what it measures, before and after, which may take longer."""
    step = run.steps[-1][1] if run.steps else None
    # Lottery tickets train the dense network before they measure it.
    if run.planned is None or not (step or run.passes or run.dense):
        return ["measuring the dense model"]
    if not step and not run.passes:  # what comes next scores units, or trains
        return ["the dense model is measured"]
    parts = []
    if step:
        parts.append(f"step {step.step} of {step.steps}")
    if step and not run.planned and step.step == step.steps:
        return [*parts, "measuring and timing the result"]
    if run.passes and run.passes >= run.planned:
        return [*parts, "trained; measuring and timing the result"]
    if run.planned and run.passes:
        remaining = run.training / run.passes * (run.planned - run.passes)
        parts.append(f"epoch {run.passes} of {run.planned}")
        parts.append(f"about {words.seconds(remaining)} of training remaining")
    return parts


# ---------------------------------------------------------------- charts

HALF = 380  # pixels of a half, below which two halves are stacked
TOP = 20  # pixels above a plot without a title, where labels at its upper rim stand
HEADING = 36  # pixels of a figure that its title takes
CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def chart(
    figure: dict[str, Any],
    *,
    alt: str,
    table: pd.DataFrame | None = None,
    name: str,
    scrolls: Literal["small", "cells", "half-cells"] | None = None,
    on_point: Callable[[list[Any]], None] | None = None,
) -> None:
    """A chart with its takeaway for a screen reader, and a file name for its picture.

    table: the chart's numbers, offered below it; None where the page shows them elsewhere.
    scrolls: what it is made of, where a narrow page scrolls it sideways; its title stays.
    on_point: called with the custom data of a point that somebody clicks.
    """
    figure = base.harmless(figure)
    handout.chart(figure, alt, table)
    title = str(figure["layout"]["title"]["text"])
    if _projector.offer(name, title, partial(_projector.chart, figure, alt, name)):
        return
    figure = headed(figure)
    picture = {"toImageButtonOptions": {"format": "png", "filename": name, "scale": 2}}
    with st.container(key=f"{scrolls}-{name}") if scrolls else nullcontext():
        st.plotly_chart(
            checked(figure),
            key=f"chart-{name}",
            config={**CHART, **picture},
            alt=alt,
            on_select=partial(_clicked, f"chart-{name}", on_point) if on_point else "ignore",
            selection_mode="points",
        )
    if table is not None:
        alt = f"The numbers of the chart: {alt}"

        def draw() -> None:
            st.dataframe(table, hide_index=True, alt=alt, key=f"table-{name}")

        popover("Table", draw, key=f"open-table-{name}", icon=":material/table:")


def _clicked(key: str, take: Callable[[list[Any]], None]) -> None:
    """Only points that carry something: a figure that is drawn anew reports an empty selection."""
    selection = (state.widget_value(key) or {}).get("selection", {})
    for point in selection.get("points", ()):
        if point.get("customdata"):
            take(list(point["customdata"]))
            return


def columns(frame: pd.DataFrame, own: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """What each heading of a table means, for who points at it: `own`, else the glossary's line."""
    return {
        str(name): st.column_config.Column(help=own.get(str(name)) or glossary.of_label(str(name)))
        for name in frame
    }


def table(frame: pd.DataFrame) -> None:
    """A printed table, by its first column. Streamlit reads its cells as Markdown."""
    handout.table(frame)

    def cell(value: Any) -> Any:
        return words.plain(value) if isinstance(value, str) else value

    first, *_ = frame.columns
    st.table(frame.map(cell).set_index(first), border="horizontal")


def download(make: Callable[[], str | bytes], file: str, *, key: str, quiet: bool = True) -> None:
    """A button that downloads a CSV. make: its text, asked for when it is pressed.

    Not before: a file that a page makes anew each second is gone when the browser asks for it, and
    its console says 404.
    """
    st.download_button(
        "CSV",
        make,
        file,
        "text/csv",
        icon=":material/download:",
        type="tertiary" if quiet else "secondary",
        on_click="ignore",
        key=key,
    )


def headed(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure without its title, which is written above it: plotly cuts a long one, text wraps.

    The title stays in `layout.meta`, where tests and readers of the file find it.
    """
    st.markdown(f"**{words.plain(figure['layout']['title']['text'])}**")
    layout = dict(figure["layout"])
    title = layout.pop("title")["text"]
    margin = layout["margin"]
    layout["margin"] = {**margin, "t": max(TOP, margin["t"] - HEADING)}
    layout["height"] -= margin["t"] - layout["margin"]["t"]
    return {**figure, "layout": {**layout, "meta": {"title": title}}}


# ---------------------------------------------------------------- two halves


def halves(narrowest: int = HALF) -> tuple[Any, Any]:
    """Two places side by side, or one below the other where the page is narrow.

    narrowest: pixels of a half, below which they are stacked.
    """
    places = st.grid(2, min_column_width=narrowest, gap="medium")
    return places.cell(), places.cell()


# ---------------------------------------------------------------- large numbers


def metric(label: str, value: str, beside: str | None = None, help: str | None = None) -> None:
    """A large number; beside it another in neutral colour, because no number is good by itself."""
    st.metric(label, value, beside, delta_color="off", delta_arrow="off", help=help)
