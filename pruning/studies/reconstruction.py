"""What a recipe's pruning does at once, and what reconstruction makes of it, on validation data."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from pruning.errors import NotCaptured
from pruning.masks import apply, intersect
from pruning.measurement import evaluate
from pruning.prepare import ready
from pruning.recipe import ONE_STEP, Recipe
from pruning.selection import choose, remove
from pruning.training.reconstruct import reconstruct
from pruning.types import Workpiece


def reconstruction(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], dict[str, Any]]:
    """json: accuracy on validation data (correct, total) of the `dense` network, as `pruned`, and
    `reconstructed` (None where `refused` says why not); `seconds` that reconstruction took; how
    many `layers` it solved, on how many `examples`.

    The same masks and weights as a run of this recipe in one step without training.
    Raises DataError without training or validation data.
    """
    recipe = Recipe(model=spec["model"], **{name: spec[name] for name in ONE_STEP if name in spec})
    data = work.need("train", "Reconstruction")
    work.need("validation", "The accuracy right after pruning")
    work = ready(work)
    plain = work.model
    model = copy.deepcopy(plain)
    pruned = replace(work, model=model)
    masks = choose(recipe, work)
    remove(recipe, pruned, masks)
    if work.masks:  # what an earlier run pruned stays pruned
        masks = intersect(masks, work.masks)
        apply(masks, model)
    result: dict[str, Any] = {
        "dense": _accuracy(work, work.reference.model),
        "pruned": _accuracy(work, model),
        "reconstructed": None,
        "refused": "",
    }
    start = time.perf_counter()
    try:
        report = reconstruct(model, plain, masks, data, work.example, seed=recipe.seed)
    except NotCaptured as error:
        return result | {"refused": str(error)}, {}
    return result | {
        "seconds": time.perf_counter() - start,
        "reconstructed": _accuracy(work, model),
        "layers": len(report.layers),
        "examples": report.examples,
    }, {}


def _accuracy(work: Workpiece, model: nn.Module) -> dict[str, int] | None:
    assert work.validation
    accuracy = evaluate(model, work.validation, work.loss, work.metric).accuracy
    return asdict(accuracy) if accuracy else None
