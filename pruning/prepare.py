"""Prepare a workpiece: what wraps, computes or hides the weights comes off, and one pass is tried.

Every verb that looks at a model begins here, so that what cannot work is said before anything is
trained, by name and with the way out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from pruning.adapted import Adapted, adapted, everything, fit_to, is_half, precision
from pruning.coverage import baked_note, computed_weights, plain_copy
from pruning.devices import with_data_there
from pruning.errors import DataError, ModelError, PruningError
from pruning.evidence import evaluating
from pruning.tasks import ACCURACY, classifies, main_output
from pruning.types import Batches, Inputs, Workpiece, is_wrapper, parts_of, take, unwrapped

NOT_CLASSES = (
    "targets are not one class for each example: give Workpiece(metric=...) to judge this task by"
)
"""Why there is no accuracy, and no calibration."""


_tried: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], str | None]] = WeakKeyDictionary()
"""Model -> of what it was tried, and what there was to note of what it gave."""


@dataclass(frozen=True)
class Prepared:
    """work: the same task, its model one that can be worked on; notes: what was done for that."""

    work: Workpiece
    notes: tuple[str, ...] = ()


def ready(work: Workpiece) -> Workpiece:
    """`prepared`, for who needs no notes."""
    return prepared(work).work


def prepared(work: Workpiece) -> Prepared:
    """The workpiece with plain weights, and a model that takes its data and gives one tensor.

    The caller's model is left as found; nothing is copied that is plain already.
    Raises ModelError or DataError for what cannot work, with the one call that mends it.
    """
    notes: list[str] = []
    model, _ = _plain(work.model, notes)
    dense = None if work.dense is None else _plain(work.dense, [])[0]
    work = replace(work, model=model, dense=dense)
    work = with_data_there(_fitted(work))
    work = _adapted(work, notes)
    return Prepared(work, tuple(notes))


def plain(model: nn.Module) -> nn.Module:
    """A copy with plain weights: without wrappers, masks, weight or spectral norm.

    It computes what the model does in eval mode, and takes the masks that `choose` gives.
    """
    opened, copied = _plain(model, [])
    return opened if copied else copy.deepcopy(opened)


# ---------------------------------------------------------------- models


def _plain(model: nn.Module, notes: list[str]) -> tuple[nn.Module, bool]:
    """The model without what lies around it and its weights, and whether it was copied for that."""
    if isinstance(model, Adapted):
        return model, False
    opened = unwrapped(model)
    _check_kind(opened)
    _check_lazy(opened)
    copied = False
    inside = [path for path, module in opened.named_modules() if path and is_wrapper(module)]
    if computed_weights(opened) or inside or any(map(_is_compiled, opened.modules())):
        opened, baked = plain_copy(opened)
        copied = True
        if baked:
            notes.append(baked_note(baked))
        for path in inside:
            opened.set_submodule(path, unwrapped(opened.get_submodule(path)))
    if is_wrapper(model):
        notes.append(
            f"What {type(model).__name__} wraps is pruned: the model inside, by its names."
        )
    return opened, copied


def _is_compiled(module: nn.Module) -> bool:
    """By `module.compile()`, in place."""
    return vars(module).get("_compiled_call_impl") is not None


def _check_kind(model: nn.Module) -> None:
    """Raises ModelError for models whose weights are not in reach, with the way to those that
    are.
    """
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is TorchScript, a compiled program: give the Python module that it was made "
            "from, with `module.load_state_dict(scripted.state_dict())`."
        )
    for path, module in model.named_modules():
        kind = f"{type(module).__module__}.{type(module).__name__}"
        if "FullyShardedDataParallel" in kind or "FSDP" in kind:
            raise ModelError(
                f"{path or name} is sharded (FSDP): gather it first, with `model.load_state_dict("
                "get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True)))` "
                "on a plain model (torch.distributed.checkpoint.state_dict)."
            )
        if _is_quantised(module, kind):
            raise ModelError(
                f"{path or name} is quantised ({kind}): prune the float model that it was made "
                "from, and quantise what comes out of the run."
            )


def _is_quantised(module: nn.Module, kind: str) -> bool:
    if ".quantized" in kind or kind.startswith("bitsandbytes"):
        return True
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    # torchao keeps the float type and another class; bitsandbytes bytes for a layer's weights.
    strange = any("torchao" in type(tensor.data).__module__ for tensor in tensors)
    return strange or any(tensor.is_quantized for tensor in tensors)


def _check_lazy(model: nn.Module) -> None:
    """Raises ModelError: one pass would give the layers of somebody's model random weights."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has lazy layers without weights yet: run it once on an input, "
            "`model(x)`, so that they learn their sizes, and train it."
        )


# ---------------------------------------------------------------- data


def _fitted(work: Workpiece) -> Workpiece:
    """Data and example in the model's precision: float64, as numpy makes it, is float32 to most.

    Targets in half precision stay in float32, which is what losses are taken in.
    """
    kind = precision(work.model)
    if kind is None:
        return work
    targets = torch.float32 if is_half(work.model) else kind
    splits = {}
    for name in ("train", "validation", "test"):
        data: Batches | None = getattr(work, name)
        if data is None:
            continue
        x, y = _cast(data.x, kind), fit_to(data.y, targets)
        if x is not data.x or y is not data.y:
            splits[name] = replace(data, x=x, y=y)
    example = work.example if work.example is None else _cast(work.example, kind)
    if splits or example is not work.example:
        return replace(work, **splits, example=example)  # type: ignore[arg-type]
    return work


