"""The models one could put on the bench: samples, any torchvision architecture, your own weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

import sample_models
from dashboard import models, state, words
from dashboard.views import _frame
from pruning.errors import PruningError

PICTURES = Path(__file__).parents[1] / "pictures"
INPUTS = {
    "digits": "digits.png",
    "mnist1d": "mnist1d.svg",
    "mnist": "mnist.png",
    "fashion-mnist": "fashion.png",
}
TYPES = ["safetensors", "pt", "pth", "bin", "ckpt"]
WAYS = ("Samples", "torchvision", "Your own weights")


def choose() -> None:
    way = st.segmented_control(
        "Where from", WAYS, default=WAYS[0], required=True, key="way", label_visibility="collapsed"
    )
    {WAYS[0]: samples, WAYS[1]: architectures, WAYS[2]: own}[way or WAYS[0]]()


# ---------------------------------------------------------------- samples


def samples() -> None:
    with st.grid(min_column_width=250, border=True, vertical_alignment="top"):
        for name in sample_models.names():
            with st.container(), _frame.guarded():
                _card(name)


def _card(name: str) -> None:
    card = sample_models.card(name)
    if card.data in INPUTS:
        st.image(PICTURES / INPUTS[card.data], width=200, alt=f"Six inputs of {card.data_title}.")
    st.markdown(f"**{card.title}**")
    st.markdown(
        words.glued(
            f"{words.percent(card.accuracy)} · {words.count(card.weights)} weights · {words.size(card.bytes)}"
        )
    )
    st.caption(card.good_for)
    with st.container(horizontal=True, vertical_alignment="center"):
        if state.recipe().model == name:
            st.badge("on the bench", icon=":material/check:", color="blue")
        else:
            st.button("Put on the bench", key=f"choose-{name}", on_click=put, args=(name,))
        if card.needs == "download":
            fetched = f"{card.data_title} is fetched the first time it is used."
            st.badge("data by download", icon=":material/download:", color="gray", help=fetched)


def put(model: str) -> None:
    state.change(model=model)


# ---------------------------------------------------------------- torchvision


def architectures() -> None:
    st.markdown(
        "Any classification architecture of torchvision, by name. Its trained weights are fetched by torchvision; "
        "without a network it comes with random weights, for looking and structure only."
    )
    names = sample_models.torchvision_names()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        start = names.index("resnet18") if "resnet18" in names else 0
        name = st.selectbox("Architecture", names, index=start, key="architecture", width=320)
        st.button(
            "Put on the bench",
            key="choose-torchvision",
            on_click=put,
            args=(f"{models.TORCHVISION}{name}",),
            type="primary",
        )


# ---------------------------------------------------------------- your own weights


def own() -> None:
    st.markdown(
        "A safetensors file, or a PyTorch checkpoint that holds a `state_dict`, into an architecture you choose. "
        "The file is checked in a process of its own; nothing in it is run."
    )
    samples_, others = (
        sample_models.names(),
        [f"{models.TORCHVISION}{name}" for name in sample_models.torchvision_names()],
    )
    left, right = st.columns([1, 2], gap="medium")
    with left:
        into = st.selectbox(
            "Architecture to fill",
            [*samples_, *others],
            key="own-architecture",
            format_func=models.title,
        )
    with right:
        file = st.file_uploader(
            "Weights", type=TYPES, key=f"own-{state.upload_count()}", max_upload_size=1024
        )
    if file is not None:
        _take(file, str(into))
    _report()


def _take(file, model: str) -> None:
    """Spool the upload to disk, have it judged, drop the copy in memory."""
    from pruning import formats

    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / f"weights{Path(file.name).suffix.lower()}"
        path.write_bytes(file.getbuffer())
        file.close()
        try:
            with st.spinner(
                f"Checking {words.plain(file.name)} in a process of its own; usually a few seconds."
            ):
                upload = formats.accept(path, model, filename=file.name)
        except PruningError as error:
            state.note_upload(state.Upload(file.name, None, str(error)))
        else:
            state.note_upload(state.Upload(upload.name, upload.id, " ".join(upload.notes)))
            put(upload.model)
    st.rerun()


def _report() -> None:
    held = state.last_upload()
    if held is None:
        return
    if held.id is None:
        st.error(
            f"{words.plain(held.name)} was refused. {words.plain(held.message)}",
            icon=":material/block:",
        )
    else:
        st.success(
            f"{words.plain(held.name)} is on the bench. {words.plain(held.message)}",
            icon=":material/check_circle:",
        )
