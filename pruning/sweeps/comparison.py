"""What the rows of a sweep say: means over seeds, which technique is better, and what is noise.

One function decides whether a difference is clear: `difference`. Ranks, the winner of a level and
every sentence about them come from it, so that nobody is crowned inside the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

# Only the name is loaded here: scipy imports a part of itself when it is first asked for one.
import scipy

from pruning import stats
from pruning.metrics import Paired
from pruning.stats import Spread
from pruning.sweeps.plan import CONTROLS, SEARCHED

Row = Mapping[str, Any]
"""As `table.row` makes it."""

Pairing = Callable[[Row, Row], Paired | None]
"""The answers of two rows' runs to the same test examples (gained: only the first's are right);
None where they are not known."""

COSTS = ("weights_kept", "macs", "bytes", "latency_ms")
"""Columns of rows that an accuracy can be paid with: less is better."""

ERROR = 0.05
"""How often any of a level's differences is called clear where there is none, at most."""

TOLERATED = 0.01
"""Of accuracy, a share: what is within it of the dense model counts as kept."""


@dataclass(frozen=True)
class Cell:
    """A technique at one level of sparsity: its runs with a result, by seed."""

    technique: str
    sparsity: float
    control: str
    rows: tuple[Row, ...]

    @property
    def values(self) -> list[float]:
        """Of the metric, of each seed."""
        return [row["accuracy"] for row in self.rows]

    @property
    def seeds(self) -> int:
        return len(self.rows)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def low(self) -> float:
        """Of the lowest seed."""
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def cost(self, name: str) -> float | None:
        """Mean over seeds; None where one was not measured. name: one of COSTS."""
        costs = [row[name] for row in self.rows]
        return None if None in costs else fmean(costs)

    @property
    def higher_is_better(self) -> bool:
        return self.rows[0]["higher_is_better"] is not False


def cells(rows: Iterable[Row]) -> list[Cell]:
    """One for each technique and level with a result, in the order of the rows: of one model.

    Of what a search tried, one for each recipe: two of one level are no seeds of each other.
    """
    by_place: dict[tuple[str, object], list[Row]] = {}
    for row in rows:
        if row["state"] != "done" or row["accuracy"] is None:
            continue
        technique = row["technique"]
        if technique in SEARCHED:  # it may come to one recipe twice, which is one run
            by_place[technique, row["recipe"]] = [row]
        else:
            by_place.setdefault((technique, row["sparsity"]), []).append(row)
    return [
        Cell(technique, group[0]["sparsity"], group[0]["control"] or "", _by_seed(group))
        for (technique, _), group in by_place.items()
    ]


