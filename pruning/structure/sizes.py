"""Which input sizes a model is recorded for: all of them where its graph allows.

Operations that name no size hold for every size as they are. Where the model reads the size of its
input, or an operation may have one written into it, torch.export records sizes as symbols, and says
under which conditions what it saw holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from pruning.structure.input_sizes import meets
from pruning.structure.propagate import names, operation
from pruning.structure.rules.contract import SOFTMAX
from pruning.structure.rules.convolve import CONVOLUTIONS
from pruning.structure.rules.elementwise import BINARY, UNARY, with_inplace
from pruning.structure.rules.reduce import POOLS, RESIZES

FREE = frozenset(
    (
        *CONVOLUTIONS,
        *POOLS,
        *with_inplace(UNARY),
        *with_inplace(BINARY),
        *names("batch_norm instance_norm linear mean sum amax cat concat concatenate getitem"),
        *names("contiguous clone alias detach whole dropout feature_dropout flatten squeeze"),
    )
)
"""Operations that name no position and no size of a picture."""

UNREAD = frozenset(
    (
        *FREE,
        *SOFTMAX,
        *RESIZES,
        *names("permute transpose t movedim select slice unsqueeze layer_norm rms_norm group_norm"),
        *names("glu embedding matmul bmm mm scaled_dot_product_attention pixel_shuffle"),
        *names("pixel_unshuffle channel_shuffle pad constant_pad_nd linalg_vector_norm norm"),
    )
)
"""Operations whose numbers are the model's own as long as its code reads no size of an input."""

READERS = frozenset(names("size numel nelement stride __len__ __iter__"))


# ---------------------------------------------------------------- what the code reads


@dataclass
class _Reads(TorchFunctionMode):
    """Notices when code asks a tensor for a size other than the batch."""

    seen: bool = field(default=False)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READERS:
            batch = name == "size" and len(args) == 2 and args[1] == 0
            self.seen = self.seen or not batch
        elif name == "__get__" and func.__self__ is Tensor.shape:
            self.seen = True
        return func(*args, **(kwargs or {}))


def reads_sizes(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the model's code asks for the size of any tensor. True where it cannot be told."""
    reads = _Reads()
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
            fakes = [fake.from_tensor(x) for x in inputs]
            with reads:
                model(*fakes)
    except Exception:  # what a run without numbers does not get through
        return True
    return reads.seen


def names_no_size(graph: fx.Graph, allowed: frozenset[str] = UNREAD) -> bool:
    """Whether no operation may have a size of the recorded inputs written into it."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    return all(operation(node) in allowed for node in calls)


# ---------------------------------------------------------------- torch.export's conditions

_LENGTH = r"(\w+\.shape\[\d+\]|torch\.sym_max\(1, (\(-\d+\)|[^()])*\))"
_MORE_THAN_ONE = re.compile(rf"1 < (\d+\*)?{_LENGTH}(\*{_LENGTH})*")
_SOURCE = re.compile(r"L\['(\w+)'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\]")


def conditions(
    guards: Sequence[str],
    names: tuple[str, ...],
    parameters: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> tuple[str, ...] | None:
    """torch.export's guards in terms of the inputs' names. None where one is of something else.

    parameters: of `forward`, one for each input, the same for those of *args; shapes: batch 1.
    """
    first = {parameter: parameters.index(parameter) for parameter in parameters}

    def named(match: re.Match[str]) -> str:
        name, position, dim = match.groups()
        at = first[name] + int(position or 0)
        return f"{names[at]}.shape[{dim}]"

    one_example = dict(zip(names, (SimpleNamespace(shape=s) for s in shapes), strict=True))
    kept = []
    for guard in guards:
        try:
            condition = _SOURCE.sub(named, guard)
        except (KeyError, IndexError):
            return None
        if "L[" in condition:
            return None
        condition = condition.replace("+ (-1)*", "- ").replace("(-1) + ", "-1 + ")
        # Fake tensors ask whether there is more than one number; no line of the model does.
        if _MORE_THAN_ONE.fullmatch(condition):
            continue
        # What fails for one example is of the batch of two that is recorded.
        if meets(condition, one_example):
            kept.append(condition)
    return tuple(dict.fromkeys(kept))
