"""What a layer reads and gives, row by row, at places chosen at random: its least-squares problem.

A place is one multiplication of the layer's weight with its inputs: (example, position) of a
convolution, one vector of a linear layer. Only the chosen places are unfolded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pruning.structure.propagate import Args

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
"""Operation -> dimensions of its positions."""


def positions(output: Tensor, convolution: bool) -> int:
    """How many places an output has, over all examples."""
    units = output.shape[1] if convolution else output.shape[-1]
    return output.numel() // max(1, units)


def choose(count: int, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` of `count` places, at random, with replacement where there are more.

    Drawn on the CPU, so that every device gets the same ones.
    """
    if count <= most:
        return torch.arange(count, device="cpu")
    return torch.randint(0, count, (most,), generator=generator, device="cpu")


def outputs_at(output: Tensor, places: Tensor, convolution: bool) -> Tensor:
    """(places, units). output: (n, units, ...) of a convolution, (..., units) of a linear layer."""
    places = places.to(output.device)
    if not convolution:
        return output.reshape(-1, output.shape[-1])[places]
    flat = output.flatten(2)
    each = flat.shape[2]
    return flat[places // each, :, places % each]


def inputs_at(args: Args, x: Tensor, weight: Tensor, output: Tensor, places: Tensor) -> Tensor:
    """(places, groups, inputs): what each row of the weight's matrix is multiplied with there.

    args: of the operation, by their names; x: its input; weight: (out, in / groups, k...) or (out,
    in).
    """
    kernel = weight.shape[2:]
    if not kernel:
        return x.reshape(-1, x.shape[-1])[places].unsqueeze(1)
    size = output.shape[2:]
    each = math.prod(size)
    example = places // each
    coordinates = torch.unravel_index(places % each, size)
    x = nn.functional.pad(x, _sides(args, kernel))
    starts = [at * step for at, step in zip(coordinates, args["stride"], strict=True)]
    taps = []
    for offset in itertools.product(*map(range, kernel)):
        along = zip(starts, offset, args["dilation"], strict=True)
        reads = [start + i * dilation for start, i, dilation in along]
        taps.append(x[(example, slice(None), *reads)])  # (places, channels)
    patches = torch.stack(taps, 2)  # (places, channels, kernel)
    return patches.reshape(len(places), int(args["groups"]), -1)


def _sides(args: Args, kernel: Sequence[int]) -> list[int]:
    """Padding before and after each dimension, the last one first, as `pad` wants it."""
    padding = args["padding"]
    if padding == "valid":
        padding = [0] * len(kernel)
    if padding == "same":  # an odd one goes behind
        totals = [(k - 1) * d for k, d in zip(kernel, args["dilation"], strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(p, p) for p in padding]
    return [side for pair in reversed(pairs) for side in pair]
