"""How well two orders agree: rank correlation with its interval. Numpy only: pages draw these.

Spearman, 1904, https://doi.org/10.2307/1412159; the interval is Efron's percentile bootstrap over the units, 1979,
https://doi.org/10.1214/aos/1176344552
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DRAWS = 1000
FEWEST = 3
"""Units without which no order is worth a number."""
ENOUGH = 8
"""Units from which drawing again says something: of 4, most draws are of 2 or 3."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ in [-1, 1] with its 95 % interval. None where it has no meaning: no value for fewer than 3 units, or when a side
    is all the same; no interval for fewer than 8."""

    value: float | None
    low: float | None = None
    high: float | None = None


def ranks(values: ArrayLike) -> Floats:
    """From 1; equal values share the mean of their ranks."""
    given = np.asarray(values, np.float64)
    found: Floats = _ranks(given, np.ones((1, len(given))))[0]
    return found


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of the ranks; None where one side has a single value, or there are fewer than 3 units."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(x) < FEWEST:
        return None
    found = _correlate(x, y, np.ones((1, len(x))))[0]
    return None if np.isnan(found) else float(found)


def correlation(a: ArrayLike, b: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> Correlation:
    """ρ, and where 95 % of it lie when units are drawn again, with replacement."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    value = spearman(x, y)
    if value is None or len(x) < ENOUGH:
        return Correlation(value)
    counts = (
        np.random.default_rng(seed)
        .multinomial(len(x), np.full(len(x), 1 / len(x)), size=draws)
        .astype(np.float64)
    )
    drawn = _correlate(x, y, counts)
    low, high = np.nanquantile(
        drawn, [0.025, 0.975]
    )  # draws of one and the same unit have no correlation
    return Correlation(value, float(low), float(high))


def matrix(columns: Mapping[str, ArrayLike]) -> list[list[float | None]]:
    """ρ of each pair, in the order of the columns; 1 with itself unless all its values are the same."""
    held = list(columns.values())
    return [[spearman(a, b) for b in held] for a in held]


def _correlate(x: Floats, y: Floats, counts: Floats) -> Floats:
    """(draws,) Spearman's ρ when unit i is there counts[:, i] times; NaN where a side does not vary. x, y: (n,); counts: (draws, n)."""
    a, b = _ranks(x, counts), _ranks(y, counts)
    middle = (counts.sum(1, keepdims=True) + 1) / 2  # the mean of all ranks, whatever the ties
    a, b = a - middle, b - middle
    spread = np.sqrt((counts * a * a).sum(1) * (counts * b * b).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(spread > 0, (counts * a * b).sum(1) / spread, np.nan).clip(-1, 1)
    return found


def _ranks(values: Floats, counts: Floats) -> Floats:
    """(draws, n) mean rank of each unit among all that are there. values: (n,); counts: (draws, n)."""
    _, group, first = _groups(values)
    order = np.argsort(values, kind="stable")
    held = np.add.reduceat(
        counts[:, order], first, axis=1
    )  # (draws, groups): how many have each value
    found: Floats = (held.cumsum(1) - held + (held + 1) / 2)[:, group]
    return found


def _groups(values: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Different values, ascending; the place of each unit's among them; where each begins in sorted order."""
    different, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (
        different,
        group.reshape(-1),
        np.concatenate([[0], counts.cumsum()[:-1]]).astype(np.int64),
    )


def best(correlations: Mapping[str, Correlation]) -> Sequence[str]:
    """Names from the highest ρ to the lowest; those without one last."""
    return sorted(
        correlations,
        key=lambda name: -2.0 if (value := correlations[name].value) is None else value,
        reverse=True,
    )
