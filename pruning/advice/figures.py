"""Numbers of an answer: each knows its rows, so that whoever doubts it can work it out again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pruning.advice.rows import Cell
from pruning.advice.target import LIMITS, PICOJOULES, SKIPS, TORCH, Target
from pruning.metrics import bytes_text

UNITS = {
    "bytes": "bytes",
    "compressed": "bytes by gzip",
    "download": "seconds of download",
    "ms": "milliseconds",
    "macs": "MACs",
    "energy": "microjoules",
}
assert UNITS.keys() == LIMITS.keys()


@dataclass(frozen=True)
class Fact:
    """A number that rows give. rows: their ids; column: of Measured, or "cost" (by the target),
    "change", "change_low", "change_high", "seeds", "count"; text: as it is shown.
    """

    rows: tuple[str, ...]
    column: str
    text: str


@dataclass(frozen=True)
class Asked:
    """A number that the target gives. name: of its field."""

    name: str
    text: str


@dataclass(frozen=True)
class Name:
    """What rows are called: a name, which may hold digits, and no number."""

    text: str
    rows: tuple[str, ...]


Part = str | Fact | Asked | Name


@dataclass(frozen=True)
class Sentence:
    """parts: words and numbers, in order; rows: ids of rows that no number names."""

    parts: tuple[Part, ...]
    rows: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def facts(self) -> list[Fact]:
        return [part for part in self.parts if isinstance(part, Fact)]

    @property
    def cites(self) -> tuple[str, ...]:
        """Ids of the rows that it rests on, each once."""
        named = [part.rows for part in self.parts if isinstance(part, Fact | Name)]
        return tuple(dict.fromkeys([id for rows in named for id in rows] + list(self.rows)))

    @property
    def cited(self) -> str:
        """The sentence with the names of its rows: `... [digits-cnn/int8-static]`."""
        cites = self.cites
        if not cites:
            return self.text
        more = f" and {len(cites) - SHOWN} more" if len(cites) > SHOWN else ""
        return f"{self.text} [{', '.join(cites[:SHOWN])}{more}]"


SHOWN = 3


def sentence(template: str, *values: Part | tuple[Part, ...], rows: Iterable[str] = ()) -> Sentence:
    """The template with each {} replaced by a part, or several."""
    pieces = template.split("{}")
    assert len(pieces) == len(values) + 1, template
    parts: list[Part] = [pieces[0]]
    for value, piece in zip(values, pieces[1:], strict=True):
        parts += list(value) if isinstance(value, tuple) else [value]
        parts.append(piece)
    return Sentence(tuple(part for part in parts if part != ""), tuple(rows))


# ---------------------------------------------------------------- numbers as text


def whole(number: float) -> str:
    return f"{number:,.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    text = f"{abs(100 * share):.1f}"
    if text == "0.0":
        return text
    return ("+" if share > 0 else "−") + text


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def in_unit(limit: str, value: float) -> str:
    """A value of what is limited: `14.6 kB`, `0.12 s`, `0.034 ms`, `156 k MACs`, `0.72 µJ`."""
    if limit in ("bytes", "compressed"):
        return bytes_text(value) + (" by gzip" if limit == "compressed" else "")
    if limit == "download":
        return f"{value:.3g} s"
    if limit == "ms":
        return milliseconds(value)
    return f"{count_text(value)} MACs" if limit == "macs" else f"{value:.3g} µJ"


def count_text(value: float) -> str:
    """`616 k`, `31.2 M`."""
    for unit in ("", " k", " M"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} G"


def level(share: float) -> str:
    return f"{100 * share:.4g} %"


SHOW = {
    "accuracy": percent,
    "accuracy_pruned": percent,
    "level": level,
    "change": points,
    "change_low": points,
    "change_high": points,
    "torch_ms": milliseconds,
    "torch_dense_ms": milliseconds,
    "onnx_ms": milliseconds,
    "onnx_dense_ms": milliseconds,
    "macs": count_text,
    "macs_kept": count_text,
    "epochs": whole,
    "examples": whole,
    "train_examples": whole,
    "seeds": whole,
    "count": whole,
}
"""Column of a fact -> how its number is written."""


# ---------------------------------------------------------------- facts


def fact(cell: Cell, column: str) -> Fact:
    """A mean over the seeds of a cell, or a bound of its change."""
    if column == "seeds":
        value: float | None = len(cell.rows)
    elif column.startswith("change"):
        change = cell.change
        end = {"change": "value", "change_low": "low", "change_high": "high"}[column]
        value = None if change is None else getattr(change, end)
    else:
        value = cell.mean(column)
    text = "not measured" if value is None else SHOW[column](value)
    return Fact(cell.ids, column, text)


def count(rows: Sequence[str], number: int) -> Fact:
    """How many things those rows are."""
    return Fact(tuple(rows), "count", whole(number))


def cost(target: Target, cell: Cell) -> Fact:
    """What the target limits, of a cell."""
    value = cost_of(target, cell)
    text = "not measured" if value is None else in_unit(target.limit, value)
    return Fact(cell.ids, "cost", text)


def limit(target: Target) -> Asked:
    return Asked("most", in_unit(target.limit, target.most))


def within(target: Target) -> Asked:
    return Asked("within", f"{target.within:g} point{'' if target.within == 1 else 's'}")


def column_of(target: Target) -> str:
    """The column that a target's cost is worked out from."""
    if target.limit in ("bytes", "compressed"):
        return target.limit
    if target.limit == "download":
        return "bytes"
    if target.limit == "ms":
        return {TORCH: "torch_ms"}.get(target.runtime, "onnx_ms")
    return "macs_kept" if target.runtime == SKIPS else "macs"


def cost_of(target: Target, cell: Cell) -> float | None:
    """What the target limits, in its unit: a mean over seeds. None: not measured."""
    if target.limit == "ms" and target.runtime == SKIPS:
        return None  # no such runtime was timed
    value = cell.mean(column_of(target))
    if value is None:
        return None
    if target.limit == "download":
        return value * 8 / (target.bandwidth * 1e6)  # bits by bits a second
    if target.limit == "ms":
        return value * target.slower
    if target.limit == "energy":
        multiply, add = PICOJOULES[cell.first.bits]
        return value * (multiply + add) / 1e6  # picojoules to microjoules
    return value
