"""Profiles of units: what each unit of a layer responds to, class by class, and the leave-one-out
loss and accuracy without it.

The loss change is the criterion check's own, to the bit. What it responds to is the layer's output
as it is, before a norm or an activation function that follows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pruning.analysis.criterion_check import EXAMPLES, Check, LeaveOneOut, sampled
from pruning.evidence.attention import no_fused_attention
from pruning.tasks import classifies, hits
from pruning.types import Batches, Workpiece
from pruning.units.layout import Units

MAP = 16
"""Pixels of the longer side of an activation map, at most."""

TOP = 5
"""Test examples that excite a unit most."""

MAPPED = 5
"""Test examples on which activation maps are shown: one of a class."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
"""Layers whose output has a place for each row of the weight."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WithoutUnits:
    """The model without each of some units alone, on validation examples.

    change: (n,) of the loss, signed, NaN where the time was over before; weights: (n,) removed with
    each; right: (n, classes) answers of each class that are right, -1 where not measured; dense,
    total: (classes,) of the whole model, and of how many. None of a task without classes.
    """

    units: list[int]
    change: Array
    weights: NDArray[np.int64]
    right: NDArray[np.int64] | None
    dense: NDArray[np.int64] | None
    total: NDArray[np.int64] | None
    examples: int
    loss: float

    @property
    def measured(self) -> int:
        """Units that the time was enough for."""
        return int(np.isfinite(self.change).sum())


def without_units(
    work: Workpiece,
    check: Check,
    order: Callable[[list[int]], Sequence[int]] = sorted,
    *,
    seconds: float = math.inf,
    examples: int = EXAMPLES,
) -> WithoutUnits:
    """Leave each unit of the check's one layer out, as long as the time lasts.

    order: of the units, in which they are measured. Raises as `criterion_check` does.
    """
    (layer,) = check.layers
    chosen = sampled(work, check)[layer]
    start = time.perf_counter()
    measurer = LeaveOneOut(work, check, examples)
    targets = measurer.data.y
    of_classes = classifies(measurer.dense[0], targets)
    classes = measurer.dense[0].shape[1] if of_classes else 0
    place = {unit: i for i, unit in enumerate(chosen)}
    change = np.full(len(chosen), np.nan)
    weights = np.zeros(len(chosen), np.int64)
    right = np.full((len(chosen), classes), -1, np.int64)
    for unit, removed, outputs in measurer.without(layer, order(chosen)):
        at = place[unit]
        change[at] = measurer.mean_loss(outputs) - measurer.loss
        weights[at] = removed
        right[at] = _right_by_class(outputs, targets, classes)
        # At least one: it says how long the others take.
        if time.perf_counter() - start > seconds:
            break
    return WithoutUnits(
        units=chosen,
        change=change,
        weights=weights,
        right=right if of_classes else None,
        dense=_right_by_class(measurer.dense, targets, classes) if of_classes else None,
        total=np.bincount(targets.cpu().numpy(), minlength=classes) if of_classes else None,
        examples=measurer.data.examples,
        loss=measurer.loss,
    )


def _right_by_class(outputs: list[Tensor], targets: Tensor, classes: int) -> NDArray[np.int64]:
    """(classes,) right answers of each class; none of a task without classes."""
    if not classes:
        return np.zeros(0, np.int64)
    right = targets[hits(torch.cat(outputs), targets)]
    return np.bincount(right.cpu().numpy(), minlength=classes)


# ---------------------------------------------------------------- what a unit responds to


@dataclass(frozen=True)
class Responses:
    """Of a layer's units. mean: (n, classes) mean response to each class of validation examples;
    top: (n, TOP) numbers of the test examples with the highest peak, the highest first; peaks: the
    same shape, those peaks; shown: (m,) test examples with maps; maps: (n, m, high, wide).
    """

    mean: Array
    top: NDArray[np.int64]
    peaks: Array
    shown: NDArray[np.int64]
    maps: NDArray[np.float32]


def responses(
    work: Workpiece, units: Units, layer: str, chosen: list[int], examples: int = EXAMPLES
) -> Responses | str:
    """What units of a layer respond to; a clause where that cannot be shown.

    chosen: numbers of units of the layer's set. A unit of several outputs (a head) responds with
    their norm. Raises DataError without validation or test data.
    """
    model = copy.deepcopy(work.model).eval()
    path, _, parameter = layer.rpartition(".")
    module = model.get_submodule(path)
    if parameter != "weight" or not isinstance(module, LAYERS):
        return "its outputs are made inside one operation, which shows none of them."
    if (work.validation is None or work.test is None) or work.test.y.dim() != 1:
        return "there are no labelled examples to show it."
    outputs = _outputs_of_units(units, layer, chosen)
    if outputs is None:
        return "its units lie along its inputs."
    watch = _Watch(model, module, outputs)
    validation = work.validation.sample(examples).loaded()
    mean = _by_class(watch.positions_mean(validation), validation.y.cpu())
    # Evenly over all of them, by number: which ones they are is shown.
    count = min(examples, work.test.examples)
    numbers = torch.linspace(0, work.test.examples - 1, count, device="cpu").long()
    peaks = watch.peaks(work.test, numbers)  # (examples, n)
    best = peaks.topk(min(TOP, count), dim=0)
    shown = _one_of_each(work.test.y[numbers].cpu(), numbers)
    return Responses(
        mean=mean.double().cpu().numpy(),
        top=numbers[best.indices].T.contiguous().cpu().numpy(),
        peaks=best.values.T.double().cpu().numpy(),
        shown=shown.cpu().numpy(),
        maps=watch.maps(work.test, shown).transpose(0, 1).contiguous().float().cpu().numpy(),
    )


def _outputs_of_units(units: Units, layer: str, chosen: list[int]) -> list[Tensor] | None:
    """The layer's outputs that each unit owns; None where it owns none."""
    name = units.leaders.get(layer, layer)
    slices = units.slices
    place = (layer, units.output_dims.get(layer, 0))
    if name not in slices.sets or place not in slices.unit_of_index:
        return None
    unit_of_output = slices.unit_of_index[place] - int(slices.starts[slices.sets[name]])
    owned = [torch.from_numpy(np.flatnonzero(unit_of_output == unit)) for unit in chosen]
    return owned if all(len(outputs) for outputs in owned) else None


