"""Text from others in the browser: no anchor, no picture, no request, whatever stands in it."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest
from e2e import steps
from e2e.served import Served
from faults.hostile import EVIL, HOSTILE, TEXTS
from playwright.sync_api import Page, expect

from dashboard import state
from pruning.recipe import Recipe
from pruning.runs.store import Store

RECIPE = Recipe(model=HOSTILE[:990], exclude=TEXTS[:12], sparsity=0.5, epochs=1)
MADE = f"""() => [...document.querySelectorAll(
    'a[href*="{EVIL}"], [src*="{EVIL}"], [style*="{EVIL}"], .katex, a[*|href*="{EVIL}"]'
)].map(element => element.outerHTML)"""


def like_the_example(store: Store, id: str, recipe: Recipe) -> None:
    """Copy the example's run under another id, of another recipe. Workers never see it."""
    (first,) = [job.id for job in store.jobs("run", states=("finished",)) if job.batch][-1:]
    shutil.copytree(store.folder(first), store.folder(id))
    db = sqlite3.connect(store.file)
    with db:
        db.execute(
            "INSERT INTO jobs (id, kind, spec, state, attempt, submitted, started, ended) "
            "SELECT ?, kind, ?, state, attempt, submitted, started, ended FROM jobs WHERE id = ?",
            (id, json.dumps(recipe.to_dict()), first),
        )
        db.execute(
            "INSERT INTO events SELECT ?, attempt, number, at, body FROM events WHERE job = ?",
            (id, first),
        )
    db.close()


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_text_from_others_is_text_in_the_browser(app: Served, tab: Page) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    steps.open_at(tab, app.url)  # an empty workspace is given the example
    runs = ("e" * 12, "f" * 12)
    for id, recipe in zip(runs, (RECIPE, Recipe(model=HOSTILE[:990], epochs=2)), strict=True):
        like_the_example(Store(app.home), id, recipe)
    link = state.encode(RECIPE)
    for address in (
        f"?room=compare&c={','.join(runs)}",
        f"?run={runs[0]}",
        f"?room=prune&r={link}",
    ):
        tab.goto(f"{app.url}/{address}")
        expect(tab.get_by_text(EVIL).first).to_be_visible()
        steps.settled(tab)
        assert tab.evaluate(MADE) == [], address
    assert [url for url in asked if not url.startswith((app.url, "data:", "blob:"))] == []
