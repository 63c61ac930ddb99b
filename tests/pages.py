"""The whole page in a test: a workspace of its own, and studies worked off here instead of by a worker pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from pruning.runs.store import Store

APP = Path(__file__).parents[1] / "dashboard" / "app.py"


def opened(room: str = "model", **address: str) -> AppTest:
    """The page at an address. Studies that it asks for wait until `work_off`."""
    page = AppTest.from_file(str(APP), default_timeout=30)
    for key, value in address.items():
        page.query_params[key] = value
    page.run()
    return page if room == "model" else page.switch_page(f"views/{room}.py").run()


def settled(room: str = "model", **address: str) -> AppTest:
    """The page when everything that it asked for is there."""
    return settle(opened(room, **address))


def settle(page: AppTest) -> AppTest:
    while work_off():
        page.run()
    return page


def work_off() -> int:
    """Do the studies that wait, as a worker does; how many."""
    from pruning.errors import PruningError
    from pruning.runs.handlers import do

    store, done = Store(), 0
    while (job := store.claim(queues=("study", "long"))) is not None:
        done += 1
        try:
            do(store, job, lambda: False)
        except PruningError as error:
            store.finish(job, "failed", str(error))
    return done


def said(page: AppTest) -> str:
    """All text of the page, the side included."""
    kinds = ("markdown", "caption", "subheader", "info", "warning", "error", "success", "metric")
    return "\n".join(str(element.value) for kind in kinds for element in page.get(kind)).replace(
        "\u00a0", " "
    )


def figures(page: AppTest) -> dict[str, dict[str, Any]]:
    """The charts, by title."""
    held = [json.loads(element.proto.spec) for element in page.get("plotly_chart")]
    return {figure["layout"]["title"]["text"]: figure for figure in held}
