"""Statistics: intervals, paired change, rank correlation, hull, isotonic regression. No torch.

There is one function for each question, and every figure of the workbench is made with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any, TypeVar

import numpy as np

# Only the name is loaded here: scipy imports a part of itself when it is first asked for one.
# Loading scipy.stats takes seconds, which pages that draw no correlation would wait for.
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""Standard deviations on either side of a normal's mean that hold 95 % of it."""

BOOTSTRAP_SAMPLES = 1000
FEWEST = 3
"""Units without which no order is worth a number."""
ENOUGH = 8
"""Units from which a bootstrap says something: of 4, most samples repeat 2 or 3 of them."""
RANDOM_ORDERS = 10_000
MANY = 100
"""Units from which random orders need no counting: Student's t gives their ρ to 0.002."""


@dataclass(frozen=True)
class Spread:
    """A value and its 95 % interval."""

    low: float
    value: float
    high: float

    @property
    def crosses_zero(self) -> bool:
        """Of a difference: whether the interval holds 0, so that nothing is shown to differ."""
        return self.low <= 0 <= self.high


# ---------------------------------------------------------------- intervals


def wilson(correct: int, total: int) -> Spread:
    """A share and its score interval.

    Wilson, 1927, https://doi.org/10.2307/2276774
    """
    n = total
    share = correct / n
    shrink = 1 + Z * Z / n
    middle = (share + Z * Z / (2 * n)) / shrink
    variance = share * (1 - share) / n + Z * Z / (4 * n * n)
    half = Z / shrink * math.sqrt(variance)
    low = max(0.0, middle - half)
    high = min(1.0, middle + half)
    return Spread(low, share, high)


def difference(after: Spread, before: Spread) -> Spread:
    """after - before of two INDEPENDENT samples, from the interval of each.

    For two Wilson intervals it is Newcombe's method 10 for independent proportions (1998,
    Statistics in Medicine 17:873, https://pubmed.ncbi.nlm.nih.gov/9595617/); for any two intervals
    it is MOVER (Donner & Zou, 2012, https://doi.org/10.1177/0962280210365018). Two models that
    answered the same examples are not independent: `paired_change` is for those.
    """
    value = after.value - before.value
    below = math.hypot(after.value - after.low, before.high - before.value)
    above = math.hypot(after.high - after.value, before.value - before.low)
    return Spread(value - below, value, value + above)


