"""How long a forward pass takes, so that it can be believed: warmed up, interleaved, on stated threads, beside a control.

Each round times every contestant once, in turns from the front and from the back, so that all meet the same machine. A copy of
the first model runs along: by as much as the two differ, so much is noise here, and over 5 % no verdict is given.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.measurement.counts import fit
from pruning.metrics import Latency, Spread, Timing
from pruning.types import prunable

BATCHES = (1, 32)
"""Examples in a pass: one, as somebody waits for an answer; 32, as a server gathers them."""

SLOW = 0.5
"""Seconds of one pass beyond which a batch is not timed: a run's ending should not wait for it."""

SPARSE = 0.8
"""Share of zeros from which a linear layer is tried in torch's CSR: large ones break even at 0.7 to 0.8, small ones at 0.95."""

Pass = Callable[[], object]


def latencies(
    models: Sequence[nn.Module],
    example: Tensor,
    *,
    batch: int = 1,
    passes: int = 30,
    budget: float = 2.0,
) -> list[Latency]:
    """Milliseconds of a forward pass of each model, interleaved. At most `budget` seconds for each model, at least 5 passes.

    On the threads torch has now.
    """
    x = examples(example, models[0], batch)
    with _ready(models):
        times = interleaved(
            [_pass(model, x) for model in models], least=5, most=passes, budget=budget * len(models)
        )
    return [quartiles(taken, batch) for taken in times]


def timings(
    models: Sequence[nn.Module], example: Tensor, *, batch: int = 1, budget: float = 0.8
) -> list[list[Timing]]:
    """For each model, its timing in torch beside the first, which is the reference; and in CSR, for those that have linear
    layers with enough zeros. One round of `budget` seconds, with a copy of the first as control."""
    sparse = [to_sparse(model) if model is not models[0] else None for model in models]
    every = [*models, *(model for model in sparse if model is not None), copy.deepcopy(models[0])]
    x = examples(example, models[0], batch)
    threads = torch.get_num_threads()
    with _ready(every):
        taken = seconds(_pass(models[0], x))
        if taken > SLOW and batch > 1:
            why = f"One pass of {batch} examples takes {taken:.1f} s here: too long to repeat at a run's end."
            return [[Timing("torch", batch, threads, why=why)] for _ in models]
        times = interleaved([_pass(model, x) for model in every], least=5, most=300, budget=budget)
    told = judged("torch", times, batch, threads)
    found = [[timing] for timing in told[: len(models)]]
    rest = iter(told[len(models) :])
    for held, model in zip(found, sparse, strict=True):
        if model is not None:
            timing = next(rest)
            held.append(
                Timing("torch CSR", batch, threads, timing.latency, timing.speedup, timing.control)
            )
    return found


def interleaved(
    passes: Sequence[Pass], *, least: int, most: int, budget: float, warm: int = 3
) -> list[list[float]]:
    """Milliseconds of every pass of each contestant, a round at a time, until `most` rounds or `budget` seconds are over."""
    for one in passes:
        for _ in range(warm):
            one()
    times: list[list[float]] = [[] for _ in passes]
    began = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < least or time.perf_counter() - began < budget):
        order = range(len(passes)) if len(times[0]) % 2 == 0 else range(len(passes) - 1, -1, -1)
        for i in order:
            times[i].append(seconds(passes[i]) * 1000)
    return times


def judged(
    runtime: str, times: Sequence[Sequence[float]], batch: int, threads: int
) -> list[Timing]:
    """Timings of all contestants but the last, the control: a copy of the first."""
    control = abs(_ratio(times[0], times[-1]).value - 1)
    return [
        Timing(
            runtime,
            batch,
            threads,
            quartiles(taken, batch, threads),
            _ratio(times[0], taken) if i else None,
            control,
        )
        for i, taken in enumerate(times[:-1])
    ]


def _ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """How many times longer the first takes, round by round: the median, and its 95 % interval from the order of the ratios."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    n = len(ratios)
    reach = 0.98 * math.sqrt(n)  # 1.96 deviations of a binomial with p = 1/2
    low, high = max(0, math.floor(n / 2 - reach)), min(n - 1, math.ceil(n / 2 + reach))
    return Spread(ratios[low], statistics.median(ratios), ratios[high])


def quartiles(taken: Sequence[float], batch: int, threads: int | None = None) -> Latency:
    low, median, high = statistics.quantiles(taken, n=4)
    return Latency(median, low, high, threads or torch.get_num_threads(), batch, len(taken))


def examples(example: Tensor, model: nn.Module, batch: int) -> Tensor:
    """A batch of the first example, in the model's precision."""
    return fit(example[:1].expand(batch, *example.shape[1:]).contiguous(), model)


def seconds(one: Pass) -> float:
    """How long one pass takes."""
    start = time.perf_counter()
    one()
    return time.perf_counter() - start


def _pass(model: nn.Module, x: Tensor) -> Pass:
    return lambda: model(x)


@contextmanager
def _ready(models: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode, no gradients; every mode back at the end."""
    with evaluating(nn.ModuleList(models)), torch.inference_mode():
        yield


# ---------------------------------------------------------------- sparse linear layers


class SparseLinear(nn.Module):
    """A linear layer whose weight is held as compressed sparse rows: zeros are neither stored nor multiplied."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            self.weight = dense.weight.detach().to_sparse_csr()  # (out, in)
        self.bias = dense.bias.detach() if dense.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        rows = (self.weight @ x.reshape(-1, x.shape[-1]).T).T
        out = rows if self.bias is None else rows + self.bias
        return out.reshape(*x.shape[:-1], -1)


def to_sparse(model: nn.Module) -> nn.Module | None:
    """A copy with its linear layers of at least 80 % zeros in CSR; None where it has none."""
    covered = {id(weight) for weight in prunable(model).values()}
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and id(module.weight) in covered
        and int(module.weight.detach().count_nonzero())
        <= (1 - SPARSE) * module.weight.numel() + 1  # a share of weights is a whole number of them
    ]
    if not names:
        return None
    thin = copy.deepcopy(model)
    for name in names:
        dense = thin.get_submodule(name)
        assert isinstance(dense, nn.Linear)
        if name:
            thin.set_submodule(name, SparseLinear(dense))
        else:
            thin = SparseLinear(dense)
    return thin
