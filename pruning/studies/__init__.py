"""Studies: what pages need to know of a model, worked out once by a worker and kept as plain numbers.

card: what the model is, layer by layer, with examples that it gets right and wrong
weights: how each layer's weights are distributed, as histograms, norms and pictures
scores: how a criterion ranks them, as the index that answers a slider (pruning.allocation.ranking.Ranking)
units: what a criterion says of a sample of units, by layer; truth: how the loss changes when one of those units of a layer is removed
structure: which channels live or die together, and what cannot go (pruning.studies.structure)
runtimes: how fast a run's model is in runtimes that take long to prepare, beside the dense one

The readers are in pruning.runs.results; they need no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning import registry
from pruning.allocation.ranking import Ranking
from pruning.analysis.criterion_check import EXAMPLES, Oracle, Question, sampled, unit_scores
from pruning.errors import RunError, UnknownName
from pruning.evidence import evaluating
from pruning.masks import covered, fit, kept_whole, rank
from pruning.measurement import macs, measure, output_shapes, time_in_onnx
from pruning.metrics import bin_counts, bin_edges
from pruning.recipe import Recipe
from pruning.structure.shrink import shrink
from pruning.studies.structure import structure
from pruning.training.recalibrate import norms
from pruning.types import Batches, Masks, Workpiece, prunable

Arrays = dict[str, NDArray[Any]]
Maker = Callable[[dict[str, Any], Workpiece], tuple[dict[str, Any], Arrays | Ranking]]
FinishedRun = Callable[[], tuple[Workpiece, Masks | None]]

SHOWN = 24
"""Examples on a card."""

PICTURE = 128
"""Pixels of the longer side of a weight matrix's picture, at most."""

FILTERS = 64

FARTHEST = 0.99
"""Sparsity that a slider may ask for; how far by_sensitivity measures for it."""


def make(
    spec: dict[str, Any], work: Workpiece, finished: FinishedRun | None = None
) -> tuple[dict[str, Any], Arrays | Ranking]:
    """The study that `spec` asks for: its plain data, and its arrays (a Ranking for "scores").

    finished: loads the model that the run spec["run"] ended with, and the run's masks where it
    left a compact model too; "runtimes" alone asks for it.
    Raises UnknownName for a study there is none of; RecipeError, ModelError or DataError from what it looks at.
    """
    kinds: dict[str, Maker] = {
        "card": card,
        "weights": weights,
        "scores": scores,
        "units": units,
        "truth": truth,
        "runtimes": partial(runtimes, finished=finished),
        "structure": structure,
    }
    if spec.get("what") not in kinds:
        raise UnknownName("study", spec.get("what"), kinds)
    data, arrays = kinds[spec["what"]](spec, work)
    return {"what": spec["what"], "model": spec["model"], **data}, arrays


# ---------------------------------------------------------------- card


