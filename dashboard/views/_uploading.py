"""An uploaded file on its way: its turn in the queue, and its copy in memory, which is dropped."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard import arrivals, words
from pruning import formats
from pruning.formats.turns import Turn

LARGEST = 600  # MB: torchvision's VGG-19 is 575, and until it is checked it lies in memory
LOOK = 1.0  # seconds between two looks at the queue


def spooled(file: Any) -> formats.Spooled:
    """An upload as a file on disk. Raises FileRefused where there is no room."""
    # Streamlit's own bytes: `getbuffer` would make a second copy of all of them.
    copy = formats.Spooled(file.getvalue(), file.name)
    arrivals.note_taken(copy, file.size)
    return copy


def drop(file: Any) -> None:
    """Let the server's memory have an upload's bytes back: Streamlit keeps them with the tab."""
    file.close()
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def await_turn(turn: Turn, name: str) -> None:
    """Show its place in the queue until it is its turn. A tab that is closed gives up its place."""
    line = st.empty()
    while turn.place:
        others = words.plural(turn.place, "file")
        text = f"{name} waits for its turn: {others} to be checked before it."
        line.caption(words.plain(text))
        turn.wait(LOOK)
    line.empty()
