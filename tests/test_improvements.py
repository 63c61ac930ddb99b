"""The result panel: what counts as an improvement, and the reason where there is none."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest

from dashboard import tables, words
from dashboard.charts import (
    compare,
    compare_improvements,
    improvement_charts,
    improvements,
    reasons,
    results,
)
from dashboard.charts.compare import ComparedRun
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
from pruning.recipe import Recipe


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
    Size(162_000, 162_000, 140_000, 161_400),
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
    size=Size(162_000, 22_600, 17_300, 19_000),
    energy=Energy(2_760_000, 441_600),
    timings=(timing("torch", 0.10, 0.99), timing("torch CSR", 0.12, 0.83)),
    paired=Paired(352, 3, 1, 4),
    behaviour=Behaviour(Accuracy(1000, 1000), Accuracy(320, 360), 0.3, Spread(0.04, 0.05, 0.06)),
)


def panel_of(
    end: Finished, structured: bool = False, **onnx_timings: tuple[Timing, ...]
) -> ResultPanel:
    return improvements.against_dense(end, structured=structured, onnx_timings=onnx_timings)


def run(final: Measurement = MASKED, dense: Measurement = DENSE) -> Finished:
    return Finished(final.sparsity, dense, None, final, 3.0)


def not_improved(panel: ResultPanel) -> list[str]:
    return [f"{line.what}. {line.why}" for line in improvements.not_improved(panel)]


def row(panel: ResultPanel, name: str) -> FigureRow:
    return next(row for row in panel.rows if row.name == name)


def test_improvements_are_listed_with_their_amount() -> None:
    lines = improvements.improved(panel_of(run()))
    assert lines[0] == "Accuracy kept: +0.6 points (−0.7 to +1.8), within the interval"
    assert "File: 7.2× smaller" in lines  # 162,000 / 22,600
    assert "Bytes, compressed: 8.1× less" in lines  # 140,000 / 17,300
    assert "Operations, zeros skipped: 6.2× less, modelled" in lines
    assert not [line for line in lines if "PyTorch" in line or "memory" in line]


@pytest.mark.parametrize(
    "start, reason",
    [
        ("PyTorch, 1 example: 0.99× as fast (0.98× to 1.00×). ", "Zeros are multiplied like any"),
        ("PyTorch sparse, 1 example: 0.83× as fast", "index for each value"),
        ("Weights in memory: no less. ", "PyTorch holds a zero in four bytes"),
        ("Operations as run: no less. ", "PyTorch multiplies zeros too"),
        ("Calibration error: −3.0 points", "confidence"),
    ],
)
def test_no_improvement_has_its_reason(start: str, reason: str) -> None:
    (line,) = [line for line in not_improved(panel_of(run())) if line.startswith(start)]
    assert reason in line


def test_every_figure_that_did_not_improve_has_one_sentence_why() -> None:
    for each in panel_of(run()).rows:
        for improvement in each.improvements.values():
            assert improvement.verdict == "better" or improvement.why.endswith("."), each.name


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("can_continue", [False, True])
def test_what_a_stopped_run_lacks_has_the_stop_as_its_reason(
    structured: bool, can_continue: bool
) -> None:
    """It said that the run was old, or without data: it was stopped, and nothing was timed."""
    why = reasons.why_stopped(can_continue)
    assert "stopped" in why and "Run again" in why and ("Continue" in why) == can_continue
    quick = {"memory": None, "energy": None, "timings": (), "behaviour": None}
    end = run(replace(MASKED, **quick), replace(DENSE, **quick))
    panel = improvements.against_dense(end, structured=structured, unmeasured=why)
    missing = [line for line in improvements.not_improved(panel) if "not measured" in line.what]
    assert {line.why for line in missing} == {why}
    assert any(line.names.startswith("Speed in PyTorch") for line in missing)
    assert not [line for line in not_improved(panel) if reasons.NOT_IN_THIS_RUN in line]
    assert (panel.absent["compact"] == why) == structured
    assert improvement_charts.timing_protocol(end, None, why).endswith(why)
    assert improvement_charts.title(panel).endswith("speed not measured")
    # Drawn all the same: a bar for what was measured, none for what was not.
    assert improvement_charts.picture(panel, dark=False)["data"]


def test_macs_that_belong_to_no_weight_are_shown_where_there_are_some() -> None:
    plain, attending = (
        run(replace(MASKED, macs_other=n), replace(DENSE, macs_other=n)) for n in (0, 9_000)
    )
    recipe = Recipe(sparsity=0.9)
    for end in (plain, attending):
        rows = results.stage_table(end, recipe).set_index("measured")["pruned"]
        compared = ComparedRun("a", "A", "magnitude", recipe, end)
        (line,) = compare.run_table([compared], compared).to_dict("records")
        assert line["MACs"] == 96_000
        if end is plain:
            assert rows["MACs"] == "96.0 k" and results.WHOLE_MACS not in (*rows.index, *line)
        else:
            assert rows["MACs of these weights"] == "96.0 k"
            assert rows[results.WHOLE_MACS] == "105 k" and line[results.WHOLE_MACS] == 105_000


def test_no_verdict_where_the_control_fails() -> None:
    panel = panel_of(run(replace(MASKED, timings=(timing("torch", 0.05, 2.0, control=0.08),))))
    improvement = row(panel, "PyTorch, 1 example").improvements["masked"]
    assert improvement.verdict == "no verdict"
    assert "the very same model differed by 8 %" in improvement.why
    assert improvement_charts.title(panel) == "File 7.2× smaller; no verdict on speed"
    assert "PyTorch, 1 example" not in "\n".join(improvements.improved(panel))


def test_runtimes_measured_apart_stand_with_the_others_and_say_why_they_were_not() -> None:
    why = Timing("ONNX Runtime", 1, 1, why="It could not be exported by torch.onnx (ExportError).")
    panel = panel_of(
        run(),
        dense=(timing("ONNX Runtime", 0.04, None),),
        masked=(timing("ONNX Runtime", 0.04, 1.0),),
    )
    assert row(panel, "ONNX Runtime, 1 example").improvements["masked"].verdict == "same"
    panel = panel_of(run(), dense=(why,), masked=(why,))
    expected = f"ONNX Runtime, 1 example: not measured. {why.why}"
    assert expected in not_improved(panel)


def test_channels_that_are_only_masked_say_what_would_make_them_fast() -> None:
    lines = not_improved(panel_of(run(), structured=True))
    assert "only a compact model leaves them out" in "\n".join(lines)
    why = panel_of(run()).absent["compact"]
    assert why == "Single weights leave no tensor smaller: a compact model would be the masked one."
    why = panel_of(run(replace(MASKED, kept=40_000))).absent["compact"]
    assert why == "Nothing was pruned: a compact model would be the dense one."


def test_a_compact_model_stands_beside_the_masked_one() -> None:
    end = run()
    compact = replace(MASKED, memory=Memory(40_000, 10_000), timings=(timing("torch", 0.05, 2.0),))
    object.__setattr__(end, "compact", compact)
    panel = panel_of(end, structured=True)
    assert panel.states == ("dense", "masked", "compact") and panel.absent == {}
    assert row(panel, "weights in memory").improvements["compact"].verdict == "better"
    lines = improvements.improved(panel)
    assert "PyTorch, 1 example: 2.0× as fast (2.0× to 2.0×)" in lines
    title = improvement_charts.title(panel)
    assert title == "File 7.2× smaller; 2.0× as fast (PyTorch, 1 example)"
    shown = improvement_charts.table(panel).set_index("figure")
    assert shown.loc["weights in memory", "masked"] == "161 kB"
    assert shown.loc["weights in memory", "compact"] == "40.0 kB"


def test_what_one_takes_away_is_the_compact_model() -> None:
    """Pictures, sentences and large numbers are of it; the masked one is a column of the table."""
    masked = replace(MASKED, latency=Latency(1.75, 1.7, 1.8, 1, 1, 30))
    compact = replace(
        MASKED,
        kept=3_900,
        size=Size(16_000, 16_000, 15_000, 15_400),
        memory=Memory(40_000, 10_000),
        latency=Latency(1.48, 1.4, 1.5, 1, 1, 30),
        timings=(timing("torch", 1.48, 1.3),),
    )
    end = replace(run(masked), compact=compact)
    assert end.deliverable is compact and run(masked).deliverable is masked
    tiles = {label: value for label, value, _ in results.final_tiles(end)}
    assert tiles["Weights, compact"] == "3.9 k"
    assert tiles["File, compact"] == "16.0 kB"
    assert tiles["Memory, compact"] == "40.0 kB"
    assert tiles["Latency, compact"] == "1.48 ms"
    assert ("weights", "40.0 k", "3.9 k") in tables.headline(end)
    compared = ComparedRun("id", "A", "label", Recipe(granularity="channel"), end)
    (line,) = compare.run_table([compared], compared).to_dict("records")
    assert (line["weights"], line["latency"]) == (3_900, words.ms(compact.latency))
    panel = panel_of(end, structured=True)
    ratios = improvement_charts.picture(panel, dark=False)["data"][0]
    assert ratios["x"][0] + 1 == pytest.approx(40_000 / 3_900)
    assert "1.30×" in improvement_charts.title(panel)


def test_no_two_marks_of_the_picture_share_a_row() -> None:
    """A number lies on no other mark: one in a row, beyond its bar or interval."""
    compact = replace(MASKED, memory=Memory(40_000, 10_000), timings=(timing("torch", 0.05, 2.0),))
    for end in (run(), replace(run(), compact=compact)):
        bars, numbers, intervals, changes = improvement_charts.picture(
            panel_of(end, structured=True), dark=False
        )["data"]
        assert bars["y"] == numbers["y"] and len(set(bars["y"])) == len(bars["y"])
        for left, width, text in zip(bars["base"], bars["x"], numbers["x"], strict=True):
            assert text > max(left, left + width)
        assert len(set(changes["y"])) == len(changes["y"])
        ends = [x + up for x, up in zip(intervals["x"], intervals["error_x"]["array"], strict=True)]
        assert min(changes["x"]) > max(ends)


def test_a_run_from_before_these_figures_is_shown_as_not_measured() -> None:
    old = {"memory": None, "energy": None, "timings": (), "behaviour": None, "paired": None}
    before = replace(DENSE, size=Size(162_000, 162_000, 140_000), **old)  # type: ignore[arg-type]
    after = replace(MASKED, size=Size(162_000, 22_600, 17_300), **old)  # type: ignore[arg-type]
    panel = panel_of(run(after, before))
    assert row(panel, "weights in memory").cells == {
        "dense": "not measured",
        "masked": "not measured",
    }
    assert "speed not measured" in improvement_charts.title(panel)
    for dark in (False, True):
        assert improvement_charts.picture(panel, dark=dark)["data"]
    assert "run again" in "\n".join(not_improved(panel))


def test_without_data_answers_are_not_measured() -> None:
    bare = {"accuracy": None, "behaviour": None, "paired": None}
    panel = panel_of(run(replace(MASKED, **bare), replace(DENSE, **bare)))  # type: ignore[arg-type]
    assert row(panel, "accuracy on test data").cells["masked"] == "not measured"
    assert improvement_charts.picture(panel, dark=False)["data"][2]["x"] == []


def test_the_table_is_in_words_and_the_file_has_raw_numbers() -> None:
    panel = panel_of(run())
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
    file = shown.set_index("figure").loc["file"]
    assert (file["dense"], file["masked"]) == ("162 kB", "22.6 kB")
    assert (file["change"], file["verdict"]) == ("7.2× smaller", "improved")
    raw = pd.read_csv(io.BytesIO(improvement_charts.csv(panel))).set_index(["figure", "state"])
    assert raw.loc[("file", "masked"), "value"] == 22_600
    assert raw.loc[("entropy limit of independent positions", "masked"), "value"] == 19_000
    assert raw.loc[("PyTorch, 1 example", "masked"), "from"] == pytest.approx(0.99 * 0.99)


def test_several_runs_stand_together_each_against_its_own_dense_model() -> None:
    fast = replace(MASKED, timings=(timing("torch", 0.05, 2.0),))
    runs = [
        RunImprovements("A", "magnitude", panel_of(run())),
        RunImprovements("B", "random", panel_of(run(fast))),
    ]
    assert compare_improvements.finding(runs) == "Improvements: B faster than dense"
    assert compare_improvements.finding(runs[:1]) == "Improvements: none is faster than dense"
    shown = compare_improvements.table(runs).set_index("figure")
    assert shown.loc["PyTorch, 1 example", "A"] == "0.99× as fast (0.98× to 1.00×)"
    assert shown.loc["PyTorch, 1 example", "B"] == "2.0× as fast (2.0× to 2.0×)"
    assert shown.loc["PyTorch sparse, 1 example", "B"] == "not measured"
    figure = compare_improvements.chart(runs, dark=True)
    assert [trace["text"][0] for trace in figure["data"]] == ["A 10×", "B 10×"]
