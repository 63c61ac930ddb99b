"""The strip of layers: a block for each, as wide as its weights; a click selects it everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dashboard import colours, lengths, state, words
from dashboard.components.base import control

NAME = 14  # letters of a layer on its block
HEIGHT = lengths.STRIP


@dataclass(frozen=True)
class Block:
    """A layer of the strip. kept: share of its weights; None when nothing is being removed."""

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    kept: float | None = None


def strip(blocks: Sequence[Block], chosen: str, key: str) -> None:
    """Draw it; a picked layer becomes the selected one."""
    dark = state.dark()
    tones = colours.palette(dark)
    total = sum(block.weights for block in blocks)
    data = {
        "blocks": [_block_data(block, total, dark) for block in blocks],
        "chosen": chosen,
        "height": lengths.BLOCKS,
        "legend": _legend(blocks, dark),
        "tones": {
            "pale": tones.removed,
            "paler": tones.panel,
            "ink": tones.ground,
            "muted": tones.muted,
            "ground": tones.ground,
        },
    }
    names = {block.name for block in blocks}

    def picked() -> None:
        name = state.widget_value(key).picked
        if name in names:
            state.select_layer(name)

    control("strip")(key=key, data=data, on_picked_change=picked)


def _block_data(block: Block, total: int, dark: bool) -> dict[str, object]:
    label = words.layer_name(block.name)
    parts = [
        label,
        block.kind,
        words.shape(block.shape),
        words.plural(block.weights, "weight"),
        f"{words.percent(block.weights / total)} of all",
    ]
    if block.kept is not None:
        parts.append(f"{words.percent(block.kept)} kept")
    return {
        "id": block.name,
        "short": words.layer_name(block.name, NAME),
        "weights": block.weights,
        "kept": block.kept,
        "colour": colours.kind(block.kind, dark),
        "sentence": " · ".join(parts),
    }


def _legend(blocks: Sequence[Block], dark: bool) -> list[list[str]]:
    """[text, colour] of each kind of layer; removed weights are hatched, and have none."""
    kinds = dict.fromkeys(block.kind for block in blocks)
    legend = [[kind, colours.kind(kind, dark)] for kind in kinds]
    if any(block.kept is not None and block.kept < 1 for block in blocks):
        legend.append(["removed", ""])
    return legend
