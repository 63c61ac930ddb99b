"""Structure: the page says which channels go together, and why others cannot."""

from __future__ import annotations

import json

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
from tests.pages import figures, said, settled
from tests.toys import toy


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def told(work: Workpiece) -> dict:
    """The study, as its file gives it back."""
    return json.loads(json.dumps(structure({}, work)[0]))


def test_the_page_shows_the_groups_that_the_engine_found():
    page = settled("structure")
    assert not page.exception and not page.error
    work = sample_models.load("digits-cnn")
    groups = dependency_graph(work.model, work.example).groups
    (title,) = figures(page)
    assert f"{len(groups)} groups" in title
    assert [option for option in page.selectbox[0].options] == [
        group.name.removesuffix(".weight") for group in groups
    ]
    assert f"{groups[0].units} channels.** Each of the {groups[0].units} channels takes" in said(
        page
    )
    assert "What cannot go, and why" in said(page)


def test_a_picked_layer_shows_the_group_of_its_outputs():
    page = settled("structure", layer="conv2.weight")
    assert page.selectbox[0].value == "conv2.weight"
    table = page.dataframe[-2].value
    assert table.iloc[0]["parameter"] == "conv2.weight" and table.iloc[0]["dimension"] == "outputs"


def test_a_residual_group_is_one_line_with_a_mark_for_each_layer():
    data = told(toy("residual"))
    figure = charts.lanes(data, "first.weight", dark=False)
    line, read, made = figure["data"]
    assert line["x"] == [0, 2]  # from the first layer to the head that reads it
    assert made["x"] == [0, 1] and read["x"] == [1, 2]
    assert "first: 6 channels, outputs of second" in made["text"][1]
    assert (
        charts.found(data)
        == "3 layers, 1 group: 0 hold one layer's outputs, the largest those of 2"
    )
    assert charts.of_layer(data, "second.weight") == ["first.weight"]
    assert "Each of the 6 channels takes" in charts.touches(data["groups"][0])


def test_what_cannot_go_is_told_with_operation_and_shapes():
    rows = charts.blocked(told(toy("attention")))
    assert set(rows["layer"]) and all(rows["why"])
    head = rows[(rows["layer"] == "head") & rows["what"].str.contains("outputs")].iloc[0]
    assert head["operation"] == "output" and head["what"] == "3 of 3 outputs"


def test_large_models_draw_a_line_for_each_group():
    model = torchvision.models.resnet50(weights=None).eval()
    work = Workpiece("resnet50", model, example=torch.randn(1, 3, 64, 64))
    data = told(work)
    figure = charts.lanes(data, data["groups"][0]["name"], dark=True)
    assert figure["layout"]["height"] < 1100 and len(figure["layout"]["xaxis"]["tickvals"]) <= 27
    assert len(figure["data"]) == 3 * len(data["groups"])


def test_a_model_that_cannot_be_followed_says_so():

    data = told(Workpiece("branching", branching(), example=torch.randn(1, 4)))
    assert "if x.sum() > 0" in data["refused"] and not data["groups"]
    assert "no example input" in told(Workpiece("bare", branching()))["refused"]
    assert charts.found(data) == "No channel of this model can go on its own"


def test_a_certificate_is_told_with_what_it_kept():
    said = Certificate(
        3e-16,
        1e-9,
        ("a", "b", "c"),
        0.9,
        95,
        192,
        56250,
        14370,
        (Frozen("conv.weight", 2, "it moves"),),
        ("aux.weight",),
    )
    text = charts.certified(said)
    assert (
        "without 95 of 192 units, 14,370 of 56,250 parameters" in text
        and "to 3e-16 of the largest answer" in text
    )
    assert (
        "conv kept 2 units as zeros: it moves." in text
        and "1 parameter that only training uses went too." in text
    )
