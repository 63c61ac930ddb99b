"""Measure the cells of a map: a batch at a time, each layer's cells from that layer on, the
widest intervals first.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.allocation.ranked import RankedUnits
from pruning.errors import Stopped
from pruning.events import Point
from pruning.masks import apply
from pruning.sensitivity_map.cells import COLLAPSED, Cell, CountCache, masks_of
from pruning.sensitivity_map.replay import PartialForward
from pruning.tasks import ACCURACY, classifies, hits
from pruning.types import Batches, Inputs, Loss, Masks, Workpiece, split

PART = 64
"""Images passed through at once: what lies between two layers then fits the processor's cache
(1.4 times faster than 256).
"""

CHUNK = 64
"""Images by which a progressive map is refined."""

SLACK = 50.0
"""Answers closer than this many times the traced form's own error are asked of the plain model
again.
"""

SAVE = 5.0
"""Seconds between two savings of what was counted."""

Repair = Callable[[nn.Module, Masks], None]
"""What is done to a pruned model before it is asked, in place: (model, masks)."""

Answer = tuple[Cell, Tensor | None, float]
"""A cell, (images,) which of its answers are right, and the sum of its loss; None where targets are
no classes."""


@dataclass(frozen=True)
class Plan:
    """How far cells are measured.

    within: half the width of the interval at which a cell is done, 0 for all images; running,
    workers, stop, repair: see `sensitivity`.
    """

    levels: tuple[float, ...]
    within: float
    running: bool
    workers: int
    stop: Callable[[], bool] | None
    repair: Repair | None = None

    def done(self, cell: Cell) -> bool:
        """Whether nothing remains to be found out about a cell."""
        if cell.seen == cell.total:
            return True
        if self.within == 0 or cell.seen == 0:
            return False
        return cell.collapsed or cell.half_width <= self.within


class Evaluator:
    """One worker's copy of the model, and how close its traced form comes. A class because it
    holds that copy.
    """

    def __init__(
        self, work: Workpiece, ranked: RankedUnits, sample: Inputs, repair: Repair | None = None
    ) -> None:
        self.loss: Loss = work.loss
        self.counts = work.metric == ACCURACY
        self.repair = repair
        self.ranked = ranked
        self.original = work.model
        self.sandbox = PartialForward(work.model, sample)
        self.error = self._error(sample) if self.sandbox.traced else 0.0

    @torch.inference_mode()
    def dense(self, x: Inputs, y: Tensor) -> tuple[Tensor | None, float]:
        """(images,) which of the dense model's answers are right, and the sum of its loss."""
        return self._judge(self.sandbox.model(x), y)

    def answers(self, x: Inputs, y: Tensor, cells: list[Cell]) -> Iterator[Answer]:
        for cell, logits in self.outputs(x, cells):
            yield cell, *self._judge(logits, y)

    def outputs(self, x: Inputs, cells: list[Cell]) -> Iterator[tuple[Cell, Tensor]]:
        """The model's logits without each cell, in the order of layers.

        What comes before a layer is computed once for all its cells. Bit for bit the plain model's
        wherever that could decide about an answer: see `_undecided`.
        """
        if self.repair is not None:
            yield from self._repaired(x, cells, self.repair)
            return
        # Only a traced model keeps values between layers, which small parts keep in the cache.
        parts = list(split(x, PART)) if self.sandbox.traced else [x]
        passes = [self.sandbox.start(part) for part in parts]
        # Of a layer's cells, the one that removes most changes all tensors that any of them does.
        largest = {cell.layer: cell for cell in sorted(cells, key=lambda cell: cell.drop)}
        first_step = {
            layer: self.sandbox.first_step(self._masks(cell)) for layer, cell in largest.items()
        }
        for cell in sorted(cells, key=lambda cell: first_step[cell.layer]):
            with torch.inference_mode():
                for forward in passes:
                    forward.advance_to(first_step[cell.layer])
                with self.sandbox.without(self._masks(cell)):
                    logits = torch.cat([forward.finish() for forward in passes])
                    # Folding rounds differently: where that could flip an answer, ask plainly.
                    if self.sandbox.traced and self._undecided(logits):
                        logits = self.sandbox.model(x)
            yield cell, logits

    def _repaired(
        self, x: Inputs, cells: list[Cell], repair: Repair
    ) -> Iterator[tuple[Cell, Tensor]]:
        """The same of models that are repaired after pruning.

        Each runs whole, for any of its layers may have changed.
        """
        for cell in cells:
            model = copy.deepcopy(self.original).eval()
            masks = self._masks(cell)
            apply(masks, model)
            repair(model, masks)
            with torch.inference_mode():
                logits = model(x)
            yield cell, logits

    def _masks(self, cell: Cell) -> dict[str, Tensor]:
        return masks_of(cell, self.ranked, self.original)

    @torch.inference_mode()
    def _judge(self, logits: Tensor, y: Tensor) -> tuple[Tensor | None, float]:
        right = hits(logits, y) if self.counts and classifies(logits, y) else None
        return right, float(self.loss(logits, y)) * len(y)

    @torch.inference_mode()
    def _error(self, sample: Inputs) -> float:
        """How far the traced form is from the plain model, as a share of its largest logit.

        At least a few roundings.
        """
        plain = self.sandbox.model(sample)
        traced = self.sandbox.start(sample).finish()
        return max(1e-6, float((traced - plain).abs().max() / plain.abs().max()))

    def _undecided(self, logits: Tensor) -> bool:
        """Whether the last bits could decide an answer: two classes within SLACK times the
        error.
        """
        if logits.dim() != 2 or logits.shape[1] < 2:
            return False
        best = logits.topk(2, dim=1).values
        margin = (best[:, 0] - best[:, 1]).min()
        return not bool(margin > SLACK * self.error * logits.abs().max())


