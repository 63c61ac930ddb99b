"""Which weights live or die together: a pair `(pool, spread)`.

pool: scores of the weight's shape -> one score for each unit; spread: units -> the weight's shape, constant inside
a unit. Law: `spread(pool(x), x.shape)` has x's shape. Units keep flat order, so ties fall by flat index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pruning.errors import OutOfRange
from pruning.evidence.attention import blocks
from pruning.registry import granularity
from pruning.units.pooling import Pooling


class Granularity(NamedTuple):
    """fit: (model, parameter) -> the granularity as it fits that layer, or the reason why the layer stays dense."""

    pool: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, torch.Size], Tensor]
    rows: bool = False
    """Units are made of whole output rows: their bias goes with them, and the model's output layer is left alone."""
    lost: Callable[[torch.Size], int | Tensor] | None = None
    """Weights that go with a unit, one number or (units,); None: units share the weights equally and go whole."""
    inside: Callable[[Tensor], Tensor] | None = None
    """scores -> True for the weights that go when their unit goes; None: all of them."""
    fit: Callable[[nn.Module, str], Granularity | str] | None = None
    leader: str = ""
    """The layer whose units this layer's go with, one by one; pool is given both, one under the other."""
    kinds: tuple[str, ...] = ()
    """Units are coupled groups of these kinds (`pruning.structure`) where the model can be followed; the rest is for where not."""
    pooling: Pooling = Pooling()
    multiple: int = 1
    """What is kept of a coupled group is a multiple of this, where the group is large enough."""


def fitted(form: Granularity, model: nn.Module, name: str) -> Granularity | str:
    """The granularity as it fits a layer, or the reason why not."""
    return form.fit(model, name) if form.fit else form


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(1),
    "sum": lambda x: x.sum(1),
    "max": lambda x: x.amax(1),
    "l2": lambda x: torch.linalg.vector_norm(x, dim=1),
}
"""(units, weights in a unit) -> (units,)"""


@granularity(removes="single weights", structured=False)
def weight() -> Granularity:
    """Each weight on its own: the most zeros for the least harm, and no faster without a runtime that skips them."""
    return Granularity(lambda x: x.flatten(), lambda units, shape: units.reshape(shape))


