"""Measure cells: a batch at a time, each layer's cells from the layer on, the widest intervals first."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.errors import Stopped
from pruning.events import Point
from pruning.masks import Units
from pruning.sensitivity_map.cells import COLLAPSED, Cell, CountCache, masks
from pruning.sensitivity_map.replay import PartialForward
from pruning.types import Batches, Loss, Workpiece

PART = 64
"""Images on their way at once: what lies between two layers then fits the processor's cache (1.4 times faster than 256)."""

CHUNK = 64
"""Images by which a progressive map is refined."""

SLACK = 50.0
"""Answers closer than this many times the traced form's own error are asked of the plain model again."""

SAVE = 5.0
"""Seconds between two savings of what was counted."""

Answer = tuple[Cell, Tensor, float]
"""A cell, which of its answers are right (n,), and the sum of its loss."""


@dataclass(frozen=True)
class Plan:
    """within: half the width of the interval at which a cell is done, 0 for all images; running, workers, stop: see `sensitivity`."""

    levels: tuple[float, ...]
    within: float
    running: bool
    workers: int
    stop: Callable[[], bool] | None


class Evaluator:
    """One worker's copy of the model, and how close its traced form comes. `dense` answers plainly."""

    def __init__(self, work: Workpiece, units: Units, sample: Tensor) -> None:
        self.loss: Loss = work.loss
        self.units, self.original = units, work.model
        self.sandbox = PartialForward(work.model, sample)
        self.slack = self._error(sample) if self.sandbox.traced else 0.0

    @torch.inference_mode()
    def dense(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        return self._judge(self.sandbox.model(x), y)

    def answers(self, x: Tensor, y: Tensor, asked: list[Cell]) -> Iterator[Answer]:
        for cell, out in self.outputs(x, asked):
            yield cell, *self._judge(out, y)

    def outputs(self, x: Tensor, asked: list[Cell]) -> Iterator[tuple[Cell, Tensor]]:
        """What the model says without each cell, in the order of layers: what comes before a layer is computed once for all its cells.

        Bit for bit the plain model's wherever that could decide about an answer: see `_near`.
        """
        walks = [
            self.sandbox.start(part)
            for part in (torch.split(x, PART) if self.sandbox.traced else [x])
        ]
        steps = {
            cell.layer: self.sandbox.first_step(masks(cell, self.units, self.original))
            for cell in _first_of_layers(asked)
        }
        for cell in sorted(asked, key=lambda cell: steps[cell.layer]):
            with torch.inference_mode():
                for walk in walks:
                    walk.advance_to(steps[cell.layer])
                with self.sandbox.without(masks(cell, self.units, self.original)):
                    out = torch.cat([walk.finish() for walk in walks])
                    if self.sandbox.traced and self._near(out):
                        out = self.sandbox.model(x)
            yield cell, out

    @torch.inference_mode()
    def _judge(self, out: Tensor, y: Tensor) -> tuple[Tensor, float]:
        return out.argmax(1) == y, float(self.loss(out, y)) * len(y)

    @torch.inference_mode()
    def _error(self, sample: Tensor) -> float:
        """How far the traced form is from the plain model, as a share of its largest answer; at least a few roundings."""
        plain = self.sandbox.model(sample)
        return max(
            1e-6,
            float((self.sandbox.start(sample).finish() - plain).abs().max() / plain.abs().max()),
        )

    def _near(self, out: Tensor) -> bool:
        """Whether the last bits could decide about an answer: two classes are closer than SLACK times the error."""
        if out.shape[1] < 2:
            return False
        best = out.topk(2, dim=1).values
        return not bool((best[:, 0] - best[:, 1]).min() > SLACK * self.slack * out.abs().max())


def _first_of_layers(asked: list[Cell]) -> list[Cell]:
    """For each layer the cell that changes the most: where the layer is met first."""
    return list({cell.layer: cell for cell in sorted(asked, key=lambda cell: cell.drop)}.values())


def measured(
    units: Units,
    work: Workpiece,
    data: Batches,
    found: list[Cell],
    plan: Plan,
    cache: CountCache,
    seed: int | None,
) -> Iterator[Point]:
    """Points of cells, each as often as the plan says. seed: of the order of images; None for the data's own batches."""
    cache.take(found)
    chunks = _chunks(data, seed)
    starts = {int(start): i for i, start in enumerate(_starts(chunks))}
    for cell in found:
        if _over(cell, plan):
            yield from cell.points(final=True)
    if all(_over(cell, plan) for cell in found):
        cache.put(found)
        return
    benches = [Evaluator(work, units, data.x[:PART]) for _ in range(plan.workers)]
    dense: dict[int, tuple[Tensor, float]] = {}
    saved = time.monotonic()
    try:
        while asked := _next(found, plan, starts):
            at = starts[asked[0].seen]
            x, y = data.x[chunks[at]], data.y[chunks[at]]
            if at not in dense:
                dense[at] = benches[0].dense(x, y)
            for cell, right, loss in _answers(benches, x, y, asked, dense[at]):
                cell.count(right, dense[at][0], loss, dense[at][1])
                yield from _said(cell, found, plan)
                if plan.stop is not None and plan.stop():
                    raise Stopped("Stopped. What was measured is kept: the map goes on from there.")
                if time.monotonic() - saved > SAVE:
                    cache.put(found)
                    saved = time.monotonic()
    finally:
        cache.put(found)


def _said(cell: Cell, found: list[Cell], plan: Plan) -> Iterator[Point]:
    """The cell's points, and those of cells of its row that are given up because of it."""
    before = [other for other in found if other.layer == cell.layer and other.collapsed]
    if plan.within:
        _collapse([other for other in found if other.layer == cell.layer])
    over = _over(cell, plan)
    if over or plan.running:
        yield from cell.points(final=over)
    for other in found:
        if (
            other.layer == cell.layer
            and other is not cell
            and other.collapsed
            and other not in before
            and other.seen
        ):
            yield from other.points(final=True)


def _collapse(row: list[Cell]) -> None:
    """From the lowest ratio that has surely collapsed on, one look at each cell is enough."""
    worst = False
    for cell in sorted(row, key=lambda cell: cell.drop):
        if cell.collapsed or (worst and cell.seen):
            cell.collapsed = worst = True
            continue
        if cell.seen:
            interval = cell.points(final=False)
            high = next(iter(interval)).interval
            worst = worst or (high is not None and high[1] < COLLAPSED)
            cell.collapsed = worst


def _over(cell: Cell, plan: Plan) -> bool:
    """Whether nothing is left to find out about a cell."""
    return cell.seen == cell.total or (
        plan.within > 0 and cell.seen > 0 and (cell.collapsed or cell.half <= plan.within)
    )


def _next(found: list[Cell], plan: Plan, starts: dict[int, int]) -> list[Cell]:
    """The cells to look at now, all at the same chunk: what nobody has seen yet, coarse ratios first, then the widest intervals."""
    open_ = [cell for cell in found if not _over(cell, plan)]
    if not open_:
        return []
    unseen = [cell for cell in open_ if not cell.seen]
    if plan.within and unseen:
        coarse = set(sorted(plan.levels)[1::3])
        return [cell for cell in unseen if coarse & set(cell.levels)] or unseen
    if not plan.within:
        least = min(cell.seen for cell in open_)
        return [cell for cell in open_ if cell.seen == least]
    widest = max(open_, key=lambda cell: cell.half)
    return [cell for cell in open_ if cell.seen == widest.seen and cell.half >= 0.7 * widest.half]


def _chunks(data: Batches, seed: int | None) -> list[Tensor]:
    """Indices of images, a tensor for each chunk."""
    n = len(data.x)
    if seed is None:
        return list(torch.split(torch.arange(n), data.batch))
    return list(
        torch.split(torch.randperm(n, generator=torch.Generator().manual_seed(seed)), CHUNK)
    )


def _starts(chunks: list[Tensor]) -> list[int]:
    at, found = 0, []
    for chunk in chunks:
        found.append(at)
        at += len(chunk)
    return found


# ---------------------------------------------------------------- one worker, or several


def _answers(
    benches: list[Evaluator], x: Tensor, y: Tensor, asked: list[Cell], dense: tuple[Tensor, float]
) -> Iterator[Answer]:
    """What the cells answer; those that remove nothing answer as the dense model does."""
    for cell in asked:
        if not cell.drop:
            yield cell, *dense
    rest = [cell for cell in asked if cell.drop]
    rows = list(dict.fromkeys(cell.layer for cell in rest))
    if len(benches) == 1 or len(rows) < 2:
        yield from benches[0].answers(x, y, rest)
        return
    shares = [
        [cell for cell in rest if rows.index(cell.layer) % len(benches) == i]
        for i in range(len(benches))
    ]
    yield from _together(
        [bench.answers(x, y, share) for bench, share in zip(benches, shares, strict=True)]
    )


def _together(parts: list[Iterator[Answer]]) -> Iterator[Answer]:
    """What several iterators give, each in a thread of its own on one processor, in the order it comes."""
    given: queue.Queue[Answer | BaseException | None] = queue.Queue()
    over = threading.Event()

    def drain(part: Iterator[Answer]) -> None:
        torch.set_num_threads(1)
        try:
            for answer in part:
                given.put(answer)
                if over.is_set():
                    break
            given.put(None)
        except BaseException as error:
            given.put(error)

    before = torch.get_num_threads()
    threads = [threading.Thread(target=drain, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            answer = given.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                left -= 1
            else:
                yield answer
    finally:
        over.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(before)
