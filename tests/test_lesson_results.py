"""What lessons speak of is measured by one command: each experiment with each of its seeds, once;
the same command continues where it was interrupted.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard import figures, learning, lesson, lesson_results
from dashboard.views import _lesson_panel
from pruning.errors import RunError
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown
from pruning.storage import default_workspace
from pruning.sweeps import shipped

SHIPPED = [
    lesson.find(name) for name in lesson.names() if lesson.files()[name].parent == lesson.SHIPPED
]
TOY = """title = "A toy"
question = "What does half cost?"
minutes = 5
claims = ["half.accuracy > 0.5"]

[results.half]
recipe = { model = "digits-mlp", sparsity = 0.5, epochs = 1 }
seeds = 2

[results.same]
recipe = { model = "digits-mlp", sparsity = 0.5, epochs = 1, seed = 1 }
seeds = 1

[[step]]
title = "One"
text = "{half.accuracy}, {half.smaller}."
page = "prune"
recipe = "half"
"""


@pytest.mark.parametrize("shown", SHIPPED, ids=[one.name for one in SHIPPED])
def test_every_experiment_of_a_lesson_is_shipped_with_each_of_its_seeds(
    shown: lesson.Lesson,
) -> None:
    known = learning.results(shown)
    for name, experiment in shown.results.items():
        seeds = [recipe.seed for recipe in lesson_results.recipes(experiment)]
        assert seeds == list(range(experiment.recipe.seed, experiment.recipe.seed + len(seeds)))
        assert len(known.of[name]) == len(seeds) == experiment.seeds
        assert all(set(run) <= set(figures.FIGURES) for run in known.of[name])
    # A step that sets a preset and reveals numbers of it has them.
    for step in shown.steps:
        assert {*(step.reveal.results if step.reveal else ())} <= set(known.of)


def test_what_a_shipped_sweep_has_is_not_run_again() -> None:
    taken = [
        (shown, name, place, figures_of_sweep)
        for shown in SHIPPED
        for name, experiment in shown.results.items()
        for place, recipe in enumerate(lesson_results.recipes(experiment))
        if (figures_of_sweep := lesson_results.in_sweeps(recipe)) is not None
    ]
    assert taken and "digits-cnn" in shipped.names()
    for shown, name, place, values in taken:
        run = learning.results(shown).of[name][place]
        known = {figure: value for figure, value in values.items() if value is not None}
        assert run == pytest.approx(known, rel=1e-6)


def test_a_lesson_of_ones_own_is_measured_from_end_to_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted before its first run, it is continued by the same command; equal ones are one."""
    handlers: dict[int, Callable[..., None]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    file = default_workspace() / lesson.OWN / "toy.toml"
    file.parent.mkdir(parents=True)
    file.write_text(TOY, encoding="utf-8")
    shown, folder = lesson.find("toy"), home / "runs"
    assert learning.results(shown) == learning.NO_RESULTS
    command = ["toy", "--folder", str(folder)]

    interrupted = Shutdown()
    interrupted.request()
    monkeypatch.setattr(lesson_results, "Shutdown", lambda: interrupted)
    assert lesson_results.main(command) == 130
    assert "the same command continues" in capsys.readouterr().out
    monkeypatch.setattr(lesson_results, "Shutdown", Shutdown)
    assert lesson_results.main(command) == 0
    assert set(handlers) == {signal.SIGINT, signal.SIGTERM}

    runs = Store(folder).jobs("run", ("finished",))
    assert sorted(run.spec["seed"] for run in runs) == [0, 1]
    known = learning.results(shown)
    assert [len(known.of[name]) for name in ("half", "same")] == [2, 1]
    assert known.of["same"][0] == known.of["half"][1]
    assert known.machine["threads"] == 1 and known.date
    measured = learning.means(known)
    assert all(lesson.holds(claim, measured) for claim in shown.claims)
    assert "not measured" not in lesson.fill(shown.steps[0].text, measured)

    # Of a recipe that was changed since, there are none.
    file.write_text(TOY.replace("0.5, epochs = 1 }", "0.6, epochs = 1 }"), encoding="utf-8")
    assert set(learning.results(lesson.find("toy")).of) == {"same"}
    assert json.loads(learning.file_of("toy").read_text(encoding="utf-8"))["results"]["half"]


def test_what_cannot_be_measured_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lesson.read(TOY, "toy")
    with pytest.raises(RunError, match="has no result: it was not run"):
        lesson_results.write(Store(home), shown)
    assert lesson_results.main(["no-such-lesson", "--folder", str(home)]) == 2
    assert "no lesson 'no-such-lesson'" in capsys.readouterr().err


def test_a_table_says_over_how_many_runs_it_is() -> None:
    shown = lesson.Reveal("", ("one", "three"), ("accuracy",))
    runs = {"one": [{"accuracy": 0.5}], "three": [{"accuracy": 0.5}] * 3}
    text = _lesson_panel.seeds(shown, learning.Results("", {}, runs))
    assert text.startswith("Means of 3 runs") and "(One: 1 run)" in text.replace("\u00a0", " ")
    alone = lesson.Reveal("", ("one",), ("accuracy",))
    assert _lesson_panel.seeds(alone, learning.Results("", {}, runs)) == "One run each."
