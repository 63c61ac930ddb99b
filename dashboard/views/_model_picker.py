"""The models to choose from: samples, any torchvision architecture, your own weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

import sample_models
from dashboard import forms, models, refit, state, words
from dashboard.views import _data_picker, _frame, _uploading
from pruning import formats
from pruning.errors import FitsAnother, PruningError
from pruning.runs import outlines, own_models

PICTURES = Path(__file__).parents[1] / "pictures"
INPUTS = {
    "digits": "digits.png",
    "mnist1d": "mnist1d.svg",
    "mnist": "mnist.png",
    "fashion-mnist": "fashion.png",
}
"""Data set -> a picture of some of its inputs."""

FILE_TYPES = ["safetensors", "pt", "pth", "bin", "ckpt", "onnx", "keras"]
MOST_OFFERED = 3  # architectures that weights fit as well as the one that was chosen
SAMPLES, ARCHITECTURES, UPLOAD = "Samples", "torchvision", "Your own weights"
DATA = "Your own data"


def choose() -> None:
    source = st.segmented_control(
        "Where from",
        (SAMPLES, ARCHITECTURES, UPLOAD, DATA),
        default=SAMPLES,
        required=True,
        key="way",
        bind="query-params",
        label_visibility="collapsed",
    )
    if source == ARCHITECTURES:
        architectures()
    elif source == UPLOAD:
        own_weights()
    elif source == DATA:
        _data_picker.choose()
    else:
        samples()


def use(model: str) -> None:
    refit.use_model(model)


# ---------------------------------------------------------------- samples


def samples() -> None:
    with st.grid(min_column_width=250, border=True, vertical_alignment="top"):
        for named in own_models.named():
            with st.container(), _frame.guarded():
                own(named)
        for name in sample_models.names():
            with st.container(), _frame.guarded():
                sample(name)


def sample(name: str) -> None:
    """One sample model: its inputs, its numbers, and the button that uses it."""
    card = sample_models.card(name)
    if card.data in INPUTS:
        st.image(PICTURES / INPUTS[card.data], width=200, alt=f"Six inputs of {card.data_title}.")
    st.markdown(f"**{card.title}**")
    size = f"{words.count(card.weights)} weights · {words.size(card.bytes)}"
    st.markdown(words.glued(f"{words.percent(card.accuracy)} · {size}"))
    st.caption(card.good_for)
    with st.container(horizontal=True, vertical_alignment="center"):
        if state.recipe().model == name:
            st.badge("current model", icon=":material/check:", color="blue")
        else:
            use_button(name)
        if card.needs == "download":
            help = f"{card.data_title} is fetched the first time it is used."
            st.badge("data by download", icon=":material/download:", color="gray", help=help)


def use_button(model: str) -> None:
    more = forms.lock("model", {})
    st.button("Use this model", key=f"choose-{model}", on_click=use, args=(model,), **more)


def own(named: own_models.OwnModel) -> None:
    """A model that whoever started the server named: its numbers once a worker has built it."""
    title = models.title(named.model)
    st.markdown(f"**{words.plain(title)}**")
    facts = models.facts(named.model)
    if facts is None:
        st.caption(f"A worker is building it: {words.plain(named.name)}.")
    else:
        size = f"{words.count(facts.weights)} weights · {words.size(facts.bytes)}"
        accuracy = f"{words.percent(facts.accuracy)} · " if facts.accuracy else ""
        st.markdown(words.glued(f"{accuracy}{size}"))
    st.caption("A model of your own, named when this server was started.")
    if state.recipe().model == named.model:
        st.badge("current model", icon=":material/check:", color="blue")
    else:
        use_button(named.model)


# ---------------------------------------------------------------- torchvision


def architectures() -> None:
    st.markdown(
        "Any classification architecture of torchvision, by name. Its trained weights are fetched "
        "by torchvision; without a network it comes with random weights, for looking and "
        "structure only."
    )
    names = sample_models.torchvision_names()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        start = names.index("resnet18") if "resnet18" in names else 0
        name = st.selectbox("Architecture", names, index=start, key="architecture", width=320)
        st.button(
            "Use this model",
            key="choose-torchvision",
            on_click=use,
            args=(f"{models.TORCHVISION}{name}",),
            type="primary",
        )
    if not has_timm():
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        other = st.text_input("Or one of timm's", key="timm", placeholder="resnet10t", width=320)
        st.button(
            "Use this model",
            key="choose-timm",
            on_click=use,
            args=(f"{models.TIMM}{other.strip()}",),
            disabled=not other.strip(),
        )


@cache
def has_timm() -> bool:
    """Whether timm is installed. It is not imported here, which would import torch."""
    return find_spec("timm") is not None


# ---------------------------------------------------------------- your own weights


def own_weights() -> None:
    st.markdown(
        "A safetensors file (or all shards of one, chosen together), or a PyTorch checkpoint that "
        "holds a `state_dict`, into an architecture you choose. One of torchvision's, of timm's or "
        "of this server's own code takes any number of classes. ONNX and Keras files bring their "
        "own architecture. The file is checked in a process of its own; nothing in it is run."
    )
    architectures = [f"{models.TORCHVISION}{name}" for name in sample_models.torchvision_names()]
    own = [named.model for named in own_models.named() if own_models.is_own(named.model)]
    current = state.recipe().model
    typed = [current] if current.startswith(models.TIMM) else []
    fillable = [*own, *typed, *sample_models.names(), *architectures]
    left, right = st.columns([1, 2], gap="medium")
    with left:
        architecture = st.selectbox(
            "Architecture to fill",
            fillable,
            # Weights that somebody brings are most often of the model that is shown.
            index=fillable.index(current) if current in fillable else 0,
            key="own-architecture",
            format_func=models.title,
            # timm has a thousand: typed, not listed.
            accept_new_options=has_timm(),
            help="Of timm by its name: timm:resnet10t." if has_timm() else None,
        )
    with right:
        files = st.file_uploader(
            f"Weights, up to {_uploading.LARGEST} MB",
            type=FILE_TYPES,
            # The shards of one model come together, in one choice of files.
            accept_multiple_files=True,
            # A new key is a new, empty uploader: the copy of the last file in memory is freed.
            key=f"own-{state.upload_count()}",
            max_upload_size=_uploading.LARGEST,
        )
    if files:
        take(files, str(architecture))
    pending = state.pending()
    if pending is not None and pending.target is None:
        go_on(pending)
    report()


def take(files: Sequence[Any], model: str) -> None:
    """Spool the upload to disk and drop the copy in memory, before it waits for its turn: a class
    would fill the memory meanwhile.

    files: one, or all shards of one model.
    """
    spooled: list[formats.Spooled] = []
    try:
        for file in files:
            spooled.append(_uploading.spooled(file))
            _uploading.drop(file)
    except PruningError as error:  # there is no room for it
        for copy in spooled:
            copy.remove()
        for file in files:
            _uploading.drop(file)
        state.note_upload(state.Upload(files[0].name, None, str(error)))
    else:
        state.set_pending(state.Pending(tuple(spooled), model))


def go_on(pending: state.Pending) -> None:
    """Check what waits to be checked.

    Anything that draws the page anew may cut this off wherever something is drawn: it is begun
    again then, in the place in the queue that it had.
    """
    paths = [copy.path for copy in pending.spooled]
    names = [copy.name for copy in pending.spooled]
    with formats.turn(pending.spooled[0].arrived) as turn:
        _uploading.await_turn(turn, names[0])
        with st.spinner(f"Checking {words.plain(names[0])} in a process of its own."):
            judge(paths, names, pending.model)
    st.rerun()


def judge(paths: Sequence[Path], names: Sequence[str], model: str) -> None:
    """Have a file, or the shards of one model, checked, and use it where it fits. Draws nothing, so
    that nothing cuts it off.
    """
    name = names[0]
    try:
        expected = outlines.expected(model)
        upload = formats.accept(paths, model, filename=names, expected=expected)
    except FitsAnother as error:
        fits = elsewhere(paths, names, error.fits)
        state.note_upload(state.Upload(name, None, str(error), fits))
    except PruningError as error:
        state.note_upload(state.Upload(name, None, str(error)))
    else:
        use(upload.model)
        state.note_upload(state.Upload(upload.name, upload.id, " ".join(upload.notes)))


def elsewhere(paths: Sequence[Path], names: Sequence[str], fits: Sequence[str]) -> dict[str, str]:
    """Architecture that the weights fit -> the model that they are there, kept already: the file
    itself is dropped, and need not be brought again.
    """
    kept = {}
    for architecture in fits[:MOST_OFFERED]:
        with suppress(PruningError):
            kept[architecture] = formats.accept(paths, architecture, filename=names).model
    return kept


def use_elsewhere(name: str, architecture: str, model: str) -> None:
    state.note_upload(state.Upload(name, model, f"All tensors fit {architecture}."))
    use(model)


def report() -> None:
    """Whether the last file was accepted, and what the check found."""
    upload = state.last_upload()
    if upload is None:
        return
    name = words.plain(upload.name)
    message = words.plain(upload.message)
    if upload.id is None:
        st.error(f"{name} was refused. {message}", icon=":material/block:")
        for architecture, model in upload.elsewhere.items():
            st.button(
                f"It fits {models.title(architecture)}: use it there",
                key=f"elsewhere-{architecture}",
                icon=":material/redo:",
                on_click=use_elsewhere,
                args=(upload.name, architecture, model),
            )
    else:
        st.success(f"{name} is the current model. {message}", icon=":material/check_circle:")