def measured(
    ranked: RankedUnits,
    work: Workpiece,
    data: Batches,
    cells: list[Cell],
    plan: Plan,
    cache: CountCache,
    seed: int | None,
) -> Iterator[Point]:
    """Points of cells, each as often as the plan says.

    seed: of the order of images; None for the data's own batches.
    """
    cache.fill(cells)
    chunks = _chunks(data, seed)
    first_of_chunk = [0]
    for chunk in chunks[:-1]:
        first_of_chunk.append(first_of_chunk[-1] + len(chunk))
    # A cell that was measured before goes on at the chunk after the last image it has seen.
    chunk_at = {first: i for i, first in enumerate(first_of_chunk)}
    for cell in cells:
        if plan.done(cell):
            yield from cell.points(final=True)
    if all(plan.done(cell) for cell in cells):
        cache.put(cells)
        return
    sample, _ = data.at(slice(PART))
    evaluators = [Evaluator(work, ranked, sample, plan.repair) for _ in range(plan.workers)]
    dense: dict[int, tuple[Tensor | None, float]] = {}  # by chunk: asked once, whatever the cells
    saved = time.monotonic()
    try:
        while next_cells := _next(cells, plan):
            number = chunk_at[next_cells[0].seen]
            x, y = data.at(chunks[number])
            if number not in dense:
                dense[number] = evaluators[0].dense(x, y)
            right_dense, loss_dense = dense[number]
            for cell, right, loss in _answers(evaluators, x, y, next_cells, dense[number]):
                cell.count(len(y), loss, loss_dense, right, right_dense)
                yield from _points_after(cell, cells, plan)
                if plan.stop is not None and plan.stop():
                    raise Stopped("Stopped. What was measured is kept: the map continues there.")
                if time.monotonic() - saved > SAVE:
                    cache.put(cells)
                    saved = time.monotonic()
    finally:  # also when a reader leaves in the middle
        cache.put(cells)


