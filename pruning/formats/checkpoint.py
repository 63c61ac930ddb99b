"""A torch.save file, read without torch: its pickle as data, its tensors judged against the bytes that are really there.

torch.load(weights_only=True) runs no code either, but it makes what it is asked for (a 642-byte file can ask for 10^12 numbers)
before anybody can judge it. Here every claim is checked first, and the numbers are read last.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.archive import Archive, archive
from pruning.formats.magic import TORCH
from pruning.formats.names import judge_name, judge_shape
from pruning.formats.pickles import Odd, Sketch, Storage, Thing, load
from pruning.formats.types import WIDTHS, Contents, Entry, Shape, shown

WRAPPERS = (
    *(
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "net",
        "network",
        "module",
        "weights",
        "params",
        "checkpoint",
    ),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema"),
)
"""Keys under which people keep a state_dict, the most usual first."""

DEEPEST = 4
"""How many dictionaries may lie around a state_dict."""


def contents(file: BinaryIO, length: int) -> Contents:
    """The weights that a torch.save file of `length` bytes holds; FileRefused where it holds none or lies."""
    zipped = archive(file, length)
    if zipped.members.get("byteorder") and zipped.read("byteorder", 16).strip() == b"big":
        raise FileRefused(
            "was saved on a big-endian machine, which is not read: save it as safetensors."
        )
    state, wrappers, beside = _state(load(zipped.read("data.pkl", limits.PICKLE)))
    tensors, rest = _tensors(state)
    if len(tensors) > limits.TENSORS:
        raise FileRefused(
            f"holds {len(tensors):,} tensors, over the {limits.TENSORS:,} that are read: save only the model's state_dict()."
        )
    entries = tuple(_entry(judge_name(name), sketch, zipped) for name, sketch in tensors.items())
    if sum(entry.bytes for entry in entries) > 2 * length:  # tied weights may be named twice
        raise FileRefused("describes more numbers than it holds: save it again with torch.save.")
    return Contents(TORCH, entries, wrappers, _left_out((*beside, *rest)))


def _state(root: Any) -> tuple[dict[Any, Any], tuple[str, ...], tuple[str, ...]]:
    """The dictionary of tensors inside `root`, the keys that led there, and the keys that lay beside them."""
    path: list[str] = []
    beside: list[str] = []
    while len(path) < DEEPEST:
        if not isinstance(root, dict):
            raise FileRefused(
                f"holds {_what(root)}, not a state_dict: save model.state_dict() with torch.save."
            )
        key = _wrapper(root)
        if key is None:
            break
        beside += [str(other) for other in root if other != key]
        path.append(key)
        root = root[key]
    if not _any_tensor(root):
        raise FileRefused(
            f"holds no state_dict ({_keys(root)}): save model.state_dict() with torch.save."
        )
    return root, tuple(shown(key) for key in path), tuple(beside)


def _wrapper(table: dict[Any, Any]) -> str | None:
    """The key to go in by: a usual one, or the only one under which tensors lie; None where the tensors are here."""
    inside = [
        key
        for key, value in table.items()
        if isinstance(key, str) and isinstance(value, dict) and _leads_to_tensors(value)
    ]
    usual = next((key for key in WRAPPERS if key in inside), None)
    if usual is not None or _any_tensor(table):
        return usual
    return inside[0] if len(inside) == 1 else None


def _any_tensor(table: Any) -> bool:
    return isinstance(table, dict) and any(_is_tensor(value) for value in table.values())


def _leads_to_tensors(table: dict[Any, Any], depth: int = 0) -> bool:
    if _any_tensor(table):
        return True
    below = (table[key] for key in WRAPPERS if isinstance(table.get(key), dict))
    return depth < DEEPEST and any(_leads_to_tensors(value, depth + 1) for value in below)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Sketch | Odd)


def _tensors(state: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """The tensors of a state_dict, and the keys of what else lies in it."""
    if (
        "n_averaged" in state
        and sum(str(key).startswith("module.") for key in state) == len(state) - 1 > 0
    ):
        state = {
            key: value for key, value in state.items() if key != "n_averaged"
        }  # AveragedModel's counter
    tensors = {key: value for key, value in state.items() if _is_tensor(value)}
    return tensors, [str(key) for key in state if key not in tensors]


def _entry(name: str, sketch: Sketch | Odd, zipped: Archive) -> Entry:
    """The tensor that `sketch` claims, if the file really holds it."""
    if isinstance(sketch, Odd):
        raise FileRefused(f"has {shown(name)}, {sketch.what} and save again.")
    storage, shape, strides = (
        sketch.storage,
        judge_shape(name, sketch.shape),
        judge_shape(name, sketch.strides),
    )
    if not isinstance(storage, Storage) or storage.dtype not in WIDTHS:
        kind = shown(getattr(storage, "dtype", "unknown")).rpartition(".")[2]
        raise FileRefused(
            f"has {shown(name)} in a number format that is not read ({kind}): save it as float32."
        )
    width = WIDTHS[storage.dtype]
    start, size = zipped.place(f"data/{storage.key}")
    if (
        type(sketch.offset) is not int
        or sketch.offset < 0
        or len(strides) != len(shape)
        or storage.numbers * width > size
    ):
        raise FileRefused(f"describes {shown(name)} falsely: save it again with torch.save.")
    entry = Entry(
        name,
        shape,
        storage.dtype,
        start + sketch.offset * width,
        None if _in_order(shape, strides) else strides,
    )
    last = (
        sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if entry.numbers
        else -1
    )
    if (sketch.offset + last + 1) * width > size or entry.bytes > size:
        raise FileRefused(
            f"describes {shown(name)} as larger than the numbers it holds: save it again with torch.save."
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


def _what(value: Any) -> str:
    if isinstance(value, Thing):
        return f"a {shown(value.what)}"
    return "a single tensor" if _is_tensor(value) else f"a {type(value).__name__}"


def _keys(table: Any) -> str:
    keys = [shown(key, 20) for key in list(table)[:3]] if isinstance(table, dict) else []
    return f"it has {', '.join(keys)}{', ...' if len(table) > 3 else ''}" if keys else "it is empty"


def _left_out(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        return ()
    named = ", ".join(shown(key, 30) for key in keys[:3])
    more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    return (f"Left out, as not part of the weights: {named}{more}.",)
