"""Prune: set the recipe, see what it will keep while you set it, run it and watch."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard import forms, handout, jobs, locks, models, parts, state, tables, waits, words
from dashboard.charts import preview, results
from dashboard.components.dial import dial
from dashboard.views import _at_once, _frame, _projector, _recipe_panel, _run_panel
from dashboard.views._stops import stop_table
from pruning.allocation.ranking import Ranking
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import state_word

DIAL = 300  # pixels, of five layers
MOST_WARNED = 3  # layers named in the warning of thin ones


def page() -> None:
    _frame.question("How much can be pruned, and what is kept?")
    recipe = state.recipe()
    id = state.run_id()
    known_end = True
    if id and state.watched() != id:
        with _frame.guarded():
            known_end = ended(id)
    left, right = st.columns([5, 7], gap="medium")
    study = None
    with right, _frame.guarded():
        controls(recipe)
        without_data(recipe)
        parts.part(parts.AT_ONCE, _at_once.accuracies)
        study = scores(recipe)
        kept(recipe, study)
    with left, _frame.guarded():
        _recipe_panel.selection(recipe, study.ranking if study else None)
    with right, _frame.guarded():
        _recipe_panel.schedule(recipe)
    if id and jobs.exists(id):
        with _frame.guarded():
            run(id, known_end)


# ---------------------------------------------------------------- how much, and Run


def controls(recipe: Recipe) -> None:
    """How much, as a number; how long it takes; and Run."""
    # Columns, whose text wraps: in a row of its own width Run would wrap, below the others.
    share, time, start = st.columns([4, 5, 4], vertical_alignment="bottom", gap="small")
    with share:
        parts.part(parts.SHARE, share_field)
    time.caption(words.plain(duration(recipe)), text_alignment="right")
    if state.hidden(locks.RUN):
        return
    with start:
        st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            on_click=start_run,
            key="run-now",
            shortcut=_frame.SHORTCUTS["Run"],
            **forms.lock(locks.RUN, {}),
        )


def share_field() -> None:
    recipe = state.recipe()
    _recipe_panel.number("sparsity", disabled=not recipe.budgeted, taken=st.rerun)


def start_run() -> None:
    """Of the recipe as it is now: the slider may have moved since the button was drawn."""
    _run_panel.start(state.recipe())


def duration(recipe: Recipe) -> str:
    """How long the run will take, from earlier ones on this machine."""
    expected = jobs.expected("run", recipe.to_dict())
    if expected is None:
        return "Not timed here yet"
    return f"Takes {waits.takes(expected)} (estimate)"


def without_data(recipe: Recipe) -> None:
    """Some models come without data: what that rules out, and what it does not."""
    facts = models.facts(recipe.model)
    if facts is None or facts.has_data:
        return
    name = words.plain(models.title(recipe.model))
    st.info(
        f"There is no data for {name}: accuracy cannot be measured and nothing can be fine-tuned. "
        "Criteria that look at no data prune it all the same (the others are grey); weights, MACs, "
        "bytes and times are measured.",
        icon=":material/info:",
    )
    if recipe.epochs:
        st.button("No fine-tuning: 0 epochs", on_click=forms.attempt, kwargs={"epochs": 0})
    if recipe.reconstruct:
        st.button("No reconstruction", on_click=forms.attempt, kwargs={"reconstruct": False})


# ---------------------------------------------------------------- what is kept


def scores(recipe: Recipe) -> Study | None:
    """Every unit's score, sorted: what answers the dial. None while a worker works it out."""
    return jobs.study("scores", **tables.scores_spec(recipe))


def kept(recipe: Recipe, study: Study | None) -> None:
    """The dial with what it keeps of each layer, and what to know about it."""
    if study is None:
        job = jobs.request("scores", **tables.scores_spec(recipe))
        _frame.waiting(forms.scoring(recipe), DIAL, job)
        return
    ranking = study.ranking
    table = stop_table(ranking, str(study.folder), recipe)
    data = preview.dial(table, ranking, recipe, state.layer(), state.releases())
    data["locked"] = state.why_locked("sparsity")
    handout.heading("What is kept of each layer")
    handout.table(preview.rows(ranking.preview(recipe)))
    picture = partial(dial, data, release, state.select_layer, key="dial")
    _projector.component("dial", "What is kept of each layer", picture)
    parts.part(parts.KEPT, about_kept, ranking)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(words.plain(preview.exactness(recipe)), width="stretch")

        def draw() -> None:
            kept_table(ranking)

        _frame.popover("Table", draw, key=parts.KEPT_TABLE, icon=":material/table:")


def release(share: float, turn: int) -> None:
    """The slider was let go: only what follows the share is drawn anew, and not the slider."""
    state.count_release(turn)
    forms.attempt(sparsity=share)
    parts.share_changed()


def about_kept(ranking: Ranking) -> None:
    """What to know about what the recipe keeps, as it is now."""
    with _frame.guarded():
        recipe = state.recipe()
        kept = ranking.preview(recipe)
        both = preview.both(kept, ranking, recipe)
        if both:
            st.caption(words.plain(both))
        missed = preview.missed(kept, recipe)
        if missed:
            st.caption(words.plain(missed))
        warn_of_thin(preview.thin(kept, ranking, recipe))


def kept_table(ranking: Ranking) -> None:
    share = st.column_config.NumberColumn("share kept", format="percent")
    st.dataframe(
        preview.rows(ranking.preview(state.recipe())),
        hide_index=True,
        column_config={"share kept": share},
        alt="Weights and MACs kept in each layer.",
    )


def warn_of_thin(layers: list[str]) -> None:
    """layers: a sentence for each that keeps almost nothing."""
    if not layers:
        return
    named = "; ".join(layers[:MOST_WARNED])
    more = f", and {len(layers) - MOST_WARNED} more" if len(layers) > MOST_WARNED else ""
    text = (
        f"{named}{more}. So thin a layer may pass no signal: "
        "keep more units at least, leave it dense, or remove less."
    )
    st.warning(words.plain(text), icon=":material/warning:")


# ---------------------------------------------------------------- the run


def ended(id: str) -> bool:
    """A run that ended has a page of its own: here only what came of it, and the way there.

    Returns whether it has ended.
    """
    job = jobs.job(id)
    if job.state in jobs.LIVE:
        return False
    end = jobs.result(job)
    if job.state in jobs.FAILED:
        text = f"{state_word(job.state).capitalize()}: {job.message or 'it did not say why.'}"
    elif job.state == "stopped":
        text = results.stopped(jobs.history(job))
    elif end:
        text = results.verdict(end, jobs.recipe_of(job), jobs.facts(job))
    else:
        text = "Finished, but its files were deleted."
    key = f"ended-{id}"
    with st.container(horizontal=True, vertical_alignment="center", border=True, key=key):
        st.markdown(f"**{_run_panel.name(job)}.** {words.plain(text)}", width="stretch")
        _frame.result_link(job.id)
        _run_panel.close(job)
    return True


def run(id: str, known_end: bool) -> None:
    """The run in the address while it lives; whoever watched it end keeps its curves in place.

    known_end: the page has shown already what came of it, if it has ended.
    """
    job = jobs.job(id)
    if job.state in jobs.LIVE:
        state.watch(id)
        _run_panel.follow(id)
    elif state.watched() == id:
        ended(id)
        history = jobs.history(job)
        if history.dense:
            _run_panel.tiles(history)
        _run_panel.curves(job, history)
    elif not known_end:
        st.rerun()  # it ended while the page was drawn: what came of it stands at the top


page()
