"""ATen calls and constants as a person would write them in PyTorch.

A spelling is only another way to write the same call. What has none here is written as the call
that it is, `torch.ops.aten.NAME.OVERLOAD(...)`, which runs wherever torch does.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning.structure import wide_norms
from pruning.structure.propagate import names


class NotWritten(Exception):
    """Why a network cannot be written out, as the rest of a sentence."""


Names = Mapping[Node, str]
"""What each node of the graph is called in the source."""

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "matmul": "@",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "floordiv": "//",
    "floor_divide": "//",
    "truediv": "/",
    "mod": "%",
    "pow": "**",
    "and_": "&",
    "or_": "|",
}
"""Operations of two operands, of torch and of Python's integers."""

FUNCTIONAL = names("""
    relu relu6 gelu silu mish elu celu selu leaky_relu hardswish hardsigmoid hardtanh softplus
    logsigmoid conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d layer_norm group_norm pad pixel_shuffle one_hot
    scaled_dot_product_attention glu
""")
"""Operations that `torch.nn.functional` has under the same name, with the same arguments."""

UNWRITTEN = names("""
    _assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size
    _assert_async
""")
"""Checks of the recording, which compute nothing."""

INTERPOLATE = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact2d": "nearest-exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
    "upsample_trilinear3d": "trilinear",
}
"""Operation -> the mode that `F.interpolate` calls it."""

FAMILIES = ("linalg", "fft", "special")
"""Rooms of torch whose operations begin with their name."""

LAST = 2**63 - 1
"""The end of a slice that has none."""


class Spelling:
    """Calls as source. A class because every call needs the names, and how plainly to write.

    names: of the nodes that are called before; device: an expression for the network's device, in
    the place of the one that was recorded; readable: in PyTorch's usual words, else every ATen call
    by its full name.
    """

    def __init__(self, names: Names, device: str, *, readable: bool = True) -> None:
        self.names = names
        self.device = device
        self.readable = readable

    # ---------------------------------------------------------------- values

    def value(self, value: Any) -> str:
        """A node, a constant, or lists of them, as source. Raises NotWritten."""
        if isinstance(value, Node):
            return self.names[value]
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        if isinstance(value, float):
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return f"slice({', '.join(map(self.value, parts))})"
        if isinstance(value, tuple):
            inside = ", ".join(map(self.value, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.value, value))}]"
        if isinstance(value, torch.device):
            return self.device
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value)
        raise NotWritten(f"holds a constant of the kind {type(value).__name__}")

    def arguments(self, positional: Any, keywords: Mapping[str, Any]) -> str:
        texts = [self.value(argument) for argument in positional]
        texts += [f"{name}={self.value(argument)}" for name, argument in keywords.items()]
        return ", ".join(texts)

    # ---------------------------------------------------------------- calls

    def call(self, node: Node) -> str | None:
        """The expression of a call_function node; None for what computes nothing."""
        target: Any = node.target
        if isinstance(target, torch._ops.OpOverload):
            return self._aten(node, target)
        if target is operator.getitem:
            return f"{self.value(node.args[0])}[{self.value(node.args[1])}]"
        name = str(getattr(target, "__name__", target))
        module = str(getattr(target, "__module__", ""))
        if module == wide_norms.__name__:  # written out beside the network
            return f"{name}({self.arguments(node.args, node.kwargs)})"
        if name == "_set_grad_enabled":
            return None
        if module == "_operator" and name in INFIX and len(node.args) == 2:
            return self._infix(name, node.args)
        if module in ("_operator", "math", "builtins"):
            prefix = {"_operator": "operator.", "math": "math.", "builtins": ""}[module]
            return f"{prefix}{name}({self.arguments(node.args, node.kwargs)})"
        if module == "torch" and getattr(torch, name, None) is target:
            if name == "_check":
                return None
            return f"torch.{name}({self.arguments(node.args, node.kwargs)})"
        raise NotWritten(f"calls {module}.{name}, which is no operation of torch")

    def _infix(self, name: str, operands: Any) -> str:
        a, b = map(self.value, operands)
        return f"{a} {INFIX[name]} {b}"

    def _aten(self, node: Node, target: Any) -> str | None:
        namespace, _, name = target._schema.name.partition("::")
        if namespace != "aten":
            raise NotWritten(f"calls {namespace}.{name}, which torch alone does not have")
        if name in UNWRITTEN:
            return None
        positional, keywords = shortened(node, target)
        if self.readable:
            special = SPECIAL.get(name)
            text = special(self, target, positional, keywords) if special else None
            text = text or self._usual(name, target, positional, keywords)
            if text is not None:
                return text
        call = f"torch.ops.aten.{name}.{target._overloadname}"
        return f"{call}({self.arguments(positional, keywords)})"

    def _usual(
        self, name: str, target: Any, positional: list[Any], keywords: dict[str, Any]
    ) -> str | None:
        """As an operator, a function of F, a method, or a function of torch; None where none fits.

        torch makes the last two from the same list of operations as `torch.ops.aten`.
        """
        if name in INFIX and len(positional) == 2 and not keywords:
            return self._infix(name, positional)
        if name in FUNCTIONAL:
            return f"F.{name}({self.arguments(positional, keywords)})"
        for family in FAMILIES:  # torch.linalg.vector_norm
            short = name.removeprefix(f"{family}_")
            if short != name and hasattr(getattr(torch, family), short):
                return f"torch.{family}.{short}({self.arguments(positional, keywords)})"
        first = target._schema.arguments[0] if target._schema.arguments else None
        method = first is not None and first.name == "self" and str(first.type) == "Tensor"
        if method and hasattr(Tensor, name) and isinstance(positional[0], Node):
            own, *rest = positional
            return f"{self.value(own)}.{name}({self.arguments(rest, keywords)})"
        if not name.startswith("_") and hasattr(torch, name):
            return f"torch.{name}({self.arguments(positional, keywords)})"
        return None


