"""The comparison behind a certificate: masked and compact model, side by side, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.utils import _pytree as trees

from pruning.masks import apply
from pruning.structure.capture import Example, inputs, tensors_of
from pruning.structure.liveness import Liveness
from pruning.structure.modules import cut
from pruning.structure.positions import size_in_words, takes
from pruning.structure.propagate import operation
from pruning.types import Masks

Outputs = list[Tensor]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
CASTS = ("to", "_to_copy", "type_as")


class Answer(NamedTuple):
    """error: max |masked - compact| / max |masked|, inf where the compact model fails or gives
    other shapes; outputs: the compact model's, None where it fails.
    """

    error: float
    outputs: Outputs | None = None


@dataclass(frozen=True)
class Check:
    """One comparison: inputs, what the masked model answers, and its weights for the compact one.

    name: of the weights, inputs, batch and size; state: float64 parameters and buffers of the whole
    masked model, from which the compact one's are cut.
    """

    name: str
    state: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    expected: Outputs

    def compare(self, module: nn.Module, liveness: Liveness) -> Answer:
        """The best answer of all readings of the compact model that run."""
        tensors = {name: cut(liveness, name, value) for name, value in self.state.items()}
        best = Answer(float("inf"))
        for reading in _readings(module):
            try:
                with _replaced(reading, tensors):
                    actual = outputs(reading, self.inputs)
            except (RuntimeError, ValueError, IndexError, TypeError):
                continue  # a graph rewritten wrongly: `shrink` looks for the group at fault
            answer = Answer(distance(self.expected, actual), actual)
            if answer.error < best.error or best.outputs is None:
                best = answer
        return best


@dataclass(frozen=True)
class Comparisons:
    """All checks of one compact model.

    unmasked: what the model answers to the last check's inputs before masking, with its weights;
    small: whether some of the inputs are smaller than the example.
    """

    checks: tuple[Check, ...]
    unmasked: Outputs
    small: bool

    def control(self, last: Answer) -> float:
        """The distance of the compact model to the one before masking, both with random weights.

        last: the compact model's answer to the last check. Far from 0, or the comparison would not
        have noticed that anything was removed.
        """
        return float("inf") if last.outputs is None else distance(self.unmasked, last.outputs)


def checks(
    model: nn.Module, masks: Masks, example: Example, small: tuple[Tensor, ...] | None
) -> Comparisons:
    """Three comparisons, with the model's own weights and with random ones.

    Its own weights may hide a difference, as those of a head that starts at zero do, and so may the
    example. small: smaller inputs that three comparisons may be made on; then the example itself is
    compared once, at its own size. The model is left as found.
    """
    masked = copy.deepcopy(model)
    apply(masks, masked)  # before it is made float64, which separates weights that share memory
    masked.double().eval()
    moved = copy.deepcopy(model).double().eval()
    _randomise(moved)
    if small is not None and not takes(masked, example_inputs(small, 2)):
        small = None
    compared: Example = example if small is None else small
    cases = [
        ("its own weights, the example", masked, example_inputs(compared, 3)),
        ("its own weights, random inputs", masked, random_inputs(compared, 2)),
        ("random weights, random inputs", moved, random_inputs(compared, 3)),
    ]
    if small is not None:
        cases.insert(0, ("its own weights, the example", masked, example_inputs(example, 1)))
    last = cases[-1][2]
    unmasked = outputs(moved, last)
    # The same weights but for the masks: whatever the control finds is what was removed.
    apply(masks, moved)
    comparisons = []
    for words, of, x in cases:
        name = f"{words}, batch {len(x[0])} of {size_in_words(x)}"
        comparisons.append(Check(name, state(of), x, outputs(of, x)))
    return Comparisons(tuple(comparisons), unmasked, small is not None)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors_of(model).items()}


def outputs(model: nn.Module, x: tuple[Tensor, ...]) -> Outputs:
    """Every tensor a model gives, in order."""
    with torch.inference_mode():
        leaves = trees.tree_leaves(model(*x))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def distance(expected: Outputs, actual: Outputs) -> float:
    """max |expected - actual| / max |expected|, over all outputs; inf for other shapes."""
    if [a.shape for a in expected] != [b.shape for b in actual]:
        return float("inf")
    sizes = []
    differences = []
    for a, b in zip(expected, actual, strict=True):
        if a.numel():  # an empty tensor has no maximum
            difference = a.double() - b.double()
            sizes.append(float(a.abs().max()))
            differences.append(float(difference.abs().max()))
    scale = max(sizes, default=0.0)
    worst = max(differences, default=0.0)
    return worst if scale == 0 else worst / scale


def example_inputs(example: Example, batch: int) -> tuple[Tensor, ...]:
    """The example itself, its rows in turn, in float64."""
    rows = [x[torch.arange(batch) % len(x)] for x in inputs(example)]
    return tuple(x.double() if x.is_floating_point() else x for x in rows)


def random_inputs(example: Example, batch: int) -> tuple[Tensor, ...]:
    """Inputs with the example's mean and spread, at random; whole numbers from its range."""
    generator = torch.Generator().manual_seed(batch)
    results = []
    for x in inputs(example):
        shape = (batch, *x.shape[1:])
        if x.is_floating_point():
            spread = float(x.std()) if x.numel() > 1 else 0.0
            if not spread > 0:  # one number, or all the same
                spread = 1.0
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            results.append(noise * spread + float(x.mean()))
        else:
            # Tokens, say: a number beyond the vocabulary would be looked up in vain.
            low, high = int(x.min()), int(x.max())
            numbers = torch.randint(low, high + 1, shape, generator=generator)
            results.append(numbers.to(x.dtype))
    return tuple(results)


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Move every parameter by half its own size (root mean square), at random."""
    generator = torch.Generator().manual_seed(0)
    # The same numbers each time, so that a certificate can be repeated.
    for parameter in model.parameters():
        if parameter.is_floating_point():
            size = float(parameter.square().mean().sqrt()) or 0.05
            # In single precision: four times faster, and as random.
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.dtype), alpha=0.5 * size)


def _readings(module: nn.Module) -> Iterator[nn.Module]:
    """The module as it is and, where its graph spells a precision, with that read as float64.

    Recording writes down the precision it saw. Some code makes tables in single precision whatever
    the model's, and casts them to it: then a reading with only the casts in float64 is the right
    one, and which it is only a comparison can tell.
    """
    yield module
    assert isinstance(module, fx.GraphModule)
    spelled = [node for node in module.graph.nodes if _spells_precision(node)]
    casts = [node for node in spelled if _casts_a_float(node)]
    for nodes in (spelled, casts):
        if nodes:
            yield _in_double(module, {node.name for node in nodes})


def _in_double(module: fx.GraphModule, names: set[str]) -> fx.GraphModule:
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.name in names:
            node.args = fx.node.map_aggregate(node.args, _double)
            node.kwargs = fx.node.map_aggregate(node.kwargs, _double)
    return fx.GraphModule(module, graph)


def _double(argument: Any) -> Any:
    return torch.float64 if _is_precision(argument) else argument


def _is_precision(argument: Any) -> bool:
    return isinstance(argument, torch.dtype) and argument in FLOATS


def _spells_precision(node: Node) -> bool:
    arguments = trees.tree_leaves((node.args, node.kwargs))
    return any(map(_is_precision, arguments))


def _casts_a_float(node: Node) -> bool:
    """Whether it casts what is a float already: to the model's precision, when it was recorded."""
    if operation(node) not in CASTS or not isinstance(node.args[0], Node):
        return False
    value = node.args[0].meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


@contextmanager
def _replaced(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The module in eval mode with other tensors in place of its own, for a while."""
    # Entries are replaced, not copied into: the others are float64.
    training = module.training
    stores: list[dict[str, Any]] = []
    for part in module.modules():
        stores += [part._parameters, part._buffers]
    before = [dict(store) for store in stores]
    try:
        for name, value in tensors.items():
            path, _, short = name.rpartition(".")
            try:
                owner = module.get_submodule(path)
            except AttributeError:
                continue  # only training uses it
            if short in owner._parameters:
                owner._parameters[short] = nn.Parameter(value, requires_grad=False)
            elif short in owner._buffers:
                owner._buffers[short] = value
        # What is still the module's own are constants of the code: they must be float64 too.
        for store, own in zip(stores, before, strict=True):
            for name, value in store.items():
                if value is not None and value is own[name] and value.is_floating_point():
                    store[name] = value.double()
        module.eval()
        yield
    finally:
        for store, own in zip(stores, before, strict=True):
            store.update(own)
        module.train(training)
