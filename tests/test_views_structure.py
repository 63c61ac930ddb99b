"""The Structure page: dependency groups, and why other channels cannot be pruned."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torchvision

import sample_models
from dashboard.charts import structure as charts
from pruning.events import Certificate, Frozen
from pruning.runs import pool
from pruning.structure.dependency_graph import dependency_graph
from pruning.studies.structure import structure
from pruning.types import Workpiece
from tests.nets import branching
from tests.pages import figures, settled, texts
from tests.toys import toy


@pytest.fixture(autouse=True)
def no_workers(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def study_data(work: Workpiece) -> dict:
    """The study, as its file gives it back."""
    return json.loads(json.dumps(structure({}, work)[0]))


def test_the_page_shows_the_groups_that_the_engine_found():
    page = settled("structure")
    assert not page.exception and not page.error
    work = sample_models.load("digits-cnn")
    groups = dependency_graph(work.model, work.example).groups
    (title,) = figures(page)
    assert f"{len(groups)} groups" in title
    names = [group.name.removesuffix(".weight") for group in groups]
    assert list(page.selectbox[0].options) == names
    assert f"Each of the {groups[0].units} channels" in texts(page)
    assert tuple(page.dataframe[-1].value) == charts.BLOCKED_COLUMNS


def test_a_picked_layer_shows_the_group_of_its_outputs():
    page = settled("structure", layer="conv2.weight")
    assert page.selectbox[0].value == "conv2.weight"
    first = page.dataframe[-2].value.iloc[0]
    assert (first["parameter"], first["dimension"]) == ("conv2.weight", "outputs")


def test_a_residual_group_is_one_line_with_a_mark_for_each_layer():
    data = study_data(toy("residual"))
    figure = charts.lanes(data, "first.weight", dark=False)
    line, read, made = figure["data"]
    assert line["x"] == [0, 2]  # from the first layer to the head that reads it
    assert made["x"] == [0, 1] and read["x"] == [1, 2]
    assert "first: 6 channels, outputs of second" in made["text"][1]
    expected = "3 layers, 1 group, the largest over the outputs of 2 layers"
    assert charts.finding(data) == expected
    assert charts.groups_of_layer(data, "second.weight") == ["first.weight"]
    assert "Each of the 6 channels" in charts.removal_effect(data["groups"][0])


def test_what_cannot_be_pruned_is_listed_with_operation_and_shapes():
    rows = charts.blocked_table(study_data(toy("attention")))
    assert set(rows["layer"]) and all(rows["why"])
    head = rows[(rows["layer"] == "head") & rows["what"].str.contains("outputs")].iloc[0]
    assert head["operation"] == "output" and head["what"] == "3 of 3 outputs"


def test_large_models_draw_a_line_for_each_group():
    model = torchvision.models.resnet50(weights=None).eval()
    data = study_data(Workpiece("resnet50", model, example=torch.randn(1, 3, 64, 64)))
    figure = charts.lanes(data, data["groups"][0]["name"], dark=True)
    assert figure["layout"]["height"] < 1100 and len(figure["layout"]["xaxis"]["tickvals"]) <= 27
    assert len(figure["data"]) == 3 * len(data["groups"])


def test_a_model_that_cannot_be_traced_says_so():
    data = study_data(Workpiece("branching", branching(), example=torch.randn(1, 4)))
    assert "if x.sum() > 0" in data["refused"] and not data["groups"]
    assert "no example input" in study_data(Workpiece("bare", branching()))["refused"]
    assert charts.finding(data) == "No channel of this model can be pruned on its own"


def test_a_certificate_in_words_says_what_was_kept_and_what_removed():
    certificate = Certificate(
        error=3e-16,
        limit=1e-9,
        checks=("a", "b", "c"),
        control=0.9,
        removed=95,
        units=192,
        parameters=56250,
        kept=14370,
        frozen=(Frozen("conv.weight", 2, "it moves"),),
        unused=("aux.weight",),
    )
    text = charts.certificate_in_words(certificate)
    assert "without 95 of 192 units, 14,370 of 56,250 parameters" in text
    assert "to 3e-16 of the largest output" in text
    assert "conv kept 2 units as zeros: it moves." in text
    assert "1 parameter that only training uses" in text
    assert "It holds" not in text and "in double precision" in text
    text = charts.certificate_in_words(
        replace(certificate, sizes="3 × 8 × 8 alone, for x", checks=("a, in its own precision",))
    )
    assert "It holds for inputs of 3 × 8 × 8 alone, for x." in text
    assert "in its own precision (" in text
