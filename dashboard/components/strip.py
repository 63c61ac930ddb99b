"""The strip of layers: a block for each, as wide as its weights, coloured by its kind. A click selects the layer everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from dashboard import colours, state, words

HERE = Path(__file__).parent
HTML = """
<div class="strip">
  <div class="blocks" role="group" aria-label="Layers"></div>
  <div class="foot"><div class="said"></div><div class="legend"></div></div>
</div>
"""


@dataclass(frozen=True)
class Block:
    """A layer of the strip. kept: share that a recipe or run leaves; None when nothing is being removed."""

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    kept: float | None = None


@st.cache_resource
def _control():
    css, js = ((HERE / f"strip.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return st.components.v2.component("layer_strip", html=HTML, css=css, js=js)


def strip(blocks: Sequence[Block], chosen: str, key: str) -> None:
    """Draw it; a picked layer becomes the selected one."""
    dark = state.dark()
    tones = colours.palette(dark)
    total = sum(block.weights for block in blocks)
    data = {
        "blocks": [_drawn(block, total, dark) for block in blocks],
        "chosen": chosen,
        "legend": _legend(blocks, dark),
        "tones": {
            "pale": tones.removed,
            "paler": tones.panel,
            "ink": tones.ground,
            "muted": tones.muted,
            "ground": tones.ground,
        },
    }
    known = {block.name for block in blocks}

    def picked() -> None:
        name = state.widget_value(key).picked
        if name in known:
            state.select_layer(name)

    _control()(key=key, data=data, on_picked_change=picked)


def _drawn(block: Block, total: int, dark: bool) -> dict[str, object]:
    said = [
        words.layer_name(block.name),
        block.kind,
        words.shape(block.shape),
        f"{words.plural(block.weights, 'weight')}",
    ]
    said.append(f"{words.percent(block.weights / total)} of all")
    if block.kept is not None:
        said.append(f"{words.percent(block.kept)} kept")
    label = words.layer_name(block.name)
    return {
        "id": block.name,
        "label": label,
        "weights": block.weights,
        "kept": block.kept,
        "colour": colours.kind(block.kind, dark),
        "said": " · ".join(said),
    }


def _legend(blocks: Sequence[Block], dark: bool) -> list[list[str]]:
    kinds = dict.fromkeys(block.kind for block in blocks)
    removed = (
        [["removed", ""]]
        if any(block.kept is not None and block.kept < 1 for block in blocks)
        else []
    )
    return [*([kind, colours.kind(kind, dark)] for kind in kinds), *removed]
