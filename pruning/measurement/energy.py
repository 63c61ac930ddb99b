"""Operation energy: modelled from MACs, and measured where the processor counts it."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.measurement.counts import fit
from pruning.metrics import Energy

RAPL = Path("/sys/class/powercap")


def energy(macs: int, kept: int, measured: float | None = None) -> Energy:
    """Modelled: a multiply and an add for each MAC. macs, kept: of one example, all and those whose weight is not zero."""
    each = Energy.multiply + Energy.add
    return Energy(macs * each, kept * each, measured=measured)


def joules(
    model: nn.Module, example: Tensor, *, seconds: float = 0.3, place: Path = RAPL
) -> float | None:
    """Joules of one pass of one example by the processor's counter, all that it does meanwhile included; None where there is none."""
    counters = _counters(place)
    if not counters:
        return None
    x, passes = fit(example[:1], model), 0
    with evaluating(model), torch.inference_mode():
        before, began = [_read(counter) for counter in counters], time.perf_counter()
        while not passes or time.perf_counter() - began < seconds:
            model(x)
            passes += 1
        after = [_read(counter) for counter in counters]
    spent = sum(
        _since(a, b, counter) for a, b, counter in zip(before, after, counters, strict=True)
    )
    return spent / 1e6 / passes


def _counters(place: Path) -> list[Path]:
    """The packages' counters that this user may read: intel-rapl:0, intel-rapl:1, ... (AMD's too)."""
    found = sorted(place.glob("*rapl:[0-9]*")) if place.is_dir() else []
    whole = [folder for folder in found if folder.name.count(":") == 1]
    return [folder for folder in whole if _readable(folder)]


def _readable(folder: Path) -> bool:
    try:
        return _read(folder) >= 0
    except (OSError, ValueError):
        return False


def _read(folder: Path) -> int:
    """Microjoules since some start."""
    return int((folder / "energy_uj").read_text())


def _since(before: int, after: int, folder: Path) -> int:
    """The counter starts anew at its range."""
    return (
        after - before
        if after >= before
        else after - before + int((folder / "max_energy_range_uj").read_text())
    )
