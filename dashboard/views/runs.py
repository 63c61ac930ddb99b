"""Runs: every run of the workspace, as a table and a tree; names, tags, deleting with undo."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from dashboard import forms, jobs, models, refit, run_list, state, words
from dashboard.run_list import ListedRun
from dashboard.views import _frame
from pruning.runs.store import KEPT, LONGEST_LABEL, LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, Job

NEWEST, TREE = "Newest first", "As a tree"
DAYS = round(KEPT / 86400)
MOST_BRANCHES = 6  # runs that started from one, named beside it
MOST_COMPARED = 12
ROWS = 14  # of the table, before it scrolls
ROW = 35  # pixels
NAME = 270  # pixels of the column of names: of `magnitude, global, 61 of 192 channels`
HELP = {
    "run": "Its name, or what it pruned; below a run those that started from its result.",
    "quality": "Of the final model on test data: accuracy, or what its task is judged by.",
    "kept": "Of the dense model's weights.",
    "disk": "Of its weights, masks, histograms and answers.",
    "from": "The run whose result it started from.",
    "who": "The name that they gave themselves, if any.",
}


# ---------------------------------------------------------------- which runs


@dataclass(frozen=True)
class Filter:
    """What people look for. Empty: everything."""

    text: str
    models: list[str]
    states: list[str]
    tags: list[str]

    def shows(self, run: ListedRun) -> bool:
        return run_list.matches(run, self.text, self.models, self.states, self.tags)


def filters(runs: Sequence[ListedRun]) -> Filter:
    present = {run.state for run in runs}
    known_tags = sorted({tag for run in runs for tag in run.job.tags})
    with st.grid(4, min_column_width=150, gap="small"):
        text = st.text_input(
            "Find",
            key="runs-text",
            placeholder="Words of a name, note or recipe",
            icon=":material/search:",
            persist_state="session",
            bind="query-params",
        )
        names = st.multiselect(
            "Models",
            sorted({run.model for run in runs}),
            key="runs-models",
            placeholder="All models",
            persist_state="session",
            bind="query-params",
        )
        states = st.multiselect(
            "States",
            [name for name in run_list.STATES if name in present],
            key="runs-states",
            placeholder="All states",
            persist_state="session",
            bind="query-params",
        )
        tags = st.multiselect(
            "Tags",
            known_tags,
            key="runs-tags",
            placeholder="All tags" if known_tags else "No tags yet",
            persist_state="session",
            bind="query-params",
        )
    return Filter(text, names, states, tags)


def in_order(runs: Sequence[ListedRun]) -> list[ListedRun]:
    order = st.segmented_control(
        "Order",
        (NEWEST, TREE),
        default=NEWEST,
        required=True,
        key="runs-order",
        label_visibility="collapsed",
        persist_state="session",
        bind="query-params",
    )
    return run_list.as_tree(runs) if order == TREE else list(runs)


def totals(shown: Sequence[ListedRun], runs: Sequence[ListedRun]) -> None:
    """How many, and what they take on disk."""
    used = words.size(sum(run.disk for run in runs))
    of = f"{len(shown):,} of {words.plural(len(runs), 'run')}"
    text = words.plural(len(runs), "run") if len(shown) == len(runs) else of
    if len(runs) == run_list.MOST:
        text = f"The newest {text}"
    st.markdown(words.plain(f"{text} · {used} on disk"))


def table(shown: Sequence[ListedRun]) -> None:
    """The runs; whoever selects rows marks them."""
    ids = [run.id for run in shown]
    # Rows are selected by their place: where other runs take the places, it is another table.
    digest = hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]
    key = f"runs-table-{digest}-{state.marks()}"
    marked = set(state.marked())
    selected = [place for place, id in enumerate(ids) if id in marked]
    heading = _metric(shown)
    st.dataframe(
        run_list.table(shown),
        hide_index=True,
        column_config={
            "run": st.column_config.TextColumn(width=NAME, pinned=True, help=HELP["run"]),
            "who": st.column_config.TextColumn(help=HELP["who"]),
            "quality": st.column_config.TextColumn(heading, help=HELP["quality"]),
            "kept": st.column_config.NumberColumn(format="%.1f %%", help=HELP["kept"]),
            "when": st.column_config.DatetimeColumn(
                format="distance", timezone=st.context.timezone or "UTC"
            ),
            "disk": st.column_config.NumberColumn(format="%.2f MB", help=HELP["disk"]),
            "tags": st.column_config.ListColumn(width="medium"),
            "from": st.column_config.TextColumn(help=HELP["from"]),
            "recipe": st.column_config.TextColumn(width="large"),
        },
        height=ROW * (1 + min(ROWS, len(shown))) + 3,
        on_select=partial(_take_rows, key, ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": selected}},
        placeholder="",
        alt="The runs of this workspace: state, model, result and recipe of each.",
        key=key,
    )


def _metric(shown: Sequence[ListedRun]) -> str:
    names = {run.figures.quality.name for run in shown if run.figures and run.figures.quality}
    return names.pop() if len(names) == 1 else "result"


def _take_rows(key: str, ids: Sequence[str]) -> None:
    value: Any = state.widget_value(key) or {}
    rows = value.get("selection", {}).get("rows", ())
    state.mark(ids[row] for row in rows if row < len(ids))


def picker(runs: Sequence[ListedRun]) -> list[ListedRun]:
    """The marked runs, by name: rows are hard to select by keyboard."""
    by_id = {run.id: run for run in runs}
    marked = [id for id in state.marked() if id in by_id]
    forms.bound(
        st.multiselect,
        "Marked runs",
        marked,
        state.mark_anew,
        key="runs-marked",
        options=list(by_id),
        format_func=lambda id: f"{by_id[id].name} · {id[:6]}",
        placeholder="Select rows of the table, or runs by name",
        wrap=True,
    )
    return [by_id[id] for id in marked]


# ---------------------------------------------------------------- one run


def one(run: ListedRun, runs: Sequence[ListedRun]) -> None:
    """A marked run: where it comes from, what people say of it, and what can be done with it."""
    with st.container(border=True, key="runs-one"):
        st.markdown(f"### {words.plain(run.name)}")
        st.caption(words.plain(words.sentence(run.recipe)))
        if run.job.message and run.state in ("failed", "diverged"):
            st.error(words.plain(run.job.message), icon=":material/error:")
        line(run, runs)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            buttons(run)
        if jobs.may_change(run.job):
            names(run, runs)
        elif run.job.note:
            st.markdown(words.plain(run.job.note))


def line(run: ListedRun, runs: Sequence[ListedRun]) -> None:
    """What it started from, and what started from it."""
    root = models.title(models.root_of(run.recipe.model))
    by_id = {each.id: each for each in runs}
    before = run_list.ancestors(run)
    after = [each for each in runs if each.parent == run.id]
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown(f"**{words.plain(root)}** →")
        for id in before:
            _link(id, by_id.get(id))
            st.markdown("→")
        st.markdown("this run")
        if after:
            st.markdown("→")
        for each in after[:MOST_BRANCHES]:
            _link(each.id, each)
        if len(after) > MOST_BRANCHES:
            st.markdown(f"and {len(after) - MOST_BRANCHES} more")


def _link(id: str, run: ListedRun | None) -> None:
    _frame.result_link(id, run.name if run else f"run {id[:6]}")


def buttons(run: ListedRun) -> None:
    path = "prune" if run.job.state in jobs.LIVE else "run"
    st.page_link(
        _frame.page_path(path),
        label="Open",
        icon=":material/task_alt:",
        query_params={"run": run.id},
    )
    model = f"{models.RUN}{run.id}"
    current = state.recipe().model == model
    st.button(
        "Is the current model" if current else "Continue from here",
        icon=":material/account_tree:",
        key="runs-continue",
        on_click=refit.use_model,
        args=(model,),
        disabled=current or run.figures is None,
        help="Its result becomes the current model: what is run next starts from its weights and "
        "masks.",
    )
    if run.job.state in jobs.LIVE and jobs.may_change(run.job):
        st.button(
            "Stopping" if run.job.stopping else "Stop",
            icon=_frame.STOP,
            key="runs-stop",
            on_click=jobs.stop,
            args=(run.id,),
            disabled=run.job.stopping,
        )
    compare([run])
    delete([run])


def names(run: ListedRun, runs: Sequence[ListedRun]) -> None:
    """Name, tags and note; each is kept as soon as it was entered."""
    left, right = _frame.halves()
    with left:
        forms.bound(
            st.text_input,
            "Name",
            run.job.label or "",
            partial(jobs.label, run.id),
            key=f"runs-label-{run.id}",
            max_chars=LONGEST_LABEL,
            placeholder=run.short,
        )
        forms.bound(
            st.multiselect,
            "Tags of this run",
            list(run.job.tags),
            lambda tags: jobs.tag(run.id, [tag[:LONGEST_TAG] for tag in tags]),
            key=f"runs-tag-{run.id}",
            options=sorted({tag for each in runs for tag in each.job.tags}),
            accept_new_options=True,
            max_selections=MOST_TAGS,
            placeholder="Type a tag, or choose one",
        )
    with right:
        forms.bound(
            st.text_area,
            "Note",
            run.job.note or "",
            partial(jobs.note, run.id),
            key=f"runs-note-{run.id}",
            max_chars=LONGEST_NOTE,
            height=124,
        )


# ---------------------------------------------------------------- several runs


def several(marked: Sequence[ListedRun]) -> None:
    used = words.size(sum(run.disk for run in marked))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(words.plain(f"{words.plural(len(marked), 'run')} marked · {used}"))
        compare(marked)
        delete(marked)


def compare(marked: Sequence[ListedRun]) -> None:
    with_result = [run.id for run in marked if run.figures is not None]
    if not with_result:
        return
    picked = with_result if len(marked) > 1 else dict.fromkeys([*state.picked(), *with_result])
    st.page_link(
        _frame.page_path("compare"),
        label="Compare",
        icon=":material/compare_arrows:",
        query_params={"c": ",".join(list(picked)[:MOST_COMPARED])},
    )


def delete(marked: Sequence[ListedRun]) -> None:
    """Of who looks alone: the shipped example, say, is nobody's on a server that others reach."""
    own = [run for run in marked if jobs.may_change(run.job)]
    if not own:
        return
    st.button(
        "Delete" if len(own) == 1 else f"Delete {len(own)} runs",
        icon=":material/delete:",
        key="runs-delete",
        on_click=_delete,
        args=([run.id for run in own],),
        help=f"It can be undone for {DAYS} days; then the files are removed.",
    )


