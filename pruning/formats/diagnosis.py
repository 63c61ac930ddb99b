"""What a file is that fits no architecture: one sentence for each kind that people have.

Names alone say so, and only of a file that did not fit: an architecture may have such names itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pruning.formats.types import Entry, shown

_QUANTISED = (
    "qweight",
    "qzeros",
    "scales",
    "zero_point",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "SCB",
    "absmax",
    "quant_map",
    "_packed_params",
)
_ADAPTERS = ("lora_A", "lora_B", "lora_down", "lora_up", "lora_embedding_A", "lora_embedding_B")
_PAIRS = (("original0", "original1"), ("weight_g", "weight_v"))
_SHARD = re.compile(r"(?:.*\D)?0*(\d{1,5})-of-0*(\d{1,5})\b.*")


def diagnosed(entries: Iterable[Entry], file: str) -> str | None:
    """Why the tensors fit nothing, beginning with a verb; None where their names do not say."""
    names = [entry.name for entry in entries]
    return (
        _quantised(names)
        or _weight_norm(names)
        or _parametrized(names)
        or _adapter(names)
        or _one_shard(file)
    )


def shard(file: str) -> tuple[int, int] | None:
    """(which, of how many) by the file's name, as Hugging Face writes it; None for a whole file."""
    match = _SHARD.fullmatch(file)
    if match is None:
        return None
    which, count = int(match[1]), int(match[2])
    return (which, count) if 1 <= which <= count and count > 1 else None


def _quantised(names: list[str]) -> str | None:
    name = next((name for name in names if name.rpartition(".")[2] in _QUANTISED), None)
    if name is None:
        return None
    return f"holds quantised weights ({shown(name)}): save the model from before it was quantised."


def _weight_norm(names: list[str]) -> str | None:
    """A direction and a length for each weight, as both of torch's ways write them."""
    there = set(names)
    for name in names:
        for first, second in _PAIRS:
            base = name.removesuffix(first)
            if base != name and base + second in there:
                return (
                    f"holds weight_norm's pairs ({shown(name)} and {second}) in place of weights: "
                    "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') on "
                    "those layers (older: torch.nn.utils.remove_weight_norm) and save again."
                )
    return None


def _parametrized(names: list[str]) -> str | None:
    name = next((name for name in names if ".parametrizations." in f".{name}"), None)
    if name is None:
        return None
    return (
        f"holds parametrised weights ({shown(name)}): call "
        "torch.nn.utils.parametrize.remove_parametrizations on those layers and save again."
    )


def _adapter(names: list[str]) -> str | None:
    name = next((name for name in names if not {*name.split(".")}.isdisjoint(_ADAPTERS)), None)
    if name is None:
        return None
    return (
        f"holds an adapter ({shown(name)}), not the model's own weights: merge it into the model "
        "(merge_and_unload) and save that."
    )


def _one_shard(file: str) -> str | None:
    numbers = shard(file)
    if numbers is None:
        return None
    which, count = numbers
    return f"is shard {which} of {count} by its name: bring all {count} files together."