class _Watch:
    """A layer's output while the model runs. A class because a hook has to leave it somewhere."""

    def __init__(self, model: nn.Module, module: nn.Module, outputs: list[Tensor]) -> None:
        self.model = model
        self.outputs = outputs
        # The last dimension of a linear layer's output, the first after the examples of others.
        self.channel = -1 if isinstance(module, nn.Linear) else 1
        self.kept: list[Tensor] = []
        module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.kept.append(output)

    @torch.no_grad()
    def responses(self, x: object) -> Tensor:
        """(examples, units, positions...) of one batch."""
        self.kept.clear()
        with no_fused_attention():
            self.model(x)
        # Of a layer that is called several times, what it gave first.
        output = self.kept[0].detach().float().cpu().movedim(self.channel, 1)
        if all(len(own) == 1 for own in self.outputs):
            return output[:, torch.cat(self.outputs)]
        return torch.stack([output[:, own].norm(dim=1) for own in self.outputs], 1)

    def positions_mean(self, data: Batches) -> Tensor:
        """(examples, units)"""
        return torch.cat([self._positions(x).mean(2) for x, _ in data])

    def peaks(self, data: Batches, numbers: Tensor) -> Tensor:
        """(examples, units) the largest over the positions, of the examples of these numbers."""
        parts = torch.split(numbers, data.batch)
        return torch.cat([self._positions(data.at(part)[0]).amax(2) for part in parts])

    def maps(self, data: Batches, numbers: Tensor) -> Tensor:
        """(examples, units, high, wide), no larger than a picture."""
        maps = self.responses(data.at(numbers)[0])
        if maps.dim() == 5:  # of volumes, the middle slice
            maps = maps[:, :, maps.shape[2] // 2]
        if maps.dim() < 4:
            maps = _laid_out(maps.reshape(*maps.shape[:2], -1))
        high, wide = (min(side, MAP) for side in maps.shape[2:])
        return adaptive_avg_pool2d(maps, (high, wide))

    def _positions(self, x: object) -> Tensor:
        """(examples, units, positions)"""
        responses = self.responses(x)
        return responses.reshape(*responses.shape[:2], -1)


def _laid_out(rows: Tensor) -> Tensor:
    """(..., positions) -> (..., high, wide): tokens of a picture as a square, without the class
    token; others as a row.
    """
    count = rows.shape[-1]
    for first in (0, 1):
        side = math.isqrt(count - first)
        if side > 1 and side * side == count - first:
            return rows[..., first:].reshape(*rows.shape[:-1], side, side)
    return rows.unsqueeze(-2)


def _by_class(values: Tensor, targets: Tensor) -> Tensor:
    """(examples, n) -> (n, classes) means; 0 for a class without examples."""
    classes = int(targets.max()) + 1
    sums = torch.zeros(classes, values.shape[1], device="cpu").index_add_(0, targets, values)
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).T


def _one_of_each(targets: Tensor, numbers: Tensor) -> Tensor:
    """The first example of each class, of the first few classes."""
    labels = torch.unique(targets)[:MAPPED]
    return torch.stack([numbers[(targets == label).nonzero()[0, 0]] for label in labels])
