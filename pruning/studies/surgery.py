"""Surgery: the model right after a recipe's pruning, beside the dense one, on test examples."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruning.masks import apply, sparsity
from pruning.measurement.quality import answered, classes_predicted, logits
from pruning.prepare import ready
from pruning.recipe import ONE_STEP, Recipe
from pruning.selection import choose, remove
from pruning.studies.card import pictures
from pruning.studies.weights import Arrays
from pruning.types import Workpiece

PICTURED = 24
"""Test examples whose answers changed that are shown, at most."""


def surgery(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """spec: what decides what a recipe prunes in one step (`ONE_STEP`).

    json: `dense` and `pruned`, each with accuracy (correct, total; None without classes), loss and
    score on test data; `sparsity` of all weights, `seconds`; npz: targets, before and after (n,) of
    all test examples, where answers are classes; flipped (k,) numbers of the first whose answer is
    another, the wrong ones first, and images or series of those.
    As a run of this recipe in one step measures it, before anything is trained. Raises DataError.
    """
    recipe = Recipe(model=spec["model"], **{name: spec[name] for name in ONE_STEP if name in spec})
    test = work.need("test", "The accuracy without these units")
    work = ready(work)
    start = time.perf_counter()
    pruned = replace(work, model=copy.deepcopy(work.model))
    masks = choose(recipe, work)
    remove(recipe, pruned, masks)
    if work.masks:  # what an earlier run pruned stays pruned
        apply(work.masks, pruned.model)
    outputs = [logits(one.model, test) for one in (work, pruned)]
    dense, after = (answered(one, test, work.loss, work.metric) for one in outputs)
    data = {
        "dense": _quality(dense),
        "pruned": _quality(after),
        "sparsity": sparsity(masks),
    }
    before, now = (classes_predicted(one, test, work.metric) for one in outputs)
    arrays: Arrays = {}
    if before is not None and now is not None:
        arrays = {
            "targets": test.y.cpu().numpy(),
            "before": before.numpy(),
            "after": now.numpy(),
        }
        flipped = _flipped(**arrays)[:PICTURED]
        arrays["flipped"] = flipped
        if len(flipped) and not isinstance(test.x, tuple):
            arrays |= pictures(test.x[torch.from_numpy(flipped)].cpu())
    return data | {"seconds": time.perf_counter() - start}, arrays


def _quality(quality: Any) -> dict[str, Any]:
    return {
        "accuracy": asdict(quality.accuracy) if quality.accuracy else None,
        "loss": quality.loss,
        "score": asdict(quality.score) if quality.score else None,
    }


def _flipped(
    targets: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of the examples that are answered otherwise: those now wrong, now right, others."""
    changed = np.flatnonzero(before != after)
    now_wrong = before[changed] == targets[changed]
    now_right = after[changed] == targets[changed]
    rank = np.where(now_wrong, 0, np.where(now_right, 1, 2))
    return changed[np.argsort(rank, kind="stable")]
