"""Modules as the calls that make them: `nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)`."""

from __future__ import annotations

from inspect import Parameter, signature
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn

from pruning.export.parts import DropPath
from pruning.export.spelling import NotWritten, Spelling
from pruning.structure import wide_norms
from pruning.structure.capture import TRAINING_ONLY

SIDES = ("kernel_size", "stride", "padding", "dilation", "output_padding", "output_size")
"""Arguments that one number gives for all sides."""

ATTRIBUTES = {"shape": "normalized_shape", "channels": "num_channels"}
"""Arguments of our own classes that torch's have under another name."""

literal = Spelling({}, "None").value


def is_name(text: str) -> bool:
    """Whether an attribute may be written with a dot."""
    return text.isidentifier() and not iskeyword(text) and text.isascii()


def layer(module: nn.Module) -> tuple[str, type[nn.Module] | None]:
    """(The call that makes a module, the class of ours or of `parts` that it needs).

    Raises NotWritten for a class that is not torch's.
    """
    kind = type(module)
    if kind.__module__ == wide_norms.__name__:  # written out beside the network
        names = [ATTRIBUTES.get(name, name) for name in signature(kind).parameters]
        values = [literal(_plain(getattr(module, name))) for name in names]
        return f"{kind.__name__}({', '.join(values)}){_as_it_is(module)}", kind
    if kind.__name__ in TRAINING_ONLY:
        return _training_only(module)
    known = next((base for base in kind.__mro__ if getattr(nn, base.__name__, None) is base), None)
    if known is None or known is nn.Module:
        raise NotWritten(f"has a layer of the class {kind.__name__}, which is not torch's")
    return f"nn.{known.__name__}({', '.join(_arguments(known, module))}){_as_it_is(module)}", None


def _training_only(module: nn.Module) -> tuple[str, type[nn.Module] | None]:
    p = getattr(module, "p", getattr(module, "drop_prob", None))
    if type(module).__name__ not in ("StochasticDepth", "DropPath") or not isinstance(p, float):
        return "nn.Identity()", None  # it lets everything through but in training
    mode = str(getattr(module, "mode", "row"))
    return f"DropPath({p!r}, {mode!r})", DropPath


def _arguments(kind: type[nn.Module], module: nn.Module) -> list[str]:
    """What a module of torch's was made with, by its attributes, without what is so by default."""
    texts: list[str] = []
    by_name = False
    for name, parameter in signature(kind).parameters.items():
        if name in ("device", "dtype") or parameter.kind is Parameter.VAR_KEYWORD:
            continue
        if not hasattr(module, name):
            by_name = True  # those after it cannot be given by their places
            continue
        value = getattr(module, name)
        # The bias is a parameter, and the argument says whether there is one.
        value = value is not None if name == "bias" else _plain(value)
        if name in SIDES:
            value = _one_side(value)
        default = parameter.default
        if default is not Parameter.empty:
            by_name = True
            if type(default) is type(value) and default == value:
                continue
        texts.append(f"{name}={literal(value)}" if by_name else literal(value))
    return texts


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, torch.Size) else value


def _one_side(value: Any) -> Any:
    """3 for (3, 3): kernels and strides are most often square."""
    if isinstance(value, tuple | list) and len(set(value)) == 1:
        return value[0]
    return tuple(value) if isinstance(value, list) else value


def _as_it_is(module: nn.Module) -> str:
    """`.to(torch.bfloat16)` and `.requires_grad_(False)`, where the layer is so."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    text = ""
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if len(dtypes) == 1 and dtypes != {torch.float32}:
        text += f".to({dtypes.pop()})"
    parameters = list(module.parameters(recurse=False))
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        text += ".requires_grad_(False)"
    return text


def tensor(value: Tensor) -> str:
    """A parameter or buffer that belongs to no layer: its values come with the weights."""
    dtype = "" if value.dtype is torch.float32 else f", dtype={value.dtype}"
    text = f"torch.zeros({list(value.shape)}{dtype})"
    if not isinstance(value, nn.Parameter):
        return text
    frozen = "" if value.requires_grad else ", requires_grad=False"
    return f"nn.Parameter({text}{frozen})"
