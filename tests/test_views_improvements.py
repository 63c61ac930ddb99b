"""The result panel on the page: the shipped run, and ONNX Runtime when somebody asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import figures, opened, settle, settled, texts
from streamlit.testing.v1 import AppTest

from pruning.runs import pool
from pruning.runs.store import Store


@pytest.fixture
def result(home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The Prune page with the shipped run open."""

    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    opened("model")  # an empty workspace is given the example
    return settled("prune", run=Store().jobs("run")[0].id)


def test_a_result_lists_improvements_and_what_did_not_improve(result: AppTest) -> None:
    assert not result.exception
    text = texts(result).replace("\\", "")
    assert "**Improvements**" in text and "**No improvement**" in text
    assert "Accuracy kept: +0.6 points" in text
    assert "PyTorch's dense kernels do not skip them" in text
    assert "Single weights leave no tensor smaller" in text
    assert "control: two timings of the same dense model differed by at most" in text
    shown = figures(result)
    assert any(
        title.startswith("File 8.") and title.endswith("smaller; not faster") for title in shown
    )
    assert "Answers, with 95 % intervals" in shown


def test_onnx_runtime_is_timed_when_asked_for_and_then_stands_on_every_page(
    result: AppTest,
) -> None:
    (button,) = [button for button in result.button if button.label == "Time it in ONNX Runtime"]
    page = button.click().run()
    assert "Exporting the models" in texts(page)
    page = settle(page)
    assert not [button for button in page.button if button.label == "Time it in ONNX Runtime"]
    (ratios,) = [figure for title, figure in figures(page).items() if title.startswith("File ")]
    assert {"ONNX Runtime, 1 example", "ONNX Runtime, 32 examples"} <= set(
        ratios["layout"]["yaxis"]["ticktext"]
    )
    compare = settled("compare")
    (improvements,) = [
        figure for title, figure in figures(compare).items() if title.startswith("Improvements")
    ]
    assert "ONNX Runtime, 1 example" in improvements["layout"]["yaxis"]["ticktext"]
