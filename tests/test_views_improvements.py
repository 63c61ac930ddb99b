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
    """The shipped run's own page."""

    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    opened("model")  # an empty workspace is given the example
    return settled("run", run=Store().jobs("run")[0].id)


def test_a_result_shows_improvements_and_folds_what_did_not_improve(result: AppTest) -> None:
    assert not result.exception
    (title,) = figures(result)
    assert title.startswith("File 7.") and title.endswith("smaller; not faster")
    folded = {
        box.label.replace("\\", ""): str(box.markdown[0].value)
        for box in result.expander
        if box.markdown
    }
    assert "PyTorch's dense kernels do not skip them" in folded["Speed in PyTorch"]
    assert "Single weights leave no tensor smaller" in folded["Compact model"]
    text = texts(result).replace("\\", "")
    assert "control: two timings of the same dense model differed by at most" in text


def test_onnx_runtime_is_timed_when_asked_for_and_then_stands_on_every_page(
    result: AppTest,
) -> None:
    (button,) = [button for button in result.button if button.label == "Time it in ONNX Runtime"]
    page = button.click().run()
    assert "Exporting the models" in texts(page)
    page = settle(page)
    assert not [button for button in page.button if button.label == "Time it in ONNX Runtime"]
    (ratios,) = [figure for title, figure in figures(page).items() if title.startswith("File ")]
    assert {"speed: ONNX Runtime, 1 example", "speed: ONNX Runtime, 32 examples"} <= set(
        ratios["layout"]["yaxis"]["ticktext"]
    )
    compare = settled("compare")
    (improvements,) = [
        figure for title, figure in figures(compare).items() if title.startswith("Improvements")
    ]
    assert "ONNX Runtime, 1 example" in improvements["layout"]["yaxis"]["ticktext"]
