"""What a run says: one frozen dataclass for each thing worth drawing. No tensors, and no torch: pages read these.

Every event survives JSON: `from_json(to_json(event)) == event`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pruning.metrics import Accuracy as Accuracy
from pruning.metrics import Latency as Latency
from pruning.metrics import Layer as Layer
from pruning.metrics import Measurement as Measurement
from pruning.metrics import Size as Size


@dataclass(frozen=True)
class Frozen:
    """A group that keeps its channels in the slimmed model, as zeros, because without them it would not compute the same."""

    group: str
    units: int
    why: str


@dataclass(frozen=True)
class Certificate:
    """How far a slimmed model is from the masked one: max |masked - slim| / max |masked|, in float64, the worst of all checks.

    limit: what is refused above it; checks: what was compared (weights, inputs, batch); control: the same distance to the model
    before masking, with drawn weights (0 would mean that nothing was compared); removed: units gone, of units; parameters: of the
    whole model, before, and kept; frozen: groups left whole; unused: parameters that only training uses (auxiliary heads), left out.
    """

    error: float
    limit: float
    checks: tuple[str, ...]
    control: float
    removed: int
    units: int
    parameters: int
    kept: int
    frozen: tuple[Frozen, ...] = ()
    unused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Certificate:
        made: Certificate = build(cls, data)
        return made


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
    step 0 is the dense network's first training; branch: the control that was trained, "" for the network that is pruned.
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
    branch: str = ""


@dataclass(frozen=True)
class Ticket:
    """A network of a lottery has been trained to its end, and measured on test data.

    step: round, 0 for the dense network; kind: "dense", "ticket" or the control "reinit", "random_mask" or "one_shot"; kept: covered
    weights.
    overlap: of the weights that are kept with those of the round before; shared: with those that one shot would have kept of the
    dense network at this sparsity; both as intersection over union, in [0, 1], for tickets alone.
    """

    step: int
    steps: int
    kind: str
    sparsity: float
    kept: int
    accuracy: Accuracy | None
    loss: float | None
    overlap: float | None = None
    shared: float | None = None


@dataclass(frozen=True)
class Notice:
    """Something to know that does not end the run (a floor that held, a layer left out)."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The result. dense, pruned, recalibrated and final are measured on the same test data.

    slim is what is left of final without what whole units took along, with the certificate that both compute the same: of structured
    runs alone. pruned is None when nothing was done after pruning; recalibrated when BatchNorm was not recalibrated, or nothing was trained
    after that: then final is it.
    """

    sparsity: float
    dense: Measurement
    pruned: Measurement | None
    final: Measurement
    seconds: float
    recalibrated: Measurement | None = None
    compact: Measurement | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True)
class Point:
    """One cell of a sensitivity map: the model on validation data when this layer alone loses `level` of its units.

    units, kept: of the layer; tier: "estimate" (predicted from gradients), "progressive" (measured on the images so far)
    or "exact" (measured on all of them). loss, loss_dense: mean over the same images. lost, won: answers that were right and
    became wrong, and the other way round; interval: 95 % of the change in accuracy, a share, paired with the dense model
    on the same images. final: the cell is not refined any further.
    """

    layer: str
    level: float
    units: int
    kept: int
    tier: str
    accuracy: Accuracy | None
    loss: float
    loss_dense: float
    lost: int = 0
    won: int = 0
    interval: tuple[float, float] | None = None
    final: bool = True

    @property
    def change(self) -> float | None:
        """Of accuracy, against the dense model on the same images; a share."""
        return None if self.accuracy is None else (self.won - self.lost) / self.accuracy.total


@dataclass(frozen=True)
class Forecast:
    """What by_sensitivity foretold of this step's pruning, and what came of it before anything mended it; on validation images.

    loss: change of the mean loss; drop: of accuracy, a share, positive when it falls; both against the model before this step.
    achieved: the same, measured; accuracy: after the step, on the same images (None where nothing was measured yet).
    """

    step: int
    loss: float
    drop: float
    loss_achieved: float | None = None
    drop_achieved: float | None = None
    accuracy: Accuracy | None = None


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


Event = (
    Started
    | Measured
    | Pruned
    | Recalibrated
    | Epoch
    | Ticket
    | Notice
    | Finished
    | Point
    | Forecast
    | Failed
    | Halted
)

KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(Event)}
ENDS = (Finished, Failed, Halted)

RENAMED = {
    (Finished, "slim"): "compact",
    (Certificate, "left"): "kept",
    (Size, "coded"): "entropy_coded",
}
"""Fields as earlier versions stored them."""


def to_dict(event: Event) -> dict[str, Any]:
    """The event as plain data, its kind under "event"."""
    return {"event": type(event).__name__.lower(), **dataclasses.asdict(event)}


def to_json(event: Event) -> str:
    return json.dumps(to_dict(event), separators=(",", ":"))


def from_dict(data: dict[str, Any]) -> Event:
    rest = dict(data)
    return build(KINDS[rest.pop("event")], rest)  # type: ignore[no-any-return]


def from_json(text: str) -> Event:
    return from_dict(json.loads(text))


def build(kind: Any, value: Any) -> Any:
    """`value`, as JSON gives it, as the annotated `kind`."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        named = {RENAMED.get((kind, name), name): part for name, part in value.items()}
        return kind(**{name: build(hints[name], part) for name, part in named.items()})
    if get_origin(kind) in (Union, UnionType):
        options = [a for a in get_args(kind) if a is not type(None)]
        return None if value is None else build(options[0], value)
    if get_origin(kind) is tuple:
        return tuple(build(get_args(kind)[0], part) for part in value)
    return value