@granularity(removes="n of m neighbours", structured=False)
def n_of_m(*, n: int = 2, m: int = 4) -> Granularity:
    """Of every m consecutive inputs of an output, only n keep their weight: the pattern that sparse tensor cores skip.

    A unit is such a group; what goes with it are its m - n lowest weights, and their sum is its score. So a sparsity below
    1 - n/m is the share of groups that carry the pattern, and at 1 - n/m all of them do: more cannot go.
    Mishra et al., 2021, https://arxiv.org/abs/2104.08378

    n: weights that stay in a group.
    m: inputs in a group; a layer whose inputs it does not divide stays dense.
    """
    if not 1 <= n < m:
        raise OutOfRange(
            "Option n of n_of_m", n, f"from 1 to m - 1, which is {m - 1}: n of m weights stay"
        )

    def groups(x: Tensor) -> Tensor:  # (out, in, ...) -> (out, in/m, ..., m)
        return x.reshape(x.shape[0], -1, m, *x.shape[2:]).movedim(2, -1)

    def inside(x: Tensor) -> Tensor:
        order = groups(x).argsort(dim=-1, stable=True)[..., : m - n]
        lowest = torch.zeros_like(groups(x), dtype=torch.bool).scatter(-1, order, True)
        return lowest.movedim(-1, 2).flatten(1, 2)

    def fit(model: nn.Module, name: str) -> Granularity | str:
        inputs = model.get_parameter(name).shape[1]
        return form if inputs % m == 0 else f"its {inputs:,} inputs do not come in groups of {m}."

    def spread(units: Tensor, shape: torch.Size) -> Tensor:
        kept = units.reshape(shape[0], shape[1] // m, *shape[2:])
        return kept.repeat_interleave(m, 1)

    form = Granularity(
        lambda x: groups(x).sort(-1).values[..., : m - n].sum(-1).flatten(),
        spread,
        lost=lambda _: m - n,
        inside=inside,
        fit=fit,
    )
    return form


@granularity(removes="kernels of convolutions", structured=True)
def kernel(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """The k×k kernel that leads from one input channel to one output channel of a convolution.

    Mao et al., 2017, https://arxiv.org/abs/1705.08922

    pool: how the scores of a kernel's weights become one score.
    """

    def fit(model: nn.Module, name: str) -> Granularity | str:
        return (
            form
            if model.get_parameter(name).dim() > 2
            else "it is no convolution, so it has no kernels."
        )

    form = Granularity(
        lambda x: WAYS[pool](x.flatten(0, 1).flatten(1)),
        lambda units, shape: (
            units.reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape).clone()
        ),
        fit=fit,
    )
    return form


@granularity(removes="rectangles of the weight matrix", structured=True)
def block(
    *, rows: int = 4, columns: int = 4, pool: Literal["mean", "sum", "max", "l2"] = "mean"
) -> Granularity:
    """A rectangle of the weight matrix (outputs × inputs·k·k): few indices to store, and dense inside.

    Blocks at the right and lower edge are as small as the layer makes them.
    Narang et al., 2017, https://arxiv.org/abs/1711.02782

    rows: outputs in a block.
    columns: inputs in a block; each of a kernel's k·k places counts as one.
    pool: how the scores of a block's weights become one score.
    """
    for name, value in (("rows", rows), ("columns", columns)):
        if value < 1:
            raise OutOfRange(f"Option {name} of block", value, "1 or more")

    def tiles(x: Tensor, edge: float) -> Tensor:  # (units, rows * columns)
        flat = x.flatten(1)
        full = pad(flat, (0, -flat.shape[1] % columns, 0, -flat.shape[0] % rows), value=edge)
        return (
            full.reshape(full.shape[0] // rows, rows, -1, columns)
            .transpose(1, 2)
            .reshape(-1, rows * columns)
        )

    def lost(shape: torch.Size) -> Tensor:
        return tiles(torch.ones(shape), 0.0).sum(1).long()

    def pooled(x: Tensor) -> Tensor:
        if pool == "mean":
            return tiles(x, 0.0).sum(1) / lost(x.shape)
        return WAYS[pool](tiles(x, -torch.inf if pool == "max" else 0.0))

    def spread(units: Tensor, shape: torch.Size) -> Tensor:
        high, wide = shape[0], shape[1:].numel()
        grid = units.reshape(-(-high // rows), -(-wide // columns))
        return (
            grid.repeat_interleave(rows, 0)[:high]
            .repeat_interleave(columns, 1)[:, :wide]
            .reshape(shape)
            .contiguous()
        )

    return Granularity(pooled, spread, lost=lost)


@granularity(removes="rows of the weight matrix", structured=True)
def row(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """All weights that lead to one output of a layer, and its bias; what reads that output stays.

    Wen et al., 2016, https://arxiv.org/abs/1608.03665

    pool: how the scores of a row's weights become one score.
    """
    plain = _rows(pool)
    return plain._replace(fit=lambda model, name: _transposed(model, name) or plain)


@granularity(removes="columns of the weight matrix", structured=True)
def column(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """All weights of a layer that read one of its inputs: a pixel, a neuron or a channel that it stops listening to.

    Wen et al., 2016, https://arxiv.org/abs/1608.03665

    pool: how the scores of a column's weights become one score.
    """

    def fit(model: nn.Module, name: str) -> Granularity | str:
        grouped = getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1) > 1
        return (
            "it is a grouped convolution: each group reads inputs of its own."
            if grouped
            else _transposed(model, name) or form
        )

    form = Granularity(
        lambda x: WAYS[pool](x.transpose(0, 1).flatten(1)),
        lambda units, shape: units.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape).clone(),
        fit=fit,
    )
    return form


@granularity(removes="whole channels and neurons", structured=True, dependency_groups=True)
def channel(
    *,
    pool: Literal["mean", "sum", "max", "l2"] = "mean",
    over: Literal["all", "rows"] = "all",
    normalise: Literal["none", "mean", "max"] = "none",
    round_to: int = 1,
) -> Granularity:
    """A whole channel or neuron, in every layer that holds it: the weights that make it, their biases and norms, and those that read it.

    Layers that add into each other keep the same channels, so these go together. The model can be slimmed by what goes.
    Li et al., 2017, https://arxiv.org/abs/1608.08710

    pool: how the scores of a channel's weights become one score.
    over: all weights that go with the channel, or only the rows that make it.
    normalise: divide the scores of each group of layers by their mean or max, so that groups compare.
    round_to: keep a multiple of so many channels in every group, as fast kernels like it (8 or 16); 1 keeps any number.
    """
    if round_to < 1:
        raise OutOfRange("Option round_to of channel", round_to, "1 or more")
    return _rows(pool)._replace(
        kinds=("channels", "neurons"), pooling=Pooling(pool, over, normalise), multiple=round_to
    )


@granularity(removes="heads of attention", structured=True, dependency_groups=True)
def head(
    *,
    pool: Literal["mean", "sum", "max", "l2"] = "mean",
    normalise: Literal["none", "mean", "max"] = "none",
) -> Granularity:
    """An attention head: its rows of queries, keys and values with their biases, and the weights that read it.

    Michel et al., 2019, https://arxiv.org/abs/1905.10650

    pool: how the scores of a head's weights become one score.
    normalise: divide the scores of each layer's heads by their mean or max, so that layers compare.
    """

    def fit(model: nn.Module, name: str) -> Granularity | str:
        held = blocks(model)
        own = next((part for part in held if name in part.parts), None)
        if own is None:
            return (
                "its weights belong to no attention head."
                if held
                else "the model has no attention."
            )
        return own.reason or heads(
            own.heads, own.size, "" if name == own.parts[0] else own.parts[0]
        )

    def heads(count: int, size: int, leader: str) -> Granularity:
        def split(x: Tensor) -> Tensor:  # (parts · heads · size, in) -> (heads, parts · size · in)
            return x.reshape(-1, count, size, x.shape[1]).transpose(0, 1).flatten(1)

        def spread(units: Tensor, shape: torch.Size) -> Tensor:
            parts = shape[0] // (count * size)
            return units.reshape(1, -1, 1, 1).expand(parts, count, size, shape[1]).reshape(shape)

        return Granularity(lambda x: WAYS[pool](split(x)), spread, rows=True, leader=leader)

    return _rows(pool)._replace(fit=fit, kinds=("heads",), pooling=Pooling(pool, "all", normalise))


def _rows(pool: str) -> Granularity:
    return Granularity(
        lambda x: WAYS[pool](x.flatten(1)),
        lambda units, shape: units.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone(),
        rows=True,
    )


def _transposed(model: nn.Module, name: str) -> str:
    """Why a transposed convolution has neither rows nor columns here: its weights lie by input, then output."""
    kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
    return (
        "it is a transposed convolution, whose weights lie by input." if "Transpose" in kind else ""
    )
