"""Profiles of a layer's units: kernels, what they respond to, and the loss without each alone."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.analysis.criterion_check import EXAMPLES, Check
from pruning.analysis.profiles import responses, without_units
from pruning.errors import UnknownName
from pruning.studies.card import pictures
from pruning.studies.weights import Arrays
from pruning.types import Workpiece
from pruning.units.layout import Units, lay_out

KERNELS = 16
"""Input channels of a filter whose kernels are shown, at most."""


def profiles(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """spec: model, layer, granularity; units, examples and seconds: how far units are left out.

    json: layer, refused (why it has no units to remove, ""), set (that its units belong to), of
    (units that it has), measured (units left out in the time), examples, loss and classes (names),
    members of the set's dependency group, silent (why no responses are shown, ""), seconds; npz:
    units (n,) their numbers in the layer, of_set (n,) those in the set, norms (n,) mean |w|,
    kernels (n, inputs, high, wide); change, weights (n,), right (n, classes), dense and total
    (classes,) as `WithoutUnits` has them; mean, top, peaks, shown and maps as `Responses` has them,
    numbers (k,) of the test examples that are pictured, and images or series of those.
    Raises UnknownName for a layer there is none of, DataError without data.
    """
    layer = spec["layer"]
    start = time.perf_counter()
    plain = _check(spec)
    units = lay_out(plain.recipe(), work)
    name = units.leaders.get(layer, layer)
    if why := _refused(units, name, layer):
        return {"layer": layer, "refused": why}, {}
    numbers = units.numbers(layer)
    check = _check(spec, name)
    norms = _norms(units, layer, work)
    seconds = spec.get("seconds", math.inf)
    # What is removed first by size is looked at first: time may not last for all.
    left_out = without_units(
        work,
        check,
        lambda chosen: sorted(chosen, key=lambda unit: float(norms[unit])),
        seconds=seconds,
        examples=spec.get("examples", EXAMPLES),
    )
    place = {unit: number for number, unit in enumerate(numbers)}
    chosen = [unit for unit in left_out.units if unit in place]
    rows = [left_out.units.index(unit) for unit in chosen]
    arrays: Arrays = {
        "units": np.array([place[unit] for unit in chosen]),
        "of_set": np.array(chosen),
        "norms": norms[chosen],
        "change": left_out.change[rows],
        "weights": left_out.weights[rows],
    }
    if left_out.right is not None and left_out.dense is not None and left_out.total is not None:
        arrays["right"] = left_out.right[rows]
        arrays["dense"] = left_out.dense
        arrays["total"] = left_out.total
    if (kernels := _kernels(units, layer, chosen, work)) is not None:
        arrays["kernels"] = kernels
    seen = responses(work, units, layer, chosen, spec.get("examples", EXAMPLES))
    silent = seen if isinstance(seen, str) else ""
    if not isinstance(seen, str):
        arrays |= vars(seen)
        arrays |= _pictured(work, np.unique(np.concatenate([seen.top.ravel(), seen.shown])))
    data = {
        "layer": layer,
        "refused": "",
        "set": name,
        "of": len(numbers),
        "measured": left_out.measured,
        "examples": left_out.examples,
        "loss": left_out.loss,
        "classes": list(work.classes),
        "members": _members(units, name),
        "silent": silent,
        "seconds": time.perf_counter() - start,
    }
    return data, arrays


def _check(spec: dict[str, Any], *layers: str) -> Check:
    names = ("granularity", "granularity_options", "units", "seed")
    asked = {name: spec[name] for name in names if name in spec}
    return Check(layers=layers, **asked)


def _refused(units: Units, name: str, layer: str) -> str:
    """Why a layer has no units to remove, a clause; "" where it has.

    Raises UnknownName for a layer there is none of.
    """
    if layer not in units.shapes:
        raise UnknownName("layer", layer, units.shapes)
    if name in units.slices.sets and name not in units.fixed:
        return ""
    return units.fixed.get(name, "its weights are in no unit that has a number.")


def _norms(units: Units, layer: str, work: Workpiece) -> NDArray[np.float64]:
    """(units of the set,) mean |w| of each one's weights in this layer; 0 where it has none."""
    rows = _by_output(units, layer, work)
    means = rows.abs().flatten(1).double().mean(1).numpy()
    sums = np.zeros(units.size(units.leaders.get(layer, layer)))
    counts = np.zeros_like(sums)
    owner = _unit_of_output(units, layer)
    inside = (owner >= 0) & (owner < len(sums))
    np.add.at(sums, owner[inside], means[inside])
    np.add.at(counts, owner[inside], 1)
    norms: NDArray[np.float64] = sums / counts.clip(1)
    return norms


def _by_output(units: Units, layer: str, work: Workpiece) -> Tensor:
    """The layer's weight with the dimension of its outputs first."""
    weight = work.model.get_parameter(layer).detach().cpu()
    return weight.transpose(0, units.output_dims.get(layer, 0))


def _unit_of_output(units: Units, layer: str) -> NDArray[np.int64]:
    """(outputs,) the unit of the set that each output of the layer belongs to."""
    name = units.leaders.get(layer, layer)
    dim = units.output_dims.get(layer, 0)
    start = int(units.slices.starts[units.slices.sets[name]])
    return units.slices.unit_of_index[layer, dim] - start


def _kernels(
    units: Units, layer: str, chosen: list[int], work: Workpiece
) -> NDArray[np.float32] | None:
    """(n, inputs, high, wide) of the first output of each unit; None where it has no kernels.

    A linear layer has one: its row, as a square where it is one.
    """
    rows = _by_output(units, layer, work).float()
    if rows.dim() == 2:
        side = math.isqrt(rows.shape[1])
        square = side * side == rows.shape[1] and side > 2
        rows = rows.reshape(len(rows), 1, *((side, side) if square else (1, -1)))
    elif rows.dim() == 3:
        rows = rows.unsqueeze(2)
    if rows.dim() != 4:
        return None
    owner = _unit_of_output(units, layer)
    first = [int(np.flatnonzero(owner == unit)[0]) for unit in chosen]
    return rows[torch.tensor(first), :KERNELS].numpy()


def _members(units: Units, name: str) -> list[dict[str, Any]]:
    """parameter, dim, each: of all that is removed with one unit."""
    return [asdict(member) for member in units.slices.groups[units.slices.sets[name]].members]


def _pictured(work: Workpiece, numbers: NDArray[np.int64]) -> Arrays:
    test = work.need("test", "Showing test examples")
    if isinstance(test.x, tuple):
        return {}
    return {"numbers": numbers, **pictures(test.x[torch.from_numpy(numbers)].cpu())}
