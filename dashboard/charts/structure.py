"""Dependency groups: a chart with one line for each group, and its tables. Study data in. Pure.

A dependency group is a set of channels, neurons or heads that are pruned together, because several
layers make or read them. A member of a group is (parameter, dim): dim 0 is a layer's outputs, dim 1
its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from pruning.events import Certificate

Group = Mapping[str, Any]
StudyData = Mapping[str, Any]

LINE_HEIGHT = 22  # pixels of a group's line
FRAME = 150  # pixels of title, axis and the layers' names
TICK = 20  # letters of a layer along x
GROUP = 24  # letters of a group along y
TICKS = 27  # layer names along the axis that stand clear of each other
SIDES = {0: "outputs", 1: "inputs"}
GROUP_COLUMNS = (
    "group",
    "kind",
    "units",
    "weights with one unit",
    "layers that make it",
    "tensors touched",
)
BLOCKED_COLUMNS = ("layer", "what", "why", "operation", "in", "shapes")


def names(data: StudyData) -> list[str]:
    return [group["name"] for group in data["groups"]]


def groups_of_layer(data: StudyData, layer: str) -> list[str]:
    """Names of the groups of a layer's outputs first, then of those that it reads."""
    sides = {}
    for group in data["groups"]:
        dims = [m["dim"] for m in group["members"] if m["parameter"] == layer]
        if dims:
            sides[group["name"]] = min(dims)
    return sorted(sides, key=sides.__getitem__)


def _parameters(group: Group) -> set[str]:
    return {member["parameter"] for member in group["members"]}


def _layers_made(data: StudyData, group: Group) -> list[str]:
    """The layers whose outputs a group holds."""
    layers = {layer["name"] for layer in data["layers"]}
    return [m["parameter"] for m in group["members"] if m["dim"] == 0 and m["parameter"] in layers]


def _units(group: Group) -> str:
    return words.plural(group["units"], group["kind"].removesuffix("s"))


def finding(data: StudyData) -> str:
    """The chart's title: how many groups there are, and how many layers the largest ties."""
    groups = data["groups"]
    if not groups:
        return "No channel of this model can be pruned on its own"
    sizes = [len(_layers_made(data, group)) for group in groups]
    layers = words.plural(len(data["layers"]), "layer")
    counted = f"{layers}, {words.plural(len(groups), 'group')}"
    if max(sizes) <= 1:
        return f"{counted}: no layers share their outputs"
    return f"{counted}, the largest over the outputs of {words.plural(max(sizes), 'layer')}"


# ---------------------------------------------------------------- the chart


def lanes(data: StudyData, chosen: str, *, dark: bool) -> dict[str, Any]:
    """Layers along x in order, a line for each group.

    A full mark stands where the group is a layer's outputs, a ring where the layer reads it.
    """
    tones = colours.palette(dark)
    traces: list[dict[str, Any]] = []
    for row, group in enumerate(data["groups"]):
        picked = group["name"] == chosen
        colour = tones.highlight if picked else tones.kept
        traces += _lane(data, group, row, colour, 3 if picked else 1)
    layers = data["layers"]
    groups = data["groups"]
    step = -(-len(layers) // TICKS)
    ticks = list(range(0, len(layers), step))
    x = {
        "title": {"text": "layers, in order"},
        "tickvals": ticks,
        "ticktext": [words.layer_name(layers[i]["name"], TICK) for i in ticks],
        "tickangle": -50,
        "range": [-0.7, len(layers) - 0.3],
        "showgrid": True,
    }
    y = {
        "tickvals": list(range(len(groups))),
        "ticktext": [words.layer_name(group["name"], GROUP) for group in groups],
        "range": [len(groups) - 0.4, -0.6],
        "showgrid": False,
    }
    height = FRAME + LINE_HEIGHT * max(4, len(groups))
    return {"data": traces, "layout": layout(finding(data), dark, height, xaxis=x, yaxis=y)}


def _lane(data: StudyData, group: Group, row: int, colour: str, width: int) -> list[dict[str, Any]]:
    """A group's line, its rings, then its full marks, which must lie on top."""
    order = {layer["name"]: i for i, layer in enumerate(data["layers"])}
    places: dict[int, list[int]] = {1: [], 0: []}  # dim -> places of layers along x
    for member in group["members"]:
        # Biases, norms and further dimensions have no place of their own among the layers.
        if member["parameter"] in order and member["dim"] in places:
            places[member["dim"]].append(order[member["parameter"]])
    every = [*places[0], *places[1]]
    ends = [min(every), max(every)] if every else []
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": ends,
            "y": [row] * len(ends),
            "line": {"color": colour, "width": width},
            "hoverinfo": "skip",
        }
    ]
    heading = f"{words.layer_name(group['name'])}: {_units(group)}"
    for dim, symbol in ((1, "circle-open"), (0, "circle")):
        at = [words.layer_name(data["layers"][x]["name"]) for x in places[dim]]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": places[dim],
                "y": [row] * len(at),
                "text": [f"{heading}, {SIDES[dim]} of {layer}" for layer in at],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": colour,
                    "size": 10,
                    "symbol": symbol,
                    "line": {"color": colour, "width": 2},
                },
            }
        )
    return traces


