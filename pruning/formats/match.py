"""Matching a file's names and shapes with an architecture's, or one sentence on what differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning.errors import FileRefused
from pruning.formats.names import AVERAGED
from pruning.formats.naming import Named, Parts, fitting_prefixes, named, unwrapped
from pruning.formats.types import (
    COUNTER,
    FLOATS,
    WHOLE,
    Contents,
    Entry,
    Expected,
    Shape,
    shape_text,
    shown,
)

CONVERTED = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}


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
    """A file that fits.

    notes: what was changed on the way, a sentence each; classes: how many the file's head tells
    apart, None where the architecture's own number is the only one.
    """

    tensors: tuple[MatchedTensor, ...]
    notes: tuple[str, ...]
    classes: int | None = None


def match(contents: Contents, expected: Expected, model: str) -> Match:
    """Every tensor `model` expects, taken from `contents`.

    FileRefused with what is missing, unexpected or of another shape.
    """
    # Names first: a shape or dtype can only be judged of a tensor that was found.
    entries = unwrapped(contents.entries, expected)
    own = named(entries, expected)
    usual, classes = expected.classes, _classes(own.parts, expected)
    expected = expected.of_classes(classes)
    _judge_names_and_shapes(own, expected, model)
    _judge_alone(own, entries, expected)
    _judge_dtypes(own.parts, expected)
    parts = own.parts
    tensors = tuple(
        MatchedTensor(name, "I64" if name in expected.whole else "F32", shape, parts.get(name, ()))
        for name, shape in sorted(expected.shapes.items())
    )
    notes = (
        *_origins(contents, own, model),
        *([f"Its head tells {classes:,} classes apart."] if classes != usual else []),
        *_changes(parts, expected),
        *contents.notes,
    )
    return Match(tensors, notes, classes)


def _classes(parts: Parts, expected: Expected) -> int | None:
    """How many classes the file's head tells apart, read from its shapes; None for no head."""
    sizes = {
        parts[name][0].shape[0]
        for name in expected.head
        if name in parts and expected.fits(name, parts[name][0].shape)
    }
    # A weight and a bias that disagree are reported as shapes that do not fit.
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else expected.classes


def _judge_names_and_shapes(named: Named, expected: Expected, model: str) -> None:
    shapes, parts = expected.shapes, named.parts
    missing = [shown(name) for name in expected.needed if name not in parts]
    unexpected = [shown(name) for name in parts if name not in shapes]
    wrong = [
        f"{shown(name)} is {shape_text(weight.shape)}, not {shape_text(shapes[name])}"
        for name, (weight, *_) in parts.items()
        if name in shapes and weight.shape != shapes[name]
    ]
    # Where all is there, what lies beside it is another model, and is told as that.
    if missing or unexpected or wrong:
        unexpected += [shown(name) for name in named.beside]
    if expected.head and not wrong and {*missing} <= {*expected.head}:
        _judge_head(unexpected, expected, model)
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    listed = [_counted(what, names) for what, names in faults.items() if names]
    if listed:
        raise FileRefused(
            f"does not fit {model} ({'; '.join(listed)}): "
            "choose the architecture these weights were saved from."
        )


def _judge_head(unexpected: list[str], expected: Expected, model: str) -> None:
    """FileRefused for an architecture with a head of one's own, of several layers."""
    head = next(iter(expected.head)).rpartition(".")[0]
    place = head.partition(".")[0]
    if unexpected and all(name.partition(".")[0] == place for name in unexpected):
        raise FileRefused(
            f"fits {model} but for its head ({', '.join(unexpected[:3])}"
            f"{', ...' if len(unexpected) > 3 else ''} in place of {head}): start the workbench "
            "with the network as your own code, python3 run.py --model my_file.py:build."
        )


def _judge_alone(named: Named, entries: tuple[Entry, ...], expected: Expected) -> None:
    """FileRefused where the file holds a model more: which is meant only its owner knows."""
    first = named.prefix or "the first"
    others = {name.partition(".")[0] for name in named.beside}
    others |= {prefix.partition(".")[0] for prefix in fitting_prefixes(entries, expected)}
    others -= {named.prefix.partition(".")[0], "", *AVERAGED}
    if not others:
        return
    listed = " and ".join(shown(name, 20) for name in sorted(others)[:3])
    raise FileRefused(
        f"holds more than one model ({shown(first.rstrip('.'), 20)} fits, and beside it lies "
        f"{listed}): save one of them, e.g. torch.save(model.state_dict(), 'weights.pt') of the "
        "one that you mean."
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


def _origins(contents: Contents, named: Named, model: str) -> Iterator[str]:
    """How the names were matched, first of all the notes."""
    yield f"All {len(named.parts):,} tensors fit {model}."
    if contents.wrappers:
        yield f"Taken from {' → '.join(contents.wrappers)}."
    if named.prefix:
        every = named.shortened == len(contents.entries)
        names = "every name" if every else f"{named.shortened:,} names"
        yield f"The prefix {named.prefix} was taken off {names}."
    if named.head:
        yield (
            f"Its head is {named.head}: what has no weights there, such as a dropout, is left out."
        )
    if named.skipped:
        listed = ", ".join(shown(name, 30) for name in named.skipped[:3])
        more = f" and {len(named.skipped) - 3:,} more" if len(named.skipped) > 3 else ""
        yield f"Left out, as no weights of the model: {listed}{more}."


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
