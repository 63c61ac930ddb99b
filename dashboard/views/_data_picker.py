"""Somebody's own examples for the current model: brought, looked at, adjusted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import models, refit, state, words
from dashboard.views import _uploading
from pruning import formats
from pruning.errors import PruningError
from pruning.formats import datasets
from pruning.formats.datasets import DataSet, Settings

FILE_TYPES = ["zip", "npz", "csv", "tsv", "txt"]
SHOWN = 12  # examples
WIDE = 72  # pixels of an example
OFFERED = "PRUNING_OFFERED_DATA"
"""The variable with the ids of data sets that whoever started the server named."""

NAMES = {
    "auto": "as the model is used to",
    "data": "by the training examples",
    "imagenet": "as torchvision's models",
    "unit": "0 to 1",
    "symmetric": "−1 to 1",
    "none": "none",
}
"""Normalisation -> what its choice is called."""


def choose() -> None:
    """The door: the current data set, and how to bring one."""
    model = state.recipe().model
    own, id = datasets.parted(model)
    if id is not None:
        current(own, datasets.get(id))
    offered(own, id)
    bring(own)


def current(own: str, data: DataSet) -> None:
    """What the model is worked on with: its examples and its settings."""
    train, validation, test = (f"{count:,}" for count in data.counts)
    title = f"**{words.plain(data.name)}**: {datasets.described(data)}."
    parts = f"{train} to train on, {validation} to choose by, {test} to report on"
    st.markdown(f"{title} {parts}.")
    for note in data.notes:
        st.caption(words.plain(note))
    pictures(data)
    adjust(own, data)
    st.button(
        "Use the model's own data",
        key="data-none",
        on_click=refit.use_model,
        args=(own,),
        icon=":material/undo:",
    )


def pictures(data: DataSet) -> None:
    values, labels = datasets.examples(data, SHOWN)
    if data.pictures:
        with st.container(horizontal=True, gap="small"):
            for value, label in zip(values, labels, strict=True):
                st.image(value, caption=label, width=WIDE, alt=f"An example of class {label}.")
        return
    rows = values.reshape(len(values), -1)[:5]
    table = [{"target": label, **_cells(row)} for label, row in zip(labels, rows, strict=False)]
    st.dataframe(table, hide_index=True, alt=f"The first examples of {data.name}.")


def _cells(row: Any) -> dict[str, float]:
    return {str(number): float(value) for number, value in enumerate(row[:12])}


def adjust(own: str, data: DataSet) -> None:
    """Split, size and normalisation. Other settings are another data set with its own link."""
    settings = data.settings
    # By its numbers: another data set must not take over what was set for this one.
    with st.form("data-settings", border=True):
        left, right = st.columns(2, gap="medium")
        with left:
            validation = st.slider(
                "Validation, % of the examples",
                1,
                49,
                round(100 * settings.validation),
                disabled=data.divided,
                key=f"data-validation-{data.arrays}",
                help="Ratios are chosen on these.",
            )
            test = st.slider(
                "Test, % of the examples",
                1,
                49,
                round(100 * settings.test),
                disabled=data.divided,
                key=f"data-test-{data.arrays}",
                help="Results are reported on these.",
            )
        with right:
            kinds = list(datasets.NORMALISATIONS)
            kind = st.selectbox(
                "Normalisation",
                kinds,
                index=kinds.index(settings.normalisation),
                format_func=NAMES.__getitem__,
                key=f"data-normalisation-{data.arrays}",
            )
            size = st.number_input(
                "Pixels a side (0: as the model takes them)",
                0,
                1024,
                settings.size,
                disabled=not data.pictures,
                key=f"data-size-{data.arrays}",
            )
            seed = st.number_input(
                "Seed of the split", 0, None, settings.seed, key=f"data-seed-{data.arrays}"
            )
        if data.divided:
            st.caption("It came divided into parts, which stay as they are.")
        if st.form_submit_button("Apply", icon=":material/check:"):
            changed = replace(settings, size=int(size), seed=int(seed), normalisation=str(kind))
            if not data.divided:
                parts = validation / 100, test / 100
                train = round(1 - sum(parts), 6)
                changed = replace(changed, train=train, validation=parts[0], test=parts[1])
            apply(own, data, changed)


def apply(own: str, data: DataSet, settings: Settings) -> None:
    other = datasets.adjusted(data.id, settings)
    if other.id != data.id:
        refit.use_model(datasets.joined(own, other.id))
        st.rerun()


def offered(own: str, id: str | None) -> None:
    """Data sets that whoever started the server named."""
    for offer in filter(None, os.environ.get(OFFERED, "").split(",")):
        if offer == id:
            continue
        data = datasets.get(offer)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                f"Use {words.plain(data.name)}",
                key=f"data-{offer}",
                on_click=refit.use_model,
                args=(datasets.joined(own, offer),),
            )
            st.caption(datasets.described(data))


def bring(own: str) -> None:
    st.markdown(
        "A zip of pictures in a folder for each class, an npz with `x` and `y`, a CSV, or MNIST's "
        f"idx files in a zip, for **{words.plain(models.title(own))}**. It is read in a process of "
        "its own; nothing in it is run. Larger ones by path: `python3 run.py --data PATH`."
    )
    left, right = st.columns([1, 2], gap="medium")
    with left:
        target = st.text_input(
            "Column to predict (of a CSV)", key="data-target", placeholder="the last", max_chars=200
        )
    with right:
        file = st.file_uploader(
            f"Data set, up to {_uploading.LARGEST} MB",
            type=FILE_TYPES,
            key=f"data-{state.upload_count()}",
            max_upload_size=_uploading.LARGEST,
        )
    if file is not None:
        take(file, own, target)
    pending = state.pending()
    if pending is not None and pending.target is not None:
        go_on(pending)
    report()


def take(file: Any, own: str, target: str) -> None:
    """Spool the upload to disk, and drop the copy in memory before it waits for its turn."""
    try:
        spooled = _uploading.spooled(file)
    except PruningError as error:  # there is no room for it
        state.note_data(state.Upload(file.name, None, str(error)))
    else:
        state.set_pending(state.Pending((spooled,), own, target))
    _uploading.drop(file)


def go_on(pending: state.Pending) -> None:
    """Read what waits to be read; begun again where something cut it off, as weights are."""
    (spooled,) = pending.spooled
    with formats.turn(spooled.arrived) as turn:
        _uploading.await_turn(turn, spooled.name)
        with st.spinner(f"Reading {words.plain(spooled.name)} in a process of its own."):
            read(spooled.path, spooled.name, pending.model, pending.target or "")
    st.rerun()


def read(path: Path, name: str, own: str, target: str) -> None:
    """Have it read, and use it. Draws nothing, so that nothing cuts it off."""
    try:
        data = datasets.accept(path, filename=name, settings=Settings(target=target.strip()))
    except PruningError as error:
        state.note_data(state.Upload(name, None, str(error)))
    else:
        state.note_data(state.Upload(data.name, data.id, ""))
        refit.use_model(datasets.joined(own, data.id))


def report() -> None:
    """Why the last file was refused."""
    upload = state.last_data()
    if upload is not None and upload.id is None:
        name, message = words.plain(upload.name), words.plain(upload.message)
        st.error(f"{name} was refused. {message}", icon=":material/block:")