# ---------------------------------------------------------------- tables and sentences


def group_table(data: StudyData) -> pd.DataFrame:
    """A row for each group."""
    rows = [
        (
            words.layer_name(group["name"]),
            group["kind"],
            group["units"],
            group["alone"],
            len(_layers_made(data, group)),
            len(_parameters(group)),
        )
        for group in data["groups"]
    ]
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


def member_table(group: Group) -> pd.DataFrame:
    """What is pruned with one unit, parameter by parameter."""
    rows = [
        {
            "parameter": member["parameter"],
            "dimension": SIDES.get(member["dim"], f"dimension {member['dim']}"),
            "indices for one unit": member["each"],
        }
        for member in group["members"]
    ]
    return pd.DataFrame(rows)


def blocked_table(data: StudyData) -> pd.DataFrame:
    """What cannot be pruned, and why."""
    rows = [
        (
            words.layer_name(side["parameter"]),
            f"{side['count']:,} of {side['size']:,} {SIDES[side['dim']]}",
            side["why"],
            side["operation"],
            side["where"] or "the model",
            ", ".join("×".join(map(str, shape)) for shape in side["shapes"]),
        )
        for side in data["blocked"]
    ]
    return pd.DataFrame(rows, columns=list(BLOCKED_COLUMNS))


def removal_effect(group: Group) -> str:
    """What pruning one unit of a group removes, in a sentence."""
    dims = [member["dim"] for member in group["members"]]
    unit = group["kind"].removesuffix("s")
    return (
        f"Each of the {group['units']:,} {group['kind']} is pruned with "
        f"{words.plural(group['alone'], 'weight')}: "
        f"it is made in {words.plural(dims.count(0), 'parameter')} (weights, biases, norms) "
        f"and read in {words.plural(dims.count(1), 'parameter')}. "
        f"At least one {unit} is kept."
    )


def certificate_in_words(certificate: Certificate) -> str:
    """The certificate of a compact model: what was left out, and that the outputs are the same."""
    removed = (
        f"without {certificate.removed:,} of {words.plural(certificate.units, 'unit')}, "
        f"{certificate.kept:,} of {words.plural(certificate.parameters, 'parameter')}"
    )
    own = any(check.endswith("in its own precision") for check in certificate.checks)
    precision = "its own" if own else "double"
    sentences = [
        f"Certified: the compact model, {removed}, gives the outputs of the masked one, "
        f"to {certificate.error:.0e} of the largest output in {precision} precision "
        f"(refused above {certificate.limit:.0e}; {len(certificate.checks)} comparisons)."
    ]
    if certificate.sizes:
        sentences.append(f"It holds for inputs of {certificate.sizes}.")
    for frozen in certificate.frozen:
        units = words.plural(frozen.units, "unit")
        sentences.append(f"{words.layer_name(frozen.group)} kept {units} as zeros: {frozen.why}.")
    if certificate.unused:
        unused = words.plural(len(certificate.unused), "parameter")
        sentences.append(f"Removed too: {unused} that only training uses.")
    return " ".join(sentences)
