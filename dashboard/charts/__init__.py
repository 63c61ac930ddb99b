"""Every chart of the page, for a notebook: a DataFrame in, a plotly figure out. No Streamlit.

    from dashboard.charts import improvements_of_run

    events = list(pruning.run(recipe, work))
    improvements_of_run(pruning.frame(events))

The modules beside this one draw for the page, from typed values to plain dicts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What type checkers see; while running, __getattr__ finds the same names by the table below.
    from dashboard.charts.check_frames import (
        criterion_agreement,
        criterion_layers,
        criterion_ranking,
        criterion_scores,
    )
    from dashboard.charts.run_frames import (
        accuracy_against_cost,
        curves,
        improvements_of_run,
        improvements_of_runs,
        lottery_rounds,
        mask_overlap,
        sensitivity_curves,
        sensitivity_map,
    )
    from dashboard.charts.sweep_frames import sweep_picture, sweep_ranks
    from dashboard.charts.weight_frames import (
        all_layers,
        before_after,
        dependency_groups,
        filters,
        histogram,
        matrix,
        score_histogram,
        unit_norms,
    )

MODULES = {
    "accuracy_against_cost": "run_frames",
    "all_layers": "weight_frames",
    "before_after": "weight_frames",
    "criterion_agreement": "check_frames",
    "criterion_layers": "check_frames",
    "criterion_ranking": "check_frames",
    "criterion_scores": "check_frames",
    "curves": "run_frames",
    "dependency_groups": "weight_frames",
    "filters": "weight_frames",
    "histogram": "weight_frames",
    "improvements_of_run": "run_frames",
    "improvements_of_runs": "run_frames",
    "lottery_rounds": "run_frames",
    "mask_overlap": "run_frames",
    "matrix": "weight_frames",
    "score_histogram": "weight_frames",
    "sensitivity_map": "run_frames",
    "sensitivity_curves": "run_frames",
    "sweep_picture": "sweep_frames",
    "sweep_ranks": "sweep_frames",
    "unit_norms": "weight_frames",
}
"""Public name -> the module that holds it; plotly loads with the first of them."""

# A literal, because tools that do not run the code read it; a test compares it with the table.
__all__ = [
    "accuracy_against_cost",
    "all_layers",
    "before_after",
    "criterion_agreement",
    "criterion_layers",
    "criterion_ranking",
    "criterion_scores",
    "curves",
    "dependency_groups",
    "filters",
    "histogram",
    "improvements_of_run",
    "improvements_of_runs",
    "lottery_rounds",
    "mask_overlap",
    "matrix",
    "score_histogram",
    "sensitivity_curves",
    "sensitivity_map",
    "sweep_picture",
    "sweep_ranks",
    "unit_norms",
]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'dashboard.charts' has no attribute {name!r}")
    return getattr(import_module(f"dashboard.charts.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
