"""Input sizes in words that people can read, from the conditions that torch.export gives.

Those are formulas of hundreds of characters. What they allow is a set of sizes: it is looked
through, and described as what it is: one size, a range, multiples of a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import SimpleNamespace

from pruning.structure.input_sizes import meets, size_in_words

LARGEST = 512
"""Every size up to this one is looked at, or up to twice the recorded one."""

FAR = (1, 2, 4)
"""Beyond, so many times the largest are looked at."""

GRID = 16
STEPS = (2, 4, 8, 16, 32, 64, 128)
LISTED = 4
OTHERS = "and those others that its own check lets pass"
EVERY = "every size that the original takes"

Allowed = Callable[..., bool]
"""(size of each dimension that may change) -> whether such inputs are let pass"""


@lru_cache(maxsize=256)
def sizes_in_words(
    names: tuple[str, ...], recorded: tuple[tuple[int, ...], ...], conditions: tuple[str, ...]
) -> str:
    """A clause such as "height and width multiples of 16, from 16 on".

    As in `captured.Sizes`: names of the inputs, their shapes, and what other sizes must meet.
    """
    own = " and ".join(map(size_in_words, recorded))
    if len(names) > 1 or len(recorded[0]) not in (2, 3, 4):
        return f"{own}, {OTHERS}"

    def with_sizes(dims: Sequence[int], sizes: Sequence[int]) -> bool:
        shape = list(recorded[0])
        for dim, size in zip(dims, sizes, strict=True):
            shape[dim] = size
        values = {names[0]: SimpleNamespace(shape=tuple(shape))}
        try:
            return all(meets(condition, values) for condition in conditions)
        except ZeroDivisionError:
            return False

    if len(recorded[0]) == 4:
        return _pictures(lambda *sizes: with_sizes((2, 3), sizes), recorded[0][2:], own)
    return _lengths(lambda dim, size: with_sizes((dim,), (size,)), recorded[0], own)


def _lengths(allowed: Allowed, shape: tuple[int, ...], own: str) -> str:
    """Of tokens, series and rows: whichever of the dimensions may change."""
    fitting = {dim: _fitting(partial(allowed, dim), shape[dim]) for dim in range(1, len(shape))}
    free = [dim for dim in fitting if fitting[dim] != [shape[dim]]]
    if not free:
        return f"{own} only"
    if len(free) > 1:
        return f"{own}, {OTHERS}"
    text = _described(fitting[free[0]], partial(allowed, free[0]), shape[free[0]])
    return f"lengths {text}" if text else EVERY


def _pictures(allowed: Allowed, start: tuple[int, ...], own: str) -> str:
    """Heights and widths: each by itself, both alike, or squares alone."""
    height, width = start

    def tall(size: int) -> bool:
        return allowed(size, width)

    def wide(size: int) -> bool:
        return allowed(height, size)

    def square(size: int) -> bool:
        return allowed(size, size)

    heights, widths, squares = _fitting(tall, height), _fitting(wide, width), _fitting(square, 0)
    if (heights, widths) == ([height], [width]):
        if not set(squares) - {height}:
            grid = itertools.product(range(GRID, LARGEST + 1, GRID), repeat=2)
            alone = not any(pair != start and allowed(*pair) for pair in grid)
            return f"{own} only" if alone else f"{own}, {OTHERS}"
        if not any(allowed(a, b) for a, b in itertools.permutations(squares[:LISTED], 2)):
            text = _described(squares, square, height)
            return f"squares of side {text}" if text else "squares of every size"
    if not _independent(allowed, heights, widths):
        listed = _listed([f"{side} × {side}" for side in _near(squares, height)])
        return f"{listed}, {OTHERS}"
    if heights == widths:
        text = _described(heights, tall, height)
        return f"height and width {text}" if text else EVERY
    texts = (_described(heights, tall, height), _described(widths, wide, width))
    return f"height {texts[0] or 'any'}, width {texts[1] or 'any'}"


def _independent(allowed: Allowed, heights: list[int], widths: list[int]) -> bool:
    """Whether any height goes with any width: of some pairs, inside and outside of both."""
    sides = sorted({*heights[::17], *widths[::13], *range(3, LARGEST, 41), *heights[-1:]})
    tall, wide = set(heights), set(widths)
    return all(allowed(a, b) == (a in tall and b in wide) for a in sides[::2] for b in sides[1::3])


def _fitting(allowed: Allowed, start: int) -> list[int]:
    return [size for size in range(1, _end(start) + 1) if allowed(size)]


def _end(start: int) -> int:
    return max(LARGEST, 2 * start)


def _described(fitting: list[int], allowed: Allowed, start: int) -> str:
    """The sizes of one dimension without a noun before them; "" for all."""
    runs = _runs(fitting)
    first, last = fitting[0], fitting[-1]
    step = min((b - a for a, b in itertools.pairwise(fitting)), default=1)
    if len(fitting) == 1:
        return f"{first} only"
    if len(runs) == 1:
        end = _last(last, 1, allowed, start)
        if not end and first == 1:
            return ""
        return f"from {first}{end}" if end else f"at least {first}"
    if len(runs) <= 2:
        return " or ".join(f"from {a} to {b}" if a < b else str(a) for a, b in runs)
    if all(b - a == step for a, b in itertools.pairwise(fitting)) and first % step == 0:
        return f"multiples of {step}, from {first}{_last(last, step, allowed, start) or ' on'}"
    known = set(fitting)
    for step in STEPS:
        multiples = range(step * -(-first // step), _end(start) + 1, step)
        if len(multiples) > LISTED and known.issuperset(multiples):
            end = _last(multiples[-1], step, allowed, start) or " on"
            return f"multiples of {step}, from {multiples[0]}{end}, and some between"
    return f"{_listed(list(map(str, _near(fitting, start))))}, or some of the others"


def _last(last: int, step: int, allowed: Allowed, start: int) -> str:
    """ " to 256" where sizes end there; "" where they go on as far as can be seen."""
    if last + step <= _end(start):
        return f" to {last}"
    farther = [step * (_end(start) * times // step + 1) for times in FAR]
    return "" if all(map(allowed, farther)) else f" to {last} at least"


def _runs(sizes: list[int]) -> list[tuple[int, int]]:
    """First and last of each range without a gap."""
    runs: list[tuple[int, int]] = []
    for size in sizes:
        if runs and size == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], size)
        else:
            runs.append((size, size))
    return runs


def _near(sizes: Sequence[int], start: int) -> list[int]:
    """The few that lie nearest to the recorded size."""
    return sorted(sorted(sizes, key=lambda size: abs(size - start))[:LISTED])


def _listed(texts: list[str]) -> str:
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