def shortened(node: Node, target: Any) -> tuple[list[Any], dict[str, Any]]:
    """A call's arguments without those at the end that say what the schema says by itself."""
    schema = target._schema.arguments
    named = [argument for argument in schema if not argument.kwarg_only]
    positional = list(node.args)
    keywords = dict(node.kwargs)
    # Where an argument before it is left to its default, one by name stays one by name.
    while len(positional) < len(named) and named[len(positional)].name in keywords:
        positional.append(keywords.pop(named[len(positional)].name))
    while positional and not keywords_after(named, positional, keywords):
        last = named[len(positional) - 1]
        if not last.has_default_value() or not same(last.default_value, positional[-1]):
            break
        positional.pop()
    defaults = {argument.name: argument for argument in schema if argument.has_default_value()}
    for name in list(keywords):
        if name in defaults and same(defaults[name].default_value, keywords[name]):
            del keywords[name]
    # Pinned memory is a matter of the machine that it was recorded on.
    keywords.pop("pin_memory", None)
    return positional, keywords


def keywords_after(named: list[Any], positional: list[Any], keywords: dict[str, Any]) -> bool:
    """Whether a later positional argument is given by name."""
    return any(argument.name in keywords for argument in named[len(positional) :])


def same(default: Any, value: Any) -> bool:
    if isinstance(value, Node):
        return False
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        pairs = zip(default, value, strict=False)
        return len(default) == len(value) and all(same(a, b) for a, b in pairs)
    return type(default) is type(value) and bool(default == value)


# ---------------------------------------------------------------- what is written in its own way

Special = Callable[[Spelling, Any, list[Any], dict[str, Any]], str | None]


def _sliced(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    defaults: list[Any] = [0, None, None, 1]
    source, dim, start, end, step = args + defaults[len(args) - 1 :]
    if keywords or not isinstance(dim, int) or dim < 0 or dim > 3:
        return None
    start = "" if start in (None, 0) else spelling.value(start)
    end = "" if end is None or end == LAST else spelling.value(end)
    step = "" if step == 1 else f":{spelling.value(step)}"
    return f"{spelling.value(source)}[{':, ' * dim}{start}:{end}{step}]"


def _indexed(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    source, indices = args
    texts = [":" if index is None else spelling.value(index) for index in indices]
    return f"{spelling.value(source)}[{', '.join(texts)}]"


def _size(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    return f"{spelling.value(args[0])}.shape[{spelling.value(args[1])}]"


def _viewed(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    return f"{spelling.value(args[0])}.reshape({spelling.value(args[1])})"


def _copied(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    """A constant that a forward pass makes anew each time."""
    return f"{spelling.value(args[0])}.clone()"


def _interpolated(spelling: Spelling, target: Any, args: list[Any], keywords: Any) -> str | None:
    if target._overloadname != "vec" or keywords:
        return None
    name = target._schema.name.partition("::")[2]
    names = [argument.name for argument in target._schema.arguments]
    values = dict(zip(names, args, strict=False))
    parts = [spelling.value(values["input"])]
    if values.get("output_size") is not None:
        parts.append(f"size={spelling.value(values['output_size'])}")
    if values.get("scale_factors") is not None:
        parts.append(f"scale_factor={spelling.value(values['scale_factors'])}")
    parts.append(f"mode={INTERPOLATE[name]!r}")
    if "align_corners" in names:
        parts.append(f"align_corners={spelling.value(values['align_corners'])}")
    return f"F.interpolate({', '.join(parts)})"


SPECIAL: dict[str, Special] = {
    "slice": _sliced,
    "index": _indexed,
    "sym_size": _size,
    "_unsafe_view": _viewed,
    "lift_fresh_copy": _copied,
    **dict.fromkeys(INTERPOLATE, _interpolated),
}
"""Operation -> its own spelling, or None where that one does not fit."""
