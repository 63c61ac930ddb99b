"""Where a model keeps its attention heads: which weights hold queries, keys and values, and how many heads share them."""

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
COUNTS = ("num_heads", "heads", "n_heads", "n_head", "num_attention_heads")


@dataclass(frozen=True)
class AttentionBlock:
    """An attention module. parts: the weights of queries, keys and values, or the one weight that packs them, in that order.

    Head h owns rows h·size to (h + 1)·size of each part, and of each third of a packed one.
    reason: why its heads cannot be told apart; "" where they can.
    """

    path: str
    parts: tuple[str, ...]
    heads: int
    size: int
    reason: str = ""


def blocks(model: nn.Module) -> list[AttentionBlock]:
    """Every attention module of the model, in its order."""
    found = (_block(path, module) for path, module in model.named_modules())
    return [held for held in found if held is not None]


def _block(path: str, module: nn.Module) -> AttentionBlock | None:
    def named(*leaves: str) -> tuple[str, ...]:
        return tuple(f"{path}.{leaf}" if path else leaf for leaf in leaves)

    if isinstance(module, nn.MultiheadAttention):
        if getattr(module, "in_proj_weight", None) is None:
            apart = "its queries, keys and values have different widths and share one bias: heads are not removed from such a layer."
            return AttentionBlock(
                path,
                named("q_proj_weight", "k_proj_weight", "v_proj_weight"),
                module.num_heads,
                module.head_dim,
                apart,
            )
        return AttentionBlock(path, named("in_proj_weight"), module.num_heads, module.head_dim)
    count = next(
        (n for key in COUNTS if isinstance(n := getattr(module, key, None), int) and n > 0), None
    )
    if count is None:
        return None
    for leaf in PACKED:
        layer = getattr(module, leaf, None)
        if isinstance(layer, nn.Linear) and layer.out_features % (3 * count) == 0:
            return AttentionBlock(
                path, named(f"{leaf}.weight"), count, layer.out_features // (3 * count)
            )
    for leaves in SPLIT:
        layers = [getattr(module, leaf, None) for leaf in leaves]
        if all(isinstance(layer, nn.Linear) for layer in layers):
            return _split(
                path,
                named(*(f"{leaf}.weight" for leaf in leaves)),
                count,
                [layer for layer in layers if layer is not None],
            )
    return None


def _split(
    path: str, parts: tuple[str, ...], count: int, layers: list[nn.Linear]
) -> AttentionBlock:
    shapes = {(layer.out_features, layer.in_features) for layer in layers}
    rows = layers[0].out_features
    if len(shapes) > 1:
        return AttentionBlock(
            path,
            parts,
            count,
            0,
            "its queries, keys and values have different shapes: heads share keys, or read two inputs.",
        )
    if rows % count:
        return AttentionBlock(
            path, parts, count, 0, f"its {rows:,} rows do not come in {count} heads of one size."
        )
    return AttentionBlock(path, parts, count, rows // count)


@contextmanager
def no_fused_attention() -> Iterator[None]:
    """Encoder layers run their submodules one by one: fused, they are one operation that no hook and no rule can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
