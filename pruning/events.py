"""Events of a run: one frozen dataclass for each thing worth drawing. No tensors, and no torch.

Pages read these, and the store keeps them. Every event survives JSON:
`from_json(to_json(event)) == event`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

# Named here too, because events are made of them: whoever reads events needs one import.
from pruning.metrics import Accuracy as Accuracy
from pruning.metrics import Latency as Latency
from pruning.metrics import Layer as Layer
from pruning.metrics import Measurement as Measurement
from pruning.metrics import Quality as Quality
from pruning.metrics import Score as Score
from pruning.metrics import Size as Size
from pruning.metrics import figure_rows
from pruning.tables import html_table


@dataclass(frozen=True)
class Frozen:
    """A dependency group that keeps its pruned channels in the compact model, as zeros, because
    without them the outputs would differ.
    """

    group: str
    units: int
    why: str


@dataclass(frozen=True)
class Certificate:
    """How far the compact model's outputs are from the masked one's.

    error: max |masked - compact| / max |masked|, in float64, the worst of all checks; limit: what
    is refused above it; checks: what was compared (weights, inputs, batch, size); control: the same
    distance to the model before masking, with random weights (0 would mean that nothing was
    compared); removed: units pruned, of units; parameters: of the whole model, before, and kept;
    frozen: groups left whole; unused: parameters that only training uses (auxiliary heads), left
    out; sizes: of inputs that the compact model holds for, a clause; it refuses others.
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
    sizes: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Certificate:
        made: Certificate = build(cls, data)
        return made


@dataclass(frozen=True)
class Started:
    """The work begins.

    recipe: as plain data; machine: versions, threads, processor; epochs: trained in all.
    """

    recipe: dict[str, Any]
    machine: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class Measured:
    """A model was measured on test data.

    stage: "dense" (as found), "pruned" (final sparsity, not yet fine-tuned), "recalibrated",
    "reconstructed" or "final"; validation, validation_loss: the same model on validation data,
    which is what an Epoch's accuracy and loss compare with.
    """

    stage: str
    measurement: Measurement
    # Younger than the first stored runs. seconds: that the pass over the test data took.
    validation: Accuracy | None = None
    validation_loss: float | None = None
    seconds: float | None = field(default=None, compare=False)
    validation_score: Score | None = None

    @property
    def validation_quality(self) -> Quality | None:
        """By the task's own metric."""
        return self.validation_score or self.validation


@dataclass(frozen=True)
class Pruned:
    """Weights were removed. step counts from 1; sparsity: share removed of all covered ones.

    budget: what the recipe's share counts ("weights", "units", "macs", "bytes"); share: pruned of
    that; units: (removed, of all that may be). All three of the whole run so far; None where
    nothing was asked, and in runs of earlier versions.
    """

    step: int
    steps: int
    sparsity: float
    layers: tuple[Layer, ...]
    budget: str | None = None
    share: float | None = None
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Recalibrated:
    """BatchNorm's running statistics were estimated anew.

    step: after which pruning; layers: how many; examples: that the statistics are of.
    """

    step: int
    layers: int
    examples: int
    seconds: float


@dataclass(frozen=True)
class Reconstructed:
    """Layers were solved anew, so that they give what they gave before.

    step: after which pruning; layers: how many weights were solved; examples: that they were solved
    on; left: weights that were not, by name.
    """

    step: int
    layers: int
    examples: int
    seconds: float
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data is over.

    step: of pruning, 0 for the dense network's first training; train_loss: the task's own,
    whatever else was trained on; loss, accuracy: on validation data; lr: at its start; seconds:
    this epoch took; teacher: the loss term that compares with the dense model, None without one;
    branch: the control that was trained, "" for the network that is pruned.
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
    # Fields from here on are younger than the first stored runs, which lack them.
    teacher: float | None = None
    branch: str = ""
    score: Score | None = None

    @property
    def quality(self) -> Quality | None:
        """On validation data, by the task's own metric."""
        return self.score or self.accuracy


@dataclass(frozen=True)
class Ticket:
    """A lottery ticket or its control has been trained to its end, and measured on test data.

    step: round, 0 for the dense network; kind: "dense", "ticket" or the control "reinit",
    "random_mask" or "one_shot"; kept: covered weights; overlap: of the kept weights with those of
    the round before; shared: with those that one shot would have kept of the dense network at this
    sparsity; shared_at_random: about what two masks share that keep as many of each layer, at
    random; None in runs of earlier versions. All are intersection over union, in [0, 1], and of
    tickets alone.
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
    score: Score | None = None
    shared_at_random: float | None = None

    @property
    def quality(self) -> Quality | None:
        """On test data, by the task's own metric."""
        return self.score or self.accuracy