def _cast(x: Inputs, kind: torch.dtype) -> Inputs:
    """The same object where nothing is to be done."""
    fitted = tuple(fit_to(part, kind) for part in parts_of(x))
    if all(a is b for a, b in zip(fitted, parts_of(x), strict=True)):
        return x
    return fitted if isinstance(x, tuple) else fitted[0]


def _one_input(work: Workpiece) -> Inputs | None:
    """A batch of at most two, of whatever there is."""
    splits = (work.train, work.validation, work.test)
    data = next((data for data in splits if data is not None), None)
    if data is not None:
        return data.at(slice(2))[0]
    return None if work.example is None else take(work.example, slice(2))


# ---------------------------------------------------------------- one pass


def _adapted(work: Workpiece, notes: list[str]) -> Workpiece:
    """The model adapted, where it does not take its data or give one tensor by itself."""
    if isinstance(work.model, Adapted):
        return work
    x = _one_input(work)
    needs = work.outputs is not None or isinstance(x, tuple) or is_half(work.model)
    note = None if x is None else _what_it_gives(work.model, x)
    if note and work.outputs is None:
        notes.append(note)
        needs = True
    if not needs:
        return work
    dense = None if work.dense is None else adapted(work.dense, work.outputs)
    work = replace(work, model=adapted(work.model, work.outputs), dense=dense)
    if is_half(work.model):
        notes.append(
            f"This model is in {str(precision(work.model)).removeprefix('torch.')}: scores, "
            "training and reconstruction are computed in float32, and rounded after each."
        )
    return work


def _what_it_gives(model: nn.Module, x: Inputs) -> str | None:
    """What to note of it; None where it is one tensor. Tried once for a model and such inputs."""
    inputs = tuple((part.shape, part.dtype, part.device) for part in parts_of(x))
    # By the kinds of all modules: one that is put in the place of another may give something else.
    key = ("forward" in vars(model), *map(type, model.modules()), *inputs)
    tried = _tried.get(model)
    if tried is None or tried[0] != key:
        bare = adapted(model, everything)
        # Whatever a model does in forward: random numbers are put back, modes too.
        with evaluating(bare), torch.no_grad(), torch.random.fork_rng(devices=[]):
            returned = _try(lambda: bare(x), model, x)
        tried = key, None if isinstance(returned, Tensor) else _picked_note(returned)
        _tried[model] = tried
    return tried[1]


def forget() -> None:
    """Forget which models were tried: for who times the first look at one."""
    _tried.clear()


def _picked_note(returned: object) -> str:
    """Which of several outputs is trained and measured."""
    kind = type(returned).__name__
    names = [str(name) for name, value in _entries(returned) if value is main_output(returned)]
    which = f"`{names[0]}`" if names else "the first tensor"
    return (
        f"The model gives a {kind}: {which} of it is trained and measured. "
        "Workpiece(outputs=...) picks another."
    )


def _entries(returned: object) -> list[tuple[object, object]]:
    if isinstance(returned, dict):
        return list(returned.items())
    if hasattr(returned, "_asdict"):
        return list(returned._asdict().items())
    return []


def _try(call: Callable[[], Any], model: nn.Module, x: Inputs) -> Any:
    """What the model gives for the first examples; a DataError says what it was called with."""
    try:
        return call()
    except PruningError:
        raise
    except Exception as error:  # whatever the forward of anybody's model raises
        inputs = " and ".join(_shape(part) for part in parts_of(x))
        raise DataError(
            f"{type(model).__name__} does not take its data, {inputs}: {_first_line(error)}. Give "
            "inputs in the order of its forward, a tuple where there are several."
        ) from error


def try_out(work: Workpiece) -> list[str]:
    """Loss and metric of two examples, before anything is trained: what is not measured, and why.

    work: prepared. Raises DataError where the loss or the metric does not take outputs and targets.
    """
    data = next((d for d in (work.test, work.validation, work.train) if d is not None), None)
    if data is None:
        return []
    few = data.head(2).loaded()
    with evaluating(work.model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        out = _try(lambda: work.model(few.x), work.model, few.x)
    _check_shapes(work, out, few.y)
    for name, function in (("loss", work.loss), (work.metric.name, work.metric.function)):
        if work.metric == ACCURACY and name == ACCURACY.name:
            continue
        try:
            value = function(out, few.y)
        except Exception as error:  # a function of whoever made the workpiece
            raise DataError(
                f"The {name} does not take outputs {_shape(out)} and targets {_shape(few.y)}: "
                f"{_first_line(error)}. Give Workpiece a loss and a metric for this task."
            ) from error
        if name == "loss" and (not isinstance(value, Tensor) or value.numel() != 1):
            raise DataError(
                "The loss gives more than one number: let it give the mean over the batch "
                "(reduction='mean')."
            )
    if work.metric == ACCURACY and not classifies(out, few.y):
        return [
            f"Accuracy, calibration and answers lost or gained are not measured: {NOT_CLASSES}."
        ]
    return []


def _check_shapes(work: Workpiece, out: Tensor, targets: Tensor) -> None:
    """Raises DataError where a regression's targets would be spread over its outputs."""
    regression = getattr(work.loss, "__name__", "") in (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
    )
    # (n, 1) less (n,) is (n, n) to torch, which says so in a warning and goes on.
    if regression and out.shape != targets.shape:
        raise DataError(
            f"Outputs are {_shape(out)} and targets {_shape(targets)}, so that every output would "
            "be compared with every target: give targets of the outputs' shape, such as "
            "y.reshape(-1, 1)."
        )


def _shape(tensor: Tensor) -> str:
    size = " × ".join(map(str, tensor.shape)) or "one number"
    return f"{size} ({str(tensor.dtype).removeprefix('torch.')})"


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text[:200].rstrip(".")
