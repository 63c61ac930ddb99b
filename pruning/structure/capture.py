"""A module as a graph of ATen operations over parameters under their own names.

Recorded once from an example: torch.export first; where that fails, torch.fx and then torch.export
of what it traced. In eval mode, with the modules that act in training alone (dropout, stochastic
depth) left whole as one operation each, so that the compact model can have them again.
"""

from __future__ import annotations

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.fx.experimental import _config

from pruning.errors import NotCaptured
from pruning.evidence.attention import no_fused_attention
from pruning.structure.captured import Captured, Sizes
from pruning.structure.regions import inline
from pruning.structure.sizes import conditions, names_no_size, reads_sizes

Example = Tensor | tuple[Tensor, ...]

TRAINING_ONLY = ("StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d")
"""Classes beside torch's own dropouts that let everything through in eval mode."""


@torch.library.custom_op("pruning::whole", mutates_args=())
def whole(x: Tensor, path: str) -> Tensor:
    """Stands for a module that is left whole while recording; lets everything through."""
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
    """The example as a tuple of inputs; with `batch`, the first row of each, that many times."""
    if not isinstance(example, tuple):
        example = (example,)
    if batch is None:
        return example
    repeated = [x[:1].expand(batch, *x.shape[1:]) for x in example]
    return tuple(x.contiguous() for x in repeated)


def capture(model: nn.Module, example: Example) -> Captured:
    """Record the model's operations.

    Raises NotCaptured with the offending line where neither torch.export nor torch.fx follows it.
    """
    recorded = inputs(example, 2)  # export takes a batch of 1 for a constant
    first_name = first_names(model)
    copied = partial(_prepared, model)
    with _quiet(), no_fused_attention():
        try:
            return Captured(*_export(copied, recorded), "torch.export", first_name)
        except Exception as error:  # whatever stops export, fx may pass
            stopped = error
        try:
            exported = _export(lambda: fx.symbolic_trace(copied()), recorded)
        except Exception:
            # Export's error names the user's line; fx's often one of torch's own.
            raise NotCaptured(type(model).__name__, *_blame(stopped)) from stopped
        return Captured(*exported, "torch.fx", first_name)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names (tied weights have several)."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same one."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(t), name) for name, t in tensors_of(model).items()}


def _prepared(model: nn.Module) -> nn.Module:
    """The same modules in eval mode, tensors shared, with those that act in training replaced."""
    # deepcopy takes what its memo holds for copied already: no weight is stored twice.
    tensors = (*model.parameters(), *model.buffers())
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    bare = copy.deepcopy(model, shared).eval()
    for path, module in list(bare.named_modules()):
        dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        if path and (dropout or type(module).__name__ in TRAINING_ONLY):
            parent, _, name = path.rpartition(".")
            setattr(bare.get_submodule(parent), name, Whole(path))
    return bare


def _export(
    copied: Callable[[], nn.Module], recorded: tuple[Tensor, ...]
) -> tuple[fx.GraphModule, Sizes]:
    """The graph, of every input size where that can be, and the sizes that it holds for.

    copied: gives the model, anew for each attempt: tables that it keeps would be in the next.
    """
    shapes = tuple((1, *x.shape[1:]) for x in recorded)
    why = "the graph cannot be recorded for others"
    if reads_sizes(copied(), recorded):
        static = None
    else:
        static, names, _ = _program(copied(), recorded, any_size=False)
        if names_no_size(static.graph):
            return static, Sizes(names, shapes)
    try:
        model = copied()
        graph, names, guards = _program(model, recorded, any_size=True)
        kept = conditions(guards, names, _parameters(model, len(recorded)), shapes)
        if kept is not None:
            return graph, Sizes(names, shapes, kept)
    except Exception as error:
        why = f"others cannot be recorded ({str(error).strip().partition(chr(10))[0][:120]})"
    if static is None:
        static, names, _ = _program(copied(), recorded, any_size=False)
    return static, Sizes(names, shapes).fixed(why)


def _program(
    model: nn.Module, recorded: tuple[Tensor, ...], *, any_size: bool
) -> tuple[fx.GraphModule, tuple[str, ...], list[str]]:
    """(the graph, the names of its inputs, torch.export's guards on their sizes)."""
    free = _dynamic(model, recorded, any_size)
    # Otherwise each size that may be 0 or 1 somewhere would be a condition of its own.
    with _config.patch(backed_size_oblivious=any_size):  # type: ignore[attr-defined]
        program = torch.export.export(model, recorded, dynamic_shapes=free, strict=False)
        module: fx.GraphModule = program.module()
    for node in list(module.graph.nodes):
        guards = node.op == "call_module" and "guard" in str(node.target)
        # Checks of the precision that was recorded: the certificate is made in another.
        precision = node.target is torch.ops.aten._assert_tensor_metadata.default
        if guards or precision:
            module.graph.erase_node(node)
    inline(module)
    # Attention averages its weights for whoever asks: unread, that would block its heads.
    module.graph.eliminate_dead_code()
    names = tuple(node.name for node in module.graph.nodes if node.op == "placeholder")
    return module, names, program._guards_code


def _dynamic(model: nn.Module, recorded: tuple[Tensor, ...], any_size: bool) -> tuple[Any, ...]:
    """Which dimensions of each input are free: the batch, and all others where torch can.

    Inputs that `forward` takes as *args are one tuple to torch.export.
    """
    free: list[Any] = []
    for x in recorded:
        others = [d for d in range(1, x.dim()) if any_size and x.shape[d] > 1]
        free.append({0: Dim.DYNAMIC, **dict.fromkeys(others, Dim.AUTO)})
    alone = _variadic(model)
    if alone is None or len(recorded) <= alone:
        return tuple(free)
    return (*free[:alone], tuple(free[alone:]))


def _parameters(model: nn.Module, count: int) -> tuple[str, ...]:
    """The parameter of `forward` that each of `count` inputs goes to."""
    parameters = list(signature(model.forward).parameters)
    alone = _variadic(model)
    if alone is None or count <= alone:
        return tuple(parameters[:count])
    return (*parameters[:alone], *([parameters[alone]] * (count - alone)))


def _variadic(model: nn.Module) -> int | None:
    """The position of *args among the parameters of `forward`; None where there is none."""
    parameters = signature(model.forward).parameters.values()
    kinds = [parameter.kind for parameter in parameters]
    return kinds.index(Parameter.VAR_POSITIONAL) if Parameter.VAR_POSITIONAL in kinds else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Export warns about its own insides, at length; what matters is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    out, err = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), out, err:
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _blame(error: BaseException) -> tuple[str, str]:
    """(the line of the model that could not be followed, what the error says)."""
    first_line = str(error).strip().split("\n")[0]
    message = first_line[:200] or type(error).__name__
    # The last frame that is neither torch's nor this room's is a line of the model.
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = traceback.extract_tb(error.__traceback__)
    frames_of_model = [frame for frame in frames if not frame.filename.startswith(ours)]
    if not frames_of_model or not frames_of_model[-1].line:
        return "an unknown line", message
    last = frames_of_model[-1]
    return f"line {last.lineno} of {Path(last.filename).name}, `{last.line}`", message
