"""Names and shapes from a file, judged: they end up in pages, paths and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.types import Shape, shown

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before every name.

DataParallel, torch.compile, and the two names people give an attribute.
"""

AVERAGED = (
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
    "averaged_model",
    "swa_model",
)
"""What people call a running average of the weights, which lies beside the weights themselves."""

# Names of attributes joined by dots, as state_dict writes them.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:\-]*(\.[A-Za-z0-9_:\-]+)*")


def judge_name(name: object) -> str:
    """`name`, if a PyTorch module could have it.

    FileRefused for paths, markup, control characters and the like.
    """
    if not isinstance(name, str) or len(name) > limits.NAME or not _PLAIN.fullmatch(name):
        raise FileRefused(
            f"has a tensor with an unusable name ({shown(name)}): names are up to {limits.NAME} "
            "letters, digits, underscores and hyphens, with dots between; "
            "rename it and save again."
        )
    return name


def judge_shape(name: str, shape: Any) -> Shape:
    """`shape` as a tuple of sizes, 0 or more, at most RANK of them."""
    if not isinstance(shape, list | tuple) or not all(_is_size(size) for size in shape):
        raise FileRefused(
            f"gives {shown(name)} a shape that is not a list of sizes: save it again."
        )
    if len(shape) > limits.RANK:
        raise FileRefused(
            f"gives {shown(name)} {len(shape):,} dimensions, over the {limits.RANK} that are "
            "read: flatten it and save again."
        )
    return tuple(shape)


def _is_size(size: object) -> bool:
    # `type`, because True is an int; below 2**48, so that products of RANK sizes stay small.
    return type(size) is int and 0 <= size < 1 << 48


def prefixes(names: Sequence[str]) -> tuple[str, ...]:
    """The wrappers' prefixes that all names share, outermost first."""
    shared: list[str] = []
    # One after the other, since wrappers are nested: DataParallel around a compiled model.
    while names:
        prefix = next((prefix for prefix in PREFIXES if _all_have(names, prefix)), None)
        if prefix is None:
            break
        shared.append(prefix)
        names = [name[len(prefix) :] for name in names]
    return tuple(shared)


def _all_have(names: Sequence[str], prefix: str) -> bool:
    """Whether every name has the prefix, and is more than that."""
    return all(name.startswith(prefix) and name != prefix for name in names)
