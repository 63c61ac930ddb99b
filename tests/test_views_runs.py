"""The Runs page: the list, its filter and tree, what people call runs, deleting with undo."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import example, jobs, run_list, state, visitors, words
from pruning.events import Finished, Pruned, from_json
from pruning.recipe import Recipe
from pruning.runs.store import Store
from tests.pages import opened, texts, widget_key

HOSTILE = "![x](http://evil) <script>alert(1)</script> :red[x] $x$"


def finished(recipe: Recipe, **pruned: Any) -> str:
    """Record a finished run of the recipe, with the result of the shipped example; its id.

    pruned: what its last pruning says instead.
    """
    store = Store()
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    result = from_json(lines[-1])
    assert isinstance(result, Finished)
    id = store.submit("run", recipe.to_dict())
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    shutil.copytree(example.EXAMPLE, job.folder, dirs_exist_ok=True)
    for line in lines[:-1]:
        event = from_json(line)
        store.append(job, replace(event, **pruned) if isinstance(event, Pruned) else event)
    store.finish(job, "finished", event=result)
    return id


def shown(page: AppTest) -> Any:
    """The table."""
    (table,) = [one.value for one in page.dataframe if "recipe" in one.value]
    return table


def mark(page: AppTest, *ids: str) -> AppTest:
    return page.multiselect(key=widget_key(page, "runs-marked")).set_value(list(ids)).run()


def test_every_run_is_listed_with_its_result(home: Path) -> None:
    done = finished(replace(state.HOME, seed=1))
    waits = Store().submit("run", replace(state.HOME, seed=2).to_dict())
    page = opened("runs")
    assert not page.exception
    table = shown(page).set_index("id")
    assert list(table.index) == [waits, done]
    assert (table.state[done], table.state[waits]) == ("done", "queued")
    assert table.quality[done] == "98.6 % ± 1.3" and table.quality[waits] == ""
    assert table.kept[done] == pytest.approx(10, abs=0.5)
    assert table.disk[done] == pytest.approx(0.22, abs=0.05) and table.disk[waits] == 0
    assert "2 runs · 2" in texts(page) and "kB on disk" in texts(page)


def test_a_run_is_called_by_what_its_masks_say(home: Path) -> None:
    """The list had a name of its own making: channels were called by their share of weights."""
    channels = replace(state.HOME, granularity="channel", sparsity=0.5)
    ids = [
        finished(state.HOME),
        finished(channels, units=(61, 192)),
        finished(replace(state.HOME, scope="manual", ratios={"conv1.weight": 0.5})),
        finished(replace(state.HOME, model="run:3f2a91bc", sparsity=0.0, epochs=3)),
    ]
    names = shown(opened("runs")).set_index("id").run
    for id in ids:
        job = jobs.job(id)
        assert names[id] == words.label(jobs.recipe_of(job), jobs.facts(job))
    assert names[ids[1]] == "magnitude, global, 61 of 192 channels"
    assert names[ids[2]].startswith("magnitude, manual, 90")
    assert names[ids[3]].startswith("masks of run 3f2a91")


def test_a_filter_shows_what_has_all_of_it(home: Path) -> None:
    a = finished(replace(state.HOME, seed=1))
    b = finished(replace(state.HOME, model="digits-mlp", criterion="taylor"))
    Store().tag(b, ["thesis"])
    Store().label(a, "the first one")
    page = opened("runs")
    found = lambda: list(shown(page).id)  # noqa: E731
    page.text_input(key="runs-text").set_value("FIRST one").run()
    assert found() == [a]
    page.text_input(key="runs-text").set_value("taylor").run()
    assert found() == [b]
    page.text_input(key="runs-text").set_value("first taylor").run()
    assert "No run is like that" in texts(page)
    page.text_input(key="runs-text").set_value("").run()
    page.multiselect(key="runs-models").set_value(["digits-cnn"]).run()
    assert found() == [a]
    page.multiselect(key="runs-models").set_value([]).run()
    page.multiselect(key="runs-tags").set_value(["thesis"]).run()
    assert found() == [b]
    page.multiselect(key="runs-tags").set_value([]).run()
    page.multiselect(key="runs-states").set_value(["done"]).run()
    assert set(found()) == {a, b}


def test_a_tree_has_each_run_below_what_it_started_from(home: Path) -> None:
    root = finished(replace(state.HOME, seed=1))
    other = finished(replace(state.HOME, seed=2))
    child = finished(replace(state.HOME, model=f"run:{root}"))
    grandchild = finished(replace(state.HOME, model=f"run:{child}@data:0123456789ab"))
    page = opened("runs")
    page.segmented_control(key="runs-order").set_value("As a tree").run()
    table = shown(page).set_index("id")
    assert list(table.index) == [other, root, child, grandchild]
    depths = [name.count(run_list.INDENT) for name in table.run]
    assert depths == [0, 0, 1, 2] and table["from"][child] == f"run {root[:6]}"
    # Without its parent among what is shown, a run stands at the rim.
    page.text_input(key="runs-text").set_value(child).run()
    assert not shown(page).run[0].startswith(run_list.INDENT)
    mark(page, grandchild)
    assert "**digits\u2011cnn**" in texts(page) or "**digits-cnn** →" in texts(page)


def test_continue_from_here_makes_the_result_the_current_model(home: Path) -> None:
    id = finished(replace(state.HOME, seed=1))
    page = mark(opened("runs"), id)
    page.button(key="runs-continue").click().run()
    assert not page.exception
    assert page.session_state["recipe"].model == f"run:{id}"
    assert page.button(key="runs-continue").disabled


def test_names_tags_and_notes_are_kept_and_shown_letter_by_letter(home: Path) -> None:
    id = finished(replace(state.HOME, seed=1))
    page = mark(opened("runs"), id)
    page.text_input(key=f"runs-label-{id}").set_value(HOSTILE).run()
    page.multiselect(key=f"runs-tag-{id}").set_value(["b", "a"]).run()
    page.text_area(key=f"runs-note-{id}").set_value(HOSTILE).run()
    assert not page.exception
    job = Store().job(id)
    assert (job.label, job.tags, job.note) == (HOSTILE, ("b", "a"), HOSTILE)
    raw = "\n".join(str(one.value) for one in page.markdown)
    assert "![x](" not in raw and "<script>" not in raw and ":red[" not in raw
    table = shown(page)
    assert table.run[0] == HOSTILE and list(table.tags[0]) == ["b", "a"]
    # The same name stands in Compare, which has it in a chart too.
    compared = opened("compare", c=id)
    assert not compared.exception and "<script>" not in texts(compared)


def test_a_deleted_run_is_undone_or_restored(home: Path) -> None:
    a, b = finished(replace(state.HOME, seed=1)), finished(replace(state.HOME, seed=2))
    page = mark(opened("runs"), a)
    page.button(key="runs-delete").click().run()
    assert list(shown(page).id) == [b] and Store().job(a).deleted
    page.button(key="runs-undo").click().run()
    assert set(shown(page).id) == {a, b}
    assert "runs-undo" not in [button.key for button in page.button]
    mark(page, a, b)
    page.button(key="runs-delete").click().run()
    assert "No run yet" in texts(page) and jobs.runs() == []
    page = opened("runs")  # another tab, or the next day
    assert "runs-undo" not in [button.key for button in page.button]
    page.button(key=f"runs-restore-{b}").click().run()
    assert not page.exception and list(shown(page).id) == [b]


def test_a_circle_of_parents_hides_nothing(home: Path) -> None:
    a = finished(replace(state.HOME, model="run:bbbbbbbbbbbb"))
    b = finished(replace(state.HOME, model=f"run:{a}"))
    runs = run_list.listed(jobs.runs())
    in_circle = [replace(run, parent=b if run.id == a else a) for run in runs]
    assert {run.id for run in run_list.as_tree(in_circle)} == {a, b}
    assert run_list.ancestors(runs[0]) == ["bbbbbbbbbbbb", a]


def test_a_deleted_run_that_a_link_opens_can_be_restored_there(home: Path) -> None:
    id = finished(replace(state.HOME, seed=1))
    Store().trash(id)
    page = opened("run", run=id)
    page.button(key=f"restore-{id}").click().run()
    assert not page.exception and Store().job(id).deleted is None


def test_on_a_shared_server_only_ones_own_runs_can_be_changed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(visitors.OWNER, "f" * 32)
    monkeypatch.setattr(visitors, "cookies", lambda: {visitors.COOKIE: "a" * 32})
    example.ensure(Store())
    (shipped,) = Store().jobs("run")
    mine = Store().submit("run", state.HOME.to_dict(), visitor=visitors.me())
    Store().submit("run", replace(state.HOME, seed=3).to_dict(), visitor="somebody")
    page = opened("runs")
    assert set(shown(page).id) == {mine, shipped.id}
    keys = lambda: {element.key for element in (*page.button, *page.text_input)}  # noqa: E731
    mark(page, shipped.id)
    assert not keys() & {"runs-delete", f"runs-label-{shipped.id}"}
    mark(page, mine)
    assert {"runs-delete", "runs-stop", f"runs-label-{mine}"} <= keys()
    mark(page, mine, shipped.id)
    assert page.button(key="runs-delete").label == "Delete"
