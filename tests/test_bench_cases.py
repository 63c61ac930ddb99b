"""Every case of `run.py bench engine`: both sides give equal results, on tiny models. No times."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from bench import _cases
from bench.engine import all_cases, all_growth, page

from tests.long_forms import in_part

# One of each kind: what differs between networks is measured, not asserted.
CASES = {case.name.rsplit(", ", 1)[0]: case for case in reversed(all_cases())}
# Each starts four processes: one shows that they work.
GROWTHS = {growth.name: growth for growth in all_growth()[:1]}


EACH_TIME = ["choose weight 0.5", "choose channel, first in a process", "lottery", "fine-tune"]
EACH_TIME += ["shrink with certificate", "slider to masks, resnet50"]


@pytest.mark.parametrize("name", in_part(CASES, EACH_TIME))
def test_both_give_equal_results(name: str) -> None:
    _cases.check(CASES[name])


@pytest.mark.parametrize("name", GROWTHS)
def test_growth_is_measured_at_four_sizes(name: str) -> None:
    line = _cases.grow(GROWTHS[name], quick=True)
    weights = line.split(" | ")[1].split(" / ")
    assert len(weights) == 4


def test_a_difference_is_an_error() -> None:
    def same(ours: int, theirs: int) -> None:
        assert ours == theirs

    def prepare(quick: bool) -> _cases.Trial:
        return _cases.Trial(lambda: 1, lambda: 2, same)

    case = _cases.Case("off by one", "two", prepare, 1, 2, "1×")
    with pytest.raises(AssertionError):
        _cases.check(case)
    with pytest.raises(AssertionError):
        _cases.measure(case, rounds=1)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [((1.0, 1.0, 1.0), "goal met"), ((1.5,) * 3, "gate met"), ((4.0,) * 3, "missed")],
)
def test_verdict_is_by_the_median_ratio(ours: tuple[float, ...], verdict: str) -> None:
    case = _cases.Case("a", "b", lambda quick: None, 2, 3, "1×")  # type: ignore[arg-type,return-value]
    timed = _cases.Timed(ours, ours, (3.0, 3.0, 30.0))
    assert _cases.verdict(case, timed) == verdict
    assert case.name in page("today.", [_cases.row(case, timed)], [])


def test_a_control_off_one_makes_a_ratio_uncertain() -> None:
    case = _cases.Case("a", "b", lambda quick: None, 2, 3, "1×")  # type: ignore[arg-type,return-value]
    timed = _cases.Timed((1.0,) * 3, (1.2,) * 3, (3.0,) * 3)
    assert "uncertain" in _cases.verdict(case, timed)


BENCHES = sorted(Path(__file__).with_name("bench").glob("*.py"))


@pytest.mark.parametrize("file", BENCHES, ids=lambda file: file.stem)
def test_a_benchmark_imports_only_names_that_there_are(file: Path) -> None:
    """They run seldom: a name that moved would be noticed when somebody waits for its table."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if not node.module.startswith(
                ("pruning", "sample_models", "dashboard", "bench", "e2e")
            ):
                continue
            module = importlib.import_module(node.module)
            for name in node.names:
                known = hasattr(module, name.name)
                if not known:  # a submodule is no attribute until it is imported
                    importlib.import_module(f"{node.module}.{name.name}")
