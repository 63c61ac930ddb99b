"""Latency of a forward pass: warmed up, interleaved, on stated threads, beside a control.

Each round times every model once, in turns from the front and from the back, so that all meet the
same machine. A copy of the first model runs along: by as much as the two differ, so much is noise
here, and over 5 % no verdict is given.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from pruning.devices import device_of, synchronize
from pruning.evidence import evaluating
from pruning.measurement.counts import fit
from pruning.metrics import Latency, Spread, Timing
from pruning.types import Inputs, named_weights, parts_of

BATCHES = (1, 32)
"""Examples in a pass: one, as somebody waits for an answer; 32, as a server gathers them."""

SLOW = 0.5
"""Seconds of one pass beyond which a batch is not timed: a run should not wait for it."""

SPARSE = 0.8
"""Share of zeros from which a linear layer is tried in torch's CSR (compressed sparse rows).

Large layers break even at 0.7 to 0.8, small ones at 0.95.
"""

Pass = Callable[[], object]


def latencies(
    models: Sequence[nn.Module],
    example: Inputs,
    *,
    batch: int = 1,
    passes: int = 30,
    budget: float = 2.0,
) -> list[Latency]:
    """Milliseconds of a forward pass of each model, interleaved, on the threads torch has now.

    At most `budget` seconds for each model, at least 5 passes.
    """
    x = examples(example, models[0], batch)
    runs = [_pass(model, x) for model in models]
    with _ready(models):
        times = interleaved(runs, least=5, most=passes, budget=budget * len(models))
    return [quartiles(taken, batch) for taken in times]


def timings(
    models: Sequence[nn.Module], example: Inputs, *, batch: int = 1, budget: float = 0.8
) -> list[list[Timing]]:
    """For each model, its timings in torch beside the first, which is the reference.

    In CSR too, for those that have linear layers with enough zeros. One round of `budget` seconds
    for all, with a copy of the first as control.
    """
    # place of a model -> the same with sparse layers
    there = device_of(models[0])
    sparse: dict[int, nn.Module] = {}
    for i, model in enumerate(models):
        # CSR is worth it at such shares on a CPU alone.
        tried = model is not models[0] and there.type == "cpu"
        rows = to_sparse(model) if tried else None
        if rows is not None:
            sparse[i] = rows
    every = [*models, *sparse.values(), copy.deepcopy(models[0])]
    x = examples(example, models[0], batch)
    threads = torch.get_num_threads()
    with _ready(every):
        taken = seconds(_pass(models[0], x))
        if taken > SLOW and batch > 1:
            why = (
                f"One pass of {batch} examples takes {taken:.1f} s here: "
                "too long to repeat at a run's end."
            )
            return [[Timing(runtime(there), batch, threads, why=why)] for _ in models]
        runs = [_pass(model, x) for model in every]
        times = interleaved(runs, least=5, most=300, budget=budget)
    compared = compare(runtime(there), times, batch, threads)
    by_model = [[timing] for timing in compared[: len(models)]]
    for i, timing in zip(sparse, compared[len(models) :], strict=True):
        by_model[i].append(replace(timing, runtime="torch CSR"))
    return by_model


def interleaved(
    passes: Sequence[Pass], *, least: int, most: int, budget: float, warm: int = 3
) -> list[list[float]]:
    """Milliseconds of every pass of each model, a round at a time.

    Until `most` rounds or `budget` seconds are over, but `least` rounds in any case.
    """
    for run in passes:
        for _ in range(warm):
            run()
    times: list[list[float]] = [[] for _ in passes]
    order = list(range(len(passes)))
    began = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - began >= budget:
            break
        for i in order:
            times[i].append(seconds(passes[i]) * 1000)
        # from the back next time: a model is not always timed after the same one
        order.reverse()
    return times


def compare(
    runtime: str, times: Sequence[Sequence[float]], batch: int, threads: int
) -> list[Timing]:
    """Timings of all models, with speedup over the first.

    times: milliseconds of each model's passes; the last is the control, a copy of the first
    """
    control = abs(_ratio(times[0], times[-1]).value - 1)
    compared = []
    for i, taken in enumerate(times[:-1]):
        speedup = _ratio(times[0], taken) if i else None
        latency = quartiles(taken, batch, threads)
        compared.append(Timing(runtime, batch, threads, latency, speedup, control))
    return compared


def _ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """How many times longer the first takes, round by round.

    The median, and its 95 % interval from the order of the ratios, which needs no distribution.
    """
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    n = len(ratios)
    reach = 0.98 * math.sqrt(n)  # 1.96 deviations of a binomial with p = 1/2
    low = max(0, math.floor(n / 2 - reach))
    high = min(n - 1, math.ceil(n / 2 + reach))
    return Spread(ratios[low], statistics.median(ratios), ratios[high])


def quartiles(taken: Sequence[float], batch: int, threads: int | None = None) -> Latency:
    """taken: milliseconds of passes; threads: None for as many as torch has now."""
    low, median, high = statistics.quantiles(taken, n=4)
    return Latency(median, low, high, threads or torch.get_num_threads(), batch, len(taken))


def examples(example: Inputs, model: nn.Module, batch: int) -> tuple[Tensor, ...]:
    """A batch of the first example, each input, in the model's precision."""
    parts = parts_of(example)
    repeated = tuple(part[:1].expand(batch, *part.shape[1:]).contiguous() for part in parts)
    return fit(repeated, model)


def seconds(run: Pass) -> float:
    """How long one pass takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def runtime(device: torch.device) -> str:
    """What torch is called as a runtime, on a device: `torch`, `torch on cuda:0`."""
    return "torch" if device.type == "cpu" else f"torch on {device}"


def _pass(model: nn.Module, x: tuple[Tensor, ...]) -> Pass:
    """A pass to its end: a device goes on by itself when it has been asked."""
    there = x[0].device

    def run() -> None:
        model(*x)
        synchronize(there)

    return run


@contextmanager
def _ready(models: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode, no gradients; every mode back at the end."""
    with evaluating(nn.ModuleList(models)), torch.inference_mode():
        yield


# ---------------------------------------------------------------- sparse linear layers


class SparseLinear(nn.Module):
    """A linear layer of compressed sparse rows: zeros are neither stored nor multiplied."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            self.weight = dense.weight.detach().to_sparse_csr()  # (out, in)
        self.bias = dense.bias.detach() if dense.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        out = (self.weight @ x.reshape(-1, x.shape[-1]).T).T
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], -1)


def to_sparse(model: nn.Module) -> nn.Module | None:
    """A copy with its linear layers of at least 80 % zeros in CSR; None where it has none."""
    weights = {id(weight) for weight in named_weights(model).values()}
    names = []
    for name, module in model.named_modules():
        # a subclass of Linear may do something else with its weight
        if type(module) is nn.Linear and id(module.weight) in weights:
            kept = int(module.weight.detach().count_nonzero())
            if module.weight.dtype != torch.float32:  # torch has no CSR products of others
                continue
            # one more, because a share of weights is a whole number of them
            if kept <= (1 - SPARSE) * module.weight.numel() + 1:
                names.append(name)
    if not names:
        return None
    sparse = copy.deepcopy(model)
    for name in names:
        dense = sparse.get_submodule(name)
        assert isinstance(dense, nn.Linear)
        if not name:  # the model is this one layer
            return SparseLinear(dense)
        sparse.set_submodule(name, SparseLinear(dense))
    return sparse
