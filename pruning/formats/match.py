"""Names and shapes of a file against those of an architecture: what goes where, or one sentence on what does not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pruning.errors import FileRefused
from pruning.formats.names import prefixes
from pruning.formats.types import FLOATS, WHOLE, Contents, Entry, Expected, Shape, shown, size

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches: evaluation does not use it, and older files lack it."""


@dataclass(frozen=True)
class Take:
    """One tensor of the architecture and the parts of the file it comes from: one, two to multiply (weight × mask), or none for zero."""

    name: str
    dtype: str
    shape: Shape
    parts: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        return Entry(self.name, self.shape, self.dtype, 0).bytes


@dataclass(frozen=True)
class Match:
    """A file that fits. notes: what was done on the way, a sentence each."""

    takes: tuple[Take, ...]
    notes: tuple[str, ...]


Parts = dict[str, tuple[Entry, ...]]


def match(found: Contents, expected: Expected, model: str) -> Match:
    """Every tensor `model` expects, taken from `found`; FileRefused with what is missing, unexpected or of another shape."""
    parts, prefix = _best(found.entries, expected.shapes)
    _judge(parts, expected, model)
    takes = tuple(_take(name, expected, parts) for name in sorted(expected.shapes))
    return Match(
        takes, (*_path(found, prefix, len(parts), model), *_changes(parts, expected), *found.notes)
    )


def _best(entries: tuple[Entry, ...], wanted: Collection[str]) -> tuple[Parts, str]:
    """The file's tensors under the names that fit best, after taking off none, some or all of the prefixes they share."""
    shared = prefixes([entry.name for entry in entries])
    ways = ["".join(shared[:count]) for count in range(len(shared) + 1)]
    tried = [(_merged({entry.name[len(way) :]: entry for entry in entries}), way) for way in ways]
    return max(tried, key=lambda way: (len(way[0].keys() & set(wanted)), len(way[1])))


def _merged(named: dict[str, Entry]) -> Parts:
    """Each name with its entry; the pairs of torch.nn.utils.prune (weight_orig, weight_mask) under the weight's own name."""
    parts: Parts = {name: (entry,) for name, entry in named.items()}
    for name in named:
        base = name.removesuffix("_orig")
        if (
            base != name
            and f"{base}_mask" in named
            and base not in named
            and named[f"{base}_mask"].shape == named[name].shape
        ):
            parts[base] = (*parts.pop(name), *parts.pop(f"{base}_mask"))
    return parts


def _judge(parts: Parts, expected: Expected, model: str) -> None:
    missing = [name for name in expected.shapes if name not in parts and not _counter(name)]
    extra = [name for name in parts if name not in expected.shapes]
    wrong = [
        name
        for name, held in parts.items()
        if name in expected.shapes and held[0].shape != expected.shapes[name]
    ]
    faults = [
        _fault("missing", [shown(name) for name in missing]),
        _fault("unexpected", [shown(name) for name in extra]),
        _fault(
            "of another shape",
            [
                f"{shown(name)} is {size(parts[name][0].shape)}, not {size(expected.shapes[name])}"
                for name in wrong
            ],
        ),
    ]
    if any(faults):
        found = "; ".join(filter(None, faults))
        raise FileRefused(
            f"does not fit {model} ({found}): choose the architecture these weights were saved from."
        )
    for name, held in parts.items():
        allowed = (*FLOATS, *WHOLE) if name in expected.whole else FLOATS
        if held[0].dtype not in allowed or any(
            mask.dtype not in (*FLOATS, *WHOLE) for mask in held[1:]
        ):
            kind = f"as {held[0].dtype}, not as floating-point weights"
            raise FileRefused(
                f"has {shown(name)} {kind}: save the model from before it was quantised."
            )


def _fault(what: str, names: list[str]) -> str:
    """As in "2 missing: a, b", naming the first three."""
    if not names:
        return ""
    return f"{len(names):,} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _take(name: str, expected: Expected, parts: Parts) -> Take:
    return Take(
        name, "I64" if name in expected.whole else "F32", expected.shapes[name], parts.get(name, ())
    )


def _path(found: Contents, prefix: str, count: int, model: str) -> Iterable[str]:
    """How the names were found, first of all the notes."""
    yield f"All {count:,} tensors fit {model}."
    if found.wrappers:
        yield f"Taken from {' → '.join(found.wrappers)}."
    if prefix:
        yield f"The prefix {prefix} was taken off every name."


def _changes(parts: Parts, expected: Expected) -> Iterable[str]:
    merged = [name for name, held in parts.items() if len(held) == 2]
    if merged:
        yield f"Pruned by torch.nn.utils.prune: {len(merged):,} {'weight' if len(merged) == 1 else 'weights'} times mask."
    for dtype, words in (("F16", "float16"), ("BF16", "bfloat16"), ("F64", "float64")):
        changed = sum(held[0].dtype == dtype for held in parts.values())
        if changed:
            yield f"{changed:,} {'tensor' if changed == 1 else 'tensors'} converted from {words} to float32."
    if any(name not in parts for name in expected.shapes):
        yield f"{COUNTER} was missing and is set to zero: evaluation does not use it."
