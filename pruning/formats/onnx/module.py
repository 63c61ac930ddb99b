"""A program and its weights -> an fx.GraphModule of torch's own layers and functions.

The only things it makes are those on its two lists, so that a program that was tampered with can
compute nonsense and nothing else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pruning.errors import FileRefused

LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        nn.Conv1d, nn.Conv2d, nn.Conv3d,
        nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
        nn.Linear, nn.Embedding, nn.PReLU,
        nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
        nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    )
}  # fmt: skip

_OF_TORCH = """
    abs add amax amin argmax argmin cat ceil clamp cos div einsum eq erf exp flatten flip floor fmod
    ge gt index_select le log logical_and logical_not logical_or logical_xor logsumexp lt matmul
    maximum mean minimum mul narrow neg permute pow prod reciprocal remainder reshape round select
    sigmoid sign sin split sqrt squeeze sub sum tanh tile unsqueeze where
"""
_OF_FUNCTIONAL = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d
    celu elu gelu hardsigmoid hardswish interpolate leaky_relu local_response_norm log_softmax
    max_pool1d max_pool2d max_pool3d mish normalize pad pixel_shuffle relu relu6 selu silu softmax
    softplus softsign threshold
"""
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in _OF_TORCH.split()},
    **{name: getattr(F, name) for name in _OF_FUNCTIONAL.split()},
    "getitem": operator.getitem,
    "slice": torch.ops.aten.slice.Tensor,
}
METHODS = ("expand", "bool", "float", "long")

SEED = 0


def module(program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """The network in eval mode, its weights those of `tensors` by their names.

    Raises FileRefused for a program that no converter of ours wrote.
    """
    try:
        made = _Making(program, tensors).module()
        _check(made, program)
        return made
    except FileRefused:
        raise
    except Exception as error:
        raise FileRefused(
            f"The kept network could not be built ({type(error).__name__}): "
            "bring the ONNX file again."
        ) from None


def example(program: Mapping[str, Any], batch: int = 2) -> Tensor | tuple[Tensor, ...]:
    """Inputs of the right shapes: numbers at random of a fixed seed, zeros for indices."""
    generator = torch.Generator().manual_seed(SEED)
    made = []
    for _, shape, dtype in program["inputs"]:
        if dtype == "float32":
            made.append(torch.randn(batch, *shape, generator=generator))
        else:
            made.append(torch.zeros(batch, *shape, dtype=getattr(torch, str(dtype))))
    return made[0] if len(made) == 1 else tuple(made)


def _check(made: fx.GraphModule, program: Mapping[str, Any]) -> None:
    """One pass of one example: what does not fit is refused here, and not in a run."""
    x = example(program, batch=1)
    # torch.fx prints where it failed; who brings a file is told by its refusal.
    with torch.no_grad(), redirect_stderr(StringIO()):
        made(*x) if isinstance(x, tuple) else made(x)


class _Making:
    """The graph on its way. A class because every step needs all of it."""

    def __init__(self, program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.program = program
        self.tensors = tensors
        self.trained = set(program["parameters"])
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.batch: fx.Node | None = None

    def module(self) -> fx.GraphModule:
        for index, (result, _, _) in enumerate(self.program["inputs"]):
            name = "x" if index == 0 else f"x{index}"
            self.nodes[result] = self.graph.placeholder(name)
        for kind, *step in self.program["steps"]:
            if kind == "layer":
                self.layer(*step)
            elif kind == "call":
                self.call(*step)
            else:
                raise FileRefused("The kept network has a step of no kind: bring the file again.")
        outputs = tuple(self.nodes[result] for result in self.program["outputs"])
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        made = fx.GraphModule(self.root, self.graph, "Network")
        made.graph.eliminate_dead_code()
        made.recompile()
        return made.eval()

    def layer(
        self, path: str, kind: str, options: dict[str, Any], arguments: list[Any], result: str
    ) -> None:
        """A call of a layer, which is made where this is its first."""
        arguments = [self.argument(each) for each in arguments]
        if not self.has(path):
            # Made without memory, so that its weights are read once and not first made up.
            options = {name: self.option(value) for name, value in options.items()}
            with torch.device("meta"):
                layer = LAYERS[kind](**options)
            state = {name: self.tensors[f"{path}.{name}"] for name in layer.state_dict()}
            layer.load_state_dict(state, assign=True)
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
            self.put(path, layer)
        self.nodes[result] = self.graph.call_module(path, tuple(arguments))

    def option(self, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def call(
        self, function: str, arguments: list[Any], options: dict[str, Any], result: str
    ) -> None:
        args = tuple(self.argument(each) for each in arguments)
        kwargs = {name: self.argument(each) for name, each in options.items()}
        if function in METHODS:
            self.nodes[result] = self.graph.call_method(function, args, kwargs)
        elif function == "minimum_zero":
            self.nodes[result] = self.graph.call_function(torch.clamp, args, {"max": 0})
        else:
            self.nodes[result] = self.graph.call_function(FUNCTIONS[function], args, kwargs)

    def argument(self, value: Any) -> Any:
        """What an argument stands for."""
        if isinstance(value, str) and value[:1] == "%":
            return self.nodes[value]
        if isinstance(value, str) and value[:1] == "$":
            return self.tensor(value[1:])
        if isinstance(value, dict):
            slope, more = value["batch"]
            return self.of_batch(int(slope), int(more))
        if isinstance(value, list):
            return [self.argument(each) for each in value]
        return value

    def tensor(self, path: str) -> fx.Node:
        if not self.has(path):
            tensor = self.tensors[path]
            parent, name = self.place(path)
            if path in self.trained:
                parent.register_parameter(name, nn.Parameter(tensor))
            else:
                parent.register_buffer(name, tensor)
        return self.graph.get_attr(path)

    def of_batch(self, slope: int, more: int) -> Any:
        """slope times the batch of the input, plus more."""
        if self.batch is None:
            first = next(iter(self.nodes.values()))
            self.batch = self.graph.call_method("size", (first, 0))
        size: Any = self.batch
        if slope != 1:
            size = self.graph.call_function(operator.mul, (size, slope))
        return size if not more else self.graph.call_function(operator.add, (size, more))

    # ---------------------------------------------------------------- modules in modules

    def has(self, path: str) -> bool:
        try:
            operator.attrgetter(path)(self.root)
        except AttributeError:
            return False
        return True

    def put(self, path: str, layer: nn.Module) -> None:
        parent, name = self.place(path)
        parent.add_module(name, layer)

    def place(self, path: str) -> tuple[nn.Module, str]:
        """The module that a path lies in, made where it is not there, and the last name."""
        *parts, name = path.split(".")
        parent = self.root
        for part in parts:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part] or nn.Module()
        return parent, name
