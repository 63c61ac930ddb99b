"""A module as a graph of ATen operations over parameters under their own names, recorded once from an example.

torch.export first; where that fails, torch.fx and then torch.export of what it traced. Recorded in eval mode, with the modules
that act in training alone (dropout, stochastic depth) left whole as one operation each, so that the slim model can have them again.
"""

from __future__ import annotations

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from pruning.errors import NotCaptured
from pruning.evidence.attention import no_fused_attention

Example = Tensor | tuple[Tensor, ...]

TRAINING_ONLY = ("StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d")
"""Classes beside torch's own dropouts that let everything through in eval mode."""


@dataclass(frozen=True)
class Captured:
    """graph: ATen operations, batch dynamic; shapes: of the inputs, batch 1; how: "torch.export" or "torch.fx".

    first_name: every name of a parameter -> the first name of the same one.
    """

    graph: fx.GraphModule
    shapes: tuple[tuple[int, ...], ...]
    how: str
    first_name: dict[str, str]


@torch.library.custom_op("pruning::whole", mutates_args=())
def whole(x: Tensor, path: str) -> Tensor:
    """What stands for a module that is left whole while recording; it lets everything through."""
    return x.clone()


@whole.register_fake
def _whole_fake(x: Tensor, path: str) -> Tensor:
    return torch.empty_like(x)


class Whole(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.pruning.whole(x, self.path)  # type: ignore[no-any-return]


def inputs(example: Example, batch: int | None = None) -> tuple[Tensor, ...]:
    """The example as a tuple of inputs; with `batch`, the first example of each, that many times."""
    given = example if isinstance(example, tuple) else (example,)
    if batch is None:
        return given
    return tuple(x[:1].expand(batch, *x.shape[1:]).contiguous() for x in given)


def capture(model: nn.Module, example: Example) -> Captured:
    """Raises NotCaptured with the offending line where neither torch.export nor torch.fx can follow the model."""
    given = inputs(example, 2)
    shapes = tuple((1, *x.shape[1:]) for x in given)
    bare, first = _prepared(model), first_names(model)
    with _quiet(), no_fused_attention():
        try:
            return Captured(_export(bare, given), shapes, "torch.export", first)
        except Exception as error:  # whatever stops export, fx may pass
            stopped = error
        try:
            return Captured(_export(fx.symbolic_trace(bare), given), shapes, "torch.fx", first)
        except Exception:
            raise NotCaptured(type(model).__name__, *_blame(stopped)) from stopped


def first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same one (tied weights have several)."""
    seen: dict[int, str] = {}
    named = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    return {name: seen.setdefault(id(tensor), name) for name, tensor in named}


def _prepared(model: nn.Module) -> nn.Module:
    """The same modules in eval mode, tensors shared, with those that act in training alone replaced."""
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    bare = copy.deepcopy(model, shared).eval()
    for path, module in list(bare.named_modules()):
        if path and (
            isinstance(module, nn.modules.dropout._DropoutNd)
            or type(module).__name__ in TRAINING_ONLY
        ):
            parent, _, name = path.rpartition(".")
            setattr(bare.get_submodule(parent), name, Whole(path))
    return bare


def _export(model: nn.Module, given: tuple[Tensor, ...]) -> fx.GraphModule:
    program = torch.export.export(
        model, given, dynamic_shapes=_any_batch(model, len(given)), strict=False
    )
    module: fx.GraphModule = program.module()
    for node in list(module.graph.nodes):
        guards = node.op == "call_module" and "guard" in str(node.target)
        if (
            guards or node.target is torch.ops.aten._assert_tensor_metadata.default
        ):  # of the precision that was recorded
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()  # weights that attention averages and nobody reads would block its heads
    return module


def _any_batch(model: nn.Module, count: int) -> tuple[Any, ...]:
    """The first dimension of each input is free; inputs that forward takes as *args are one tuple to torch.export."""
    kinds = [parameter.kind for parameter in signature(model.forward).parameters.values()]
    alone = kinds.index(Parameter.VAR_POSITIONAL) if Parameter.VAR_POSITIONAL in kinds else count
    free: list[Any] = [{0: Dim.DYNAMIC} for _ in range(count)]
    return tuple(free) if count <= alone else (*free[:alone], tuple(free[alone:]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Export warns about its own insides, at length; what matters is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _blame(error: BaseException) -> tuple[str, str]:
    """(the line of the model that could not be followed, what was said of it)."""
    torch_home = str(Path(torch.__file__).parent)
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((torch_home, str(Path(__file__).parent)))
    ]
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if not frames or not frames[-1].line:
        return "an unknown line", said
    return (
        f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}, `{frames[-1].line}`",
        said,
    )
