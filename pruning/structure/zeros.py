"""Zeros: are removed elements exactly zero where they are read? Where not, they are blocked.

Masks zero every weight, bias, scale and shift of a removed channel, and the weights that read it.
That leaves places where a removed element counts without a weight of its own: the statistics of a
LayerNorm, a product of two activations, a sum, a divisor. Sigmoid(0), for one, is a half.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from pruning.structure.labels import Factor, varies
from pruning.structure.propagate import Propagation, Value, arguments, names, operation
from pruning.structure.rules.contract import SOFTMAX
from pruning.structure.rules.convolve import CONVOLUTIONS
from pruning.structure.rules.elementwise import (
    BINARY,
    LIKES,
    SAMPLED,
    UNARY,
    with_inplace,
)
from pruning.structure.rules.moves import COPIES, MOVES
from pruning.structure.rules.reduce import EXACT, WIDE, reduced_dims

LAYERS = (*CONVOLUTIONS, "linear", "embedding")
PRODUCTS = names("matmul bmm mm einsum addmm baddbmm")
NORMS = names("layer_norm rms_norm batch_norm group_norm instance_norm")
TIMES = names("mul mul_ multiply multiply_ logical_and __and__")
OVER = names("div div_ divide divide_ true_divide")
RANDOM = (*LIKES, *SAMPLED, *names("bernoulli dropout feature_dropout alpha_dropout"))
TURNS = names("permute transpose")
ELEMENTWISE = frozenset(with_inplace(UNARY) + with_inplace(BINARY))


class Zeros:
    """Blocks the labels of values that are read where only zeros would be exact.

    A class because every check looks up what was decided of the values before.

    zero: node -> whether the elements of its value that would be removed are zero; uniform: whether
    they are all alike along the dimension they are removed from, so that one of them can be
    computed for all (sigmoid(0); minus a mean over channels).
    """

    def __init__(self, propagation: Propagation) -> None:
        self.propagation = propagation
        self.zero = propagation.zero
        self.uniform: dict[Node, bool] = {}

    def run(self) -> None:
        for node in self.propagation.captured.graph.graph.nodes:
            self.propagation.node = node  # the one that blocks
            result = self.value(node)
            if node.op == "get_attr":
                # Masks make parameters zero; a buffer keeps its numbers.
                self.zero[node] = result is None or result.kind == "parameter"
            elif node.op == "call_function" and result is not None:
                self.zero[node] = self.is_zero(node, result)
            else:
                self.zero[node] = True
            self.uniform[node] = self.zero[node] or self.is_uniform(node, result)

    def is_uniform(self, node: Node, result: Value | None) -> bool:
        """Whether what would be removed of a node's result is alike, along any labelled dimension.

        As `Rewrite.background` computes it: by the operation itself, of what its operands would
        have there.
        """
        if result is None or node.op != "call_function" or not result.factors:
            return False
        name = operation(node)
        if name not in ELEMENTWISE and name not in (*COPIES, *TURNS):
            return False
        if name in RANDOM:
            return False
        labelled = {d - len(result.shape) for factor in result.factors for d in varies(factor)}
        for source in node.all_input_nodes:
            value = self.value(source)
            if value is None:
                continue
            alike = all(-d > len(value.shape) or value.shape[d] == 1 for d in labelled)
            if not alike and not (value.factors and self.uniform[source]):
                return False
        return True

    def value(self, node: Node) -> Value | None:
        """The first value of a node's result; None for sizes."""
        result = self.propagation.results[node]
        first = result[0] if isinstance(result, list) and result else result
        return first if isinstance(first, Value) else None

    def labelled(self, node: Node) -> list[Node]:
        """The inputs of a node that have any labels."""
        values = {source: self.value(source) for source in node.all_input_nodes}
        return [source for source, value in values.items() if value and value.factors]

    def is_zero(self, node: Node, result: Value) -> bool:
        """Whether what would be removed of a node's result is zero."""
        name = operation(node)
        labelled = self.labelled(node)
        if not labelled or (name in MOVES and name != "expand_as"):
            return all(self.zero[n] for n in labelled)
        if name in LAYERS:
            return self.layer(node, result)
        if name == "scaled_dot_product_attention":
            return self.attention(node)
        if name in PRODUCTS:
            return self.product(node, result)
        if name in NORMS:
            return self.norm(node, labelled)
        if name in SOFTMAX:
            return False  # exp(0) is 1
        if name in ("max", "min") and len(node.all_input_nodes) > 1:  # of two tensors
            return self.elementwise(node, labelled, result)
        if name == "sum" or name in WIDE:
            why = f"{name} runs over removed elements that are not alike"
            dims = reduced_dims(node, len(self.propagation.value(labelled[0]).shape))
            self.need_zero(labelled[0], why, dims=dims, alike=True)
            return self.zero[labelled[0]]
        if name in EXACT:
            self.need_zero(labelled[0], "it sums removed elements that are not zero")
            return self.zero[labelled[0]]
        if name == "expand_as":
            # What is expanded takes labels of what it is expanded to, but not its numbers.
            source = node.all_input_nodes[0]
            own = [source in self.carriers([source], factor, result) for factor in result.factors]
            return self.zero[source] and all(own)
        if name in ELEMENTWISE or name in (*LIKES, *SAMPLED):
            return self.elementwise(node, labelled, result)
        return all(self.zero[n] for n in labelled)

    def elementwise(self, node: Node, labelled: list[Node], result: Value) -> bool:
        name = operation(node)
        first = labelled[0]
        if name in TIMES:
            # 0 · y = 0: of each label, one operand that has it must be zero.
            factors = [n for n in node.all_input_nodes if self.value(n)]
            return all(
                any(self.zero[n] for n in self.carriers(factors, factor, result))
                for factor in result.factors
            )
        if name in OVER:
            if len(labelled) > 1 and self.zero[labelled[1]]:
                self.propagation.block_all([self.value(labelled[1])], "it would divide by zero")
            return self.zero[first] and all(
                first in self.carriers(labelled, factor, result) for factor in result.factors
            )
        operands = [n for n in node.all_input_nodes if self.value(n)]
        if len(operands) > 1:
            # 0 + y = y: every operand must be zero, and have every label.
            read = operands[1:] if name.startswith("where") else operands
            return all(self.zero[n] for n in read) and all(
                len(self.carriers(read, factor, result)) == len(read) for factor in result.factors
            )
        return self.zero[first] and self.keeps_zero(node)

    def carriers(self, nodes: list[Node], factor: Factor, result: Value) -> list[Node]:
        """The operands that have labels wherever this factor of the result varies."""
        carrying = []
        for node in nodes:
            value = self.value(node)
            assert value is not None
            if value.all_zero:
                carrying.append(node)
                continue
            ahead = len(result.shape) - len(value.shape)
            labelled = {d + ahead for own in value.factors for d in varies(own)}
            if set(varies(factor)) <= labelled:
                carrying.append(node)
        return carrying

    def keeps_zero(self, node: Node) -> bool:
        """Whether f(0) = 0, asked of the operation itself."""
        if operation(node) in (*LIKES, *SAMPLED):
            return False
        function: Any = node.target
        try:
            rest = self.propagation.real(node.args[1:])
            options = self.propagation.real(node.kwargs)
            result = function(torch.zeros(1), *rest, **options)
            return bool((result == 0).all())
        except Exception:  # what cannot be asked is taken for no
            return False

    def layer(self, node: Node, result: Value) -> bool:
        """Removed rows and biases are zero; so a result's channels are.

        A linear layer lets labels along other dimensions through, and adds its bias to them.
        """
        last = len(result.shape) - 1
        others = [factor for factor in result.factors if set(varies(factor)) - {last}]
        if operation(node) != "linear" or not others:
            return True
        x = node.all_input_nodes[0]
        return arguments(node).get("bias") is None and self.zero[x]

    def attention(self, node: Node) -> bool:
        args = arguments(node)
        if not self.zero[args["key"]]:
            why = "attention reads removed elements that are not zero"
            self.need_zero(args["query"], why, dims=(-1,))
        return self.zero[args["value"]]

    def product(self, node: Node, result: Value) -> bool:
        """What is removed is summed over: one side at least must be zero there."""
        operands = self.labelled(node)
        if operation(node) in ("addmm", "baddbmm"):
            operands = [n for n in operands if n is not node.args[0]]  # the one that is added
        if operands and not any(self.zero[n] for n in operands):
            self.need_zero(operands[0], "a product reads removed elements that are not zero")
        if all(self.zero[n] for n in operands):
            return True
        if operation(node) not in ("matmul", "bmm", "mm"):
            return False
        # One zero side is enough for the labels that it has: the first has the rows of the
        # result, the second its columns, and each the batch.
        first, *others = node.all_input_nodes
        second = others[0] if others else first  # x @ x
        last = len(result.shape) - 1
        return all(
            (self.zero[first] and last not in varies(factor))
            or (self.zero[second] and last - 1 not in varies(factor))
            for factor in result.factors
        )

    def norm(self, node: Node, labelled: list[Node]) -> bool:
        name = operation(node)
        args = arguments(node)
        x = args["input"]
        if name in ("layer_norm", "rms_norm") and x in labelled:
            value = self.propagation.value(x)
            total = len(value.shape)
            inside = range(total - len(args["normalized_shape"]), total)
            why = "its statistics count removed elements that are not zero"
            self.need_zero(x, why, dims=inside)
            if any(set(varies(factor)) - set(inside) for factor in value.factors):
                return False  # labels along tokens, say: their shifts are not masked
        if name == "group_norm" and args["num_groups"] == 1 and x in labelled:
            self.need_zero(x, "its statistics count removed elements that are not zero")
        # Scales and shifts of removed channels are masked. Without them, zero stays zero where
        # no mean is subtracted, or that of a whole group of zeros.
        return args.get("weight") is not None or (
            name in ("rms_norm", "group_norm") and self.zero[x]
        )

    def need_zero(
        self, node: Node, why: str, dims: Iterable[int] = (), *, alike: bool = False
    ) -> None:
        """Block the labels of a value that is not zero (those along `dims`, if given).

        alike: it is enough that they are alike.
        """
        if self.zero[node] or (alike and self.uniform[node]):
            return
        value = self.propagation.value(node)
        total = len(value.shape)
        read = {d % total for d in dims} or set(range(total))
        for factor in value.factors:
            if read & set(varies(factor)):
                self.propagation.block(factor, why)
