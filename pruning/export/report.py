"""report.html: a result on one page that opens without a network and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence

from pruning.export import page, pictures
from pruning.export.record import Record
from pruning.metrics import figure_rows

MOST = 24
"""Layers whose histograms are drawn."""


def report(record: Record, notes: list[str]) -> str:
    """The page. notes: what else there is to say, as of the files beside it."""
    whole = [page.heading(record.name, 1), *parts(record, notes)]
    return page.document(f"{record.name}: pruning report", whole)


def parts(record: Record, notes: Sequence[str] = ()) -> list[str]:
    """All of it below its name."""
    return [
        page.paragraph(f"{record.sentence}.", strong=True),
        page.paragraph(page.made(record), soft=True),
        *_table(record),
        *_curve(record),
        *_layers(record),
        *_histograms(record),
        *_certificate(record),
        *_notes(notes),
        *_recipe(record),
    ]


def _table(record: Record) -> list[str]:
    stages = record.stages()
    if not stages:
        return []
    rows = [(name, *texts) for name, texts in figure_rows(stages)]
    return [page.heading("Figures"), page.table(list(stages), rows)]


def _curve(record: Record) -> list[str]:
    own = [epoch for epoch in record.epochs if not epoch.branch]
    qualities = [epoch.quality for epoch in own]
    points = [quality.value for quality in qualities if quality is not None]
    if len(points) < 2:
        return []
    first = next(quality for quality in qualities if quality is not None)
    score = own[-1].score
    label = f"{score.name}, validation" if score else "Accuracy on validation data, %"
    percent = score is None or score.unit == "%"
    title = f"{label}: {first.value:.4g} after the first epoch, {points[-1]:.4g} after the last"
    dense = record.dense_validation
    picture = pictures.curve(points, dense.value if dense else None, title, label, percent)
    caption = "After each epoch of fine-tuning, on validation data."
    return [page.heading("Fine-tuning"), page.figure(picture, caption)]


def _layers(record: Record) -> list[str]:
    if not record.pruned:
        return []
    layers = record.pruned[-1].layers
    picture = pictures.bars(layers, "Share of each layer's weights that was pruned")
    caption = "Share of each layer's weights that was pruned."
    return [page.heading("Sparsity by layer"), page.figure(picture, caption)]


def _histograms(record: Record) -> list[str]:
    if not record.histograms:
        return []
    shown = list(record.histograms.items())[:MOST]
    small = [pictures.histogram(name, counts) for name, counts in shown]
    more = len(record.histograms) - len(shown)
    rest = f" {more} more layers are not shown." if more else ""
    caption = (
        "Outline: the dense model. Filled: the weights that were kept. The height is the square "
        f"root of the count.{rest}"
    )
    grid = f'<div class="grid-of">{"".join(small)}</div>'
    return [page.heading("Weights, before and after"), page.figure(grid, caption)]


def _certificate(record: Record) -> list[str]:
    certificate = record.certificate
    if certificate is None:
        return []
    text = (
        f"The compact model computes what the masked one does: the largest relative difference is "
        f"{certificate.error:.1e} in double precision (limit {certificate.limit:g}), over "
        f"{', '.join(certificate.checks)}. {certificate.removed:,} of {certificate.units:,} units "
        f"were removed, {certificate.kept:,} of {certificate.parameters:,} parameters are kept."
    )
    return [page.heading("Certificate"), page.paragraph(text)]


def _notes(notes: Sequence[str]) -> list[str]:
    return [page.heading("Notes"), page.listed(notes)] if notes else []


def _recipe(record: Record) -> list[str]:
    if record.recipe is None:
        return []
    return [page.heading("Recipe"), page.recipe_text(record.recipe)]
