"""Other input sizes for a comparison.

Smaller ones, where 64 by 64 pixels tell as much of a channel as 224 by 224 do, in a twelfth of the
time; and some that are not the example's, to see that a compact model holds for them too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from pruning.structure.capture import Example, inputs
from pruning.structure.captured import Captured
from pruning.structure.input_sizes import size_in_words as one_in_words
from pruning.structure.sizes import FREE, names_no_size

SIDE = 64
"""Positions along each dimension: large enough that five halvings leave more than one."""

GAIN = 2
"""How many times fewer positions are worth comparing at two sizes."""

Place = tuple[int, int]
"""(which input, which of its dimensions)."""


def smaller_inputs(captured: Captured, example: Example) -> tuple[Tensor, ...] | None:
    """The middle of the example, at most 64 positions long; None where only its own size will do.

    That is where the graph holds for its own size alone, where there are several inputs, and where
    it would save little. Whether the model takes this size, only running it can tell.
    """
    whole = inputs(example)
    if len(whole) != 1 or not whole[0].is_floating_point() or whole[0].dim() < 3:
        return None
    # A length of 3-dimensional inputs may be channels that come last.
    if whole[0].dim() < 4 and not names_no_size(captured.graph.graph, FREE):
        return None
    small = whole[0]
    for dim in range(2, small.dim()):
        size = small.shape[dim]
        length = min(SIDE, size)
        small = small.narrow(dim, (size - length) // 2, length)
    if math.prod(small.shape[2:]) * GAIN > math.prod(whole[0].shape[2:]):
        return None
    return (small,) if captured.sizes.take((small,)) else None


def other_shapes(captured: Captured, example: Example) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes of inputs, batch 1, that differ from the example's and that the graph holds for.

    Small ones first, longer along one dimension than along another: what mistakes the height for
    the width is right for squares. Whether the original takes them, only running it can tell.
    """
    recorded = tuple((1, *x.shape[1:]) for x in inputs(example))
    seen = {recorded}
    for bound in (SIDE, math.inf):
        bounded = _bounded(recorded, bound)
        for changed in _changes(bounded):
            shapes = _changed(bounded, changed)
            sizes = tuple(map(_Shape, shapes))
            if shapes not in seen and captured.sizes.take(sizes):
                seen.add(shapes)
                yield shapes


class _Shape:
    """Something with a shape: all that a condition on sizes asks of an input."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _positions(shapes: tuple[tuple[int, ...], ...]) -> list[list[Place]]:
    """The dimensions that may be positions; those that must change together, side by side.

    Of a picture, the ones behind the channels; of other inputs all but the batch. Several inputs
    are as long as each other where they were in the example.
    """
    places = [
        (i, d)
        for i, shape in enumerate(shapes)
        for d in range(2 if len(shape) > 3 else 1, len(shape))
        if shape[d] > 1
    ]
    if len(shapes) == 1:
        return [[place] for place in places]
    by_size: dict[int, list[Place]] = {}
    for i, d in places:
        by_size.setdefault(shapes[i][d], []).append((i, d))
    return list(by_size.values())


def _bounded(shapes: tuple[tuple[int, ...], ...], bound: float) -> tuple[tuple[int, ...], ...]:
    """No picture larger than `bound`."""
    return tuple(
        tuple(
            int(min(size, bound)) if d > 1 and len(shape) > 3 else size
            for d, size in enumerate(shape)
        )
        for shape in shapes
    )


def _changes(shapes: tuple[tuple[int, ...], ...]) -> Iterator[dict[Place, int]]:
    """Place -> its other size: one group of places at a time, and then all of them."""
    groups = _positions(shapes)
    for sign in (-1, 1):
        for group in reversed(groups):
            yield {place: _stepped(shapes, place, sign) for place in group}
    if len(groups) > 1:
        for sign in (-1, 1):
            yield {place: _stepped(shapes, place, sign) for group in groups for place in group}


def _stepped(shapes: tuple[tuple[int, ...], ...], place: Place, sign: int) -> int:
    """A size nearby with the same factors of two: 64 -> 32 or 96, 5 -> 4 or 6."""
    size = shapes[place[0]][place[1]]
    step = 1
    while step * 4 <= size and size % (step * 2) == 0 and step < SIDE // 2:
        step *= 2
    return max(1, size + sign * step)


def _changed(
    shapes: tuple[tuple[int, ...], ...], sizes: dict[Place, int]
) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(sizes.get((i, d), size) for d, size in enumerate(shape))
        for i, shape in enumerate(shapes)
    )


def size_in_words(x: tuple[Tensor, ...]) -> str:
    """The size of one example: "3 × 224 × 224"; of several inputs, joined by "and"."""
    return " and ".join(one_in_words(part.shape) for part in x)
