"""Which layers share channels: a picture with one line for each group, and its tables. Study data in, plain dicts and tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from pruning.events import Certificate

LANE, TOP = 22, 150  # pixels: of a group's line; of title, axis and the layers' names
SIDES = {0: "outputs", 1: "inputs"}


def names(data: Mapping[str, Any]) -> list[str]:
    return [group["name"] for group in data["groups"]]


def of_layer(data: Mapping[str, Any], layer: str) -> list[str]:
    """The groups that hold a layer's outputs first, then those that it reads."""
    touching = [group for group in data["groups"] if layer in _touched(group)]
    first = {
        group["name"]: min(m["dim"] for m in group["members"] if m["parameter"] == layer)
        for group in touching
    }
    return sorted(first, key=first.__getitem__)


def _touched(group: Mapping[str, Any]) -> set[str]:
    return {member["parameter"] for member in group["members"]}


def found(data: Mapping[str, Any]) -> str:
    """The picture's title: what it shows."""
    layers, groups = len(data["layers"]), data["groups"]
    if not groups:
        return "No channel of this model can go on its own"
    widest = max(groups, key=lambda group: len(_rows(data, group)))
    alone = sum(len(_rows(data, group)) == 1 for group in groups)
    many = len(_rows(data, widest))
    if many <= 1:
        return f"{words.plural(layers, 'layer')}, {words.plural(len(groups), 'group')}: no layers share their outputs"
    counted = f"{words.plural(layers, 'layer')}, {words.plural(len(groups), 'group')}"
    return f"{counted}: {alone} hold one layer's outputs, the largest those of {many}"


def _rows(data: Mapping[str, Any], group: Mapping[str, Any]) -> list[str]:
    """The layers whose outputs a group holds."""
    layers = {layer["name"] for layer in data["layers"]}
    return [m["parameter"] for m in group["members"] if m["dim"] == 0 and m["parameter"] in layers]


def lanes(data: Mapping[str, Any], chosen: str, *, dark: bool) -> dict[str, Any]:
    """Layers along x in order, a line for each group: a full mark where the group is a layer's outputs, a ring where the layer reads it."""
    tones = colours.palette(dark)
    order = {layer["name"]: i for i, layer in enumerate(data["layers"])}
    every: list[dict[str, Any]] = []
    for lane, group in enumerate(data["groups"]):
        sides = [
            (order[m["parameter"]], m["dim"])
            for m in group["members"]
            if m["parameter"] in order and m["dim"] < 2
        ]
        tone = tones.highlight if group["name"] == chosen else tones.kept
        said = f"{words.layer_name(group['name'])}: {words.plural(group['units'], group['kind'].removesuffix('s'))}"
        ends = [min(x for x, _ in sides), max(x for x, _ in sides)] if sides else []
        every.append(_line(ends, lane, tone, 3 if group["name"] == chosen else 1))
        for dim, symbol in ((1, "circle-open"), (0, "circle")):
            at = [x for x, d in sides if d == dim]
            texts = [
                f"{said}, {SIDES[dim]} of {words.layer_name(data['layers'][x]['name'])}" for x in at
            ]
            every.append(_marks(at, lane, texts, tone, symbol))
    layers, groups = data["layers"], data["groups"]
    step = -(-len(layers) // 27)  # names that stand clear of each other
    ticks = list(range(0, len(layers), step))
    axes = {
        "xaxis": {
            "title": {"text": "layers, in order"},
            "tickvals": ticks,
            "ticktext": [_short(layers[i]["name"]) for i in ticks],
            "tickangle": -50,
            "range": [-0.7, len(layers) - 0.3],
            "showgrid": True,
        },
        "yaxis": {
            "tickvals": list(range(len(groups))),
            "ticktext": [_short(group["name"], 44) for group in groups],
            "range": [len(groups) - 0.4, -0.6],
            "showgrid": False,
        },
    }
    return {
        "data": every,
        "layout": layout(found(data), dark, TOP + LANE * max(4, len(groups)), **axes),
    }


def _short(name: str, room: int = 28) -> str:
    """At most so many letters: the end of a name says more than its start."""
    name = words.layer_name(name)
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _line(ends: Sequence[int], lane: int, tone: str, width: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(ends),
        "y": [lane] * len(ends),
        "line": {"color": tone, "width": width},
        "hoverinfo": "skip",
    }


def _marks(x: list[int], lane: int, texts: list[str], tone: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": [lane] * len(x),
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": tone,
            "size": 10,
            "symbol": symbol,
            "line": {"color": tone, "width": 2},
        },
    }


# ---------------------------------------------------------------- tables


def table(data: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each group."""
    rows = [
        {
            "group": words.layer_name(group["name"]),
            "kind": group["kind"],
            "units": group["units"],
            "weights with one unit": group["alone"],
            "layers that make it": len(_rows(data, group)),
            "tensors touched": len(_touched(group)),
        }
        for group in data["groups"]
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "group",
            "kind",
            "units",
            "weights with one unit",
            "layers that make it",
            "tensors touched",
        ],
    )


def members(group: Mapping[str, Any]) -> pd.DataFrame:
    """What one unit takes along, parameter by parameter."""
    rows = [
        {
            "parameter": m["parameter"],
            "dimension": SIDES.get(m["dim"], f"dimension {m['dim']}"),
            "indices that go with one unit": m["each"],
        }
        for m in group["members"]
    ]
    return pd.DataFrame(rows)


def touches(group: Mapping[str, Any]) -> str:
    """What a removal touches, in a sentence."""
    unit = group["kind"].removesuffix("s")
    made = sum(m["dim"] == 0 for m in group["members"])
    read = sum(m["dim"] == 1 for m in group["members"])
    return (
        f"Each of the {group['units']:,} {group['kind']} takes {words.plural(group['alone'], 'weight')} along: it is made in "
        f"{words.plural(made, 'parameter')} (weights, biases, norms) and read in {words.plural(read, 'parameter')}. "
        f"At least one {unit} stays."
    )


def certified(held: Certificate) -> str:
    """The certificate of a slim model, in words."""
    gone = f"without {held.removed:,} of {words.plural(held.units, 'unit')}, {held.kept:,} of {words.plural(held.parameters, 'parameter')}"
    kept = [
        f" {words.layer_name(f.group)} kept {words.plural(f.units, 'unit')} as zeros: {f.why}."
        for f in held.frozen
    ]
    unused = (
        f" {words.plural(len(held.unused), 'parameter')} that only training uses went too."
        if held.unused
        else ""
    )
    return (
        f"Certified: the slim model, {gone}, answers as the masked one does, to {held.error:.0e} of the largest answer in double "
        f"precision (refused above {held.limit:.0e}; {len(held.checks)} comparisons).{''.join(kept)}{unused}"
    )


def blocked(data: Mapping[str, Any]) -> pd.DataFrame:
    """What cannot go, and why."""
    rows = [
        {
            "layer": words.layer_name(held["parameter"]),
            "what": f"{held['count']:,} of {held['size']:,} {SIDES[held['dim']]}",
            "why": held["why"],
            "operation": held["operation"],
            "in": held["where"] or "the model",
            "shapes": ", ".join("×".join(map(str, shape)) for shape in held["shapes"]),
        }
        for held in data["blocked"]
    ]
    return pd.DataFrame(rows, columns=["layer", "what", "why", "operation", "in", "shapes"])
