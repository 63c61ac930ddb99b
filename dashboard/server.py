"""Done once for a server, not for each tab: example run, worker pool, garbage collection."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress
from functools import cache, wraps

import plotly.io
import streamlit as st
from streamlit.proto.NewSession_pb2 import CustomThemeConfig
from streamlit.runtime import app_session

from dashboard import example, jobs
from pruning import formats
from pruning.errors import StoreError
from pruning.runs import own_models
from pruning.storage import default_workspace

COLLECT_EVERY = 60.0  # seconds
MOST_JOBS = 10_000
WRITE_THEME = "_populate_theme_msg"
"""Streamlit's own, by which it begins each drawing."""


def ensure() -> StoreError | None:
    """Cheap after the first call. Returns what is wrong with the workspace, if anything is."""
    _start()
    trouble = jobs.trouble()
    if trouble is None:
        _open(str(default_workspace()), id(jobs.store()))
    return trouble


@cache  # or what is cached here would be written once more
def write_theme_once() -> None:
    """Have Streamlit look up the theme once, and not before each drawing of a page or a part.

    It reads some two hundred settings each time, which stay as they are: a tenth of all that thirty
    people cost the server.
    """
    write = getattr(app_session, WRITE_THEME)

    @cache
    def written(section: str) -> CustomThemeConfig:
        message = CustomThemeConfig()
        write(message, section)
        return message

    @wraps(write)
    def copy(message: CustomThemeConfig, section: str = "theme") -> None:
        theme = written(section)
        if theme.ByteSize():  # merging nothing would make an empty theme of none
            message.MergeFrom(theme)

    setattr(app_session, WRITE_THEME, copy)


def warm_up() -> None:
    """Start the worker pool, for whoever comes; a page that cannot do so says why."""
    with suppress(StoreError):
        jobs.ensure()


@st.cache_resource
def _start() -> bool:
    plotly.io.json.config.default_engine = "orjson"
    write_theme_once()
    gc.collect()
    gc.freeze()  # modules and classes live as long as the server: no collection visits them again
    threading.Thread(target=_collect, name="collector", daemon=True).start()
    return True


@st.cache_resource(max_entries=4)
def _open(place: str, begun: int) -> bool:
    """The workspace, with something in it. begun: another number once it was begun anew."""
    formats.sweep()
    with suppress(StoreError):  # a worker that this server starts knows them anyway
        own_models.keep(default_workspace())
    with suppress(StoreError):
        jobs.store().sweep_trash()
    with suppress(StoreError):  # an empty one does as well
        example.ensure(jobs.store())
        jobs.store().jobs(limit=MOST_JOBS)  # rows that cannot be read are noted before a page opens
    return True


def _collect() -> None:
    """Collect now and then.

    Streamlit's own collection after each run is off (config.toml): it costs the reader 100 ms.
    """
    while True:
        time.sleep(COLLECT_EVERY)
        gc.collect()
