"""How benchmarks report: medians with quartiles, beside their limits."""

from __future__ import annotations

import datetime
import os
import statistics
from collections.abc import Mapping, Sequence

from pruning.devices import chosen
from pruning.pipeline import machine
from pruning.runs import server_device


def conditions() -> str:
    """When and where a result was made. Read it at the start: the benchmark is itself a load."""
    here = machine(chosen(server_device.name()))
    parts = [f"torch {here['torch'].split('+')[0]}", here.get("accelerator"), here["processor"]]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
    return (
        f"{datetime.date.today()}, {', '.join(filter(None, parts))}, "
        f"{here['cores']} cores; load at the start {load}."
    )


def report(times: Mapping[str, Sequence[float]], *, limit: float, what: str) -> int:
    """Print a row of milliseconds for each name; 1 when a median is over the limit (ms), else 0."""
    print(f"{what}; limit of the median {limit:g} ms\n")
    print(f"{'':28}{'median':>9}{'quartiles':>16}{'slowest':>10}{'times':>7}")
    over = 0
    for name, row in times.items():
        low, median, high = statistics.quantiles(row, n=4, method="inclusive")
        quartiles = f"{low:.0f} to {high:.0f} ms"
        line = f"{name:28}{median:6.0f} ms{quartiles:>16}{max(row):7.0f} ms{len(row):7}"
        print(line + ("  over the limit" if median > limit else ""))
        over |= median > limit
    return int(over)
