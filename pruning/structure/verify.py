"""The comparison behind a certificate: masked and compact model, side by side, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode

from pruning.devices import CPU, seeded
from pruning.errors import NotTheSame
from pruning.masks import apply
from pruning.structure.capture import Example, inputs, tensors_of
from pruning.structure.liveness import Liveness
from pruning.structure.modules import cut
from pruning.structure.positions import size_in_words
from pruning.types import Masks

Outputs = list[Tensor]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""What rounding may do in a model that only runs in its own precision."""

OTHER_SIZES = 2
"""How many sizes beside the example's are compared."""


class Answer(NamedTuple):
    """error: max |masked - compact| / max |masked|, inf where the compact model fails or gives
    other shapes; outputs: the compact model's, None where it fails.
    """

    error: float
    outputs: Outputs | None = None


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Whatever number of lower precision appears is read as float64, casts included.

    Half and single precision inside of a model round, and rounding depends on the order of sums:
    without it, the masked and the compact model are compared by what they compute.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:  # what it writes into stays what it is
            return func(*args, **kwargs)
        leaves = trees.tree_leaves((args, kwargs))
        if any(isinstance(leaf, Tensor) for leaf in leaves):
            args, kwargs = trees.tree_map(_double, (args, kwargs))
        # What is made of nothing is made as it was written, and its numbers are kept.
        return trees.tree_map(_double_tensor, func(*args, **kwargs))


def _double(argument: Any) -> Any:
    if isinstance(argument, torch.dtype):
        return torch.float64 if argument in FLOATS else argument
    return _double_tensor(argument)


def _double_tensor(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in FLOATS else value


@dataclass(frozen=True)
class Check:
    """One comparison: inputs, what the masked model answers, and its weights for the compact one.

    name: of the weights, inputs, batch and size; state: parameters and buffers of the whole masked
    model, from which the compact one's are cut; double: whether all is read as float64.
    """

    name: str
    state: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    expected: Outputs
    double: bool = True

    def compare(self, module: nn.Module, liveness: Liveness) -> Answer:
        """The compact model's answer with the weights of this check."""
        tensors = {name: cut(liveness, name, value) for name, value in self.state.items()}
        try:
            with _replaced(module, tensors):
                actual = outputs(module, self.inputs, double=self.double)
        except Exception:  # a graph rewritten wrongly: `shrink` looks for the group at fault
            return Answer(float("inf"))
        return Answer(distance(self.expected, actual), actual)


@dataclass(frozen=True)
class Comparisons:
    """All checks of one compact model.

    unmasked: what the model answers to the last check's inputs before masking, with its weights;
    small: whether some of the inputs are smaller than the example; others: of other input sizes;
    tolerance: what rounding alone may do, relative.
    """

    checks: tuple[Check, ...]
    unmasked: Outputs
    small: bool
    others: tuple[Check, ...] = ()
    tolerance: float = TOLERANCES[torch.float64]

    def control(self, last: Answer) -> float:
        """The distance of the compact model to the one before masking, both with random weights.

        last: the compact model's answer to the last check. Far from 0, or the comparison would not
        have noticed that anything was removed.
        """
        return float("inf") if last.outputs is None else distance(self.unmasked, last.outputs)


def checks(
    model: nn.Module,
    masks: Masks,
    example: Example,
    small: tuple[Tensor, ...] | None,
    others: Iterable[tuple[tuple[int, ...], ...]] = (),
) -> Comparisons:
    """Three comparisons, with the model's own weights and with random ones, and other sizes.

    Its own weights may hide a difference, as those of a head that starts at zero do, and so may the
    example. small: smaller inputs that three comparisons may be made on; then the example itself is
    compared once, at its own size. others: shapes of inputs; the first that the model takes are
    compared too. In float64; where the model does not run so, in its own precision. The model is
    left as found. Raises NotTheSame where it does not run on its example at all.
    """
    try:
        return _checks(model, masks, example, small, others, double=True)
    except Exception:  # code that insists on a precision
        pass
    try:
        return _checks(model, masks, example, small, others, double=False)
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0][:200]
        raise NotTheSame(
            "The masked model does not run on its own example, so that no compact one can be "
            f"compared with it ({type(error).__name__}: {first_line}): look at the example first."
        ) from error


