"""Studies: what pages ask about a model, worked out once by a worker and kept as plain numbers.

card: what the model is, layer by layer, with examples that it gets right and wrong
weights: how each layer's weights are distributed, as histograms, norms and pictures
scores: how a criterion ranks units, as the index that answers a slider
units: what a criterion says of a sample of units; criterion_check: how the loss changes without one
profiles: what each unit of a layer responds to, and the loss without it
surgery: a recipe's pruning alone: accuracy on test examples, and which answers change
reconstruction: accuracy right after pruning, and with every layer solved anew
structure: which channels form a dependency group, and which cannot be removed
pair: two runs' answers to the same test examples
examples: some test examples as pictures
runtimes: how fast a run's model is in runtimes that take long to prepare, beside the dense one
alternatives: int8, half precision and a smaller dense network beside pruning; it trains, so that
    its worker's handler makes it, and can stop it

A study is plain data (study.json) and arrays (npz). The readers are in pruning.runs.results; they
need no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pruning.allocation.ranking import Ranking
from pruning.errors import UnknownName
from pruning.prepare import ready
from pruning.studies import (
    card,
    criterion_check,
    examples,
    pair,
    profiles,
    reconstruction,
    runtimes,
    scores,
    structure,
    surgery,
    weights,
)
from pruning.studies.runtimes import FinishedRun
from pruning.studies.weights import Arrays
from pruning.types import Workpiece

Study = Callable[[dict[str, Any], Workpiece], tuple[dict[str, Any], Arrays | Ranking]]


def kinds(finished: FinishedRun | None = None, cache: Path | None = None) -> dict[str, Study]:
    """Every study that `make` makes, by its name."""
    return {
        "card": card.card,
        "weights": weights.weights,
        "scores": partial(scores.scores, cache=cache),
        "units": criterion_check.units,
        "criterion_check": criterion_check.criterion_check,
        "profiles": profiles.profiles,
        "surgery": surgery.surgery,
        "examples": examples.examples,
        "pair": partial(pair.pair, finished=finished),
        "reconstruction": reconstruction.reconstruction,
        "runtimes": partial(runtimes.runtimes, finished=finished),
        "structure": structure.structure,
    }


def make(
    spec: dict[str, Any],
    work: Workpiece,
    finished: FinishedRun | None = None,
    cache: Path | None = None,
) -> tuple[dict[str, Any], Arrays | Ranking]:
    """The study that `spec` asks for: its plain data, and its arrays (a Ranking for "scores").

    finished: loads the model that a run ended with, and its masks where it left a compact model
    too; "runtimes" and "pair" ask for it. cache: a folder for measured allocation
    paths.
    Raises UnknownName for a study there is none of; RecipeError, ModelError or DataError from what
    it looks at.
    """
    studies = kinds(finished, cache)
    what = spec.get("what")
    if what not in studies:
        raise UnknownName("study", what, studies)
    # What was asked stands in the answer, so that its file can be read by itself.
    data, arrays = studies[what](spec, ready(work))
    return {"what": what, "model": spec["model"], **data}, arrays
