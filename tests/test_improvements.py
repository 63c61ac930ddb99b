"""The result panel: what counts as an improvement, and the reason where there is none."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest

from dashboard.charts import compare_improvements, improvement_charts, improvements
from dashboard.charts.compare_improvements import RunImprovements
from dashboard.charts.improvements import FigureRow, ResultPanel
from pruning.events import Finished
from pruning.metrics import (
    Accuracy,
    Behaviour,
    Energy,
    Latency,
    Measurement,
    Memory,
    Paired,
    Size,
    Spread,
    Timing,
)


def timing(
    runtime: str, ms: float, speedup: float | None, *, control: float | None = 0.01, batch: int = 1
) -> Timing:
    spread = Spread(speedup * 0.99, speedup, speedup * 1.01) if speedup else None
    return Timing(
        runtime, batch, 1, Latency(ms, ms * 0.98, ms * 1.02, 1, batch, 30), spread, control
    )


DENSE = Measurement(
    Accuracy(353, 360),
    0.05,
    40_000,
    40_000,
    40_200,
    600_000,
    600_000,
    Size(162_000, 162_000, 140_000, 161_500, 161_400),
    None,
    (),
    Memory(161_000, 20_000),
    Energy(2_760_000, 2_760_000),
    (timing("torch", 0.10, None),),
    Behaviour(Accuracy(1000, 1000), Accuracy(340, 360), 0.3, Spread(0.01, 0.02, 0.03)),
)
MASKED = replace(
    DENSE,
    accuracy=Accuracy(355, 360),
    kept=4_000,
    macs_kept=96_000,
    size=Size(162_000, 22_600, 17_300, 19_200, 19_000),
    energy=Energy(2_760_000, 441_600),
    timings=(timing("torch", 0.10, 0.99), timing("torch CSR", 0.12, 0.83)),
    paired=Paired(352, 3, 1, 4),
    behaviour=Behaviour(Accuracy(1000, 1000), Accuracy(320, 360), 0.3, Spread(0.04, 0.05, 0.06)),
)


def read(
    end: Finished, structured: bool = False, **onnx_timings: tuple[Timing, ...]
) -> ResultPanel:
    return improvements.against_dense(end, structured=structured, onnx_timings=onnx_timings)


def run(final: Measurement = MASKED, dense: Measurement = DENSE) -> Finished:
    return Finished(final.sparsity, dense, None, final, 3.0)


def line(panel: ResultPanel, name: str) -> FigureRow:
    return next(line for line in panel.rows if line.name == name)


def test_what_came_is_told_with_how_much() -> None:
    said = improvements.improved(read(run()))
    assert said[0] == "Accuracy kept: +0.6 points (−0.7 to +1.8), within the interval"
    assert "File: 8.4× smaller" in said  # 162,000 / 19,200
    assert "Bytes, compressed: 8.1× less" in said  # 140,000 / 17,300
    assert "Operations, zeros skipped: 6.2× less, modelled" in said
    assert not [text for text in said if "PyTorch" in text or "memory" in text]


def test_every_absent_gain_has_one_sentence_why() -> None:
    panel = read(run())
    said = improvements.not_improved(panel)
    assert (
        "PyTorch, 1 example: 0.99× as fast (0.98× to 1.00×). Zeros are multiplied like any number: "
        in "\n".join(said)
    )
    assert any(
        text.startswith(
            "Weights in memory: no less. At run time PyTorch holds a zero in four bytes"
        )
        for text in said
    )
    assert any(
        text.startswith("PyTorch sparse, 1 example: 0.83× as fast")
        and "index for each value" in text
        for text in said
    )
    assert any(
        text.startswith("Operations as run: no less. PyTorch multiplies zeros too") for text in said
    )
    assert any(
        text.startswith("Calibration error: −3.0 points") and "confidence" in text for text in said
    )
    for each in panel.rows:
        for gain in each.improvements.values():
            assert gain.verdict == "better" or gain.why.endswith("."), each.name


def test_no_verdict_where_the_control_fails() -> None:
    panel = read(run(replace(MASKED, timings=(timing("torch", 0.05, 2.0, control=0.08),))))
    gain = line(panel, "PyTorch, 1 example").improvements["masked"]
    assert gain.verdict == "no verdict"
    assert "the very same model differed by 8 %" in gain.why
    assert improvement_charts.title(panel) == "File 8.4× smaller; no verdict on speed"
    assert "PyTorch, 1 example" not in "\n".join(improvements.improved(panel))


def test_runtimes_measured_apart_stand_with_the_others_and_say_why_they_were_not() -> None:
    why = Timing("ONNX Runtime", 1, 1, why="It could not be exported by torch.onnx (ExportError).")
    panel = read(
        run(),
        dense=(timing("ONNX Runtime", 0.04, None),),
        masked=(timing("ONNX Runtime", 0.04, 1.0),),
    )
    assert line(panel, "ONNX Runtime, 1 example").improvements["masked"].verdict == "same"
    panel = read(run(), dense=(why,), masked=(why,))
    assert any(
        text == f"ONNX Runtime, 1 example: not measured. {why.why}"
        for text in improvements.not_improved(panel)
    )


def test_channels_that_are_only_masked_say_what_would_make_them_fast() -> None:
    assert "only a compact model leaves them out" in "\n".join(
        improvements.not_improved(read(run(), structured=True))
    )
    assert read(run()).absent == {
        "compact": "Single weights leave no tensor smaller: a compact model would be the masked one."
    }
    assert "training from scratch" not in read(run(replace(MASKED, kept=40_000))).absent["compact"]
    assert read(run(replace(MASKED, kept=40_000))).absent == {
        "compact": "Nothing was removed: a compact model would be the dense one."
    }


def test_a_compact_model_stands_beside_the_masked_one() -> None:
    end = run()
    compact = replace(MASKED, memory=Memory(40_000, 10_000), timings=(timing("torch", 0.05, 2.0),))
    object.__setattr__(end, "compact", compact)
    panel = read(end, structured=True)
    assert panel.states == ("dense", "masked", "compact") and panel.absent == {}
    assert line(panel, "weights in memory").improvements["compact"].verdict == "better"
    assert "PyTorch, 1 example, compact: 2.0× as fast (2.0× to 2.0×)" in improvements.improved(
        panel
    )
    assert improvement_charts.title(panel) == "File 8.4× smaller; 2.0× as fast (PyTorch, 1 example)"
    assert (
        len(
            [
                trace
                for trace in improvement_charts.ratios(panel, dark=False)["data"]
                if trace["type"] == "bar"
            ]
        )
        == 2
    )


def test_a_run_from_before_these_figures_is_shown_as_not_measured() -> None:
    old = {"memory": None, "energy": None, "timings": (), "behaviour": None, "paired": None}
    dense = replace(DENSE, size=Size(162_000, 162_000, 140_000), **old)  # type: ignore[arg-type]
    panel = read(run(replace(MASKED, size=Size(162_000, 22_600, 17_300), **old), dense))  # type: ignore[arg-type]
    assert line(panel, "weights in memory").cells == {
        "dense": "not measured",
        "masked": "not measured",
    }
    assert improvement_charts.title(
        panel
    ) == "File no smaller; speed not measured" or "speed not measured" in improvement_charts.title(
        panel
    )
    for dark in (False, True):
        assert (
            improvement_charts.ratios(panel, dark=dark)["data"]
            and improvement_charts.points(panel, dark=dark)["data"]
        )
    assert "run again" in "\n".join(improvements.not_improved(panel))


def test_without_data_answers_are_not_measured() -> None:
    bare = {"accuracy": None, "behaviour": None, "paired": None}
    panel = read(run(replace(MASKED, **bare), replace(DENSE, **bare)))  # type: ignore[arg-type]
    assert line(panel, "accuracy on test data").cells["masked"] == "not measured"
    assert improvement_charts.points(panel, dark=False)["data"][0]["x"] == []


def test_the_table_is_the_twin_and_the_file_has_raw_numbers() -> None:
    panel = read(run())
    shown = improvement_charts.table(panel)
    assert list(shown) == ["aspect", "figure", "dense", "masked", "compact", "change", "verdict"]
    assert list(shown["aspect"].drop_duplicates()) == [
        "Accuracy",
        "Size",
        "Memory",
        "Speed",
        "Energy",
        "Bandwidth",
        "Generalisation",
    ]
    row = shown.set_index("figure").loc["file"]
    assert (row["dense"], row["masked"], row["change"], row["verdict"]) == (
        "162 kB",
        "19.2 kB",
        "8.4× smaller",
        "improved",
    )
    raw = pd.read_csv(io.BytesIO(improvement_charts.csv(panel))).set_index(["figure", "state"])
    assert raw.loc[("file", "masked"), "value"] == 19_200
    assert raw.loc[("entropy limit of the file", "masked"), "value"] == 19_000
    assert raw.loc[("PyTorch, 1 example", "masked"), "from"] == pytest.approx(0.99 * 0.99)


def test_several_runs_stand_together_each_against_its_own_dense_model() -> None:
    fast = replace(MASKED, timings=(timing("torch", 0.05, 2.0),))
    runs = [
        RunImprovements("A", "magnitude", read(run())),
        RunImprovements("B", "random", read(run(fast))),
    ]
    assert compare_improvements.finding(runs) == "Improvements: B faster than dense"
    assert compare_improvements.finding(runs[:1]) == "Improvements: none is faster than dense"
    shown = compare_improvements.table(runs).set_index("figure")
    assert (shown.loc["PyTorch, 1 example", "A"], shown.loc["PyTorch, 1 example", "B"]) == (
        "0.99× as fast (0.98× to 1.00×)",
        "2.0× as fast (2.0× to 2.0×)",
    )
    assert shown.loc["PyTorch sparse, 1 example", "B"] == "not measured"
    figure = compare_improvements.chart(runs, dark=True)
    assert [trace["text"][0] for trace in figure["data"]] == ["A 10×", "B 10×"]
