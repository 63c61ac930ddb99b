"""Names and shapes from a file, judged: they end up in pages, paths and reports, so only plain ones pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.types import Shape, shown

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:\-]*(\.[A-Za-z0-9_:\-]+)*")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before every name: DataParallel, torch.compile, and the two names people give an attribute."""


def judge_name(name: object) -> str:
    """`name`, if it is one that a PyTorch module could have; FileRefused for paths, markup, control characters and the like."""
    if not isinstance(name, str) or len(name) > limits.NAME or not _PLAIN.fullmatch(name):
        raise FileRefused(
            f"has a tensor with an unusable name ({shown(name)}): "
            f"names are up to {limits.NAME} letters, digits, underscores and hyphens, with dots between; rename it and save again."
        )
    return name


def judge_shape(name: str, shape: Any) -> Shape:
    """`shape` as a tuple of sizes, 0 or more, at most RANK of them."""
    if not isinstance(shape, list | tuple) or not all(
        type(size) is int and 0 <= size < 1 << 48 for size in shape
    ):
        raise FileRefused(
            f"gives {shown(name)} a shape that is not a list of sizes: save it again."
        )
    if len(shape) > limits.RANK:
        much = f"{len(shape):,} dimensions, over the {limits.RANK} that are read"
        raise FileRefused(f"gives {shown(name)} {much}: flatten it and save again.")
    return tuple(shape)


def prefixes(names: Sequence[str]) -> tuple[str, ...]:
    """The wrappers' prefixes that all names share, outermost first."""
    found: list[str] = []
    while names:
        shared = next(
            (p for p in PREFIXES if all(n.startswith(p) and len(n) > len(p) for n in names)), None
        )
        if shared is None:
            break
        found.append(shared)
        names = [name[len(shared) :] for name in names]
    return tuple(found)
