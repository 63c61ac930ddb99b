"""Energy of one forward pass: modelled from MACs, and measured where the processor counts it."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from pruning.devices import device_of
from pruning.evidence import evaluating
from pruning.measurement.counts import fit
from pruning.metrics import Energy
from pruning.types import Inputs, take

RAPL = Path("/sys/class/powercap")
"""Where Linux shows the processor's energy counters (running average power limit)."""


def energy(macs: int, kept: int, measured: float | None = None) -> Energy:
    """Modelled, in picojoules: a multiply and an add for each MAC.

    macs, kept: of one example, all and those whose weight is not zero; measured: joules
    """
    each = Energy.multiply + Energy.add
    return Energy(macs * each, kept * each, measured=measured)


def joules(
    model: nn.Module, example: Inputs, *, seconds: float = 0.3, place: Path = RAPL
) -> float | None:
    """Joules of one pass of one example by the processor's counter; None where there is none.

    All that the processor does meanwhile is counted too.
    """
    counters = _counters(place)
    # An accelerator's energy is not the processor's.
    if not counters or device_of(model).type != "cpu":
        return None
    x = fit(take(example, slice(1)), model)
    passes = 0
    with evaluating(model), torch.inference_mode():
        before = [_read(counter) for counter in counters]
        began = time.perf_counter()
        # many passes, because a counter moves on only about every millisecond
        while not passes or time.perf_counter() - began < seconds:
            model(*x)
            passes += 1
        after = [_read(counter) for counter in counters]
    ends = zip(before, after, counters, strict=True)
    microjoules = sum(_difference(start, end, counter) for start, end, counter in ends)
    return microjoules / 1e6 / passes


def _counters(place: Path) -> list[Path]:
    """The packages' counters that this user may read: intel-rapl:0, intel-rapl:1, ... (AMD's too).

    intel-rapl:0:0 is a part of intel-rapl:0, and would be counted twice.
    """
    folders = sorted(place.glob("*rapl:[0-9]*")) if place.is_dir() else []
    packages = [folder for folder in folders if folder.name.count(":") == 1]
    return [folder for folder in packages if _readable(folder)]


def _readable(folder: Path) -> bool:
    try:
        return _read(folder) >= 0
    except (OSError, ValueError):
        return False


def _read(folder: Path) -> int:
    """Microjoules since some start."""
    return int((folder / "energy_uj").read_text())


def _difference(before: int, after: int, folder: Path) -> int:
    """The counter starts anew at its range."""
    if after >= before:
        return after - before
    return after - before + int((folder / "max_energy_range_uj").read_text())
