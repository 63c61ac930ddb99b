"""The colour, dash and marker of each technique, and the tones of charts, in both themes.

Hues are Okabe and Ito's (2008, https://jfly.uni-koeln.de/color/), which people with any kind of
colour vision tell apart; darkened on light ground and lightened on dark ground until a mark has a
contrast of 3:1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from zlib import crc32

# name: (on light ground, on dark ground)
HUES = {
    "blue": ("#0072B2", "#4FA3DE"),
    "orange": ("#B97A00", "#F0A92B"),
    "green": ("#007F5D", "#2FBF93"),
    "purple": ("#B0538A", "#DE94BF"),
    "sky": ("#2E93CC", "#7CC6F0"),
    "vermilion": ("#C65300", "#EE8342"),
    "yellow": ("#8F8300", "#F0E442"),
}
DASHES = ("solid", "dash", "dashdot", "longdash")
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "x")

FIXED = {
    "magnitude": ("blue", "solid", "circle"),
    "taylor": ("orange", "solid", "square"),
    "obs": ("green", "solid", "diamond"),
    "fisher": ("purple", "solid", "triangle-up"),
    "obd": ("vermilion", "solid", "triangle-down"),
    "wanda": ("sky", "solid", "pentagon"),
    "movement": ("yellow", "solid", "star"),
    "synflow": ("blue", "dash", "x"),
    "snip": ("orange", "dash", "diamond"),
    "grasp": ("green", "dash", "triangle-up"),
    "hutchinson": ("purple", "dash", "circle"),
    "gradient": ("vermilion", "dash", "square"),
    "geometric_median": ("sky", "dash", "star"),
    "bn_scale": ("yellow", "dash", "triangle-down"),
    "activation": ("blue", "dashdot", "pentagon"),
    "reconstruction": ("orange", "dashdot", "star"),
    "lamp": ("green", "dashdot", "triangle-down"),
}
"""Seven hues and more techniques: a hue comes again with another dash and another marker."""


@dataclass(frozen=True)
class Style:
    """How a technique is drawn. dash and marker: plotly's names."""

    colour: str
    dash: str
    marker: str


@dataclass(frozen=True)
class Palette:
    """The tones of charts in one theme. kept, removed: of weights; kinds: of layers."""

    text: str
    muted: str
    grid: str
    ground: str
    panel: str
    kept: str
    removed: str
    dense: str
    random: str
    error: str
    highlight: str
    kinds: dict[str, str]


LIGHT = Palette(
    text="#0D161F",
    muted="#5A6875",
    grid="#E3E8EC",
    ground="#FFFFFF",
    panel="#F4F6F8",
    kept="#0072B2",
    removed="#C3CDD6",
    dense="#5A6875",
    random="#7A7F85",
    error="#B3261E",
    highlight="#C65300",
    kinds={
        "conv": "#0072B2",
        "depthwise": "#1C79AF",
        "linear": "#007F5D",
        "attention": "#B0538A",
        "other": "#6B7885",
    },
)
DARK = Palette(
    text="#E6EAEE",
    muted="#A3AFBA",
    grid="#2C3640",
    ground="#12181E",
    panel="#1A222A",
    kept="#4FA3DE",
    removed="#4A5763",
    dense="#A3AFBA",
    random="#9AA1A8",
    error="#FF8A80",
    highlight="#EE8342",
    kinds={
        "conv": "#4FA3DE",
        "depthwise": "#7CC6F0",
        "linear": "#2FBF93",
        "attention": "#DE94BF",
        "other": "#8A97A3",
    },
)

ACCURACY = "Cividis"
"""The scale of accuracies, by its name in plotly."""
ACCURACY_LINES = (
    [[0.0, "#00224E"], [0.5, "#575C6D"], [1.0, "#A59C74"]],
    [[0.0, "#575C6D"], [0.5, "#A59C74"], [1.0, "#FEE838"]],
)
"""Cividis for thin lines, without the end that is lost on light ground, or on dark."""
WEIGHTS = ("#F7F9FB", "#0B4F7D"), ("#1A222A", "#8CCBF7")
"""Pale to strong, for how large a weight is: on light and on dark ground."""
DIFFERENCE = (
    [[0.0, "#0072B2"], [0.5, "#F7F7F7"], [1.0, "#E69F00"]],
    [[0.0, "#4FA3DE"], [0.5, "#262E36"], [1.0, "#F0A92B"]],
)
"""Blue, white (or dark), orange; centred on 0: signed values."""