def mean(values: ArrayLike) -> Spread:
    """The mean of independent values and its interval, by the normal approximation."""
    x = np.asarray(values, np.float64)
    middle = float(x.mean())
    half = Z * float(x.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else math.inf
    return Spread(middle - half, middle, middle + half)


def paired_change(lost: int, gained: int, n: int) -> Spread:
    """Change of accuracy, a share, between two models that answered the SAME n examples.

    Only examples where they differ count: lost, that became wrong; gained, that became right.
    Half an answer is added to each cell of the 2 x 2 table, so that the interval keeps a width
    where no answer differed yet. Agresti & Min, 2005, https://doi.org/10.1002/sim.1781
    """
    change = gained - lost
    # The interval is centred on the adjusted change; the value stays what was counted.
    middle = change / (n + 2)
    variance = (lost + gained + 1) - change**2 / (n + 2)
    half = Z * (math.sqrt(variance) / (n + 2))
    low = max(-1.0, middle - half)
    high = min(1.0, middle + half)
    return Spread(low, change / n, high)


# ---------------------------------------------------------------- rank correlation


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ in [-1, 1] with its 95 % interval (Spearman, 1904, doi.org/10.2307/1412159).

    None where it has no meaning: no value for fewer than 3 units, or where a side is all the same;
    no interval for fewer than 8 units.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's ρ; None where one side has a single value, or there are fewer than 3 units."""
    x = np.asarray(a, np.float64)
    y = np.asarray(b, np.float64)
    if len(x) < FEWEST:
        return None
    constant = (x == x[0]).all() or (y == y[0]).all()
    if constant:
        return None
    return float(scipy.stats.spearmanr(x, y).statistic)


def correlation(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> Correlation:
    """ρ with Efron's percentile bootstrap over the units (1979, doi.org/10.1214/aos/1176344552)."""
    x = np.asarray(a, np.float64)
    y = np.asarray(b, np.float64)
    value = spearman(x, y)
    if value is None or len(x) < ENOUGH:
        return Correlation(value)
    # A bootstrap sample is how often each unit is in it. scipy's bootstrap would rank every sample
    # anew, hundreds of times slower, and the same seed would give other intervals.
    generator = np.random.default_rng(seed)
    n = len(x)
    odds = np.full(n, 1 / n)
    counts = generator.multinomial(n, odds, size=BOOTSTRAP_SAMPLES)
    samples = _resampled(x, y, counts.astype(np.float64))
    # Samples that repeat a single unit have no correlation: they are NaN, and left out.
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return Correlation(value, float(low), float(high))


@cache
def random_band(units: int) -> Spread | None:
    """Where ρ of 95 % of random orders of so many units lies: the null of Spearman's ρ.

    One random order alone may look like skill: with 64 units, one in twenty is beyond ±0.25. Up to
    7 units every order is counted, up to 100 as many seeded ones as RANDOM_ORDERS; beyond that by
    Student's t (Kendall, 1948, Rank Correlation Methods, 4). None for fewer than 3 units.
    """
    if units < FEWEST:
        return None
    if units > MANY:
        t = float(scipy.stats.t.ppf(0.975, units - 2))
        edge = t / math.sqrt(units - 2 + t * t)
    else:
        # An order read backwards has -ρ, so that the null is symmetric: its tails are read as one.
        # Rounded, because equal ρ of different orders differ in the last bit.
        rho = np.abs(_random_rho(units)).round(12)
        edge = float(np.quantile(rho, 0.95, method="inverted_cdf"))
    return Spread(-edge, 0.0, edge)


def _random_rho(units: int) -> Floats:
    """(orders,) ρ of random orders of so many units with one order."""
    places = np.arange(units, dtype=np.float64)
    if units < ENOUGH:
        orders = np.array(list(permutations(places)))
    else:
        generator = np.random.default_rng(0)
        orders = generator.permuted(np.tile(places, (RANDOM_ORDERS, 1)), axis=1)
    centred = places - places.mean()
    rho: Floats = orders @ centred / (centred**2).sum()
    return rho


def better_than_random(correlation: Correlation, units: int) -> bool | None:
    """Whether the whole interval of ρ lies above what random orders of as many units reach.

    None where there is no interval: too few units to say.
    """
    band = random_band(units)
    if band is None or correlation.low is None:
        return None
    return correlation.low > band.high


def matrix(columns: Mapping[str, ArrayLike]) -> list[list[float | None]]:
    """ρ of each pair, in the order of the columns; None where a column has a single value."""
    values = list(columns.values())
    return [[spearman(a, b) for b in values] for a in values]


def best(correlations: Mapping[str, Correlation]) -> Sequence[str]:
    """Names from the highest ρ to the lowest; those without one last."""

    def rho(name: str) -> float:
        value = correlations[name].value
        return -2.0 if value is None else value

    return sorted(correlations, key=rho, reverse=True)


def _resampled(x: Floats, y: Floats, counts: Floats) -> Floats:
    """(samples,) Spearman's ρ, unit i being there counts[:, i] times; NaN where a side is constant.

    x, y: (n,); counts: (samples, n).
    """
    middle = (counts.sum(1, keepdims=True) + 1) / 2  # the mean of all ranks, whatever the ties
    a = _ranks(x, counts) - middle
    b = _ranks(y, counts) - middle
    covariance = (counts * a * b).sum(1)
    a_variance = (counts * a * a).sum(1)
    b_variance = (counts * b * b).sum(1)
    scale = np.sqrt(a_variance * b_variance)
    scale[scale == 0] = np.nan
    rho: Floats = covariance / scale
    return rho.clip(-1, 1)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """(samples, n) mean rank of each unit among all that are there. values: (n,)."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    first = sizes.cumsum() - sizes  # where each group of equal values begins in sorted order
    members = np.add.reduceat(counts[:, order], first, axis=1)  # (samples, groups)
    ranks: Floats = members.cumsum(1) - members + (members + 1) / 2
    return ranks[:, group.reshape(-1)]


# ---------------------------------------------------------------- overlap of masks


@dataclass(frozen=True)
class Overlap:
    """Intersection over union of the weights that two masks keep (Jaccard, 1901).

    at_random: about what two masks have that keep as many of each layer, at random: masks that
    keep nearly everything overlap whatever they were made by. Shares in [0, 1].
    """

    value: float
    at_random: float


def overlap(layers: Iterable[tuple[int, int, int, int]]) -> Overlap | None:
    """layers: of each (weights, kept by one mask, kept by the other, kept by both).

    None where neither keeps anything.
    """
    kept, shared, expected = 0, 0, 0.0
    for weights, one, other, both in layers:
        kept += one + other
        shared += both
        # Of a layer's n weights a random mask of a and one of b share a·b/n on average.
        expected += one * other / weights if weights else 0.0
    if not kept:
        return None
    return Overlap(shared / (kept - shared), expected / (kept - expected))


# ---------------------------------------------------------------- curves

Corner = TypeVar("Corner", bound=tuple[Any, ...])


def lower_hull(points: Sequence[Corner]) -> list[Corner]:
    """The corners of the lower convex hull: from each to the next, slopes only rise.

    points: (x, y, ...), by rising x. Of points with the same x, the first counts.
    """
    hull: list[Corner] = []
    for point in points:
        x, y = point[:2]
        if hull and x <= hull[-1][0]:
            continue
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2][:2], hull[-1][:2]
            # The slope to the last corner against that to the point, without dividing by 0.
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append(point)
    return hull


def isotonic(x: Sequence[float], y: Sequence[float]) -> tuple[Floats, Floats]:
    """The curve through y that never falls as x rises and is nearest to y, by least squares.

    x must be sorted. Returns its corners: mean x and mean y of each pool of neighbours. Pooling
    adjacent violators, Ayer et al., 1955, https://doi.org/10.1214/aoms/1177728423
    """
    fit = scipy.optimize.isotonic_regression(y)
    starts = fit.blocks[:-1]  # where each pool begins
    # Two pools of the same height are one; apart by rounding, they would bend the curve between.
    rises = np.diff(fit.x[starts], prepend=-np.inf) > 1e-12
    starts = starts[rises]
    sizes = np.diff(starts, append=len(fit.x))

    def pool_means(values: Sequence[float]) -> Floats:
        floats = np.asarray(values, np.float64)
        sums: Floats = np.add.reduceat(floats, starts)
        return sums / sizes

    return pool_means(x), pool_means(y)
