"""Granularities: what one unit of pruning is. Single weights, patterns, blocks, kernels, rows,
columns, channels, heads.

A granularity says how the units of one layer lie, as one of two things. `Tiling`, the dense case:
every weight of the layer is in exactly one unit. `Slice`: a unit owns whole indices along one
dimension. Channels and heads are more than that: where the model can be followed, their units are
those of dependency groups (`pruning.structure`), and the slice serves where it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pruning.errors import OutOfRange
from pruning.evidence.attention import blocks
from pruning.ranges import Range
from pruning.registry import granularity
from pruning.types import EMBEDDINGS, RECURRENT
from pruning.units.pooling import WAYS, Pooling


class Tiling(NamedTuple):
    """Units that cover one weight tensor, each weight in exactly one. Units keep flat order.

    units: how many; cost: weights removed with a unit, one number or (units,) where they differ.
    pool: scores of the weight's shape -> (units,); spread: (units,) -> the weight's shape, constant
    inside a unit. removed_inside: scores -> True for the weights that are removed when their unit
    is; None: all of them.
    """

    units: int
    cost: int | Tensor
    pool: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    removed_inside: Callable[[Tensor], Tensor] | None = None


class Slice(NamedTuple):
    """Units that own indices of one dimension of a weight, and of the biases that lie along it.

    unit: (size of the dimension,) the unit that each index belongs to. leader: the weight whose
    units these are, where several weights are pruned together (keys and values with queries).
    """

    dim: int
    unit: Tensor
    leader: str = ""


MEAN = Pooling()


@dataclass(frozen=True)
class Granularity:
    """What a granularity is for any model.

    fit: (model, weight) -> how its units lie in that weight, or why the layer stays dense.
    whole_outputs: units are whole outputs of a layer: their biases are pruned with them, and the
    model's output layer stays dense. kinds: of the dependency groups whose units are taken where
    the model can be followed. multiple: what is kept of such a group is a multiple of this, where
    the group is large enough.
    """

    fit: Callable[[nn.Module, str], Tiling | Slice | str]
    pooling: Pooling = MEAN
    whole_outputs: bool = False
    kinds: tuple[str, ...] = ()
    multiple: int = 1


@granularity(removes="single weights", structured=False)
def weight() -> Granularity:
    """Each weight on its own: the most zeros for the least harm, and no faster without a runtime
    that skips them.
    """

    def fit(model: nn.Module, name: str) -> Tiling:
        shape = model.get_parameter(name).shape
        return Tiling(shape.numel(), 1, lambda x: x.flatten(), lambda units: units.reshape(shape))

    return Granularity(fit)


@granularity(removes="n of m neighbours", structured=False)
def n_of_m(
    *, n: Annotated[int, Range(1, 1023)] = 2, m: Annotated[int, Range(2, 1024)] = 4
) -> Granularity:
    """Of every m consecutive inputs of an output, only n keep their weight: the pattern that
    sparse tensor cores skip.

    A unit is such a run of m; its m - n lowest weights are removed with it, and their sum is its
    score. So a sparsity below 1 - n/m is the share of runs that carry the pattern, and at 1 - n/m
    all of them do: more cannot be pruned.
    Mishra et al., 2021, https://arxiv.org/abs/2104.08378

    n: weights kept in a run.
    m: inputs in a run; a layer whose inputs it does not divide stays dense.
    """
    if not 1 <= n < m:
        raise OutOfRange(
            "Option n of n_of_m", n, f"from 1 to m - 1, which is {m - 1}: n of m weights are kept"
        )

    # Along the inputs, where sparse tensor cores look for the pattern.
    def runs(x: Tensor) -> Tensor:  # (out, in, ...) -> (out, in/m, ..., m)
        return x.reshape(x.shape[0], -1, m, *x.shape[2:]).movedim(2, -1)

    def pool(x: Tensor) -> Tensor:
        return runs(x).sort(-1).values[..., : m - n].sum(-1).flatten()

    def removed_inside(x: Tensor) -> Tensor:
        # A stable sort: of equal weights those with the lower index are removed.
        order = runs(x).argsort(dim=-1, stable=True)[..., : m - n]
        lowest = torch.zeros_like(runs(x), dtype=torch.bool).scatter(-1, order, True)
        return lowest.movedim(-1, 2).flatten(1, 2)

    def fit(model: nn.Module, name: str) -> Tiling | str:
        if isinstance(_layer(model, name), EMBEDDINGS):
            return "it is an embedding: no sparse tensor core multiplies with it."
        outputs, inputs, *rest = model.get_parameter(name).shape
        if inputs % m:
            return f"its {inputs:,} inputs do not come in groups of {m}."

        def spread(units: Tensor) -> Tensor:
            return units.reshape(outputs, inputs // m, *rest).repeat_interleave(m, 1)

        count = math.prod((outputs, inputs // m, *rest))
        return Tiling(count, m - n, pool, spread, removed_inside)

    return Granularity(fit)


@granularity(removes="kernels of convolutions", structured=True)
def kernel(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """The k×k kernel that leads from one input channel to one output channel of a convolution.

    Mao et al., 2017, https://arxiv.org/abs/1705.08922

    pool: how the scores of a kernel's weights become one score.
    """

    def fit(model: nn.Module, name: str) -> Tiling | str:
        shape = model.get_parameter(name).shape
        if len(shape) < 3:
            return "it is no convolution, so it has no kernels."
        outputs, inputs, *places = shape

        def spread(units: Tensor) -> Tensor:
            by_kernel = units.reshape(outputs, inputs, *[1] * len(places))
            return by_kernel.expand(shape).clone()

        def by_kernel(x: Tensor) -> Tensor:
            return WAYS[pool](x.flatten(0, 1).flatten(1))

        return Tiling(outputs * inputs, math.prod(places), by_kernel, spread)

    return Granularity(fit)


@granularity(removes="rectangles of the weight matrix", structured=True)
def block(
    *,
    rows: Annotated[int, Range(1, 1024)] = 4,
    columns: Annotated[int, Range(1, 1024)] = 4,
    pool: Literal["mean", "sum", "max", "l2"] = "mean",
) -> Granularity:
    """A rectangle of the weight matrix (outputs × inputs·k·k): few indices to store, and dense
    inside.

    Blocks at the right and lower edge are as small as the layer makes them.
    Narang et al., 2017, https://arxiv.org/abs/1711.02782

    rows: outputs in a block.
    columns: inputs in a block; each of a kernel's k·k places counts as one.
    pool: how the scores of a block's weights become one score.
    """

    def tiles(x: Tensor, edge: float) -> Tensor:  # (blocks, rows * columns)
        flat = x.flatten(1)
        # Padded to whole blocks; what the padding adds is left out again below.
        full = pad(flat, (0, -flat.shape[1] % columns, 0, -flat.shape[0] % rows), value=edge)
        grid = full.reshape(full.shape[0] // rows, rows, -1, columns)
        return grid.transpose(1, 2).reshape(-1, rows * columns)

    def fit(model: nn.Module, name: str) -> Tiling:
        shape = model.get_parameter(name).shape
        height, width = shape[0], shape[1:].numel()
        cost = tiles(torch.ones(shape), 0.0).sum(1).long()

        def pooled(x: Tensor) -> Tensor:
            if pool == "mean":  # the padding of a block at the edge is none of its weights
                return tiles(x, 0.0).sum(1) / cost
            return WAYS[pool](tiles(x, -torch.inf if pool == "max" else 0.0))

        def spread(units: Tensor) -> Tensor:
            grid = units.reshape(-(-height // rows), -(-width // columns))
            tall = grid.repeat_interleave(rows, 0)[:height]
            return tall.repeat_interleave(columns, 1)[:, :width].reshape(shape).contiguous()

        return Tiling(len(cost), cost, pooled, spread)

    return Granularity(fit)


@granularity(removes="rows of the weight matrix", structured=True)
def row(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """All weights that lead to one output of a layer, and its bias; what reads that output is kept.

    Wen et al., 2016, https://arxiv.org/abs/1608.03665

    pool: how the scores of a row's weights become one score.
    """

    def fit(model: nn.Module, name: str) -> Slice | str:
        return _transposed(model, name) or _rows(model, name)

    return Granularity(fit, Pooling(pool), whole_outputs=True)


@granularity(removes="columns of the weight matrix", structured=True)
def column(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """All weights of a layer that read one of its inputs: a pixel, a neuron or a channel that it
    stops listening to.

    Wen et al., 2016, https://arxiv.org/abs/1608.03665

    pool: how the scores of a column's weights become one score.
    """

    def fit(model: nn.Module, name: str) -> Slice | str:
        layer = _layer(model, name)
        # Column j of a grouped convolution is another input for each group of outputs.
        if getattr(layer, "groups", 1) > 1:
            return "it is a grouped convolution: each group reads inputs of its own."
        columns = torch.arange(model.get_parameter(name).shape[1])
        return _transposed(model, name) or Slice(1, columns)

    return Granularity(fit, Pooling(pool))


@granularity(removes="whole channels and neurons", structured=True, dependency_groups=True)
def channel(
    *,
    pool: Literal["mean", "sum", "max", "l2"] = "mean",
    over: Literal["all", "rows"] = "all",
    normalise: Literal["none", "mean", "max"] = "none",
    round_to: Annotated[int, Range(1, 1024)] = 1,
) -> Granularity:
    """A whole channel or neuron, in every layer that holds it: the weights that make it, their
    biases and norms, and those that read it.

    Layers that add into each other keep the same channels: they are one dependency group. What is
    pruned can be left out of the model, which is then compact.
    Fang et al., 2023, https://arxiv.org/abs/2301.12900

    pool: how the scores of a channel's weights become one score.
    over: all weights that are pruned with the channel, those that make it and those that read it,
        as dependency groups are scored in that paper; or only the rows that make it, whose mean
        |w| is the L1 norm of Li et al., 2017 (https://arxiv.org/abs/1608.08710). Criteria that
        score whole outputs look at rows alone, each layer of the group counting once.
    normalise: divide the scores of each dependency group by their mean or max, so that groups
        compare.
    round_to: keep a multiple of so many channels in every group, as fast kernels like it (8 or
        16); 1 keeps any number.
    """
    return Granularity(
        _rows,
        Pooling(pool, over, normalise),
        whole_outputs=True,
        kinds=("channels", "neurons"),
        multiple=round_to,
    )


@granularity(removes="heads of attention", structured=True, dependency_groups=True)
def head(
    *,
    pool: Literal["mean", "sum", "max", "l2"] = "mean",
    normalise: Literal["none", "mean", "max"] = "none",
) -> Granularity:
    """An attention head: its rows of queries, keys and values with their biases, and the weights
    that read it.

    Michel et al., 2019, https://arxiv.org/abs/1905.10650

    pool: how the scores of a head's weights become one score.
    normalise: divide the scores of each layer's heads by their mean or max, so that layers compare.
    """

    def fit(model: nn.Module, name: str) -> Slice | str:
        attention = blocks(model)
        own = next((block for block in attention if name in block.parts), None)
        if own is None and not attention:
            return "the model has no attention."
        if own is None:
            return "its weights belong to no attention head."
        if own.reason:
            return own.reason
        # Rows lie by part (queries, keys, values), then by head: (parts · heads · size).
        rows = torch.arange(model.get_parameter(name).shape[0])
        leader = own.parts[0]
        return Slice(0, rows // own.size % own.heads, "" if name == leader else leader)

    pooling = Pooling(pool, "all", normalise)
    return Granularity(fit, pooling, whole_outputs=True, kinds=("heads",))


def _rows(model: nn.Module, name: str) -> Slice | str:
    """A layer's outputs, where they are its rows."""
    layer = _layer(model, name)
    if isinstance(layer, RECURRENT):
        return "it is a recurrent layer: its rows are gates, several of them for each output."
    if isinstance(layer, EMBEDDINGS):
        return "it is an embedding: its rows are what is looked up, and no outputs."
    return Slice(0, torch.arange(model.get_parameter(name).shape[0]))


def _transposed(model: nn.Module, name: str) -> str:
    """Why rows and columns of a weight are not outputs and inputs; "" where they are."""
    layer = _layer(model, name)
    if "Transpose" in type(layer).__name__:  # its weights lie by input, then output
        return "it is a transposed convolution, whose weights lie by input."
    if isinstance(layer, EMBEDDINGS):
        return "it is an embedding: its rows are what is looked up, its columns the outputs."
    return ""


def _layer(model: nn.Module, name: str) -> nn.Module:
    """The module that holds a weight."""
    return model.get_submodule(name.rpartition(".")[0])