def palette(dark: bool) -> Palette:
    return DARK if dark else LIGHT


def technique(id: str, dark: bool = False) -> Style:
    """A technique's colour, dash and marker.

    One without a line in FIXED gets its own from its name: the same on every machine.
    """
    if id == "random":  # the control
        return Style(palette(dark).random, "dot", "cross")
    if id == "dense":
        return Style(palette(dark).dense, "solid", "circle")
    if id in FIXED:
        hue, dash, marker = FIXED[id]
    else:
        n = crc32(id.encode())  # not hash(): that differs from process to process
        # Pairs that no technique above has: told apart on a line, and also by its mark alone.
        taken = {(hue, dash) for hue, dash, _ in FIXED.values()}
        free = [(hue, dash) for dash in DASHES for hue in HUES if (hue, dash) not in taken]
        hue, dash = free[n % len(free)]
        used = {marker for other, _, marker in FIXED.values() if other == hue}
        markers = [marker for marker in MARKERS if marker not in used]
        marker = markers[n // 31 % len(markers)]  # other digits: independent of the hue
    return Style(HUES[hue][dark], dash, marker)


def techniques(names: Iterable[str], dark: bool = False) -> dict[str, Style]:
    """Name -> how it is drawn in one picture: as `technique` draws it, and no two alike.

    Those with a line of their own in FIXED keep it in every picture; of the others, one whose hue
    and dash another of the picture has takes the next that are free.
    """
    names = list(dict.fromkeys(names))
    styles = {name: technique(name, dark) for name in names if _is_fixed(name)}
    hues = [hue[dark] for hue in HUES.values()]
    pairs = [(hue, dash) for dash in DASHES for hue in hues]
    for name in names:
        if name in styles:
            continue
        own = technique(name, dark)
        used = {(style.colour, style.dash) for style in styles.values()}
        if (own.colour, own.dash) in used:
            start = pairs.index((own.colour, own.dash))
            turned = pairs[start:] + pairs[:start]
            # More techniques than pairs: the markers still differ.
            colour, dash = next((pair for pair in turned if pair not in used), turned[0])
            own = Style(colour, dash, own.marker)
        styles[name] = own
    return {name: styles[name] for name in names}


def _is_fixed(name: str) -> bool:
    return name in FIXED or name in ("random", "dense")


def kind(name: str, dark: bool = False) -> str:
    """The colour of a kind of layer: conv, depthwise, linear, attention."""
    kinds = palette(dark).kinds
    return kinds.get(name, kinds["other"])


def difference(dark: bool) -> list[list[object]]:
    """Plotly's colour scale for signed values."""
    return [list(stop) for stop in DIFFERENCE[dark]]


def strength(dark: bool) -> list[list[object]]:
    """Plotly's colour scale for how large a weight is."""
    low, high = WEIGHTS[dark]
    return [[0.0, low], [1.0, high]]


def alpha(colour: str, opacity: float) -> str:
    """`#0072B2` with an opacity, as CSS writes it."""
    r, g, b = _channels(colour)
    return f"rgba({r},{g},{b},{opacity:g})"


def on_scale(scale: Sequence[Sequence[Any]], place: float) -> str:
    """The colour of a place in [0, 1] on a scale of plotly's, which mixes its stops linearly."""
    place = min(1.0, max(0.0, place))
    (low, before), (high, after) = next(ends for ends in pairwise(scale) if place <= ends[1][0])
    part = (place - low) / (high - low)
    mixed = [
        round(a + part * (b - a)) for a, b in zip(_channels(before), _channels(after), strict=True)
    ]
    return "#" + "".join(f"{value:02x}" for value in mixed)


def ink(ground: str) -> str:
    """Black or white, whichever is read better on a colour: with a contrast of 4.58 at least.

    Plotly's own choice for the numbers of a heat map goes down to 3, and tones that are nearly
    black or white would not reach 4.5 on every colour.
    """
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in _channels(ground))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where both contrasts are the same: (1 + 0.05) / (l + 0.05) = (l + 0.05) / 0.05.
    return "#000000" if luminance > 0.1791 else "#FFFFFF"


def _channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of `#0072B2`, each to 255."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
