"""The cells of a map: what each removes, what was counted of it so far, and how sure that is. And where they are kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.allocation.scopes import Ranked
from pruning.events import Accuracy, Point
from pruning.masks import Units, verdict
from pruning.recipe import Recipe
from pruning.stats import paired_change
from pruning.storage import write_json
from pruning.types import Batches, Masks, Workpiece

COLLAPSED = -0.25
"""Change of accuracy below which a cell has surely collapsed: how far below is not worth more images."""


@dataclass
class Cell:
    """One layer with `drop` of its units gone, and what was counted on the first `seen` images.

    levels: the ratios that mean this drop (several in small layers); lost, won: right answers that became wrong, and the
    other way round; loss, loss_dense: sums over the images. total: images there are.
    """

    layer: str
    drop: int
    units: int
    total: int
    levels: list[float] = field(default_factory=list)
    seen: int = 0
    correct: int = 0
    lost: int = 0
    won: int = 0
    loss: float = 0.0
    loss_dense: float = 0.0
    collapsed: bool = False

    def count(self, right: Tensor, right_dense: Tensor, loss: float, loss_dense: float) -> None:
        """Add what more images said."""
        self.seen += len(right)
        self.correct += int(right.sum())
        self.lost += int((right_dense & ~right).sum())
        self.won += int((right & ~right_dense).sum())
        self.loss += loss
        self.loss_dense += loss_dense

    @property
    def half(self) -> float:
        """Half the width of the interval; infinite while nothing was counted."""
        if not self.seen:
            return math.inf
        low, high = paired(self.lost, self.won, self.seen)
        return (high - low) / 2

    def points(self, *, final: bool) -> Iterable[Point]:
        tier = "exact" if self.seen == self.total else "progressive"
        n = self.seen
        interval = paired(self.lost, self.won, n)
        one = Point(
            self.layer,
            0.0,
            self.units,
            self.units - self.drop,
            tier,
            Accuracy(self.correct, n),
            self.loss / n,
            self.loss_dense / n,
            self.lost,
            self.won,
            interval,
            final,
        )
        return [replace(one, level=level) for level in self.levels]


def paired(lost: int, won: int, n: int) -> tuple[float, float]:
    """95 % interval of the change in accuracy of two models that answered the same n questions."""
    change = paired_change(lost, won, n)
    return change.low, change.high


def cells(layers: Ranked, levels: Iterable[float], total: int) -> list[Cell]:
    """Every layer at every level; levels that remove the same units share a cell. Layers keep their order."""
    found: dict[tuple[str, int], Cell] = {}
    for layer, units in layers.units.items():
        for level in sorted(set(levels)):
            drop = layers.nearest(layer, level)
            found.setdefault((layer, drop), Cell(layer, drop, len(units), total)).levels.append(
                level
            )
    return list(found.values())


def masks(cell: Cell, units: Units, model: nn.Module) -> Masks:
    """What the cell removes: masks of the tensors that it changes. Made when needed, so that memory does not grow with the map."""
    leaders = units.ranking.leaders
    drops = {
        name: cell.drop if leaders.get(name, name) == cell.layer else 0
        for name in units.ranking.every
    }
    return {
        name: keep for name, keep in verdict(units, drops, model).items() if not bool(keep.all())
    }


# ---------------------------------------------------------------- kept for the next time

COUNTED = ("seen", "correct", "lost", "won", "loss", "loss_dense")
HELD = 16
_held: OrderedDict[str, dict[str, list[float]]] = OrderedDict()


class CountCache:
    """Counts of cells under one key, in this process and, where there is a folder, on the disk. Half-counted cells are gone on with."""

    def __init__(self, key: str, folder: Path | None) -> None:
        self.file = folder / f"{key}.json" if folder else None
        if key not in _held:
            _held[key] = self._read()
        _held.move_to_end(key)
        while len(_held) > HELD:
            _held.popitem(last=False)
        self.counts = _held[key]

    def take(self, found: Iterable[Cell]) -> None:
        """Fill cells with what was counted before."""
        for cell in found:
            for name, value in zip(
                COUNTED, self.counts.get(f"{cell.layer}|{cell.drop}", ()), strict=False
            ):
                setattr(cell, name, value if name.startswith("loss") else int(value))

    def put(self, found: Iterable[Cell]) -> None:
        before = len(self.counts), sum(row[0] for row in self.counts.values())
        for cell in found:
            key = f"{cell.layer}|{cell.drop}"
            if cell.seen > self.counts.get(key, [0])[0]:
                self.counts[key] = [getattr(cell, name) for name in COUNTED]
        if self.file and (
            before != (len(self.counts), sum(row[0] for row in self.counts.values()))
            or not self.file.exists()
        ):
            write_json(self.file, self.counts)

    def _read(self) -> dict[str, list[float]]:
        try:
            found: dict[str, list[float]] = (
                json.loads(self.file.read_text(encoding="utf-8")) if self.file else {}
            )
        except (OSError, ValueError):
            return {}
        return found


def key(recipe: Recipe, work: Workpiece, data: Batches, how: str) -> str:
    """What the counts of a cell depend on: weights, scores, data, the order of images, the code."""
    from pruning.runs.cache_keys import code

    digest = hashlib.blake2b(digest_size=12)
    asked = (
        recipe.criterion,
        recipe.options,
        recipe.granularity,
        recipe.granularity_options,
        recipe.seed,
        how,
        code(),
    )
    digest.update(json.dumps(asked, sort_keys=True).encode())
    for name, value in work.model.state_dict().items():
        digest.update(name.encode())
        _add(digest, value)
    for part in (data, work.train.head(2048) if work.train else None):
        for value in (part.x, part.y) if part else ():
            _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Tensor) -> None:
    digest.update(str((tuple(value.shape), value.dtype)).encode())
    digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
