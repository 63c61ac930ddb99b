"""A model's card: its layers, what it costs and scores, and examples it gets right and wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning import coverage, registry
from pruning.evidence import evaluating
from pruning.measurement import macs, measure, output_shapes
from pruning.recipe import Recipe
from pruning.studies.weights import Arrays
from pruning.tasks import classifies
from pruning.training.recalibrate import norms
from pruning.types import EMBEDDINGS, RECURRENT, Batches, Workpiece, prunable
from pruning.units.layout import lay_out

SHOWN = 24
"""Examples on a card."""

LOOKED_AT = 512
"""Test examples that those are chosen from."""


def card(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: name, layers, norms (BatchNorm layers), fits (granularities that do not, and why),
    parameters, weights, measurement (on test), classes, validation (examples), labelled_random,
    notes; npz: images (n, H, W[, C]) or series (n, L) in [0, 1], targets, predicted,
    confidence (n,).
    """
    # Of a model, not of this machine: a card may be shipped, and no page shows its latency.
    measured = measure(work, latency=False)
    data = {
        "name": work.name,
        "layers": layers(work),
        "norms": len(norms(work.model)),
        "fits": without_units(work),
        "parameters": measured.parameters,
        "weights": measured.weights,
        "measurement": asdict(measured),
        "classes": list(work.classes),
        "validation": work.validation.examples if work.validation else None,
        "labelled_random": _random(spec["model"], work),
        "notes": _notes(work),
    }
    return data, examples(work.model, work.test) if work.test is not None else {}


def without_units(work: Workpiece) -> dict[str, str]:
    """Granularities that the model has no units of -> why, by its first layer."""
    reasons = {}
    for name in registry.names("granularity"):
        units = lay_out(Recipe(granularity=name), work)
        if not units.covered():
            reasons[name] = next(iter(units.kept_whole().values()))
    return reasons


def _random(model: str, work: Workpiece) -> bool:
    """Whether the weights are random: loading says so in the name, where it had no trained ones."""
    # An uploaded file may have any name, so that its name says nothing.
    return not model.startswith("upload:") and "random weights" in work.name


def layers(work: Workpiece) -> list[dict[str, Any]]:
    """Every prunable weight: name, kind, shape, weights, MACs of one example and output shape.

    MACs and output are None where the model has no example input, or the layer is not run.
    """
    macs_of: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    if work.example is not None:
        macs_of = macs(work.model, work.example)
        shapes = output_shapes(work.model, work.example)
    kinds = _kinds(work.model)
    return [
        {
            "name": name,
            "kind": kinds[name],
            "shape": list(weight.shape),
            "weights": weight.numel(),
            "macs": macs_of.get(name),
            "output": list(shapes[name]) if name in shapes else None,
        }
        for name, weight in prunable(work.model).items()
    ]


def _kinds(model: nn.Module) -> dict[str, str]:
    """Parameter name -> "conv", "depthwise", "linear", "attention", "recurrent" or "embedding"."""
    kinds = {}
    for path, module in model.named_modules():
        kind = "linear"
        if isinstance(module, nn.MultiheadAttention):
            kind = "attention"
        elif isinstance(module, RECURRENT):
            kind = "recurrent"
        elif isinstance(module, EMBEDDINGS):
            kind = "embedding"
        # Transposed convolutions too; pooling has a kernel, but no parameters.
        elif hasattr(module, "kernel_size"):
            groups = getattr(module, "groups", 1)
            each_channel = groups > 1 and groups == getattr(module, "in_channels", 0)
            kind = "depthwise" if each_channel else "conv"
        for name, _ in module.named_parameters(recurse=False):
            kinds[f"{path}.{name}" if path else name] = kind
    return kinds


# ---------------------------------------------------------------- examples


@torch.inference_mode()
def examples(model: nn.Module, data: Batches) -> Arrays:
    """Up to 24 examples: a third wrong ones, the surest first, then one of each class in turn.

    None where answers are not right or wrong, or there are several inputs to show.
    """
    sample = data.sample(LOOKED_AT)
    with evaluating(model):
        outputs = torch.cat([model(x) for x, _ in sample])
    if not classifies(outputs, sample.y) or isinstance(sample.x, tuple):
        return {}
    probabilities = outputs.softmax(1)
    confidence, predicted = (part.numpy() for part in probabilities.max(1))
    targets = sample.y.numpy()
    chosen = _pick(predicted, targets, confidence)
    return {
        **pictures(sample.x[torch.from_numpy(chosen)]),
        "targets": targets[chosen],
        "predicted": predicted[chosen],
        "confidence": confidence[chosen],
    }


def _pick(
    predicted: NDArray[Any], targets: NDArray[Any], confidence: NDArray[Any]
) -> NDArray[np.int64]:
    """Which examples to show, wrong ones first."""
    right = np.flatnonzero(predicted == targets)
    wrong = np.flatnonzero(predicted != targets)
    # People learn most from what is sure and wrong; more than a third where too few are right.
    surest = np.argsort(-confidence[wrong], kind="stable")
    wrong = wrong[surest][: max(SHOWN // 3, SHOWN - len(right))]
    earlier = np.zeros(len(targets), np.int64)  # how many of the same class come before
    for label in np.unique(targets[right]):
        same = right[targets[right] == label]
        earlier[same] = np.arange(len(same))
    right = right[np.lexsort((right, targets[right], earlier[right]))]
    return np.concatenate([wrong, right])[:SHOWN]


def pictures(x: Tensor) -> Arrays:
    """Inputs as people look at them, from the batch's range to [0, 1].

    x: (n, 1 or 3, H, W), (n, features) or any other. Returns images (n, H, W) or (n, H, W, 3), or
    series (n, L).
    """
    low, high = float(x.min()), float(x.max())
    # A batch of one value has no range.
    shown = ((x - low) / (high - low or 1.0)).float().numpy()
    if shown.ndim == 4 and shown.shape[1] == 3:
        return {"images": shown.transpose(0, 2, 3, 1)}
    # Of other numbers of channels, the first.
    if shown.ndim == 4:
        return {"images": shown[:, 0]}
    side = _square_side(shown[0].size)
    if shown.ndim == 2 and side:
        return {"images": shown.reshape(len(shown), side, side)}
    return {"series": shown.reshape(len(shown), -1)}


def _square_side(n: int) -> int:
    """The side of a square of n pixels, 0 when n is none: flat pictures are shown as pictures."""
    side = round(n**0.5)
    # Below 8 pixels a side it is more likely a table's row than a picture.
    return side if side * side == n and side >= 8 else 0


def _notes(work: Workpiece) -> list[str]:
    """What to know before one works with the model."""
    notes = coverage.notes(work.model)
    if work.test is None:
        notes.append(
            "This model has no data here: its structure and weights can be looked at and pruned, "
            "but its accuracy is not measured."
        )
    weights = prunable(work.model).values()
    zeros = sum(int((w.detach() == 0).sum()) for w in weights)
    total = sum(w.numel() for w in weights)
    if zeros > 0.01 * total:
        notes.append(f"{zeros / total:.0%} of its weights are zero already.")
    return notes