def _delete(ids: Sequence[str]) -> None:
    jobs.trash(ids)
    state.note_trashed(ids)
    state.mark_anew(id for id in state.marked() if id not in ids)
    state.pick(id for id in state.picked() if id not in ids)
    if state.run_id() in ids:
        state.open_run(None)


def _restore(ids: Sequence[str]) -> None:
    jobs.restore(ids)
    state.note_trashed(id for id in state.last_trashed() if id not in ids)


# ---------------------------------------------------------------- deleted runs


def undo(trashed: Sequence[Job]) -> None:
    """Undo what this tab deleted last."""
    ids = [id for id in state.last_trashed() if id in {job.id for job in trashed}]
    if not ids:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        one = "The run was deleted." if len(ids) == 1 else f"{len(ids)} runs were deleted."
        st.markdown(f":material/delete: {one}")
        st.button("Undo", icon=":material/undo:", key="runs-undo", on_click=_restore, args=(ids,))


def deleted(trashed: Sequence[Job]) -> None:
    rows = run_list.listed(trashed)
    used = words.size(sum(run.disk for run in rows))
    label = f"Deleted: {words.plural(len(rows), 'run')}, {used}"
    with st.expander(label, icon=":material/delete:", key="runs-deleted"):
        st.caption(
            f"Files are removed {DAYS} days after a run was deleted, when the workbench is next "
            "started. Until then it can be restored."
        )
        for run in rows:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                text = words.plain(f"{run.name} · {run.model} · {words.size(run.disk)}")
                st.markdown(text, width="stretch")
                st.button(
                    "Restore",
                    icon=":material/restore_from_trash:",
                    key=f"runs-restore-{run.id}",
                    on_click=_restore,
                    args=([run.id],),
                )


# ---------------------------------------------------------------- the page


def page() -> None:
    _frame.question("What was run here, and what came of it?")
    runs = run_list.listed(jobs.runs(run_list.MOST))
    trashed = jobs.trashed()
    undo(trashed)
    if not runs:
        st.info(
            "No run yet. A run takes a model and a recipe: start one on the Prune page.",
            icon=":material/content_cut:",
        )
        st.page_link(_frame.page_path("prune"), label="To the Prune page")
    else:
        with _frame.guarded():
            every_run(runs)
    if trashed:
        with _frame.guarded():
            deleted(trashed)


def every_run(runs: Sequence[ListedRun]) -> None:
    wanted = filters(runs)
    shown = [run for run in runs if wanted.shows(run)]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="left"):
        ordered = in_order(shown)
        totals(shown, runs)
    if not shown:
        st.info("No run is like that: take a word or a choice away.", icon=":material/search_off:")
        return
    table(ordered)
    marked = picker(runs)
    if len(marked) == 1:
        with _frame.guarded():
            one(marked[0], runs)
    elif marked:
        several(marked)


page()
