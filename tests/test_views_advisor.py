"""The Advisor page: the answer first, the rows it rests on, and a click for what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from pages import figures, opened, texts, widget_key

from dashboard import state
from dashboard.charts import advisor as charts
from pruning.advice.advise import advise
from pruning.advice.rows import shipped_rows
from pruning.advice.target import PRESETS, Target
from pruning.recipe import Recipe
from pruning.runs import handlers, pool
from pruning.runs.store import Store


@pytest.fixture(autouse=True)
def no_pool(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def shown(page: Any) -> str:
    """All text, without the backslashes that keep it from being Markdown."""
    return texts(page).replace("\\", "")


def control(page: Any, kind: str, key: str) -> Any:
    return getattr(page, kind)(key=widget_key(page, key))


def in_address(page: Any, key: str) -> str:
    value = page.query_params[key]
    return value if isinstance(value, str) else value[0]


def answer(target: Target) -> str:
    return advise(target, shipped_rows(target.model)).answer.text


def test_it_opens_on_the_answer_whose_recipe_can_be_used() -> None:
    page = opened("advisor")
    assert not page.exception and not page.error
    assert answer(Target("digits-cnn")) in shown(page)
    (title,) = figures(page)
    assert title == charts.title(advise(Target("digits-cnn"), shipped_rows("digits-cnn")))
    assert not Store().jobs("study", ("queued",)), "nothing costly starts by itself"
    best = advise(Target("digits-cnn"), shipped_rows("digits-cnn")).best
    assert best is not None and best.cell.first.recipe is not None
    page.button(key="advisor-use").click().run()
    assert state.decode(in_address(page, "r")) == Recipe.from_dict(best.cell.first.recipe)


def test_what_is_asked_stands_in_the_address_and_a_link_reopens_it() -> None:
    page = opened("advisor")
    control(page, "selectbox", "advisor-limit").set_value("ms").run()
    control(page, "number_input", "advisor-most").set_value(0.05).run()
    control(page, "selectbox", "advisor-runtime").set_value("torch").run()
    wanted = Target("digits-cnn", "ms", 0.05, runtime="torch")
    assert answer(wanted) in shown(page)
    text = in_address(page, "target")
    assert state.decode_target(text) == wanted
    again = opened("advisor", target=text)
    assert answer(wanted) in shown(again)
    assert "Zeros are not speed" in shown(again)


def test_a_preset_states_what_it_assumes_and_every_number_of_it_can_be_changed() -> None:
    page = opened("advisor")
    control(page, "selectbox", "advisor-preset").set_value("board").run()
    assert PRESETS["board"].assumes in shown(page)
    control(page, "number_input", "advisor-slower").set_value(8.0).run()
    assert answer(Target("digits-cnn", "ms", 0.2, slower=8.0)) in shown(page)
    control(page, "toggle", "advisor-finetune").set_value(False).run()
    assert not page.exception
    control(page, "toggle", "advisor-finetune").set_value(True).run()
    control(page, "text_input", "advisor-examples").set_value("many").run()
    assert any("is no number of examples" in one.value for one in page.warning)
    control(page, "text_input", "advisor-examples").set_value("100").run()
    assert "100 examples are fewer" in shown(page) or "trained on more" in shown(page)


def test_a_damaged_address_is_told_and_changes_nothing() -> None:
    page = opened("model", target="eNrrubbish")
    assert any("target that cannot be followed" in one.value for one in page.warning)
    page.switch_page("views/advisor.py").run()
    assert answer(Target("digits-cnn")) in shown(page)


def test_what_is_not_measured_is_measured_by_one_click(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = state.encode(Recipe(model="digits-vit"))
    page = opened("advisor", r=recipe)
    assert "Not measured: int8" in shown(page)
    page.button(key="advisor-measure").click().run()
    (job,) = [job for job in Store().jobs("study") if job.spec["what"] == "alternatives"]
    assert job.spec["model"] == "digits-vit" and job.priority < 0, "behind what pages wait for"
    assert "Measuring alternatives" in shown(page)
    # A worker's answer, with the shipped rows of another model in the place of minutes of training.
    rows = [dict(row) for row in _raw_rows()]
    monkeypatch.setattr(handlers, "alternatives", lambda spec, work, stop: ({"rows": rows}, {}))
    store = Store()
    claimed = store.claim(queues=("long",))
    assert claimed is not None
    handlers.do(store, claimed, lambda: False)
    page.run()
    assert not page.exception and not page.error
    assert "alternatives" not in [each.key for each in page.button]
    assert f"run {job.id[:8]}/" in shown(page), "its rows are named by the work that measured them"


def _raw_rows() -> tuple[dict[str, Any], ...]:
    from pruning.advice import shipped

    there = shipped.find("digits-cnn")
    assert there is not None
    return there.rows


def test_runs_of_the_store_are_rows_too() -> None:
    store = Store()
    recipe = Recipe(model="digits-mlp", sparsity=0.93)
    id = store.submit("run", recipe.to_dict())
    job = store.claim(queues=("run",))
    assert job is not None
    handlers.do(store, job, lambda: False)
    page = opened("advisor", r=state.encode(recipe))
    hovers = [text for data in next(iter(figures(page).values()))["data"] for text in data["text"]]
    assert any(f"run {id[:8]}" in text for text in hovers)
