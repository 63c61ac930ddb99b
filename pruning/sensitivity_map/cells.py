"""The cells of a sensitivity map: what each removes, what was counted of it so far, how sure
that is, and where counts are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from pruning import registry
from pruning.allocation.layers import RankedLayers
from pruning.allocation.ranked import RankedUnits
from pruning.devices import device_of
from pruning.events import Accuracy, Point
from pruning.measurement.remembered import add_tensor
from pruning.recipe import Recipe
from pruning.stats import Spread, paired_change
from pruning.storage import source_hash, write_json
from pruning.types import Batches, Masks, Workpiece

COLLAPSED = -0.25
"""Change of accuracy below which a cell has surely collapsed: how far below is not worth more
images.
"""


@dataclass
class Cell:
    """One layer without `drop` of its units, and what was counted on the first `seen` images.

    levels: the ratios that mean this drop (several in small layers); scored: whether answers are
    right or wrong; lost, won: right answers that
    became wrong, and the other way round; loss, loss_dense: sums over the images. total: images
    there are.
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
    scored: bool = True

    def count(
        self,
        images: int,
        loss: float,
        loss_dense: float,
        right: Tensor | None = None,
        right_dense: Tensor | None = None,
    ) -> None:
        """Add more images. right: (images,) bool, of this cell and of the dense model; None where
        targets are no classes.
        """
        self.seen += images
        self.loss += loss
        self.loss_dense += loss_dense
        if right is None or right_dense is None:
            self.scored = False
            return
        self.correct += int(right.sum())
        self.lost += int((right_dense & ~right).sum())
        self.won += int((right & ~right_dense).sum())

    @property
    def change(self) -> Spread:
        """Accuracy less the dense model's on the same images, a share, with its interval."""
        return paired_change(self.lost, self.won, self.seen)

    @property
    def half_width(self) -> float:
        """Of the interval of the change; infinite while nothing was counted."""
        # Without answers that are right or wrong, only all images are enough.
        if not self.seen or not self.scored:
            return math.inf
        return (self.change.high - self.change.low) / 2

    def points(self, *, final: bool) -> list[Point]:
        """A Point for each level that this cell stands for."""
        n = self.seen
        point = Point(
            layer=self.layer,
            level=0.0,
            units=self.units,
            kept=self.units - self.drop,
            tier="exact" if n == self.total else "progressive",
            accuracy=Accuracy(self.correct, n) if self.scored else None,
            loss=self.loss / n,
            loss_dense=self.loss_dense / n,
            lost=self.lost,
            won=self.won,
            interval=(self.change.low, self.change.high) if self.scored else None,
            final=final,
        )
        return [replace(point, level=level) for level in self.levels]


def cells_of(layers: RankedLayers, levels: Iterable[float], total: int) -> list[Cell]:
    """Every layer at every level, layers in order; levels that remove the same units share a
    cell.
    """
    cells: dict[tuple[str, int], Cell] = {}
    for layer, units in layers.units.items():
        # In small layers several levels round to the same units: measured once.
        for level in sorted(set(levels)):
            drop = layers.nearest(layer, level)
            cell = cells.setdefault((layer, drop), Cell(layer, drop, len(units), total))
            cell.levels.append(level)
    return list(cells.values())


def masks_of(cell: Cell, ranked: RankedUnits, model: nn.Module) -> Masks:
    """Masks of the tensors that the cell changes.

    Made when needed, so that memory does not grow with the map.
    """
    masks = ranked.masks({cell.layer: cell.drop}, model)
    return {name: keep for name, keep in masks.items() if not bool(keep.all())}


# ---------------------------------------------------------------- kept for the next time

COUNTED = ("seen", "correct", "lost", "won", "loss", "loss_dense", "scored")
REMEMBERED = 16
_counts: OrderedDict[str, dict[str, list[float]]] = OrderedDict()


class CountCache:
    """Counts of cells under one key, in this process and, where there is a folder, on the disk.

    A class because it holds the file. Cells that are half counted are continued.
    """

    def __init__(self, key: str, folder: Path | None) -> None:
        self.file = folder / f"{key}.json" if folder else None
        if key not in _counts:
            _counts[key] = self._read()
        _counts.move_to_end(key)
        # Shared by all maps of this process; the least recently used make room.
        while len(_counts) > REMEMBERED:
            _counts.popitem(last=False)
        self.counts = _counts[key]

    def fill(self, cells: Iterable[Cell]) -> None:
        """Fill cells with what was counted before."""
        for cell in cells:
            row = self.counts.get(_name(cell), ())
            for name, value in zip(COUNTED, row, strict=False):
                setattr(cell, name, value if name.startswith("loss") else int(value))

    def put(self, cells: Iterable[Cell]) -> None:
        """Keep the counts of cells that have seen more images than what is kept."""
        changed = False
        for cell in cells:
            # Another process may have counted further: the larger count wins.
            known = self.counts.get(_name(cell), [0])
            if cell.seen > known[0]:
                self.counts[_name(cell)] = [getattr(cell, name) for name in COUNTED]
                changed = True
        if self.file and (changed or not self.file.exists()):
            write_json(self.file, self.counts)

    def _read(self) -> dict[str, list[float]]:
        if self.file is None:
            return {}
        try:
            counts: dict[str, list[float]] = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or torn: it is counted anew
            return {}
        return counts


def _name(cell: Cell) -> str:
    return f"{cell.layer}|{cell.drop}"


def cache_key(recipe: Recipe, work: Workpiece, data: Batches, how: str) -> str:
    """What counts depend on: weights, scores, data, the order of images, the code."""
    # Contents, not names: the same file under another name, or another file under the same.
    digest = hashlib.blake2b(digest_size=12)
    parts = (
        recipe.criterion,
        recipe.options,
        recipe.granularity,
        recipe.granularity_options,
        recipe.embeddings,
        recipe.seed,
        work.metric.name,
        str(device_of(work.model)),
        how,
        source_hash(),
    )
    digest.update(json.dumps(parts, sort_keys=True).encode())
    for name, value in work.model.state_dict().items():
        digest.update(name.encode())
        add_tensor(digest, value)
    tensors = [*data.tensors]
    # All of it: the examples that a criterion looks at are drawn from anywhere, and some train.
    if work.train and registry.entry("criterion", recipe.criterion).tags.get("needs") == "data":
        tensors += work.train.tensors
    for value in tensors:
        add_tensor(digest, value)
    return digest.hexdigest()
