"""Regions of a recorded graph under `torch.autocast` or `torch.no_grad`, as plain operations.

torch.export keeps each as one call of a graph of its own, in which channels could not be followed.
What autocast did in it are casts, and are written as such; what no_grad let out is detached.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as trees

aten = torch.ops.aten
AUTOCAST = torch.ops.higher_order.wrap_with_autocast
GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled


def inline(module: fx.GraphModule) -> None:
    """Put the operations of every region in its place, those of regions inside of it too."""
    while True:
        regions = [node for node in module.graph.nodes if node.target in (AUTOCAST, GRADIENTS)]
        if not regions:
            return
        for region in regions:
            _inline(module, region)


def _inline(module: fx.GraphModule, region: Node) -> None:
    options = 4 if region.target is AUTOCAST else 1  # device, dtype, enabled, cache; enabled
    body, *operands = region.args[options:]
    assert isinstance(body, Node)
    inner = module.get_submodule(str(body.target))
    assert isinstance(inner, fx.GraphModule)
    copies: dict[Node, Any] = {}
    inputs = iter(operands)
    results: Any = ()
    with module.graph.inserting_before(region):
        for node in inner.graph.nodes:
            if node.op == "placeholder":
                copies[node] = next(inputs)
            elif node.op == "output":
                results = fx.node.map_arg(node.args[0], copies.__getitem__)
            else:
                copy = module.graph.node_copy(node, copies.__getitem__)
                if node.op == "get_attr":
                    copy.target = f"{body.target}.{node.target}"
                copies[node] = copy
                if region.target is AUTOCAST:
                    _cast_operands(module.graph, copy)
        if region.target is GRADIENTS and not region.args[0]:
            results = [_detached(module.graph, result) for result in results]
    for user in list(region.users):
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(region)
    if not body.users:
        module.graph.erase_node(body)


def _cast_operands(graph: fx.Graph, node: Node) -> None:
    """Casts of an operation's operands to the precision that its result was recorded in."""
    made = _precision(node)
    if made is None or getattr(node.target, "_schema", None) is None:
        return
    operands = [n for n in node.all_input_nodes if _precision(n) is not None]
    low = (torch.float16, torch.bfloat16)
    # By themselves, operations give the widest precision of what they read.
    widest = torch.float32 if any(_precision(n) not in low for n in operands) else made
    lowered = made in low and widest not in low
    raised = made == torch.float32 and operands and all(_precision(n) in low for n in operands)
    if not (lowered or raised) or node.target in (aten.to.dtype, aten._to_copy.default):
        return
    with graph.inserting_before(node):
        for operand in operands:
            if _precision(operand) != made:
                cast = graph.call_function(aten.to.dtype, (operand, made))
                cast.meta = {**operand.meta, "val": operand.meta["val"].to(made)}
                node.replace_input_with(operand, cast)


def _precision(node: Node) -> torch.dtype | None:
    """The floating precision that a node's first result was recorded in."""
    leaves = trees.tree_leaves(node.meta.get("val"))
    first = leaves[0] if leaves else None
    floating = isinstance(first, Tensor) and first.is_floating_point()
    return first.dtype if floating and isinstance(first, Tensor) else None


def _detached(graph: fx.Graph, result: Any) -> Any:
    if not isinstance(result, Node) or _precision(result) is None:
        return result
    detached = graph.call_function(aten.detach.default, (result,))
    detached.meta = dict(result.meta)
    return detached
