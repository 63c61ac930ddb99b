"""Text from recipes, links, files and names is text on every page: no link, picture or colour.

The whole sweep is `python3 run.py faults`; this is its short form.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard import example, state, words
from dashboard.charts import base
from pruning.errors import PruningError
from pruning.events import Finished, from_json
from pruning.recipe import Recipe
from pruning.runs import cache_keys, pool, resolve
from pruning.runs.store import Store
from tests.faults import hostile
from tests.faults.hostile import EVIL, HOSTILE, TEXTS
from tests.pages import opened, texts

NAMES = TEXTS[:12]
RECIPE = Recipe(
    model=HOSTILE[:990],
    scope="manual",
    ratios=dict.fromkeys(NAMES, 0.5),
    exclude=NAMES,
    epochs=1,
)
"""The same text as a model, as layers that stay dense, and as layers with a ratio."""


@pytest.fixture(autouse=True)
def no_pool(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


@pytest.mark.parametrize("text", [*TEXTS, HOSTILE, hostile.SURROGATE], ids=ascii)
def test_plain_text_is_only_text(text: str) -> None:
    shown = words.plain(text)
    assert hostile.active(shown) == []
    shown.encode()
    # Letter by letter: with escapes undone and joiners left out it says the same.
    undone = "".join(part[:1] + part[1:].replace("\\", "") for part in shown.split(words.JOINER))
    assert EVIL not in text or EVIL in undone


@pytest.mark.parametrize("model", hostile.MODELS, ids=lambda model: ascii(model)[:30])
def test_a_name_of_a_model_is_no_path(model: str, home: Path) -> None:
    assert cache_keys.facts(model, home) == cache_keys.facts("no-such-model", home)
    if not model.startswith("torchvision:"):  # whose names are torchvision's affair
        with pytest.raises(PruningError):
            resolve.describe(model, home)


def test_text_is_text_in_a_chart() -> None:
    title = f"<b>bold</b><br><a href='http://{EVIL}'>x</a><A HREF=x><img src=x><span style='a'>"
    figure = base.harmless({"data": [{"y": [1.0, 2.0], "text": [title]}], "layout": {"t": title}})
    text = figure["data"][0]["text"][0]
    assert text == figure["layout"]["t"] and text.startswith("<b>bold</b><br>&lt;a href")
    assert text.count("<") == 3


def test_hostile_recipes_and_links_are_taken_or_refused_in_a_sentence() -> None:
    taken = [hostile.read(recipe) is not None for recipe in hostile.recipes(400, seed=1)]
    assert 0 < sum(taken) < len(taken)
    followed = [hostile.follow(text) for text in hostile.links(300, seed=1)]
    assert 0 < sum(followed) < len(followed)


def finished(recipe: Recipe, batch: str | None = None) -> str:
    """A finished run of that recipe, as the shipped example ended; its id."""
    store = Store()
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    result = from_json(lines[-1])
    assert isinstance(result, Finished)
    id = store.submit("run", recipe.to_dict(), batch=batch)
    job = store.claim(queues=("run",))
    assert job is not None
    shutil.copytree(example.EXAMPLE, job.folder, dirs_exist_ok=True)
    for line in lines[:-1]:
        store.append(job, from_json(line))
    store.finish(job, "finished", event=result)
    return id


def test_no_page_makes_more_of_it() -> None:
    upload = Path(Store().workspace) / "uploads" / "abcdefabcdefabcd" / "upload.json"
    upload.parent.mkdir(parents=True)
    upload.write_text(json.dumps({"name": HOSTILE, "architecture": "digits-cnn"}), encoding="utf-8")
    of_upload = replace(RECIPE, model="upload:abcdefabcdefabcd")
    runs = [finished(RECIPE), finished(replace(of_upload, exclude=(), ratios={}))]
    finished(replace(RECIPE, seed=1), batch="abcdefabcd")
    failed = Store().submit("run", replace(RECIPE, seed=2).to_dict())
    job = Store().claim()
    assert job is not None
    Store().finish(job, "failed", HOSTILE)
    Store().submit("run", replace(of_upload, seed=3).to_dict())  # waits, at the bottom of each page
    link = {"r": state.encode(RECIPE), "t": state.encode(RECIPE), "layer": HOSTILE}
    pages = {
        "model": {},
        "inspect": {},
        "sensitivity": {},
        "prune": {"run": failed},
        "run": {"run": runs[0]},
        "compare": {"c": ",".join(runs)},
        "lottery": {"set": "abcdefabcd"},
        "structure": {"run": HOSTILE},
        "criteria": {"r": state.encode(of_upload)},
    }
    for view, address in pages.items():
        page = opened(view, **{**link, **address})
        assert hostile.violations(page) == [], view
        assert EVIL in texts(page), view  # it is there, as text
