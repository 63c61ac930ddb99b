"""Shipped studies: they are what the study computes, of the weights that are here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import opened

from dashboard import state, tables
from pruning.runs import pool, shipped
from pruning.runs.results import load_study
from pruning.runs.store import Store

MADE = "make them anew: python -m pruning.runs.shipped"


def same(shipped: Any, computed: Any) -> bool:
    """Equal plain data; numbers to a millionth, for other processors round otherwise."""
    if isinstance(computed, dict):
        return shipped.keys() == computed.keys() and all(
            same(shipped[key], value) for key, value in computed.items()
        )
    if isinstance(computed, list):
        return len(shipped) == len(computed) and all(map(same, shipped, computed))
    if isinstance(computed, float):
        return bool(np.isclose(shipped, computed, rtol=1e-5, atol=1e-6))
    return bool(shipped == computed)


@pytest.mark.parametrize("spec", shipped.SPECS, ids=shipped.name_of)
def test_a_shipped_study_is_what_the_study_computes(spec: dict[str, Any], tmp_path: Path) -> None:
    folder = shipped.find(spec)
    assert folder is not None, MADE
    shipped.make(spec, tmp_path)
    known, made = load_study(folder).data, load_study(tmp_path).data
    for data in (known, made):
        data.pop("seconds", None)  # of another machine
    assert same(known, made), MADE
    here, there = load_study(folder).arrays, load_study(tmp_path).arrays
    assert here.keys() == there.keys(), MADE
    for name, values in there.items():
        assert here[name].shape == values.shape and here[name].dtype == values.dtype, name
        if values.dtype.kind == "f":
            assert np.allclose(here[name], values, rtol=1e-4, atol=1e-5), f"{name}: {MADE}"
        else:
            assert (here[name] == values).all(), f"{name}: {MADE}"


def test_other_weights_and_other_questions_are_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = shipped.SPECS[0]
    assert shipped.find(card) is not None
    assert shipped.find({**card, "anything": 1}) is None
    assert shipped.find({"what": "card", "model": "../digits-cnn"}) is None
    monkeypatch.setattr(shipped, "_digest", lambda model: "of other weights")
    assert shipped.find(card) is None
    monkeypatch.undo()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)  # none was made
    assert shipped.find(card) is None
    folder = tmp_path / "digits-cnn-card"
    folder.mkdir()
    (folder / shipped.QUESTION).write_text("{torn", encoding="utf-8")
    assert shipped.find(card) is None


def test_the_first_pages_wait_for_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    assert {"what": "scores", **tables.scores_spec(state.HOME)} in shipped.SPECS
    for view in ("model", "inspect", "prune", "structure", "criteria", "lottery", "lessons"):
        assert not opened(view).exception
    waiting = [job.spec for job in Store().jobs("study", ("queued",))]
    # That of the share, which nobody can know before.
    assert [spec for spec in waiting if spec["what"] != "reconstruction"] == []
    opened("prune", r=state.encode(replace(state.HOME, criterion="taylor")))
    assert "scores" in {job.spec["what"] for job in Store().jobs("study", ("queued",))}


def test_a_study_that_is_recorded_is_a_finished_one(home: Path) -> None:
    store, spec = Store(), shipped.SPECS[0]
    id = shipped.submit(store, spec, "key")
    job = store.job(id)
    assert (job.state, job.started, job.folder.is_dir()) == ("finished", None, True)
    assert load_study(job.folder).data["name"] == "digits-cnn"
    assert json.loads((job.folder / "study.json").read_text())["what"] == "card"
    assert shipped.submit(store, spec, "key") == id, "once"
    (job.folder / "study.json").unlink()
    again = shipped.submit(store, spec, "key")
    assert again != id and store.job(again).state == "finished"
    assert store.claim(queues=("study",)) is None, "nothing is to be done"
