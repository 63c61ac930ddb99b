"""A file's names, and the architecture's that are meant by them.

Wrappers and people's own classes put something before every name (`module.`, `backbone.`), and
checkpoints carry what is no weight of the model beside it: counters, metrics, running averages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pruning.formats.names import AVERAGED, prefixes
from pruning.formats.types import COUNTER, WHOLE, Entry, Expected

Parts = dict[str, tuple[Entry, ...]]
"""Name -> the file's tensors that make it: one, or two to multiply (weight, mask)."""

TRIED = 8
"""Prefixes that are tried in full: those under which most of the architecture's names lie."""

_COUNTS = ("total_ops", "total_params", "n_averaged", "position_ids", "relative_position_index")
_JUDGING = re.compile(
    r"(?:^|_)(?:loss|losses|criterion|criterions|metric|metrics|acc|accuracy|f1|auc|auroc|precision"
    r"|recall|iou|miou|confmat|mae|mse|psnr|ssim)(?:_|\d|$)"
)
_INSIDE = re.compile(
    r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_checkpoint_module)\."
)
_AUXILIARY = re.compile(r"aux\d?|AuxLogits|aux_(?:classifier|head)|auxiliary_(?:classifier|head)")


@dataclass(frozen=True)
class Named:
    """The file's tensors under the names that fit best.

    prefix: what was removed, and from how many names; skipped: original names of what is no weight
    of the model; beside: of what lies outside the prefix and fits nothing; head: which layer is the
    head in place of which, "" where it has the architecture's name.
    """

    parts: Parts
    prefix: str = ""
    shortened: int = 0
    skipped: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    head: str = ""


def unwrapped(entries: tuple[Entry, ...], expected: Expected) -> tuple[Entry, ...]:
    """The tensors without what wrappers of single layers write in the middle of their names."""
    if any(_INSIDE.search(name) for name in expected.shapes):
        return entries
    renamed = tuple(replace(entry, name=_INSIDE.sub("", entry.name)) for entry in entries)
    # A layer and its compiled copy in one file: then the names must say which is which.
    return renamed if len({entry.name for entry in renamed}) == len(entries) else entries


def named(entries: tuple[Entry, ...], expected: Expected) -> Named:
    """The file's tensors under the architecture's names, as many as are meant by them."""
    tried = [_without(prefix, entries, expected) for prefix in _candidates(entries, expected)]

    def rank(one: Named) -> tuple[int, ...]:
        # Of prefixes that fit equally well the longest: mismatches are reported without it.
        return *_fit(one.parts, expected), not _is_averaged(one.prefix), len(one.prefix)

    return _with_own_head(max(tried, key=rank), expected)


def _with_own_head(one: Named, expected: Expected) -> Named:
    """Takes the one layer that somebody put in the head's place for the head.

    A dropout in front of it, as in nn.Sequential(nn.Dropout(), nn.Linear(512, 10)), makes `fc.1` of
    what was `fc`.
    """
    others = {name.rpartition(".")[0] for name in one.parts if name not in expected.shapes}
    if any(name in one.parts for name in expected.head) or len(others) != 1 or not expected.head:
        return one
    head, other = next(iter(expected.head)).rpartition(".")[0], others.pop()
    parts = {
        name if name in expected.shapes else head + name.removeprefix(other): part
        for name, part in one.parts.items()
    }
    fits = all(
        name in parts and expected.fits(name, parts[name][0].shape) for name in expected.head
    )
    same_place = head.partition(".")[0] == other.partition(".")[0]
    if not fits or not same_place or len(parts) < len(one.parts):
        return one
    return replace(one, parts=parts, head=f"{other} in place of {head}")


def fitting_prefixes(entries: tuple[Entry, ...], expected: Expected) -> list[str]:
    """Every prefix under which the whole architecture lies: two are two models in one file."""
    whole = len(expected.needed)
    fits = []
    for prefix in _candidates(entries, expected):
        own = tuple(entry for entry in entries if entry.name.startswith(prefix))
        parts = _without(prefix, own, expected).parts
        if sum(name in parts for name in expected.needed) == whole == _fit(parts, expected)[0]:
            fits.append(prefix)
    # `a.` and `a.b.` are two readings of the same tensors only where both fit, which none can.
    return fits


def _candidates(entries: tuple[Entry, ...], expected: Expected) -> list[str]:
    """Prefixes worth trying: none, what wrappers write, and what stands before expected names."""
    known: list[str] = [""]
    for prefix in prefixes([entry.name for entry in entries]):
        # An architecture may have one of these prefixes itself: so each is a try of its own.
        known.append(known[-1] + prefix)
    before = Counter(
        prefix
        for entry in entries
        for prefix, rest in _cuts(entry.name.removesuffix("_orig"))
        if rest in expected.shapes
    )
    usual = [prefix for prefix, _ in before.most_common(TRIED)]
    return list(dict.fromkeys([*known, *usual]))


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Each way to cut a name behind a dot: ("a.", "b.c"), ("a.b.", "c")."""
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)


def _without(prefix: str, entries: Iterable[Entry], expected: Expected) -> Named:
    """The tensors with `prefix` removed from the names that have it."""
    inside, outside = {}, {}
    for entry in entries:
        if entry.name.startswith(prefix) and entry.name != prefix:
            inside[entry.name.removeprefix(prefix)] = entry
        else:
            outside[entry.name] = entry
    parts = _merged(inside)
    # What lies outside may still be meant: a head beside a backbone.
    outer = _merged({name: entry for name, entry in outside.items() if name not in inside})
    parts |= {
        name: one for name, one in outer.items() if name not in parts and name in expected.shapes
    }
    skipped = [name for name, one in parts.items() if _is_skipped(name, one[0], expected)]
    for name in skipped:
        del parts[name]
    taken = {entry.name for one in parts.values() for entry in one}
    rest = [entry for name, entry in outside.items() if entry.name not in taken]
    averaged = [entry.name for entry in rest if _is_averaged(entry.name)]
    harmless = [entry.name for entry in rest if _is_skipped(entry.name, entry, expected)]
    known = {*averaged, *harmless}
    return Named(
        parts,
        prefix,
        len(inside) if prefix else 0,
        tuple([*(prefix + name for name in skipped), *dict.fromkeys([*harmless, *averaged])]),
        tuple(entry.name for entry in rest if entry.name not in known),
    )


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


def _is_skipped(name: str, entry: Entry, expected: Expected) -> bool:
    """Whether a tensor that the architecture has no name for does nothing to its answers."""
    if name in expected.shapes:
        return False
    path = name.split(".")
    if path[-1] in _COUNTS or any(_JUDGING.search(part) for part in path[:2]):
        return True
    # Heads that only training uses, counted batches of layers that do not count here, and the
    # averages that some keep in the same table.
    if _AUXILIARY.fullmatch(path[0]) or _is_averaged(name):
        return True
    return path[-1] == COUNTER and entry.dtype in WHOLE


def _is_averaged(name: str) -> bool:
    return name.split(".")[0] in AVERAGED


def _fit(parts: Parts, expected: Expected) -> tuple[int, int]:
    """How many tensors have the shape that is expected of their name, and how many such a name."""
    known = [(name, one[0].shape) for name, one in parts.items() if name in expected.shapes]
    return sum(expected.fits(name, shape) for name, shape in known), len(known)
