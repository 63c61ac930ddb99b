"""The whole page in a test: on a workspace of its own, with studies done here, not by workers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from pruning.recipe import Recipe
from pruning.runs.store import Store

# Each page looked through all installed packages for components: most of what opening one took.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)

APP = Path(__file__).parents[1] / "dashboard" / "tab.py"
TEXTS = (
    "title",
    "header",
    "markdown",
    "caption",
    "info",
    "warning",
    "error",
    "success",
    "metric",
)


def opened(view: str = "model", **address: str) -> AppTest:
    """The page at an address. Studies that it requests wait until `work_off`.

    As by a link: to run the first page before each other one took a quarter of these tests' time.
    """
    page = _at(address)
    if view != "model":
        # Streamlit's name for a page is of its address, which AppTest learns when a page has run.
        page._page_hash = calc_hash(view)
    return page.run()


def walked_to(view: str, **address: str) -> AppTest:
    """The page as somebody comes to it who was on the first one."""
    return _at(address).run().switch_page(f"views/{view}.py").run()


def _at(address: dict[str, str]) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=30)
    for key, value in address.items():
        page.query_params[key] = value
    return page


def settled(view: str = "model", **address: str) -> AppTest:
    """The page when everything that it requested is there."""
    return settle(opened(view, **address))


def settle(page: AppTest) -> AppTest:
    until = time.monotonic() + 60
    while work_off() or others_work():
        page.run()
        assert time.monotonic() < until, "a study that a worker claimed does not end"
    return page


def others_work() -> bool:
    """Whether a worker of the page's own pool was quicker than we, and is at it."""
    busy = bool(Store().jobs("study", ("running",)))
    if busy:
        time.sleep(0.1)
    return busy


def finished(recipe: Recipe) -> str:
    """The id of a run that was done here."""
    from pruning.runs.handlers import do

    store = Store()
    id = store.submit("run", recipe.to_dict())
    job = store.claim(queues=("run",))
    assert job is not None
    do(store, job, lambda: False)
    return id


def work_off(until: str = "") -> int:
    """Do the studies that wait, as a worker does; how many. until: a job that is claimed alone."""
    from pruning.errors import PruningError
    from pruning.runs.handlers import do

    store = Store()
    done = 0
    while (job := store.claim(queues=("study", "long"))) is not None and job.id != until:
        done += 1
        try:
            do(store, job, lambda: False)
        except PruningError as error:  # of a model that another test brought, and took away
            store.finish(job, "failed", str(error))
    return done


def widget_key(page: AppTest, key: str) -> str:
    """The key under which `state.widget_key` drew a widget last: it changes with what it shows."""
    version, _ = page.session_state["widget_versions"].get(key, (0, None))
    return f"{key}-{version}" if version else key


def texts(page: AppTest) -> str:
    """All text of the page, the side included."""
    values = [str(element.value) for kind in TEXTS for element in page.get(kind)]
    values += [f"{data['text']} {data['times'][0][1]}" for data in waits(page)]
    return "\n".join(values).replace("\u00a0", " ")


def waits(page: AppTest) -> list[dict[str, Any]]:
    """What the page says that it waits for: `text`, `times` and `numbers` of each."""
    protos = [element.proto for element in page.get("bidi_component")]
    data = [json.loads(proto.json or proto.mixed.json or "null") for proto in protos]
    return [one for one in data if one and one.get("times")]


def figures(page: AppTest) -> dict[str, dict[str, Any]]:
    """The charts, by title."""
    charts = [json.loads(element.proto.spec) for element in page.get("plotly_chart")]
    return {figure["layout"]["meta"]["title"]: figure for figure in charts}


def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, from a thread of its own: Playwright's synchronous browser leaves a running
    loop in this one.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
