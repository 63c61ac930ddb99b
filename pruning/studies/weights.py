"""How each layer's weights are distributed: histograms, norms of outputs, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.metrics import bin_counts, bin_edges
from pruning.types import Workpiece, prunable

Arrays = dict[str, NDArray[Any]]

PICTURE = 128
"""Pixels of the longer side of a weight matrix's picture, at most."""

FILTERS = 64
"""Kernels of the first convolution that are shown, at most."""


def weights(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """json: for each layer name, shape, mean, std, zeros, finite; npz, by the layer's number i:
    edges_i (257,), counts_i (256,), picture_i (≤128, ≤128) mean |w|, norms_l1_i and norms_l2_i
    (outputs,); filters (n, h, w[, 3]) of the first convolution.
    """
    rows: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for i, (name, weight) in enumerate(prunable(work.model).items()):
        values = weight.detach().float()
        flat = values.numpy().reshape(len(values), -1)  # (out, in·k·k)
        edges = bin_edges(flat)
        arrays[f"edges_{i}"] = edges
        arrays[f"counts_{i}"] = bin_counts(flat, edges)
        arrays[f"picture_{i}"] = picture(flat)
        arrays[f"norms_l1_{i}"] = np.abs(flat).sum(1)
        arrays[f"norms_l2_{i}"] = np.sqrt(np.square(flat).sum(1))
        rows.append(_row(name, values))

        # 1 x 1 kernels are no pictures.
        has_kernels = values.dim() == 4 and values.shape[2] > 1
        if has_kernels and "filters" not in arrays:
            arrays["filters"] = filters(values)
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
    """A weight matrix (out, in·k·k), at most 128 x 128: each pixel the mean |w| of its patch."""
    rows = _pool(np.abs(matrix), 0)
    return _pool(rows, 1).astype(np.float32)


def _pool(values: NDArray[Any], axis: int) -> NDArray[Any]:
    size = values.shape[axis]
    if size <= PICTURE:
        return values
    starts = np.arange(PICTURE) * size // PICTURE
    widths = np.diff(starts, append=size)
    sums = np.add.reduceat(values, starts, axis=axis)
    # Patches differ by one where the size is no multiple: each has its own width.
    widths = widths[:, None] if axis == 0 else widths
    return np.asarray(sums / widths)


def filters(weight: Tensor) -> NDArray[np.float32]:
    """The kernels of a convolution (out, in, h, w) as pictures (n, h, w[, 3]).

    In colour where it sees three channels, else their first channel.
    """
    shown = weight[:FILTERS]
    if shown.shape[1] == 3:
        return shown.permute(0, 2, 3, 1).numpy()
    return shown[:, 0].numpy()