def _by_seed(group: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(sorted(group, key=lambda row: row["seed"]))


def techniques(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Technique -> its levels, from dense to sparse; without controls that prune nothing."""
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.control not in ("dense", "dense_longer"):
            lines.setdefault(cell.technique, []).append(cell)
    return {name: sorted(line, key=lambda cell: cell.sparsity) for name, line in lines.items()}


def levels(cells: Iterable[Cell]) -> dict[float, list[Cell]]:
    """Level -> the techniques there, controls left out, since nobody competes with them.

    Nor is what a search tried among them: each has a level of its own.
    """
    by_level: dict[float, list[Cell]] = {}
    for cell in cells:
        if cell.control not in CONTROLS and cell.technique not in SEARCHED:
            by_level.setdefault(cell.sparsity, []).append(cell)
    return dict(sorted(by_level.items()))


def reference(cells: Iterable[Cell], control: str = "dense") -> Cell | None:
    """The dense model, or the one trained as long; None where the sweep has none."""
    return next((cell for cell in cells if cell.control == control), None)


# ---------------------------------------------------------------- what is a difference


@dataclass(frozen=True)
class Noise:
    """How far the seeds of one technique differ, pooled over all techniques of a level.

    variance: of one run; freedom: degrees of it; pairs: differences that are looked at, among
    which the allowed error is divided (Bonferroni).
    """

    variance: float
    freedom: int
    pairs: int

    @property
    def reach(self) -> float:
        """Standard errors on either side of a difference: Student's t."""
        return float(scipy.special.stdtrit(self.freedom, 1 - ERROR / (2 * self.pairs)))


def noise(cells: Sequence[Cell]) -> Noise | None:
    """Of one level; None where every technique has one seed: nothing is known of chance then."""
    freedom = sum(cell.seeds - 1 for cell in cells)
    if freedom < 1 or len(cells) < 2:
        return None
    return Noise(_squares(cells) / freedom, freedom, len(cells) * (len(cells) - 1) // 2)


def _squares(cells: Iterable[Cell]) -> float:
    return sum((value - cell.mean) ** 2 for cell in cells for value in cell.values)


def unknown(first: Row, second: Row) -> None:
    """The pairing where nobody kept the answers."""


@dataclass(frozen=True)
class Difference:
    """How much better one technique is than another, positive: better, whatever the metric.

    seeds: its interval by the spread over seeds, None for one seed; images: by the test examples
    that they answered differently, None where that is not known; exact: by the answers themselves.
    """

    value: float
    seeds: Spread | None
    images: Spread | None
    exact: bool = False

    @property
    def clear(self) -> bool:
        """Whether neither the seeds nor the test examples explain it. Never with one seed."""
        if self.seeds is None or self.seeds.crosses_zero:
            return False
        return self.images is None or not self.images.crosses_zero


def difference(a: Cell, b: Cell, noise: Noise | None, paired: Pairing = unknown) -> Difference:
    """a - b at one level. This alone decides what is better.

    Where the answers are not known, what both gained and lost against the dense model bounds it.
    """
    sign = 1 if a.higher_is_better else -1
    value = sign * (a.mean - b.mean)
    images, exact = _by_images(a, b, sign, paired)
    return Difference(value, _by_seeds(a, b, value, noise), images, exact)


def _by_seeds(a: Cell, b: Cell, value: float, noise: Noise | None) -> Spread | None:
    if noise is None or a.seeds < 2 or b.seeds < 2:
        return None
    # A technique that collapses at this level varies more than the others: their calm is not its.
    own = _squares((a, b)) / (a.seeds + b.seeds - 2)
    error = math.sqrt(max(noise.variance, own) * (1 / a.seeds + 1 / b.seeds))
    half = noise.reach * error
    return Spread(value - half, value, value + half)


def _by_images(a: Cell, b: Cell, sign: int, paired: Pairing) -> tuple[Spread | None, bool]:
    """The mean over seeds of what each seed's test examples allow, and whether that is exact.

    The examples are the same for all seeds, so that more seeds make this interval no narrower.
    """
    others = {row["seed"]: row for row in b.rows}
    pairs = [(row, others[row["seed"]]) for row in a.rows if row["seed"] in others]
    # Without a common seed any two runs are compared.
    pairs = pairs or [(a.rows[0], b.rows[0])]
    answers = [paired(first, second) for first, second in pairs]
    spreads = []
    for known, (first, second) in zip(answers, pairs, strict=True):
        spread = known.change if known else _bounded(first, second, sign)
        if spread is None:
            return None, False
        spreads.append(spread)
    low, value, high = (fmean(getattr(s, end) for s in spreads) for end in ("low", "value", "high"))
    return Spread(low, value, high), None not in answers


def _bounded(a: Row, b: Row, sign: int) -> Spread | None:
    """What is known without the answers themselves.

    Two models can differ only in examples where one of them differs from the dense model: with as
    many as that, the interval is too wide rather than too narrow.
    """
    counts = [row[name] for row in (a, b) for name in ("gained", "lost")]
    examples = a["examples"]
    if None not in counts and examples and examples == b["examples"]:
        a_gained, a_lost, b_gained, b_lost = counts
        return stats.paired_change(a_lost + b_gained, a_gained + b_lost, examples)
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return None
    first, second = (Spread(row["low"], row["accuracy"], row["high"]) for row in (a, b))
    return stats.difference(first, second) if sign > 0 else stats.difference(second, first)


# ---------------------------------------------------------------- ranks


@dataclass(frozen=True)
class Rank:
    """A technique's rank at a level by its mean, 1 the best; best, worst: what the noise allows.

    The interval counts who is clearly better and who clearly worse, as simultaneous intervals of
    ranks do (Al Mohamad, Goeman & van Zwet, 2022, Biometrics 78:238).
    """

    technique: str
    rank: int
    best: int
    worst: int


def ranks(cells: Sequence[Cell], paired: Pairing = unknown) -> list[Rank]:
    """Of the techniques of one level, the best mean first."""
    sign = 1 if not cells or cells[0].higher_is_better else -1
    order = sorted(cells, key=lambda cell: -sign * cell.mean)
    at_level = noise(cells)
    better = [0] * len(order)  # how many are clearly better than each
    worse = [0] * len(order)
    for first, second in combinations(range(len(order)), 2):
        # By their order the first is no worse, so that a clear difference says it is better.
        if difference(order[first], order[second], at_level, paired).clear:
            worse[first] += 1
            better[second] += 1
    made = []
    for place, cell in enumerate(order):
        rank = 1 + sum(sign * other.mean > sign * cell.mean for other in order)
        made.append(Rank(cell.technique, rank, 1 + better[place], len(order) - worse[place]))
    return made


def winner(cells: Sequence[Cell], paired: Pairing = unknown) -> str | None:
    """The technique that is clearly better than every other one of its level; mostly there is
    none.
    """
    if len(cells) < 2:
        return None
    first = ranks(cells, paired)[0]
    return first.technique if first.worst == 1 else None


# ---------------------------------------------------------------- what a budget buys


def front(cells: Iterable[Cell], cost: str) -> list[Cell]:
    """The Pareto front by means, from cheap to dear: no other cell is as cheap and as good."""
    priced = [(cell.cost(cost), cell) for cell in cells if cell.control not in CONTROLS]
    known = [(price, cell) for price, cell in priced if price is not None]
    known.sort(key=lambda each: (each[0], -_goodness(each[1])))
    chosen: list[Cell] = []
    for _, cell in known:
        if not chosen or _goodness(cell) > _goodness(chosen[-1]):
            chosen.append(cell)
    return chosen


def _goodness(cell: Cell) -> float:
    return cell.mean if cell.higher_is_better else -cell.mean


@dataclass(frozen=True)
class Reading:
    """What a technique reaches at a cost. measured: by runs that cost just that.

    between: the two costs that it was read between, where it was; value None: the cost lies
    outside of what was measured.
    """

    technique: str
    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    between: tuple[float, float] | None = None

    @property
    def measured(self) -> bool:
        return self.value is not None and self.between is None


NEAR = 0.02
"""Share of a cost within which a run counts as costing just that."""


def at_budget(cells: Iterable[Cell], cost: str, budget: float) -> list[Reading]:
    """Every technique at one cost, random among them, the best first.

    Only between two measured levels, along the logarithm of the cost; never beyond them.
    """
    lines = techniques(cells)
    # Between two recipes of a search lies no third.
    readings = [_read(lines[name], cost, budget) for name in lines if name not in SEARCHED]
    down = any(not cell.higher_is_better for cell in cells)
    known = [reading for reading in readings if reading.value is not None]
    unknown = [reading for reading in readings if reading.value is None]
    return sorted(known, key=lambda each: each.value or 0.0, reverse=not down) + unknown


def _read(line: Sequence[Cell], cost: str, budget: float) -> Reading:
    priced = [(price, cell) for cell in line if (price := cell.cost(cost))]
    priced.sort(key=lambda each: each[0])
    name = line[0].technique
    for price, cell in priced:
        if abs(price - budget) <= NEAR * price:
            return Reading(name, cell.mean, cell.low, cell.high, cell.seeds)
    for (below, a), (above, b) in pairwise(priced):
        if below < budget < above:
            share = math.log(budget / below) / math.log(above / below)
            value, low, high = (
                (1 - share) * getattr(a, end) + share * getattr(b, end)
                for end in ("mean", "low", "high")
            )
            return Reading(name, value, low, high, min(a.seeds, b.seeds), (below, above))
    return Reading(name, None)


def kept_to(cells: Sequence[Cell], dense: float) -> tuple[float, list[str]] | None:
    """The sparsest level to which techniques stay within TOLERATED of dense, and which those are.

    Every denser level of theirs is within it too. None where none is, or the metric is no share.
    """
    reached: dict[float, list[str]] = {}
    for name, line in techniques(cells).items():
        if line[0].control in CONTROLS or name in SEARCHED:
            continue
        last = None
        for cell in line:
            if _goodness(cell) < (dense if cell.higher_is_better else -dense) - TOLERATED:
                break
            last = cell.sparsity
        if last is not None:
            reached.setdefault(last, []).append(name)
    if not reached:
        return None
    sparsest = max(reached)
    return sparsest, reached[sparsest]
