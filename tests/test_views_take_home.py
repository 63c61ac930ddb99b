"""The row "Take it home" under a result: made when asked, with sizes before the click."""

from __future__ import annotations

import pytest
from pages import finished, opened, settle, texts

from dashboard import words
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store

RECIPE = Recipe(model="digits-mlp", sparsity=0.9)


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def test_files_are_made_when_asked_and_their_sizes_stand_on_the_buttons() -> None:
    id = finished(RECIPE)
    page = settle(opened("run", run=id))
    assert "Take it home" in texts(page)
    assert not [job for job in Store().jobs("study") if job.spec["what"] == "take_home"]
    page.button(key=f"take-home-{id}").click().run()
    assert not page.exception
    settle(page)
    assert not page.exception
    (study,) = [job for job in Store().jobs("study") if job.spec["what"] == "take_home"]
    labels = [element.proto.label for element in page.get("download_button")]
    for name, label in (("bundle.zip", "Bundle"), ("model.py", "model.py"), ("model.onnx", "ONNX")):
        size = words.size((study.folder / "files" / name).stat().st_size)
        assert f"{label}, {size}" in labels
    assert "in ONNX Runtime within" in texts(page)


def test_a_result_whose_weights_were_deleted_offers_none() -> None:
    id = finished(RECIPE)
    (Store().folder(id) / "final.safetensors").unlink()
    page = settle(opened("run", run=id))
    assert not page.exception
    assert "Take it home" not in texts(page)
