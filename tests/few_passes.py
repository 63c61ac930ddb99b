"""Measurements that time five passes of each model: also for fixtures of a whole file."""

from __future__ import annotations

from functools import partial

import pytest


def few_passes(patch: pytest.MonkeyPatch) -> None:
    from pruning import measurement
    from pruning.measurement import onnx, speed

    patch.setattr(measurement, "timings", partial(speed.timings, budget=0.0))
    patch.setattr(measurement, "onnx_timings", partial(onnx.onnx_timings, budget=0.0))
