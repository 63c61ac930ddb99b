"""Where this server computes runs and maps, as whoever started it said. No torch: pages ask too."""

from __future__ import annotations

import os

DEVICE, TITLE = "PRUNING_DEVICE", "PRUNING_DEVICE_TITLE"
"""Variables that every process inherits, as run.py writes them."""

CPU = "cpu"


def name() -> str:
    """`cpu`, `cuda:0`: what `pruning.on_device` takes."""
    return os.environ.get(DEVICE) or CPU


def words() -> str:
    """With what an accelerator calls itself: `cuda:0 (NVIDIA H100)`; "" for the CPU."""
    title = os.environ.get(TITLE, "")
    if name() == CPU:
        return ""
    return f"{name()} ({title})" if title else name()
