"""Checkpoints: what a run needs to go on after a whole epoch, or a step's pruning, as if it had
never ended.

States of random generators are not among it: each epoch, criterion and control takes its random
numbers from the recipe's seed and its own place in the run. Nor is what can be computed anew from
the model as it came: its measurement, its units, a teacher's answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pruning.events import Measurement, build
from pruning.measurement import Quality
from pruning.metrics import Accuracy, Score
from pruning.training.rewind import State
from pruning.types import Masks


@dataclass(frozen=True)
class Training:
    """One training in its middle.

    epoch: the last whole one; steps: of the optimizer by then; weights: of the model that is
    trained, which may be the compact one, or in float32 where the model is in half precision;
    optimizer: number of a parameter -> what is remembered of it; scaler: of mixed precision;
    remembered: the state to rewind to, where it was passed.
    """

    epoch: int
    steps: int
    weights: State
    optimizer: dict[int, dict[str, Any]] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    remembered: State | None = None


@dataclass(frozen=True)
class Measurements:
    """Of a run, by now: see `Finished`."""

    pruned: Measurement | None = None
    recalibrated: Measurement | None = None
    reconstructed: Measurement | None = None


@dataclass(frozen=True)
class Reached:
    """The last whole epoch of a run, or its last step where none is trained: what a Stop keeps.

    weights: parameters and buffers of that moment; masks, sparsity: likewise; step, epoch: as in
    events; done: such epochs or steps in all; measured: by then; validation: accuracy and loss of
    that epoch, None where none is trained or there is no such data.
    """

    weights: State
    masks: Masks
    sparsity: float
    step: int
    epoch: int
    done: int
    measured: Measurements
    validation: Quality | None


@dataclass(frozen=True)
class Checkpoint:
    """Where a run can go on.

    step: the last that was pruned, 0 for a training before all pruning; networks: trained and
    measured in this step, of a lottery; training: what it is in the middle of, None where that has
    not begun; weights, masks: of the network that is pruned; reached: what a Stop would keep;
    seconds: that the run took by then.
    Of a lottery, else empty: before: masks of the round before; rewound, dense: the state to rewind
    to, and the dense network as it was trained.

    The tensors are the run's own and change with it: who keeps them beyond a call copies them.
    """

    step: int
    weights: State
    masks: Masks
    reached: Reached | None
    measured: Measurements
    seconds: float
    training: Training | None = None
    networks: int = 0
    ties_noticed: bool = False
    before: Masks = field(default_factory=dict)
    rewound: State = field(default_factory=dict)
    dense: State = field(default_factory=dict)


Save = Callable[[Checkpoint], None]
SaveTraining = Callable[[Training], None]


def to_plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """Dictionaries, lists, numbers, strings and tensors: what `torch.load` reads as data alone."""
    return _plain(_without_doubles(checkpoint))  # type: ignore[no-any-return]


def from_plain(data: dict[str, Any]) -> Checkpoint:
    """What `to_plain` gave. Raises KeyError or TypeError for anything else."""
    fields = dict(data)
    reached, training = fields.pop("reached"), fields.pop("training")
    return Checkpoint(
        **{**fields, "measured": _measured(fields["measured"])},
        reached=None if reached is None else _reached(reached),
        training=None if training is None else Training(**training),
    )


def _reached(data: dict[str, Any]) -> Reached:
    validation = data["validation"]
    quality = None
    if validation is not None:
        accuracy, loss, score = validation
        quality = Quality(build(Accuracy | None, accuracy), loss, build(Score | None, score))
    return Reached(**{**data, "measured": _measured(data["measured"]), "validation": quality})


def _measured(data: dict[str, Any]) -> Measurements:
    return Measurements(
        **{name: build(Measurement | None, measured) for name, measured in data.items()}
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if dataclasses.is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def _without_doubles(checkpoint: Checkpoint) -> Checkpoint:
    """The same with tensors of equal numbers as one object, which is written once."""
    known = checkpoint.reached.weights if checkpoint.reached else {}
    weights = _same_objects(checkpoint.weights, known)
    training = checkpoint.training
    if training is not None:
        training = replace(training, weights=_same_objects(training.weights, weights))
    return replace(checkpoint, weights=weights, training=training)


def _same_objects(state: State, known: State) -> State:
    return {name: _same_object(tensor, known.get(name)) for name, tensor in state.items()}


def _same_object(tensor: Tensor, known: Tensor | None) -> Tensor:
    same = known is not None and tensor.dtype == known.dtype and torch.equal(tensor, known)
    return known if known is not None and same else tensor
