"""Pictures of the report as SVG: drawn here, so that the page asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pruning.metrics import Histogram, Layer

WIDTH, HEIGHT = 720, 240  # of the curve, in pixels
ROW = 22  # of one layer's bar
NAMES = 220  # room for the names of layers
SMALL, TALL = 230, 90  # one histogram


def curve(
    points: Sequence[float], reference: float | None, title: str, label: str, percent: bool
) -> str:
    """A value after each epoch as a line, beside the dense model's as a dashed one."""
    scale = 100 if percent else 1
    values = [scale * value for value in points]
    dense = None if reference is None else scale * reference
    every = [*values, *([dense] if dense is not None else [])]
    low, high = min(every), max(every)
    room = (high - low) * 0.1 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room
    left, right, top, bottom = 56, WIDTH - 70, 28, HEIGHT - 34

    def x(i: int) -> float:
        return left + (right - left) * (i / max(1, len(values) - 1))

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = []
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(value):.1f}" '
                     f'y2="{y(value):.1f}"/>')  # fmt: skip
        parts.append(_text(left - 6, y(value) + 4, f"{value:.4g}", "end"))
    if dense is not None:
        parts.append(f'<line class="dense" x1="{left}" x2="{right}" y1="{y(dense):.1f}" '
                     f'y2="{y(dense):.1f}"/>')  # fmt: skip
        parts.append(_text(right + 6, y(dense) + 4, "dense"))
    line = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts += [f'<circle class="dot" cx="{x(i):.1f}" cy="{y(v):.1f}" r="3"><title>epoch {i + 1}: '
              f"{v:.4g}</title></circle>" for i, v in enumerate(values)]  # fmt: skip
    parts.append(_text((left + right) / 2, HEIGHT - 6, "epoch", "middle"))
    parts.append(_text(4, 10, label))
    return _svg(WIDTH, HEIGHT, title, parts)


def bars(layers: Sequence[Layer], title: str) -> str:
    """The share of each layer's weights that was pruned."""
    parts = []
    full = WIDTH - NAMES - 90
    for i, layer in enumerate(layers):
        pruned = 1 - layer.kept / max(1, layer.total)
        y = i * ROW
        parts.append(_text(NAMES - 8, y + 15, shortened(layer.name), "end"))
        parts.append(f'<rect class="kept" x="{NAMES}" y="{y + 4}" width="{full}" height="14"/>')
        parts.append(f'<rect class="pruned" x="{NAMES}" y="{y + 4}" width="{full * pruned:.1f}" '
                     f'height="14"><title>{escape(layer.name)}: {layer.kept:,} of {layer.total:,} '
                     f"weights kept</title></rect>")  # fmt: skip
        parts.append(_text(NAMES + full + 8, y + 15, f"{100 * pruned:.1f} %"))
    return _svg(WIDTH, len(layers) * ROW + 6, title, parts)


def histogram(name: str, counts: Histogram) -> str:
    """A layer's weights before and after, on one axis; the counts' square roots are drawn."""
    groups = 64  # of the 256 bins, as many as there are pixels for
    before = counts.dense.reshape(groups, -1).sum(1)
    after = counts.final.reshape(groups, -1).sum(1)
    most = max(1, int(before.max()), int(after.max())) ** 0.5
    step = SMALL / groups

    def heights(values: Sequence[int]) -> list[float]:
        return [TALL * (int(value) ** 0.5) / most for value in values]

    outline = []
    for i, h in enumerate(heights(before.tolist())):
        outline += [f"{i * step:.1f},{TALL - h:.1f}", f"{(i + 1) * step:.1f},{TALL - h:.1f}"]
    parts = [
        f'<rect class="pruned" x="{i * step:.1f}" y="{TALL - h:.1f}" width="{step:.1f}" '
        f'height="{h:.1f}"/>'
        for i, h in enumerate(heights(after.tolist()))
        if h
    ]
    parts.append(f'<polyline class="outline" points="{" ".join(outline)}"/>')
    reach = float(counts.edges[-1])
    parts += [
        _text(0, TALL + 14, f"−{reach:.2g}"),
        _text(SMALL / 2, TALL + 30, shortened(name), "middle"),
        _text(SMALL, TALL + 14, f"{reach:.2g}", "end"),
    ]
    return _svg(SMALL, TALL + 36, f"Weights of {name}, before and after", parts)


def shortened(name: str, most: int = 30) -> str:
    """A long name without its middle: both ends tell layers apart."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A picture that says to a screen reader what it shows."""
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>"])