def _checks(
    model: nn.Module,
    masks: Masks,
    example: Example,
    small: tuple[Tensor, ...] | None,
    others: Iterable[tuple[tuple[int, ...], ...]],
    *,
    double: bool,
) -> Comparisons:
    def make(words: str, of: nn.Module, x: tuple[Tensor, ...]) -> Check:
        x = x if double else _as_in(example, x)
        precision = "" if double else ", in its own precision"
        name = f"{words}, batch {len(x[0])} of {size_in_words(x)}{precision}"
        return Check(name, state(of), x, outputs(of, x, double=double), double)

    masked = copy.deepcopy(model)
    apply(masks, masked)  # before it is made float64, which separates weights that share memory
    moved = copy.deepcopy(model)
    if double:
        masked.double()
        moved.double()
    masked.eval()
    _randomise(moved.eval())
    full = [("its own weights, the example", masked, example_inputs(example, 1))]
    compared: Example = example
    if small is not None and _runs(masked, example_inputs(small, 2), double):
        compared = small
    cases = [
        *(full if compared is not example else ()),
        ("its own weights, the example", masked, example_inputs(compared, 3)),
        ("its own weights, random inputs", masked, random_inputs(compared, 2)),
        ("random weights, random inputs", moved, random_inputs(compared, 3)),
    ]
    last = cases[-1][2] if double else _as_in(example, cases[-1][2])
    unmasked = outputs(moved, last, double=double)
    # The same weights but for the masks: whatever the control finds is what was removed.
    apply(masks, moved)
    made = tuple(make(*case) for case in cases)
    at_others: list[Check] = []
    for shapes in others:
        if len(at_others) == OTHER_SIZES:
            break
        with suppress(Exception):  # a size that the original does not take
            x = random_inputs(example, 2, shapes)
            at_others.append(make("random weights, random inputs", moved, x))
    dtypes = [p.dtype for p in model.parameters() if p.dtype in TOLERANCES]
    tolerance = max((TOLERANCES[dtype] for dtype in dtypes), default=TOLERANCES[torch.float32])
    return Comparisons(
        made,
        unmasked,
        compared is not example,
        tuple(at_others),
        TOLERANCES[torch.float64] if double else tolerance,
    )


def _as_in(example: Example, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs in the precision of the example's."""
    return tuple(part.to(own.dtype) for part, own in zip(x, inputs(example), strict=True))


def _runs(model: nn.Module, x: tuple[Tensor, ...], double: bool) -> bool:
    """Whether the model runs on inputs of this size."""
    try:
        outputs(model, x, double=double)
    except Exception:
        return False
    return True


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors_of(model).items()}


def outputs(model: nn.Module, x: tuple[Tensor, ...], *, double: bool = False) -> Outputs:
    """Every tensor a model gives, in order.

    What it draws at random is drawn from the same seed each time.
    """
    reading: Any = InDouble() if double else nullcontext()  # type: ignore[no-untyped-call]
    with seeded(0, CPU), torch.inference_mode(), reading:
        leaves = trees.tree_leaves(model(*x))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def distance(expected: Outputs, actual: Outputs) -> float:
    """max |expected - actual| / max |expected|, over all outputs; inf for other shapes.

    NaN and infinities must lie at the same places; where there is nothing else, inf, and also where
    one of the outputs is NaN alone.
    """
    if [a.shape for a in expected] != [b.shape for b in actual]:
        return float("inf")
    scale = worst = 0.0
    numbers = finite = 0
    for a, b in zip(map(_real, expected), map(_real, actual), strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        differences = (a - b).abs()[~same]
        if a.numel() and a.isnan().all():
            return float("inf")  # whatever the others say, nothing of this one was compared
        sizes = a.abs()[a.isfinite()]
        numbers += a.numel()
        finite += sizes.numel()
        if sizes.numel():  # an empty tensor has no maximum
            scale = max(scale, float(sizes.max()))
        if differences.numel():
            # Python's max overlooks a NaN that comes second.
            worst = max(worst, float(differences.nan_to_num(torch.inf, torch.inf).max()))
    if numbers and not finite:
        return float("inf")
    return worst if scale == 0 else worst / scale


def _real(x: Tensor) -> Tensor:
    """Any tensor in float64; a complex number as two."""
    return torch.view_as_real(x).double() if x.is_complex() else x.double()


def example_inputs(example: Example, batch: int) -> tuple[Tensor, ...]:
    """The example itself, its rows in turn, in float64."""
    rows = [x[torch.arange(batch) % len(x)] for x in inputs(example)]
    return tuple(x.double() if x.is_floating_point() else x for x in rows)


def random_inputs(
    example: Example, batch: int, shapes: tuple[tuple[int, ...], ...] | None = None
) -> tuple[Tensor, ...]:
    """Inputs with the example's mean and spread, at random; whole numbers from its range.

    shapes: of each input, batch first, where they are not to be the example's.
    """
    generator = torch.Generator().manual_seed(batch)
    results = []
    for i, x in enumerate(inputs(example)):
        shape = (batch, *(x.shape if shapes is None else shapes[i])[1:])
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


@contextmanager
def _replaced(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The module in eval mode with other tensors in place of its own, for a while."""
    # Entries are replaced, not copied into: the others may be float64.
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
        module.eval()
        yield
    finally:
        for store, own in zip(stores, before, strict=True):
            store.update(own)
        module.train(training)
