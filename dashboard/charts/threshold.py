"""The threshold of a layer's weights as a handle: all that moves with it, for every stop. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dashboard import words
from dashboard.charts.base import readable_bins, rebin
from dashboard.charts.inspect import Inspection
from dashboard.charts.preview import StopTable, dial


def handle(shown: Inspection, layer: str, table: StopTable, *, log: bool) -> dict[str, Any]:
    """The data of the handle: the layer's histogram, and for each stop of the recipe's share the
    threshold on |w|, what is kept of every layer, and the file.

    Exact: the numbers are the dial's, and the threshold at a stop is the score of the last weight
    pruned there. Raises KeyError for a layer without scores.
    """
    assert shown.ranking is not None
    data = dial(table, shown.ranking, shown.recipe, layer)
    edges, counts = shown.histogram(layer)
    edges, counts = rebin(edges, counts, readable_bins(int(counts.sum())))
    at = [name for name, _ in data["names"]].index(layer)
    scores = shown.ranking.units[layer]
    total = data["totals"][at]
    return {
        "name": words.layer_name(layer),
        "edges": [float(edges[0]), float(edges[-1])],
        "counts": counts.tolist(),
        "log": log,
        "thresholds": [_threshold(shown, scores, total - kept[at]) for kept in data["kept"]],
        "at": at,
        **{key: data[key] for key in ("index", "stops", "names", "totals", "kept", "low")},
        "labels": {kind: data["labels"][kind] for kind in ("stops", "weights", "bytes")},
        "beside": {kind: data["beside"][kind] for kind in ("weights", "bytes")},
    }


def _threshold(shown: Inspection, scores: Any, pruned: int) -> float:
    """|w| at or below which weights are pruned; 0 where none are."""
    if not pruned:
        return 0.0
    score = float(np.asarray(scores)[pruned - 1])
    # Five digits: more do not show, and thresholds are sent for every stop.
    return float(f"{math.sqrt(score) if shown.squared else score:.5g}")
