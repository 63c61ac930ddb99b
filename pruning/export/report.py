"""report.html: a result on one page that opens without a network and asks nobody for anything."""

from __future__ import annotations

import json
from html import escape

from pruning.export import pictures
from pruning.export.result import Result
from pruning.metrics import figure_rows

MOST = 24
"""Layers whose histograms are drawn."""

STYLE = """
:root { --text: #1c2833; --soft: #5d6d7e; --line: #0072b2; --paper: #fff; --rule: #d5d8dc;
        --kept: #eaecee; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ecf0f1; --soft: #aab7b8; --line: #56b4e9; --paper: #17202a; --rule: #34495e;
          --kept: #2c3e50; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule);
         vertical-align: top; }
th { font-weight: 600; } .soft, figcaption { color: var(--soft); }
figure { margin: 1rem 0; overflow-x: auto; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--rule); } .dense { stroke: var(--soft); stroke-dasharray: 5 4; }
.line { fill: none; stroke: var(--line); stroke-width: 2; } .dot, .pruned { fill: var(--line); }
.kept { fill: var(--kept); } .outline { fill: none; stroke: var(--soft); }
.grid-of { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem; }
pre { background: var(--kept); padding: .8rem; overflow-x: auto; font-size: .85rem; }
"""


def report(result: Result, notes: list[str]) -> str:
    """The page. notes: what there is to say about the files beside it."""
    title = f"{result.name}: pruning report"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # Nothing is fetched, whatever a name might say: the browser holds to it.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(result.name)}</h1>",
        f"<p><strong>{escape(result.sentence)}.</strong></p>",
        f'<p class="soft">{escape(made(result))}</p>',
        *_table(result),
        *_curve(result),
        *_layers(result),
        *_histograms(result),
        *_certificate(result),
        *_notes(notes),
        *_recipe(result),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def made(result: Result) -> str:
    """When and where: `2026-11-26 12:00, torch 2.14.1, 1 thread of ..., seed 0`."""
    machine = result.machine
    parts = [result.date]
    if machine:
        threads = machine.get("threads")
        plural = "" if threads == 1 else "s"
        parts.append(f"torch {machine.get('torch')}")
        parts.append(f"{threads} thread{plural} of {machine.get('processor')}")
        if machine.get("accelerator"):
            parts.append(f"{machine['accelerator']} ({machine.get('device')})")
    if result.recipe is not None:
        parts.append(f"seed {result.recipe.seed}")
    return ", ".join(part for part in parts if part)


def _table(result: Result) -> list[str]:
    stages = result.stages()
    if not stages:
        return []
    heads = "".join(f'<th scope="col">{escape(stage)}</th>' for stage in stages)
    lines = ["<h2>Figures</h2>", f"<figure><table><thead><tr><td></td>{heads}</tr></thead><tbody>"]
    for name, texts in figure_rows(stages):
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return [*lines, "</tbody></table></figure>"]


def _curve(result: Result) -> list[str]:
    own = [epoch for epoch in result.epochs if not epoch.branch]
    qualities = [epoch.quality for epoch in own]
    points = [quality.value for quality in qualities if quality is not None]
    if len(points) < 2:
        return []
    first = next(quality for quality in qualities if quality is not None)
    score = own[-1].score
    label = f"{score.name}, validation" if score else "Accuracy on validation data, %"
    percent = score is None or score.unit == "%"
    title = f"{label}: {first.value:.4g} after the first epoch, {points[-1]:.4g} after the last"
    dense = result.dense_validation
    picture = pictures.curve(points, dense.value if dense else None, title, label, percent)
    caption = "After each epoch of fine-tuning, on validation data."
    return ["<h2>Fine-tuning</h2>", _figure(picture, caption)]


def _layers(result: Result) -> list[str]:
    if not result.pruned:
        return []
    layers = result.pruned[-1].layers
    picture = pictures.bars(layers, "Share of each layer's weights that was pruned")
    caption = "Share of each layer's weights that was pruned."
    return ["<h2>Sparsity by layer</h2>", _figure(picture, caption)]


def _histograms(result: Result) -> list[str]:
    if not result.histograms:
        return []
    shown = list(result.histograms.items())[:MOST]
    small = [pictures.histogram(name, counts) for name, counts in shown]
    more = len(result.histograms) - len(shown)
    rest = f" {more} more layers are not shown." if more else ""
    caption = (
        "Outline: the dense model. Filled: the weights that were kept. The height is the square "
        f"root of the count.{rest}"
    )
    grid = f'<div class="grid-of">{"".join(small)}</div>'
    return ["<h2>Weights, before and after</h2>", _figure(grid, caption)]


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _certificate(result: Result) -> list[str]:
    certificate = result.certificate
    if certificate is None:
        return []
    text = (
        f"The compact model computes what the masked one does: the largest relative difference is "
        f"{certificate.error:.1e} in double precision (limit {certificate.limit:g}), over "
        f"{', '.join(certificate.checks)}. {certificate.removed:,} of {certificate.units:,} units "
        f"were removed, {certificate.kept:,} of {certificate.parameters:,} parameters are kept."
    )
    return ["<h2>Certificate</h2>", f"<p>{escape(text)}</p>"]


def _notes(notes: list[str]) -> list[str]:
    if not notes:
        return []
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return ["<h2>Notes</h2>", f"<ul>{items}</ul>"]


def _recipe(result: Result) -> list[str]:
    if result.recipe is None:
        return []
    text = json.dumps(result.recipe.to_dict(), indent=2)
    return ["<h2>Recipe</h2>", f"<pre>{escape(text)}</pre>"]
