"""Pages in this process, without a browser, for looking at what they say of a broken store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from faults.stage import check
from pages import opened, texts
from streamlit.testing.v1 import AppTest

from dashboard import jobs
from pruning.runs import pool


@dataclass
class Shown:
    """A page. banner: what it says at its top of the whole workspace; errors: of all kinds."""

    page: AppTest
    banner: str
    errors: list[str]
    warnings: list[str]
    text: str


def open_page(name: str, home: Path, *, fresh: bool = True, **address: str) -> Shown:
    """A page in a new tab. fresh: of a server that was started just now. Raises Broken."""
    os.environ["PRUNING_HOME"] = str(home)
    pool.ensure = lambda *_: False
    if fresh:
        jobs._store.cache_clear()
        jobs._ensure.clear()
        jobs._ids().clear()
        jobs._notices.clear()
        jobs._readable.clear()
    return shown(opened(name, **address))


def shown(page: AppTest) -> Shown:
    check(not page.exception, f"uncaught: {[e.value for e in page.exception]}")
    errors = [error.value for error in page.error]
    failed = [error for error in errors if "This part of the page failed" in error]
    check(not failed, f"{failed}")
    banner = str(page.session_state.get("trouble", None) or "")
    return Shown(page, banner, errors, [warning.value for warning in page.warning], texts(page))


def press_run(page: Shown) -> str:
    """Press Run on Prune; what the page says then."""
    after = shown(page.page.button(key="run-now").click().run())
    return " ".join([*after.errors, *after.warnings])
