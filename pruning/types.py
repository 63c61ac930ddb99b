"""What every room of the engine shares: scores, masks, batches of examples, and the workpiece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from pruning.collect import collected
from pruning.errors import DataError, ModelError, NotFinite, NothingToPrune
from pruning.tasks import ACCURACY, Metric

Scores = dict[str, Tensor]
"""Parameter name -> one score for each weight, the weight's shape. Higher = keep."""

Masks = dict[str, Tensor]
"""Parameter name -> bool, the parameter's shape. True = keep. Names left out are dense."""

Inputs = Tensor | tuple[Tensor, ...]
"""What a model is called with: one tensor, or several, in the order of its forward."""

X = TypeVar("X", Tensor, tuple[Tensor, ...], Inputs)

Outputs = Callable[[Any], Tensor]
"""What a model gives -> the tensor that is trained and measured."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> a scalar, the mean over the batch."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(a batch of training inputs, where its random numbers come from) -> a batch of the same shape."""

PRUNED_KINDS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Batches:
    """Examples as tensors, read in batches.

    Several times faster than a loader that collates single items.

    x: (n, ...), or a tuple of such for a model of several inputs; y: (n,) int64 for classification,
    (n, ...) as the loss takes it for others; batch: examples a batch. device: where batches go when
    they are read, so that all of them need not fit there; None: they stay where they lie.
    """

    x: Inputs
    y: Tensor
    batch: int = 128  # for evaluation; training has the recipe's own
    device: torch.device | None = None

    def __post_init__(self) -> None:
        if isinstance(self.x, tuple):
            lengths = {len(part) for part in self.x}
            if len(lengths) != 1:
                listed = " and ".join(f"{len(part):,}" for part in self.x) or "none"
                raise DataError(
                    f"The inputs have {listed} examples: give each input as many as the others."
                )
        if self.examples != len(self.y):
            raise DataError(
                f"There are {self.examples} examples but {len(self.y)} targets: "
                "give one target for each example."
            )
        if self.examples == 0:
            raise DataError("There are no examples: give at least one.")

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for x, y in zip(split(self.x, self.batch), torch.split(self.y, self.batch), strict=True):
            yield self.there(x), self.there(y)

    @classmethod
    def of(cls, source: Any, batch: int | None = None) -> Batches:
        """A `DataLoader`'s or `Dataset`'s examples, read once; batches and pairs as they are.

        source: gives (input, target), (first input, second input, ..., target) or a dictionary
        whose targets are called labels, label, targets, target or y; or is (inputs, targets) as
        tensors or arrays. batch: examples a batch, None: the loader's own, else 128.
        What takes more than half of the memory that is free is a file in the temporary folder,
        mapped. Raises DataError for anything else.
        """
        if isinstance(source, cls):
            return source if batch is None else replace(source, batch=batch)
        x, y, own = collected(source)
        return cls(x, y, batch or own or 128)

    @property
    def examples(self) -> int:
        """How many there are."""
        return count(self.x)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every input, then the targets."""
        return (*parts_of(self.x), self.y)

    def __len__(self) -> int:
        """How many batches."""
        # Rounded up: the last batch may be small.
        return -(-self.examples // self.batch)

    def shuffled(
        self, generator: torch.Generator, batch: int | None = None
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """The same examples in a random order of the generator."""
        for part in self.order(generator, batch):
            yield self.at(part)

    def order(self, generator: torch.Generator, batch: int | None = None) -> list[Tensor]:
        """Which examples each batch of `shuffled` holds: (batch,) indices each."""
        permutation = torch.randperm(self.examples, generator=generator)
        parts = list(torch.split(permutation, batch or self.batch))
        # BatchNorm cannot train on one example: a last batch of 1 joins its neighbour.
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def at(self, index: Any) -> tuple[Inputs, Tensor]:
        """The examples at an index, a slice or indices, and their targets, on the device."""
        return self.there(take(self.x, index)), self.there(self.y[index])

    def there(self, x: X) -> X:
        """Inputs or targets on the device."""
        if self.device is None:
            return x
        if isinstance(x, tuple):
            return tuple(map(self.there, x))
        # Only pinned memory is read while the processor goes on; of any other, it would be waited
        # for in any case.
        return x.to(self.device, non_blocking=x.is_pinned())

    def loaded(self) -> Batches:
        """All of it on the device, for few examples that are read again and again."""
        if self.device is None:
            return self
        return Batches(*self.at(slice(None)), self.batch)

    def head(self, n: int) -> Batches:
        """The first n examples."""
        return Batches(take(self.x, slice(n)), self.y[:n], self.batch, self.device)

    def sample(self, n: int, seed: int = 0, *, balanced: bool = False) -> Batches:
        """At most n examples at random, to stand for all of them; as they are where all fit.

        Never the first ones: files read folder by folder lie sorted by class.
        balanced: as many of each class as of any other, as far as there are, and in turn, so that
        every batch holds all classes; without effect where targets are no class indices.
        """
        if self.examples <= n:
            return self
        order = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(self.examples, generator=order)
        if balanced and self.y.dim() == 1 and not self.y.is_floating_point():
            # The first of each class in this order, then the second of each, and so on.
            chosen = chosen[_turns(self.y[chosen].cpu()).argsort(stable=True)]
        chosen = chosen[:n]
        return Batches(take(self.x, chosen), self.y[chosen], self.batch, self.device)


def parts_of(x: Inputs) -> tuple[Tensor, ...]:
    """The inputs as a tuple, one tensor being the only one."""
    return x if isinstance(x, tuple) else (x,)


def count(x: Inputs) -> int:
    """How many examples."""
    return len(parts_of(x)[0])


def take(x: Inputs, index: Any) -> Inputs:
    """The examples at an index: a slice, indices, or None for a batch of one."""
    if isinstance(x, tuple):
        return tuple(part[index] for part in x)
    return x[index]


def split(x: Inputs, size: int) -> Iterator[Inputs]:
    """Batches of so many examples; the last may be smaller."""
    if isinstance(x, tuple):
        return zip(*(torch.split(part, size) for part in x), strict=True)
    return iter(torch.split(x, size))


def _turns(classes: Tensor) -> Tensor:
    """(n,) how many examples of its own class stand before each: 0 for the first of a class."""
    by_class = classes.argsort(stable=True)
    _, sizes = torch.unique_consecutive(classes[by_class], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    turns = torch.empty_like(by_class)
    turns[by_class] = torch.arange(len(classes)) - starts.repeat_interleave(sizes)
    return turns


@dataclass(frozen=True)
class Workpiece:
    """A model and, where there is any, the data to train and judge it by.

    Data-free techniques need no data; the rest say so by name when it is missing. Ratios are chosen
    on `validation`, results reported on `test`; each may be a `DataLoader`, a `Dataset` or (inputs,
    targets), which are read once (`Batches.of`). example: one input batch, for tracing and timing;
    None: the first example of the data, where there is any.
    dense, masks: of a model that was pruned before, what it was then and what was kept; a run holds
    those masks from its start and compares with that dense model. None: `model` itself is dense.
    augment: what training inputs were put through, so that fine-tuning can do the same.
    metric: what the task is judged by; accuracy where targets are classes, nothing where they are
    not. outputs: picks the tensor that loss and metric are of from what the model gives; None: the
    tensor itself, of several the one called logits or out, or the first.
    """

    name: str
    model: nn.Module
    train: Batches | None = None
    validation: Batches | None = None
    test: Batches | None = None
    loss: Loss = nn.functional.cross_entropy
    example: Inputs | None = None
    classes: tuple[str, ...] = field(default=())
    dense: nn.Module | None = None
    masks: Masks | None = None
    augment: Augment | None = None
    metric: Metric = ACCURACY
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            data = getattr(self, name)
            if data is not None and not isinstance(data, Batches):
                object.__setattr__(self, name, Batches.of(data))
        if self.example is None:
            object.__setattr__(self, "example", self._first_example())

    def _first_example(self) -> Inputs | None:
        """One example of the data; None where there is none."""
        splits = (self.train, self.validation, self.test)
        data = next((data for data in splits if data is not None), None)
        if data is None:
            return None
        # Copied: a view would take all of the data along wherever it is saved or sent.
        first = tuple(part[:1].clone() for part in parts_of(data.x))
        return first if isinstance(data.x, tuple) else first[0]

    @property
    def reference(self) -> Workpiece:
        """The dense model with the same data: what a run is compared with."""
        if self.dense is None:
            return self
        return replace(self, model=self.dense, dense=None, masks=None)

    def need(self, split: str, why: str) -> Batches:
        """The split, or a DataError that says what wanted it."""
        data = getattr(self, split)
        if data is None:
            raise DataError(
                f"{why} needs {split} data, and {self.name} has none: "
                "choose a technique that needs no data, or give the data."
            )
        return data  # type: ignore[no-any-return]


def is_wrapper(module: nn.Module) -> bool:
    """DataParallel, DistributedDataParallel, or what torch.compile gives."""
    # By name: to import what torch.compile is made of takes seconds.
    compiled = type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules
    return compiled or isinstance(module, WRAPPERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of its wrappers: masks go by the names that it has there."""
    while is_wrapper(model):
        model = getattr(model, "module" if isinstance(model, WRAPPERS) else "_orig_mod")
    return model


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that techniques may prune: of linear layers, convolutions, attention, recurrent
    layers and embeddings.

    Tied weights appear once, under the first name; what an embedding shares with a layer is that
    layer's. Biases and norms are not covered: they are too few to matter for size, and structured
    pruning removes them with their channel. What else has weights, `coverage.uncovered` names.

    Raises NotFinite for NaN or infinite weights, NothingToPrune when there are none, ModelError for
    lazy layers that were never run.
    """
    weights = named_weights(model)
    for name, weight in weights.items():
        check_finite(name, weight.detach())
    return weights


def named_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The same as `prunable`, without a look at their values: for who asks for names and shapes.

    Raises NothingToPrune and ModelError as `prunable` does.
    """
    candidates = [
        (f"{path}.{name}" if path else name, module, weight)
        for path, module in model.named_modules()
        for name, weight in _weights(module)
    ]
    multiplied = {
        place_of(weight) for _, module, weight in candidates if not isinstance(module, EMBEDDINGS)
    }
    weights: dict[str, nn.Parameter] = {}
    places: set[tuple[int, int]] = set()
    for full_name, module, weight in candidates:
        place = place_of(weight)
        # An output layer tied to the embedding is pruned as any other: the look-up comes along.
        looked_up = isinstance(module, EMBEDDINGS) and place in multiplied
        if place in places or looked_up:
            continue
        places.add(place)
        weights[full_name] = weight
    if not weights:
        raise NothingToPrune(
            type(model).__name__,
            "it has no weights of linear layers, convolutions, attention, recurrent layers or "
            "embeddings that are parameters of their own.",
        )
    return weights