def card(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: name, layers, norms (BatchNorm layers), fits, parameters, weights, measurement (on test), classes, labelled_random, notes;
    npz: images (n, H, W[, C]) or series (n, L) in [0, 1], targets, predicted, confidence (n,).
    """
    measured = measure(work)
    data = {
        "name": work.name,
        "layers": layers(work),
        "norms": len(norms(work.model)),
        "fits": fits(work),
        "parameters": measured.parameters,
        "weights": measured.weights,
        "measurement": asdict(measured),
        "classes": list(work.classes),
        "validation": len(work.validation.x) if work.validation else None,
        "labelled_random": _random(spec["model"], work),
        "notes": _notes(work),
    }
    return data, examples(work.model, work.test) if work.test is not None else {}


def fits(work: Workpiece) -> dict[str, str]:
    """Granularities that the model has no units of -> why, by its first layer."""
    found = {}
    for name in registry.names("granularity"):
        recipe = Recipe(granularity=name)
        if not covered(recipe, work):
            found[name] = next(iter(kept_whole(recipe, work).values()))
    return found


def _random(model: str, work: Workpiece) -> bool:
    """Whether the weights were drawn and not trained: loading says so in the name, where the trained ones could not be had."""
    return not model.startswith("upload:") and "random weights" in work.name


def layers(work: Workpiece) -> list[dict[str, Any]]:
    """Every prunable weight: name, kind, shape, weights, MACs of one example and output shape (None where it cannot be traced)."""
    traced = work.example is not None
    used = macs(work.model, work.example) if work.example is not None else {}
    shapes = output_shapes(work.model, work.example) if work.example is not None else {}
    kinds = _kinds(work.model)
    return [
        {
            "name": name,
            "kind": kinds[name],
            "shape": list(weight.shape),
            "weights": weight.numel(),
            "macs": used[name] if traced else None,
            "output": list(shapes[name]) if name in shapes else None,
        }
        for name, weight in prunable(work.model).items()
    ]


def _kinds(model: nn.Module) -> dict[str, str]:
    """Parameter name -> "conv", "depthwise", "linear" or "attention"."""
    found = {}
    for path, module in model.named_modules():
        kind = "linear"
        if isinstance(module, nn.MultiheadAttention):
            kind = "attention"
        elif hasattr(module, "kernel_size"):
            groups, channels = getattr(module, "groups", 1), getattr(module, "in_channels", 0)
            kind = "depthwise" if groups > 1 and groups == channels else "conv"
        for name, _ in module.named_parameters(recurse=False):
            found[f"{path}.{name}" if path else name] = kind
    return found


@torch.inference_mode()
def examples(model: nn.Module, data: Batches) -> Arrays:
    """Up to 24 examples: a third wrong answers, those the model is surest of, then right ones, one of each class in turn."""
    looked = data.head(512)
    with evaluating(model):
        out = torch.cat([model(x) for x, _ in looked]).softmax(1)
    confidence, predicted = out.max(1)
    chosen = _pick(predicted.numpy(), looked.y.numpy(), confidence.numpy())
    return {
        **_pictures(looked.x[torch.from_numpy(chosen)]),
        "targets": looked.y.numpy()[chosen],
        "predicted": predicted.numpy()[chosen],
        "confidence": confidence.numpy()[chosen],
    }


def _pick(
    predicted: NDArray[Any], targets: NDArray[Any], confidence: NDArray[Any]
) -> NDArray[np.int64]:
    """Which examples to show, wrong ones first."""
    right, wrong = np.flatnonzero(predicted == targets), np.flatnonzero(predicted != targets)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][
        : max(SHOWN // 3, SHOWN - len(right))
    ]
    turn = np.zeros(len(targets), np.int64)  # how many of the same class come before
    for label in np.unique(targets[right]):
        same = right[targets[right] == label]
        turn[same] = np.arange(len(same))
    right = right[np.lexsort((right, targets[right], turn[right]))]
    return np.concatenate([wrong, right])[:SHOWN]


def _pictures(x: Tensor) -> Arrays:
    """Inputs as people look at them: (n, H, W), (n, H, W, 3) or series (n, L), over the batch's range to [0, 1]."""
    low, high = float(x.min()), float(x.max())
    shown = ((x - low) / (high - low or 1.0)).numpy().astype(np.float32)
    if shown.ndim == 4 and shown.shape[1] == 3:
        return {"images": shown.transpose(0, 2, 3, 1)}
    if shown.ndim == 4:
        return {"images": shown[:, 0]}
    side = _square(shown[0].size)
    if shown.ndim == 2 and side:
        return {"images": shown.reshape(len(shown), side, side)}
    return {"series": shown.reshape(len(shown), -1)}


def _square(n: int) -> int:
    """The side of a square of n pixels, 0 when n is none: flat pictures are shown as pictures."""
    side = round(n**0.5)
    return side if side * side == n and side >= 8 else 0


def _notes(work: Workpiece) -> list[str]:
    """What to know before one works with the model."""
    found = []
    if work.test is None:
        found.append(
            "This model has no data here: its structure and weights can be looked at and pruned, but its accuracy is not measured."
        )
    zeros = sum(int((w.detach() == 0).sum()) for w in prunable(work.model).values())
    total = sum(w.numel() for w in prunable(work.model).values())
    if zeros > 0.01 * total:
        found.append(f"{zeros / total:.0%} of its weights are zero already.")
    return found


# ---------------------------------------------------------------- weights


def weights(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: for each layer name, shape, mean, std, zeros, finite; npz, by the layer's number i: edges_i (257,), counts_i (256,),
    picture_i (≤128, ≤128) mean |w|, norms_l1_i and norms_l2_i (outputs,); filters (n, h, w[, 3]) of the first convolution.
    """
    rows: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for i, (name, weight) in enumerate(prunable(work.model).items()):
        values = weight.detach().float()
        flat = values.numpy().reshape(len(values), -1)
        edges = bin_edges(flat)
        arrays |= {
            f"edges_{i}": edges,
            f"counts_{i}": bin_counts(flat, edges),
            f"picture_{i}": picture(flat),
            f"norms_l1_{i}": np.abs(flat).sum(1),
            f"norms_l2_{i}": np.sqrt(np.square(flat).sum(1)),
        }
        rows.append(_row(name, values))
    first = next(
        (
            w.detach().float()
            for w in prunable(work.model).values()
            if w.dim() == 4 and w.shape[2] > 1
        ),
        None,
    )
    if first is not None:
        arrays["filters"] = filters(first)
    return {"layers": rows, "names": [row["name"] for row in rows]}, arrays


def _row(name: str, values: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(values.shape),
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "zeros": int((values == 0).sum()),
        "finite": bool(torch.isfinite(values).all()),
    }


def picture(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """A weight matrix (out, in·k·k) as a picture of at most 128×128: each pixel the mean |w| of its patch."""
    return _pool(_pool(np.abs(matrix), 0), 1).astype(np.float32)


def _pool(values: NDArray[Any], axis: int) -> NDArray[Any]:
    size = values.shape[axis]
    if size <= PICTURE:
        return values
    starts = np.arange(PICTURE) * size // PICTURE
    widths = np.diff(np.append(starts, size))
    sums = np.add.reduceat(values, starts, axis=axis)
    return np.asarray(sums / (widths[:, None] if axis == 0 else widths))


def filters(weight: Tensor) -> NDArray[np.float32]:
    """The kernels of a convolution (out, in, h, w) as pictures: in colour where it sees three channels, else their first channel."""
    shown = weight[:FILTERS]
    return shown.permute(0, 2, 3, 1).numpy() if shown.shape[1] == 3 else shown[:, 0].numpy()


# ---------------------------------------------------------------- scores


def scores(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Ranking]:
    """npz: the Ranking. json: names, and the layers that this granularity leaves alone, with the reason."""
    fields = ("criterion", "options", "granularity", "granularity_options", "seed")
    measured = {name: spec[name] for name in ("scope", "exclude", "min_units") if name in spec}
    recipe = Recipe(
        model=spec["model"],
        sparsity=FARTHEST,
        **{name: spec[name] for name in fields if name in spec},
        **measured,
    )
    ranking = rank(recipe, work).ranking
    asked = {name: getattr(recipe, name) for name in fields}
    return {**asked, "names": ranking.names, "fixed": ranking.fixed}, ranking


# ---------------------------------------------------------------- truth


def _question(spec: dict[str, Any], *layers: str) -> Question:
    names = ("granularity", "granularity_options", "units", "seed")
    return Question(layers=layers, **{name: spec[name] for name in names if name in spec})


def units(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: names, of the layers that have units; fixed: layers that have none, with the reason; npz, by the layer's number i:
    scores_i (n,), as pruning would rank them, of the units that the truth of this layer is measured for.
    """
    question = _question(spec)
    recipe = question.recipe(spec["criterion"], spec.get("options"))
    chosen = sampled(work, question)
    scores = unit_scores(work, recipe, chosen)
    arrays: Arrays = {f"scores_{i}": np.array(scores[layer]) for i, layer in enumerate(chosen)}
    return {
        "criterion": spec["criterion"],
        "names": list(chosen),
        "fixed": fit(recipe, work)[1],
    }, arrays


def truth(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: layer, of (units that it has), examples, loss (of the whole model), seconds; npz: units (n,) their numbers,
    weights (n,) that go with each, change (n,) of the loss on validation data when that unit alone is removed.
    """
    layer, question = spec["layer"], _question(spec, spec["layer"])
    chosen = sampled(work, question)[layer]
    oracle, began = Oracle(work, question, spec.get("examples", EXAMPLES)), time.perf_counter()
    found = list(oracle.changes(layer, chosen))
    data = {
        "layer": layer,
        "of": oracle.count(layer),
        "examples": len(oracle.data.x),
        "loss": oracle.loss,
    }
    numbers, weights, changes = (np.array(column) for column in zip(*found, strict=True))
    return {**data, "seconds": time.perf_counter() - began}, {
        "units": numbers,
        "weights": weights,
        "change": changes,
    }


# ---------------------------------------------------------------- runtimes


def runtimes(
    spec: dict[str, Any], work: Workpiece, finished: FinishedRun | None
) -> tuple[dict[str, Any], Arrays]:
    """spec["run"]: the id of a finished run that started from `work`.

    json: dense, final and, where the run left one, compact: each a list of timings.
    """
    if finished is None:
        raise RunError("Runtimes are measured of a finished run: choose one.")
    final, masks = finished()
    works = {"dense": work, "final": final}
    if masks is not None and work.example is not None:
        works["compact"] = replace(work, model=shrink(final.model, masks, work.example))
    timed = dict(zip(works, time_in_onnx(list(works.values())), strict=True))
    return {
        "run": spec["run"],
        **{name: [asdict(one) for one in times] for name, times in timed.items()},
    }, {}
