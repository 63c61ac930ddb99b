"""What a run says: one frozen dataclass for each thing worth drawing. No tensors, and no torch: pages read these.

Every event survives JSON: `from_json(to_json(event)) == event`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Accuracy:
    """Right answers among examples, with the 95 % Wilson interval (Wilson, 1927, https://doi.org/10.2307/2276774).

    Shares in [0, 1].
    """

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        z, n, p = 1.959963984540054, self.total, self.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Layer:
    """One prunable weight: how many of its weights are left, and the multiply-accumulates of one example."""

    name: str
    total: int
    kept: int
    macs: int = 0
    macs_kept: int = 0


@dataclass(frozen=True)
class Size:
    """Bytes on disk. dense: float weights in a safetensors file; sparse: a bit for each weight and the values kept,
    for what is pruned; compressed: that, deflated (what travels)."""

    dense: int
    sparse: int
    compressed: int


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one forward pass of `batch` examples: quartiles over `passes`, on `threads` CPU threads."""

    median: float
    low: float
    high: float
    threads: int
    batch: int
    passes: int


@dataclass(frozen=True)
class Measurement:
    """A model, measured. What could not be measured is None: shown as "not measured", never as 0.

    weights, kept: covered weights; parameters: all parameters; macs: multiply-accumulates of one example in every
    covered layer; macs_kept: those whose weight is not zero (what a runtime that skips zeros would do).
    """

    accuracy: Accuracy | None
    loss: float | None
    weights: int
    kept: int
    parameters: int
    macs: int | None
    macs_kept: int | None
    size: Size
    latency: Latency | None
    layers: tuple[Layer, ...] = ()

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.weights


@dataclass(frozen=True)
class Started:
    """The work begins. recipe: as plain data; machine: versions, threads, processor; epochs: how many will be trained in all."""

    recipe: dict[str, Any]
    machine: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class Measured:
    """stage: "dense" (as found), "pruned" (final sparsity, not yet fine-tuned), "recalibrated" or "final"; on test data."""

    stage: str
    measurement: Measurement


@dataclass(frozen=True)
class Pruned:
    """Weights were removed. step counts from 1; sparsity: share gone of the covered weights."""

    step: int
    steps: int
    sparsity: float
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Recalibrated:
    """BatchNorm's running statistics were estimated anew. step: after which pruning; layers: how many; examples: seen for it."""

    step: int
    layers: int
    examples: int
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data is over. accuracy and loss: on validation data; seconds: this epoch took.

    train_loss: the task's own, whatever else was trained on; teacher: the term that compares with the dense model, None without one.
    """

    step: int
    epoch: int
    epochs: int
    train_loss: float
    loss: float | None
    accuracy: Accuracy | None
    sparsity: float
    lr: float
    seconds: float
    teacher: float | None = None


@dataclass(frozen=True)
class Notice:
    """Something to know that does not end the run (a floor that held, a layer left out)."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The result. dense, pruned, recalibrated and final are measured on the same test data.

    pruned is None when nothing was done after pruning; recalibrated when BatchNorm was not recalibrated, or nothing was trained
    after that: then final is it.
    """

    sparsity: float
    dense: Measurement
    pruned: Measurement | None
    final: Measurement
    seconds: float
    recalibrated: Measurement | None = None


@dataclass(frozen=True)
class Failed:
    """The run could not go on. kind: the error's class; message: one sentence with the way out."""

    kind: str
    message: str


@dataclass(frozen=True)
class Halted:
    """Somebody pressed Stop; what was reached is kept."""

    step: int
    epoch: int


Event = Started | Measured | Pruned | Recalibrated | Epoch | Notice | Finished | Failed | Halted

KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(Event)}
ENDS = (Finished, Failed, Halted)


def to_dict(event: Event) -> dict[str, Any]:
    """The event as plain data, its kind under "event"."""
    return {"event": type(event).__name__.lower(), **dataclasses.asdict(event)}


def to_json(event: Event) -> str:
    return json.dumps(to_dict(event), separators=(",", ":"))


def from_dict(data: dict[str, Any]) -> Event:
    rest = dict(data)
    return _build(KINDS[rest.pop("event")], rest)  # type: ignore[no-any-return]


def from_json(text: str) -> Event:
    return from_dict(json.loads(text))


def _build(kind: Any, value: Any) -> Any:
    """`value`, as JSON gives it, as the annotated `kind`."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _build(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    if get_origin(kind) in (Union, UnionType):
        options = [a for a in get_args(kind) if a is not type(None)]
        return None if value is None else _build(options[0], value)
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], part) for part in value)
    return value