def check_finite(name: str, values: Tensor) -> None:
    """Raises NotFinite where any of the values is NaN or infinite."""
    if not all_finite(values):
        raise NotFinite(name, int((~torch.isfinite(values)).sum()))


def all_finite(values: Tensor) -> bool:
    """Whether none of the values is NaN or infinite."""
    if values.dtype not in (torch.float32, torch.float64) or not values.numel():
        return bool(torch.isfinite(values).all())
    # The extremes are found ten times as fast as each number is asked; NaN anywhere is in both.
    return all(math.isfinite(float(extreme)) for extreme in values.aminmax())


def place_of(weight: Tensor) -> tuple[int, int]:
    """Where a parameter lies in memory: the same for tied ones.

    By memory and not by identity: tied weights may be two parameters over one storage.
    """
    return weight.untyped_storage().data_ptr(), int(weight.storage_offset())


def _weights(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's own weights that may be pruned: (name, parameter)."""
    # Not by getattr: a parametrised weight is computed when it is read, and is no parameter.
    for name, parameter in module._parameters.items():
        # Attention leaves the projections that it does not use None; meta tensors hold nothing.
        if parameter is None or parameter.is_meta or not _is_weight(module, name):
            continue
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(
                f"{type(module).__name__} has no weights yet: run the model once on an example, so "
                "that its lazy layers learn their sizes."
            )
        yield name, parameter


def _is_weight(module: nn.Module, name: str) -> bool:
    if isinstance(module, PRUNED_KINDS + EMBEDDINGS):
        return name == "weight"
    if isinstance(module, nn.MultiheadAttention):
        return name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    # "weight_ih_l0", "weight_hh_l0_reverse", "weight_hr_l0"; cells: "weight_ih", "weight_hh"
    return isinstance(module, RECURRENT) and name.startswith("weight_")
