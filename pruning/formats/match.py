"""Matching a file's names and shapes with an architecture's, or one sentence on what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pruning.errors import FileRefused
from pruning.formats.names import prefixes
from pruning.formats.types import FLOATS, WHOLE, Contents, Entry, Expected, Shape, shape_text, shown

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches: evaluation does not use it, and older files lack it."""

CONVERTED = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}

Parts = dict[str, tuple[Entry, ...]]
"""Name -> the file's tensors that make it: one, or two to multiply (weight, mask)."""


@dataclass(frozen=True)
class MatchedTensor:
    """One tensor of the architecture and the parts of the file that it comes from.

    parts: one, two to multiply (weight × mask), or none for zeros.
    """

    name: str
    dtype: str
    shape: Shape
    parts: tuple[Entry, ...]

    @property
    def entry(self) -> Entry:
        """It by itself, as the first tensor of a file."""
        return Entry(self.name, self.shape, self.dtype, 0)


@dataclass(frozen=True)
class Match:
    """A file that fits. notes: what was changed on the way, a sentence each."""

    tensors: tuple[MatchedTensor, ...]
    notes: tuple[str, ...]


def match(contents: Contents, expected: Expected, model: str) -> Match:
    """Every tensor `model` expects, taken from `contents`.

    FileRefused with what is missing, unexpected or of another shape.
    """
    # Names first: a shape or dtype can only be judged of a tensor that was found.
    parts, prefix = _best_names(contents.entries, expected.shapes)
    _judge_names_and_shapes(parts, expected, model)
    _judge_dtypes(parts, expected)
    tensors = tuple(
        MatchedTensor(name, "I64" if name in expected.whole else "F32", shape, parts.get(name, ()))
        for name, shape in sorted(expected.shapes.items())
    )
    notes = (
        *_origins(contents, prefix, len(parts), model),
        *_changes(parts, expected),
        *contents.notes,
    )
    return Match(tensors, notes)


def _best_names(entries: tuple[Entry, ...], wanted: Collection[str]) -> tuple[Parts, str]:
    """The file's tensors under the names that fit best, and the prefix removed from their names.

    Tried: without none, some or all of the prefixes that all names share.
    """
    shared = prefixes([entry.name for entry in entries])
    tried = []
    # An architecture may have one of these prefixes itself, so removing all is not always right.
    for count in range(len(shared) + 1):
        prefix = "".join(shared[:count])
        parts = _merged({entry.name.removeprefix(prefix): entry for entry in entries})
        # Of prefixes that fit equally well the longest: mismatches are reported without it.
        fitting = len(parts.keys() & set(wanted))
        tried.append((fitting, len(prefix), parts, prefix))
    *_, parts, prefix = max(tried, key=lambda one: one[:2])
    return parts, prefix


def _merged(named: dict[str, Entry]) -> Parts:
    """Each name with its entry; a weight that is stored as weight and mask under its own name.

    torch.nn.utils.prune stores such pairs as weight_orig and weight_mask.
    """
    parts: Parts = {name: (entry,) for name, entry in named.items()}
    for name, entry in named.items():
        base = name.removesuffix("_orig")
        mask = named.get(f"{base}_mask")
        # With a plain weight beside them it is unclear which counts: then the names do not fit.
        if base == name or base in named or mask is None:
            continue
        if mask.shape == entry.shape:
            parts[base] = (*parts.pop(name), *parts.pop(f"{base}_mask"))
    return parts


def _judge_names_and_shapes(parts: Parts, expected: Expected, model: str) -> None:
    shapes = expected.shapes
    missing = [
        shown(name) for name in shapes if name not in parts and name.split(".")[-1] != COUNTER
    ]
    unexpected = [shown(name) for name in parts if name not in shapes]
    wrong = [
        f"{shown(name)} is {shape_text(weight.shape)}, not {shape_text(shapes[name])}"
        for name, (weight, *_) in parts.items()
        if name in shapes and weight.shape != shapes[name]
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    listed = [_counted(what, names) for what, names in faults.items() if names]
    if listed:
        raise FileRefused(
            f"does not fit {model} ({'; '.join(listed)}): "
            "choose the architecture these weights were saved from."
        )


def _counted(what: str, names: list[str]) -> str:
    """As in "2 missing: a, b", naming the first three."""
    return f"{len(names):,} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _judge_dtypes(parts: Parts, expected: Expected) -> None:
    for name, (weight, *masks) in parts.items():
        # A whole number in place of a weight is a quantised one, which means another value.
        allowed = (*FLOATS, *WHOLE) if name in expected.whole else FLOATS
        masks_fit = all(mask.dtype in (*FLOATS, *WHOLE) for mask in masks)
        if weight.dtype not in allowed or not masks_fit:
            raise FileRefused(
                f"has {shown(name)} as {weight.dtype}, not as floating-point weights: "
                "save the model from before it was quantised."
            )


def _origins(contents: Contents, prefix: str, count: int, model: str) -> Iterator[str]:
    """How the names were matched, first of all the notes."""
    yield f"All {count:,} tensors fit {model}."
    if contents.wrappers:
        yield f"Taken from {' → '.join(contents.wrappers)}."
    if prefix:
        yield f"The prefix {prefix} was taken off every name."


def _changes(parts: Parts, expected: Expected) -> Iterator[str]:
    """What was made of the file's tensors."""
    merged = sum(len(entries) == 2 for entries in parts.values())
    if merged:
        weights = "weight" if merged == 1 else "weights"
        yield f"Pruned by torch.nn.utils.prune: {merged:,} {weights} times mask."
    for dtype, words in CONVERTED.items():
        count = sum(weight.dtype == dtype for weight, *_ in parts.values())
        if count:
            tensors = "tensor" if count == 1 else "tensors"
            yield f"{count:,} {tensors} converted from {words} to float32."
    if any(name not in parts for name in expected.shapes):
        yield f"{COUNTER} was missing and is set to zero: evaluation does not use it."
