"""A notebook's side of the engine: progress bar, tables, DataFrames, every chart of the page."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from safetensors.numpy import load_file

import pruning
from dashboard import charts, example
from pruning import events, frames, progress
from pruning.analysis.criterion_check import CheckedUnit
from pruning.errors import DataError
from pruning.events import Accuracy, Event, Finished, Point, Ticket
from pruning.recipe import Recipe
from pruning.structure.groups import Group, Member
from pruning.sweeps import shipped
from tests import notebook
from tests.test_house import ROOT
from tests.toys import toy

LINES = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
RUN: list[Event] = [events.from_json(line) for line in LINES]
"""Of the run that ships with the page."""
END = next(event for event in RUN if isinstance(event, Finished))

POINTS: list[Event] = [
    Point(layer, level, 10, 5, "exact", Accuracy(90 - lost, 100), 0.3, 0.2, lost, 1, (-0.1, 0.02))
    for layer in ("a", "b")
    for level, lost in ((0.5, 2), (0.9, 30))
]
TICKETS: list[Event] = [
    Ticket(step, 2, kind, 1 - 0.5**step, 10, Accuracy(95 - step, 100), 0.1, None, 0.6)
    for step, kind in ((0, "dense"), (1, "ticket"), (1, "random_mask"), (2, "ticket"))
]
UNITS = [
    CheckedUnit(layer, i, 9, 0.1 * i - 0.2, {"magnitude": float(i), "random": float(i * 7 % 5)})
    for layer in ("a", "b")
    for i in range(12)
]


# ---------------------------------------------------------------- events as a table


@pytest.mark.parametrize("these", [RUN, POINTS, TICKETS], ids=["run", "points", "tickets"])
def test_events_survive_the_table(these: list[Event]) -> None:
    table = pruning.frame(these)
    assert len(table) == len(these)
    assert frames.events_in(table) == these


def test_an_accuracy_is_a_share_with_its_interval() -> None:
    row = pruning.frame(POINTS).iloc[0]
    assert (row["event"], row["layer"], row["accuracy"]) == ("point", "a", 0.88)
    assert (row["accuracy.correct"], row["accuracy.total"]) == (88, 100)
    assert row["accuracy.low"] < 0.88 < row["accuracy.high"]
    assert pruning.frame(UNITS)["scores.random"].tolist()[:3] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("table", "way_out"),
    [
        (pd.DataFrame({"x": [1]}), r"pruning\.frame"),
        (pd.DataFrame({"event": ["pint"]}), "known are started"),
        (pd.DataFrame({"event": ["notice"], "text": [3.5]}), "`text` cannot hold 3.5"),
        (pd.DataFrame({"event": ["epoch"], "step": [1]}), "`epoch` cannot hold None"),
        (
            pruning.frame(POINTS).assign(**{"accuracy.correct": "many"}),
            "`accuracy.correct` cannot hold 'many'",
        ),
    ],
)
def test_other_tables_are_refused_in_words(table: pd.DataFrame, way_out: str) -> None:
    with pytest.raises(DataError, match=way_out):
        charts.sensitivity_map(table)


def test_weights_have_their_places_and_masks() -> None:
    work = toy("residual")
    masks = pruning.choose(Recipe(sparsity=0.5), work)
    table = frames.weights(work.model, masks)
    parameters = dict(work.model.named_parameters())
    assert 0.4 < table["kept"].mean() < 0.6
    for at in (0, len(table) // 2, len(table) - 1):
        row = table.iloc[at]
        place = [int(row[name]) for name in frames.PLACES if not pd.isna(row[name])]
        weight = parameters[row["layer"]]
        assert weight[tuple(place)].item() == pytest.approx(row["weight"])
        assert bool(masks[row["layer"]][tuple(place)]) == row["kept"]


# ---------------------------------------------------------------- the progress bar


class Bar:
    """What tqdm would be asked for."""

    def __init__(self, unit: str) -> None:
        self.unit, self.n, self.total, self.lines = unit, 0, None, list[str]()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.append("closed")

    def reset(self, total: int | None) -> None:
        self.total = total  # type: ignore[assignment]

    def update(self) -> None:
        self.n += 1

    def set_description_str(self, text: str) -> None:
        self.lines.append(text)

    set_postfix_str = set_description_str


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    made: list[Bar] = []
    monkeypatch.setattr(progress, "tqdm", lambda unit: made.append(Bar(unit)) or made[-1])
    return made


def test_a_run_is_watched_and_its_events_pass_unchanged(bars: list[Bar]) -> None:
    *before, result = pruning.watch(RUN)
    assert [*before, result] == RUN
    epochs = sum(isinstance(event, events.Epoch) for event in RUN)
    (bar,) = bars
    assert (bar.n, bar.total, bar.unit) == (epochs, epochs, "epoch")
    assert f"test accuracy {END.final.accuracy.text}" in bar.lines  # type: ignore[union-attr]
    assert bar.lines[-1] == "closed"


def test_without_epochs_steps_are_counted_and_of_a_map_its_cells(bars: list[Bar]) -> None:
    untrained = [
        dataclasses.replace(event, epochs=0) if isinstance(event, events.Started) else event
        for event in RUN
        if not isinstance(event, events.Epoch)
    ]
    steps = sum(isinstance(event, events.Pruned) for event in untrained)
    assert list(pruning.watch(untrained)) == untrained
    assert list(pruning.watch(POINTS)) == POINTS
    assert [(bar.n, bar.unit) for bar in bars] == [(steps, "step"), (4, "cell")]


def test_the_real_bar_ends_with_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.watch(RUN)) == RUN
    assert "finished: 100%" in capsys.readouterr().err


# ---------------------------------------------------------------- results show themselves


def test_results_show_themselves_as_small_tables() -> None:
    table = END._repr_html_()
    assert END.final.accuracy.text in table and "<th" in table  # type: ignore[union-attr]
    assert table.count("<tr>") < 20
    assert f"{END.dense.weights:,}" in END.dense._repr_html_()
    assert "0.35" in Recipe(sparsity=0.35)._repr_html_()


def test_what_others_named_is_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    assert hostile not in Recipe(model=hostile)._repr_html_()
    assert "&lt;img" in Recipe(model=hostile)._repr_html_()


# ---------------------------------------------------------------- every chart of the page


def of_runs() -> pd.DataFrame:
    return pd.concat([pruning.frame(RUN).assign(run=name) for name in ("a", "b")])


def of_weights() -> pd.DataFrame:
    work = toy("residual")
    table = frames.weights(work.model, pruning.choose(Recipe(sparsity=0.5), work))
    return table.assign(dense=table["weight"], score=table["weight"].abs())


GROUPS = [
    Group("a.weight", "channels", 8, (Member("a.weight", 0, 1), Member("b.weight", 1, 1))),
    Group("b.weight", "channels", 4, (Member("b.weight", 0, 1), Member("c.weight", 1, 9))),
]


def of_sweep() -> pd.DataFrame:
    sweep = shipped.find("digits-mlp")
    assert sweep is not None
    return pd.DataFrame(sweep.rows)


DRAWN: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any]]] = {
    "accuracy_against_cost": (of_runs, {"cost": "bytes"}),
    "all_layers": (of_weights, {}),
    "before_after": (of_weights, {}),
    "criterion_agreement": (lambda: pruning.frame(UNITS), {}),
    "criterion_layers": (lambda: pruning.frame(UNITS), {}),
    "criterion_ranking": (lambda: pruning.frame(UNITS), {"layer": "b"}),
    "criterion_scores": (lambda: pruning.frame(UNITS), {"criterion": "random"}),
    "curves": (lambda: pruning.frame(RUN), {}),
    "dependency_groups": (lambda: pruning.frame(GROUPS), {"group": "a.weight"}),
    "filters": (of_weights, {}),
    "histogram": (of_weights, {}),
    "improvements_of_run": (lambda: pruning.frame(RUN), {}),
    "improvements_of_runs": (of_runs, {}),
    "lottery_rounds": (lambda: pruning.frame(TICKETS), {}),
    "mask_overlap": (lambda: pruning.frame(TICKETS), {}),
    "matrix": (of_weights, {}),
    "score_histogram": (of_weights, {}),
    "sensitivity_curves": (lambda: pruning.frame(POINTS), {}),
    "sensitivity_map": (lambda: pruning.frame(POINTS), {}),
    "sweep_picture": (of_sweep, {"cost": "bytes"}),
    "sweep_ranks": (of_sweep, {}),
    "unit_norms": (of_weights, {}),
}
"""Chart -> a DataFrame that it draws, and its other arguments."""


@pytest.mark.parametrize("name", charts.__all__)
def test_every_chart_takes_a_frame_and_gives_a_figure(name: str) -> None:
    make, others = DRAWN[name]
    draw = getattr(charts, name)
    first = next(iter(inspect.signature(draw).parameters.values()))
    assert (first.name, first.annotation) == ("frame", "pd.DataFrame")
    table = make()
    before = table.copy()
    for dark in (False, True):
        figure = draw(table, **others, dark=dark)
        assert isinstance(figure, go.Figure)
        drawn = [trace.z if trace.type == "heatmap" else trace.y for trace in figure.data]
        assert any(values is not None and len(values) for values in drawn)
        assert figure.layout.title.text
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("name", charts.__all__)
def test_a_chart_says_what_its_frame_lacks(name: str) -> None:
    others = {key: value for key, value in DRAWN[name][1].items() if key == "criterion"}
    with pytest.raises(DataError, match=r"DataFrame"):
        getattr(charts, name)(pd.DataFrame({"x": [1.0]}), **others)


def test_public_charts_are_no_modules_and_the_list_is_whole() -> None:
    assert sorted(charts.__all__) == sorted(charts.MODULES) == sorted(DRAWN)
    modules = {file.stem for file in (ROOT / "dashboard" / "charts").glob("*.py")}
    assert not modules & set(charts.__all__), "an import of the module would hide the chart"
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        charts.pie  # noqa: B018


def test_charts_come_without_streamlit_and_torch() -> None:
    script = (
        "import sys; from dashboard.charts import *; import pruning; pruning.frame; pruning.watch; "
        "assert not {'streamlit', 'torch', 'starlette'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the notebook of the README's tour


def test_the_notebook_takes_a_network_to_a_compact_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ten cells, in a namespace of their own; what they give is what the file shows."""
    file = ROOT / "dashboard" / "examples" / "dense_to_compact.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    # A sentence before each cell.
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code"] * 10
    assert file.stat().st_size < 100_000
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        outputs = notebook.run({"cells": copy.deepcopy(cells)}, pictures=False)
    gave = [[sorted(one.get("data", {"stream": 0})) for one in several] for several in outputs]
    shown = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert len(gave) == len(shown) == 10
    for now, before in zip(gave, shown, strict=True):
        kinds = [sorted(output.get("data", {"stream": 0})) for output in before]
        # Pictures of charts are for readers where nothing runs.
        assert now == [[kind for kind in output if kind != "image/png"] for output in kinds]
    home = tmp_path / "my_net"
    assert {"model.py", "model.safetensors", "bundle.zip"} <= {each.name for each in home.iterdir()}
    compact = sum(values.size for values in load_file(home / "model.safetensors").values())
    assert 1_000 < compact < 0.7 * 6_186, "parameters, of those that the second cell counts"