def _points_after(cell: Cell, cells: list[Cell], plan: Plan) -> Iterator[Point]:
    """The cell's points, and those of cells of its row that are given up because of it."""
    row = [other for other in cells if other.layer == cell.layer]
    collapsed_before = [other for other in row if other.collapsed]
    if plan.within:
        _mark_collapsed(row)
    done = plan.done(cell)
    if done or plan.running:
        yield from cell.points(final=done)
    for other in row:
        newly = other.collapsed and other not in collapsed_before
        if newly and other is not cell and other.seen:
            yield from other.points(final=True)


def _mark_collapsed(row: list[Cell]) -> None:
    """From the lowest ratio that has surely collapsed on, one look at each cell is enough."""
    collapsed = False
    for cell in sorted(row, key=lambda cell: cell.drop):
        if cell.collapsed:
            collapsed = True
        elif cell.seen:
            collapsed = collapsed or (cell.scored and cell.change.high < COLLAPSED)
            cell.collapsed = collapsed


def _next(cells: list[Cell], plan: Plan) -> list[Cell]:
    """The cells to look at now, all at the same chunk; none when all are done.

    What nobody has seen yet first, coarse ratios before fine ones, then the widest intervals.
    """
    remaining = [cell for cell in cells if not plan.done(cell)]
    if not remaining:
        return []
    # Exact: all cells chunk by chunk, so that the dense model is asked once for each.
    if not plan.within:
        least = min(cell.seen for cell in remaining)
        return [cell for cell in remaining if cell.seen == least]
    unseen = [cell for cell in remaining if not cell.seen]
    if unseen:
        coarse = set(sorted(plan.levels)[1::3])
        return [cell for cell in unseen if coarse & set(cell.levels)] or unseen
    widest = max(remaining, key=lambda cell: cell.half_width)
    return [
        cell
        for cell in remaining
        if cell.seen == widest.seen and cell.half_width >= 0.7 * widest.half_width
    ]


def _chunks(data: Batches, seed: int | None) -> list[Tensor]:
    """Indices of images, a tensor for each chunk."""
    n = data.examples
    if seed is None:
        return list(torch.split(torch.arange(n, device="cpu"), data.batch))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")
    return list(torch.split(order, CHUNK))


# ---------------------------------------------------------------- one worker, or several


def _answers(
    evaluators: list[Evaluator],
    x: Inputs,
    y: Tensor,
    cells: list[Cell],
    dense: tuple[Tensor | None, float],
) -> Iterator[Answer]:
    """What the cells answer; those that remove nothing answer as the dense model does."""
    for cell in cells:
        if not cell.drop:
            yield cell, *dense
    pruned = [cell for cell in cells if cell.drop]
    layers = list(dict.fromkeys(cell.layer for cell in pruned))
    if len(evaluators) == 1 or len(layers) < 2:
        yield from evaluators[0].answers(x, y, pruned)
        return
    # Whole layers go to one worker: it enters the model once for all their cells.
    shares: list[list[Cell]] = [[] for _ in evaluators]
    for cell in pruned:
        shares[layers.index(cell.layer) % len(evaluators)].append(cell)
    parts = [one.answers(x, y, share) for one, share in zip(evaluators, shares, strict=True)]
    yield from _merged(parts)


def _merged(parts: list[Iterator[Answer]]) -> Iterator[Answer]:
    """What several iterators give, in the order it comes.

    Each runs in a thread of its own on one processor: torch lets go of the interpreter's lock.
    """
    results: queue.Queue[Answer | BaseException | None] = queue.Queue()
    abandoned = threading.Event()

    def drain(part: Iterator[Answer]) -> None:
        torch.set_num_threads(1)
        try:
            for answer in part:
                results.put(answer)
                if abandoned.is_set():
                    break
            results.put(None)
        except BaseException as error:  # it is raised where the answers are read
            results.put(error)

    threads_before = torch.get_num_threads()
    threads = [threading.Thread(target=drain, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        abandoned.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(threads_before)
