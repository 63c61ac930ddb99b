"""What is done once for a server, not for each tab: the crew of workers, the example, the collection of garbage."""

from __future__ import annotations

import gc
import threading
import time

import plotly.io
import streamlit as st

from dashboard import example, jobs

COLLECT_EVERY = 60.0  # seconds


def ensure() -> None:
    """Cheap after the first call."""
    _start()
    jobs.ensure()


@st.cache_resource
def _start() -> bool:
    plotly.io.json.config.default_engine = "orjson"
    example.ensure(jobs.store())
    gc.collect()
    gc.freeze()  # modules and classes live as long as the server: no collection has to walk them again
    threading.Thread(target=_collect, name="collector", daemon=True).start()
    return True


def _collect() -> None:
    """Streamlit's own collection after each run is switched off (config.toml), for it costs the reader 100 ms."""
    while True:
        time.sleep(COLLECT_EVERY)
        gc.collect()