@dataclass(frozen=True)
class Notice:
    """Something to know that does not end the run (min_units reached, a layer skipped)."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The result. All models of it are measured on the same test data.

    pruned is None where nothing was done after pruning; recalibrated and reconstructed where that
    was not done or nothing was trained after it: final is that model then. compact is final
    without its pruned units, physically smaller, with the certificate that both compute the same;
    None for runs that remove no whole units.
    """

    sparsity: float
    dense: Measurement
    pruned: Measurement | None
    final: Measurement
    seconds: float
    # Younger than the first stored runs.
    recalibrated: Measurement | None = None
    compact: Measurement | None = None
    certificate: Certificate | None = None
    reconstructed: Measurement | None = None

    @property
    def deliverable(self) -> Measurement:
        """The model that a run is for: compact where whole units were pruned, else masked."""
        return self.compact or self.final

    def stages(self) -> dict[str, Measurement]:
        """What was measured, in the order in which it came to be; "final" is the masked model."""
        names = ("dense", "pruned", "recalibrated", "reconstructed", "final", "compact")
        every = {name: getattr(self, name) for name in names}
        return {name: m for name, m in every.items() if m is not None}

    def _repr_html_(self) -> str:
        """The figures of every stage, as a notebook shows them."""
        stages = self.stages()
        head = [f"{100 * self.sparsity:.1f} % of the weights pruned", *stages]
        return html_table(head, [[name, *texts] for name, texts in figure_rows(stages)])


@dataclass(frozen=True)
class Point:
    """One cell of a sensitivity map: the model when this layer alone loses `level` of its units.

    Measured on validation data. level: a share; units, kept: of the layer; tier: "estimate"
    (predicted from gradients), "progressive" (measured on the images so far) or "exact" (on all of
    them); loss, loss_dense: mean over the same images; lost, won: answers that were correct and
    became wrong, and the other way round; interval: 95 % of the change of accuracy, a share, paired
    with the dense model on the same images; final: the cell is not refined any further.
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
        if self.accuracy is None:
            return None
        return (self.won - self.lost) / self.accuracy.total


@dataclass(frozen=True)
class Forecast:
    """What by_sensitivity predicted of this step's pruning, and what was measured after it.

    Before any fine-tuning, on validation images, against the model before this step. loss: change
    of the mean loss; drop: of accuracy, a share, positive when it falls; loss_achieved,
    drop_achieved: the same, measured; accuracy: after the step, on the same images. None where
    nothing was measured yet, and those of accuracy where targets are no classes.
    """

    step: int
    loss: float
    drop: float | None
    loss_achieved: float | None = None
    drop_achieved: float | None = None
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Failed:
    """The run could not go on. kind: the error's class; message: one sentence with the way out."""

    kind: str
    message: str


@dataclass(frozen=True)
class Halting:
    """A Stop was heard: training has ended, and what it reached is kept, and measured next.

    step, epoch, done, planned: as in Halted.
    """

    step: int
    epoch: int
    done: int
    planned: int

    @property
    def where(self) -> str:
        """`after epoch 3 of 10`, or `after step 3 of 10` where no epochs are trained."""
        return f"after {'epoch' if self.epoch else 'step'} {self.done:,} of {self.planned:,}"


@dataclass(frozen=True)
class Halted:
    """Somebody pressed Stop.

    step, epoch: the last that were reached; done: whole epochs trained by then (steps, where none
    is trained), of `planned`; result: the model of that moment, measured but not timed, None where
    nothing whole was reached and nothing is kept.
    """

    step: int
    epoch: int
    # Younger than the first stored runs.
    done: int = 0
    planned: int = 0
    result: Finished | None = None

    @property
    def where(self) -> str:
        """`after epoch 3 of 10`, or `after step 3 of 10` where no epochs are trained."""
        if self.result is None:
            return "before the first epoch or step was done"
        return Halting(self.step, self.epoch, self.done, self.planned).where


Event = (
    Started
    | Measured
    | Pruned
    | Recalibrated
    | Reconstructed
    | Epoch
    | Ticket
    | Notice
    | Finished
    | Point
    | Forecast
    | Failed
    | Halting
    | Halted
)

# The name in JSON is the class's, in lower case: a class that is renamed needs its old name here.
KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(Event)}
# One of these is the last event of every run.
ENDS = (Finished, Failed, Halted)

RENAMED = {
    (Finished, "slim"): "compact",
    (Certificate, "left"): "kept",
}
"""Fields as earlier versions stored them: stored runs and the shipped example still read."""

DROPPED = {(Size, "coded"), (Size, "entropy_coded")}
"""Fields of earlier versions that mean nothing now: of a file that nobody was handed."""


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


@cache
def hints(kind: type) -> dict[str, Any]:
    """A dataclass's annotations, evaluated once: that takes longer than all else of an event."""
    return get_type_hints(kind)


def dataclass_in(kind: Any) -> type | None:
    """The dataclass of an annotation `Kind` or `Kind | None`; None for others."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    kinds = (each for each in options if isinstance(each, type) and dataclasses.is_dataclass(each))
    return next(kinds, None)


def build(kind: Any, value: Any) -> Any:
    """`value`, as JSON gives it, as the annotated `kind`: dataclass, optional, tuple or plain.

    Numbers, strings and dictionaries are what JSON gives already.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        # Annotations are strings here (`from __future__ import annotations`).
        annotated = hints(kind)
        fields = {}
        for stored, part in value.items():
            if (kind, stored) in DROPPED:
                continue
            name = RENAMED.get((kind, stored), stored)
            fields[name] = build(annotated[name], part)
        return kind(**fields)
    if get_origin(kind) in (Union, UnionType):
        # Every union here is `Kind | None`.
        some = next(option for option in get_args(kind) if option is not type(None))
        return None if value is None else build(some, value)
    # `tuple[Kind, ...]`, which JSON gives as a list.
    if get_origin(kind) is tuple:
        return tuple(build(get_args(kind)[0], part) for part in value)
    return value
