"""One row under a result: what it is taken home as, made by a worker when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import jobs, state, words
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

FOLDER = "files"

BUTTONS = {
    "bundle.zip": ("Bundle", "application/zip", "Everything below in one file, with a card, the "
                   "recipe, a script that runs it again, and a sparse file."),
    "model.safetensors": ("Weights", "application/octet-stream", "Compact where there is a compact "
                          "model: they belong to model.py."),
    "model.onnx": ("ONNX", "application/octet-stream", "The same network for ONNX Runtime."),
    "model.py": ("model.py", "text/x-python", "The network as plain PyTorch source, which needs "
                 "torch alone."),
    "report.html": ("Report", "text/html", "One page with pictures, numbers and the recipe. It "
                    "opens offline."),
}  # fmt: skip
"""File -> (label, kind, help). What is not among them is in the bundle."""


def take_home(job: Job, recipe: Recipe) -> None:
    """A button that has the files made; then a download button for each, with its size."""
    if not (job.folder / "final.safetensors").is_file():
        return
    spec: dict[str, Any] = {"model": recipe.model, "run": job.id}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Take it home**", width="content")
        if not jobs.was_requested("take_home", **spec):
            _offer(job, spec)
            return
        try:
            study = jobs.study("take_home", **spec)
        except PruningError as error:
            st.caption(words.plain(f"The files were not made: {error}"), width="stretch")
            _offer(job, spec)
            return
        if study is None:
            text = "Writing model.py, weights, ONNX and report."
            _frame.awaiting(text, jobs.request("take_home", **spec))
            return
        _downloads(job, study)
    for note in study.data["notes"]:
        st.caption(words.plain(note))


def _offer(job: Job, spec: dict[str, Any]) -> None:
    pressed = st.button(
        "Make the files",
        icon=":material/deployed_code:",
        key=f"take-home-{job.id}",
        help="model.py, weights, ONNX, a sparse file, the recipe with a script that runs it again, "
        "and a report. Takes some seconds.",
    )
    if not pressed:
        return
    try:
        jobs.forget("take_home", **spec)
        jobs.study("take_home", **spec)
    except PruningError as error:
        state.warn(str(error))
    # The whole page, which then waits for the study: a press alone redraws only the run.
    st.rerun()


def _downloads(job: Job, study: Study) -> None:
    for name, (label, kind, about) in BUTTONS.items():
        file = study.folder / FOLDER / name
        if name not in study.data["files"] or not file.is_file():
            continue
        st.download_button(
            f"{label}, {words.size(study.data['files'][name])}",
            _reader(file),  # read when it is asked for, and kept for no session
            f"{job.id[:6]}-{name}" if name != "model.py" else name,
            kind,
            help=about,
            on_click="ignore",  # without icons the row fits on one line
            key=f"home-{name}-{job.id}",
        )


def _reader(file: Path) -> Callable[[], bytes]:
    return file.read_bytes
