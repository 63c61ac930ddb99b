"""What a pruning leaves at once, before any training: as pruned, and with its layers reconstructed.

Measured by a worker whenever the dial is released, on validation data: choices are made on those.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import jobs, models, parts, state, tables, waits, words
from dashboard.views import _frame
from pruning.metrics import Accuracy
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

AT_ONCE = 20.0
"""Seconds up to which it is measured without being asked for."""
MUCH = 0.05
"""Of accuracy: what reconstruction may miss before another choice of channels is named."""
STAGES = ("dense", "pruned", "reconstructed")
LABELS = {"dense": "Dense", "pruned": "As pruned", "reconstructed": "Reconstructed"}
HELP = {
    "dense": "Before pruning, on validation data, as all three.",
    "pruned": "With the weights that are pruned set to zero, and nothing else done.",
    "reconstructed": "Every layer solved anew by least squares, so that it gives what the dense "
    "network gave, on up to 512 training examples without their labels. Of whole channels and "
    "heads, the compact model's accuracy.",
}


def accuracies() -> None:
    """Three accuracies, or what they wait for; nothing for models without data."""
    with _frame.guarded():
        _accuracies(state.recipe())


def _accuracies(recipe: Recipe) -> None:
    facts = models.facts(recipe.model)
    if facts is None or facts.accuracy is None or not recipe.prunes:
        return
    if state.must_predict():
        st.caption(":material/lock: Accuracy is measured here once you have predicted it.")
        return
    spec = tables.reconstruction_spec(recipe)
    if not _fast(recipe, spec) and not jobs.was_requested("reconstruction", **spec):
        _ask(spec)
        return
    study = _study(spec)
    if study is None:
        job = jobs.request("reconstruction", **spec)
        labels = [LABELS[name] for name in STAGES]
        _frame.awaiting_numbers(labels, "Measuring it.", job, parts.AT_ONCE)
        return
    with st.container(gap="small"):
        _numbers(study)
        if study.data["refused"]:
            st.caption(words.plain(f"Not reconstructed: {study.data['refused']}"))
        else:
            _advice(recipe, study)


def _fast(recipe: Recipe, spec: dict[str, Any]) -> bool:
    """Whether it is measured without being asked for."""
    if jobs.study("card", model=recipe.model) is None:  # which says how large the model is
        return False
    return jobs.seconds({"what": "reconstruction", **spec}) <= AT_ONCE


def _ask(spec: dict[str, Any]) -> None:
    """A button, where it takes long."""
    expected = jobs.expected("study", {"what": "reconstruction", **spec})
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Measure",
            icon=":material/speed:",
            on_click=_request,
            args=(spec,),
            key="at-once-measure",
        )
        st.caption(words.plain(f"Takes {waits.takes(expected)}."), width="stretch")


def _request(spec: dict[str, Any]) -> None:
    jobs.request("reconstruction", **spec)


def _study(spec: dict[str, Any]) -> Study | None:
    """The study; an older one that still waits for its turn makes way, for nobody looks at it."""
    job = jobs.request("reconstruction", **spec)
    _make_way(job)
    return jobs.study("reconstruction", **spec)


def _make_way(job: Job) -> None:
    before = state.replace_watched_study(job.id)
    if before not in (None, job.id):
        jobs.let_make_way(before)


def _numbers(study: Study) -> None:
    for name, column in zip(STAGES, st.columns(len(STAGES), gap="small"), strict=True):
        with column:
            value = study.data[name]
            accuracy = Accuracy(**value) if value else None
            number, _, interval = words.percent(accuracy).partition(" ± ")
            _frame.metric(LABELS[name], number, interval and f"± {interval}", help=HELP[name])


def _advice(recipe: Recipe, study: Study) -> None:
    """How long it took and what a run of the recipe does of it."""
    data = study.data
    seconds = words.seconds(data["seconds"])
    text = "Accuracy on validation data, before any training. "
    text += f"{data['layers']} layers solved in {seconds}, on {data['examples']} examples."
    if recipe.rewind != "none":
        text += " Run rewinds in its place."
    elif recipe.reconstruct:
        text += " Run reconstructs, too."
    elif recipe.recalibrate:
        text += " Run recalibrates BatchNorm in its place."
    else:
        text += " Run does not: Reconstruct layers stands under Advanced."
    dense, solved = (Accuracy(**data[name]).value for name in ("dense", "reconstructed"))
    if solved < dense - MUCH and recipe.dependency_groups and recipe.criterion != "reconstruction":
        text += " The criterion reconstruction chooses channels that can be done without."
    if recipe.steps > 1:
        text += f" Here in one step, in Run in {recipe.steps}."
    st.caption(words.plain(text))
