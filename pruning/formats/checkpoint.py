"""A torch.save file, read without torch: its pickle as data, its tensors judged.

torch.load(weights_only=True) runs no code either, but it makes what it is asked for (a 642-byte
file can ask for 10^12 numbers) before anybody can judge it. Here every claim is checked against
the bytes that are really there first, and the numbers are read last.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.archive import Archive, archive
from pruning.formats.magic import MODULE, TORCH
from pruning.formats.names import AVERAGED, judge_name, judge_shape
from pruning.formats.pickles import (
    ClaimedTensor,
    GlobalName,
    Instance,
    Opaque,
    Storage,
    UnreadTensor,
    call,
    load,
)
from pruning.formats.types import WIDTHS, Contents, Entry, Shape, shown

# Keys under which people keep a state_dict, the most usual first.
_USUAL = (
    "state_dict model_state_dict model_state model net network module weights params checkpoint"
)
WRAPPERS = (*_USUAL.split(), *AVERAGED)

DEEPEST = 4
"""How many dictionaries may lie around a state_dict."""


def contents(file: BinaryIO, length: int) -> Contents:
    """The weights that a torch.save file of `length` bytes holds.

    FileRefused where it holds none, or claims what is not there.
    """
    zipped = archive(file, length)
    if zipped.members.get("byteorder") and zipped.read("byteorder", 16).strip() == b"big":
        raise FileRefused(
            "was saved on a big-endian machine, which is not read: save it as safetensors."
        )
    # Names and shapes only: torch.save keeps the numbers in members of their own.
    root = load(zipped.read("data.pkl", limits.PICKLE))
    state, wrappers, beside = _state_dict(root)
    tensors, others = _tensors(state)
    if len(tensors) > limits.TENSORS:
        raise FileRefused(
            f"holds {len(tensors):,} tensors, over the {limits.TENSORS:,} that are read: "
            "save only the model's state_dict()."
        )
    entries = tuple(_entry(judge_name(name), tensor, zipped) for name, tensor in tensors.items())
    # Twice, because tied weights may be named twice.
    if sum(entry.bytes for entry in entries) > 2 * length:
        raise FileRefused("describes more numbers than it holds: save it again with torch.save.")
    return Contents(TORCH, entries, wrappers, _left_out(beside + others))


def _state_dict(root: Any) -> tuple[dict[Any, Any], tuple[str, ...], list[str]]:
    """The dictionary of tensors inside `root`, the keys that lead there, and those beside them."""
    path: list[str] = []
    beside: list[str] = []
    while len(path) < DEEPEST:
        _judge_object(root)
        if not isinstance(root, dict):
            raise FileRefused(
                f"holds {_kind_of(root)}, not a state_dict: "
                "save model.state_dict() with torch.save."
            )
        key = _wrapper(root)
        if key is None:
            # Where the weights would be lies an object: what else is here is not the weights.
            for usual in WRAPPERS:
                _judge_object(root.get(usual))
            break
        beside += [str(other) for other in root if other != key]
        path.append(key)
        root = root[key]
    if not _any_tensor(root):
        raise FileRefused(
            f"holds no state_dict ({_keys(root)}): save model.state_dict() with torch.save."
        )
    return root, tuple(shown(key) for key in path), beside


def _judge_object(value: Any) -> None:
    """FileRefused where an object stands in the place of a state_dict."""
    if isinstance(value, Instance):
        raise FileRefused(MODULE.format(which=f" ({shown(value.what)})"))
    if isinstance(value, GlobalName):
        raise FileRefused(call(value.full))


def _wrapper(table: dict[Any, Any]) -> str | None:
    """The key of a nested dictionary that leads to the tensors; None where they are in `table`.

    It is a usual key, or the only one under which tensors lie. FileRefused for several others:
    which of them is meant only their owner knows.
    """
    inside = [key for key, value in table.items() if isinstance(key, str) and _leads_on(value)]
    usual = next((key for key in WRAPPERS if key in inside), None)
    if usual is not None or _any_tensor(table):
        return usual
    if len(inside) > 1:
        first = shown(inside[0], 20)
        raise FileRefused(
            f"holds {len(inside)} state_dicts ({', '.join(shown(key, 20) for key in inside[:3])}"
            f"{', ...' if len(inside) > 3 else ''}): save one of them, e.g. "
            f"torch.save(checkpoint['{first}'], '{first}.pt')."
        )
    return inside[0] if inside else None


def _leads_on(table: Any, depth: int = 0) -> bool:
    """Whether tensors lie in a dictionary, or deeper under usual keys."""
    if not isinstance(table, dict):
        return False
    if _any_tensor(table):
        return True
    # A dictionary may hold itself: the depth ends the search.
    return depth < DEEPEST and any(_leads_on(table.get(key), depth + 1) for key in WRAPPERS)


def _any_tensor(table: Any) -> bool:
    return isinstance(table, dict) and any(_is_tensor(value) for value in table.values())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, ClaimedTensor | UnreadTensor)


def _tensors(state: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """The tensors of a state_dict, and the keys of what else lies in it."""
    # torch's AveragedModel counts its updates in a tensor of its own, beside `module.*`.
    in_module = sum(str(key).startswith("module.") for key in state)
    if "n_averaged" in state and in_module == len(state) - 1 > 0:
        state = {key: value for key, value in state.items() if key != "n_averaged"}
    tensors = {key: value for key, value in state.items() if _is_tensor(value)}
    for key, value in state.items():
        _judge_packed(key, value)
    return tensors, [str(key) for key in state if key not in tensors]


def _judge_packed(key: Any, value: Any) -> None:
    """FileRefused for a layer's weight and bias in one: so torch's quantised linear layers save."""
    parts = value if isinstance(value, list | tuple) else ()
    unread = next((part for part in parts if isinstance(part, UnreadTensor)), None)
    if unread is not None:
        raise FileRefused(f"has {shown(key)}, {unread.what} and save again.")


def _entry(name: str, claimed: ClaimedTensor | UnreadTensor, zipped: Archive) -> Entry:
    """The claimed tensor, if the file really holds it."""
    if isinstance(claimed, UnreadTensor):
        raise FileRefused(f"has {shown(name)}, {claimed.what} and save again.")
    storage = claimed.storage
    shape = judge_shape(name, claimed.shape)
    strides = judge_shape(name, claimed.strides)
    if not isinstance(storage, Storage) or storage.dtype not in WIDTHS:
        dtype = shown(getattr(storage, "dtype", "unknown")).rpartition(".")[2]
        raise FileRefused(
            f"has {shown(name)} in a number format that is not read ({dtype}): save it as float32."
        )
    # Four claims, each against what lies in the zip: offset, rank, storage, and the last number.
    width = WIDTHS[storage.dtype]
    start, size = zipped.place(f"data/{storage.key}")
    # `type`, because True is an int.
    offset_is_one = type(claimed.offset) is int and claimed.offset >= 0
    if not offset_is_one or len(strides) != len(shape) or storage.numbers * width > size:
        raise FileRefused(f"describes {shown(name)} falsely: save it again with torch.save.")
    entry = Entry(
        name,
        shape,
        storage.dtype,
        start + claimed.offset * width,
        None if _in_order(shape, strides) else strides,
    )
    # Numbers from the storage's start to the tensor's last one. Strides may be 0, so that a tensor
    # of any size fits a storage of one number: its own bytes must fit too.
    steps = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    reach = claimed.offset + (steps + 1 if entry.numbers else 0)
    if reach * width > size or entry.bytes > size:
        raise FileRefused(
            f"describes {shown(name)} as larger than the numbers it holds: "
            "save it again with torch.save."
        )
    return entry


def _in_order(shape: Shape, strides: Shape) -> bool:
    """Whether the numbers lie one after the other, the last dimension fastest."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def _kind_of(value: Any) -> str:
    if isinstance(value, Opaque):
        return f"a {shown(value.what)}"
    return "a single tensor" if _is_tensor(value) else f"a {type(value).__name__}"


def _keys(table: Any) -> str:
    """The first keys of what should be a state_dict, in words."""
    if not isinstance(table, dict) or not table:
        return "it is empty"
    keys = [shown(key, 20) for key in list(table)[:3]]
    return f"it has {', '.join(keys)}{', ...' if len(table) > 3 else ''}"


def _left_out(keys: list[str]) -> tuple[str, ...]:
    """A note that names the first of the keys, none where there are none."""
    if not keys:
        return ()
    named = ", ".join(shown(key, 30) for key in keys[:3])
    more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    return (f"Left out, as not part of the weights: {named}{more}.",)
