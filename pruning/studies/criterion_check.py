"""The criterion check: what a criterion says of units, and the loss change when one is left out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pruning.analysis.criterion_check import EXAMPLES, Check, LeaveOneOut, sampled, unit_scores
from pruning.studies.weights import Arrays
from pruning.types import Workpiece
from pruning.units.layout import lay_out


def units(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: criterion, names (layers that have units), fixed (layers that have none -> why); npz,
    by the layer's number i: scores_i (n,), as pruning ranks them, of the layer's sampled units.
    """
    check = _check(spec)
    recipe = check.recipe(spec["criterion"], spec.get("options"))
    # The sample depends on the seed alone, so that it is the one that criterion_check measures.
    sample = sampled(work, check)
    scores = unit_scores(work, recipe, sample)
    arrays: Arrays = {}
    for i, layer in enumerate(scores):
        arrays[f"scores_{i}"] = np.array(scores[layer])
    data = {
        "criterion": spec["criterion"],
        "names": list(scores),
        "fixed": lay_out(recipe, work).fixed,
    }
    return data, arrays


def criterion_check(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: layer, of (units that it has), examples, loss (of the whole model), seconds; npz:
    units (n,) their numbers, weights (n,) that are removed with each, change (n,) of the loss on
    validation data when that unit alone is removed.
    """
    layer = spec["layer"]
    check = _check(spec, layer)
    sample = sampled(work, check)[layer]
    start = time.perf_counter()
    leave_one_out = LeaveOneOut(work, check, spec.get("examples", EXAMPLES))
    changes = list(leave_one_out.changes(layer, sample))
    # One row a unit, three columns.
    columns = zip(*changes, strict=True)
    data = {
        "layer": layer,
        "of": leave_one_out.size(layer),
        "examples": leave_one_out.data.examples,
        "loss": leave_one_out.loss,
        "seconds": time.perf_counter() - start,
    }
    names = ("units", "weights", "change")
    return data, {name: np.array(column) for name, column in zip(names, columns, strict=True)}


def _check(spec: dict[str, Any], *layers: str) -> Check:
    names = ("granularity", "granularity_options", "units", "seed")
    asked = {name: spec[name] for name in names if name in spec}
    return Check(layers=layers, **asked)
