"""Attention heads: which weights hold queries, keys and values, and how many heads share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

SPLIT = (
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
)
"""Names that three linear layers go by in one attention module."""

PACKED = ("qkv", "to_qkv", "qkv_proj")
"""Names of one linear layer that gives all three."""

COUNTS = ("num_heads", "heads", "n_heads", "n_head", "num_attention_heads")


@dataclass(frozen=True)
class AttentionBlock:
    """An attention module.

    parts: the weights of queries, keys and values in that order, or the one weight that packs them
        Head h owns rows h·size to (h + 1)·size of each part, and of each third of a packed one.
    reason: why its heads cannot be separated; "" where they can
    """

    path: str
    parts: tuple[str, ...]
    heads: int
    size: int
    reason: str = ""


def blocks(model: nn.Module) -> list[AttentionBlock]:
    """Every attention module of the model, in its order."""
    candidates = [_block(path, module) for path, module in model.named_modules()]
    return [block for block in candidates if block is not None]


def _block(path: str, module: nn.Module) -> AttentionBlock | None:
    prefix = f"{path}." if path else ""
    if isinstance(module, nn.MultiheadAttention):
        return _torch_attention(path, prefix, module)
    counts = [getattr(module, name, None) for name in COUNTS]
    heads = next((n for n in counts if isinstance(n, int) and n > 0), None)
    if heads is None:
        return None
    for leaf in PACKED:
        layer = getattr(module, leaf, None)
        if isinstance(layer, nn.Linear) and layer.out_features % (3 * heads) == 0:
            size = layer.out_features // (3 * heads)
            return AttentionBlock(path, (f"{prefix}{leaf}.weight",), heads, size)
    for leaves in SPLIT:
        layers = [getattr(module, leaf, None) for leaf in leaves]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if len(linear) == len(leaves):
            parts = tuple(f"{prefix}{leaf}.weight" for leaf in leaves)
            return _split_attention(path, parts, heads, linear)
    return None


def _torch_attention(path: str, prefix: str, module: nn.MultiheadAttention) -> AttentionBlock:
    leaves = ["in_proj_weight"]
    reason = ""
    if getattr(module, "in_proj_weight", None) is None:
        leaves = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
        reason = (
            "its queries, keys and values have different widths and share one bias: "
            "heads are not removed from such a layer."
        )
    parts = tuple(prefix + leaf for leaf in leaves)
    return AttentionBlock(path, parts, module.num_heads, module.head_dim, reason)


def _split_attention(
    path: str, parts: tuple[str, ...], heads: int, layers: list[nn.Linear]
) -> AttentionBlock:
    shapes = {(layer.out_features, layer.in_features) for layer in layers}
    rows = layers[0].out_features
    if len(shapes) > 1:
        reason = (
            "its queries, keys and values have different shapes: "
            "heads share keys, or read two inputs."
        )
        return AttentionBlock(path, parts, heads, 0, reason)
    if rows % heads:
        reason = f"its {rows:,} rows do not come in {heads} heads of one size."
        return AttentionBlock(path, parts, heads, 0, reason)
    return AttentionBlock(path, parts, heads, rows // heads)


@contextmanager
def no_fused_attention() -> Iterator[None]:
    """Encoder layers run their submodules one by one.

    Fused, they are one operation that no hook and no rule of pruning can look into.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
