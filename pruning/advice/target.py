"""What somebody wants of a model: what is limited, by how much, on what, and with which data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pruning.errors import OutOfRange, RecipeError, UnknownName, shown
from pruning.ranges import Range

LIMITS = {
    "bytes": "bytes of the file",
    "compressed": "bytes of the file by gzip",
    "download": "seconds of download",
    "ms": "milliseconds of one example",
    "macs": "MACs of one example",
    "energy": "microjoules of one example",
}
"""What can be limited -> in what it is counted."""

TORCH, ONNX, SKIPS = "torch", "onnx", "skips_zeros"
RUNTIMES = {
    TORCH: "PyTorch, which multiplies zeros too",
    ONNX: "ONNX Runtime, which multiplies zeros too and has int8",
    SKIPS: "a runtime that skips zero weights",
}

PICOJOULES = {32: (3.7, 0.9), 16: (1.1, 0.4), 8: (0.2, 0.1)}
"""Bits of the operands -> energy of a multiply and of an add in 45 nm. Floating point at 32 and 16
bits; at 8 an integer product with a 32-bit integer sum. Horowitz, 2014,
https://doi.org/10.1109/ISSCC.2014.6757323"""


class Preset(NamedTuple):
    """A usual target. fields: of the Target; assumes: what it takes for granted, for people."""

    title: str
    fields: dict[str, Any]
    assumes: str


PRESETS = {
    "microcontroller": Preset(
        "A microcontroller's flash",
        {"limit": "bytes", "most": 64_000, "runtime": ONNX},
        "64 kB of flash are the model's. Its runtime has int8 and multiplies zeros; memory for "
        "activations is not looked at.",
    ),
    "download": Preset(
        "A download on a slow line",
        {"limit": "download", "most": 0.2, "runtime": ONNX, "bandwidth": 1.0},
        "1 Mbit/s, all of it the file's, no time to connect, and no compression on the way.",
    ),
    "server": Preset(
        "A server with PyTorch",
        {"limit": "ms", "most": 0.2, "runtime": TORCH},
        "The machine that the rows were measured on, one thread, one example at a time.",
    ),
    "board": Preset(
        "A small board, four times slower",
        {"limit": "ms", "most": 0.2, "runtime": ONNX, "slower": 4.0},
        "Everything takes four times what it takes on the machine of the rows: a guess that only "
        "your own board can check.",
    ),
    "battery": Preset(
        "A sensor on a battery",
        {"limit": "energy", "most": 1.0, "runtime": ONNX},
        "Energy of multiplies and adds alone, modelled for 45 nm. Reading memory costs more, and "
        "is left out.",
    ),
    "sparse": Preset(
        "An accelerator that skips zeros",
        {"limit": "macs", "most": 100_000, "runtime": SKIPS},
        "Only weights that are not zero are multiplied, whatever their pattern. No such runtime "
        "was timed here.",
    ),
}
"""Name -> a target that people have, with what it assumes. Every number can be changed."""

LARGEST = Range(0, 1e15, above=True)


@dataclass(frozen=True)
class Target:
    """model: a name; limit: one of LIMITS, at most `most` of it; within: points of accuracy below
    dense that are tolerated.

    runtime: of RUNTIMES; bandwidth: Mbit/s, for "download"; slower: how many times longer
    everything takes than on the machine of the rows, for "ms"; finetune: whether it can be trained;
    examples: labelled training examples there are, None: as many as the rows were trained on;
    preset: of PRESETS that it began with, "" for none.

    Raises RecipeError (UnknownName, OutOfRange) for what cannot be asked.
    """

    model: str
    limit: str = "bytes"
    most: float = 20_000
    within: float = 1.0
    runtime: str = ONNX
    bandwidth: float = 1.0
    slower: float = 1.0
    finetune: bool = True
    examples: int | None = None
    preset: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise RecipeError(f"model is {shown(self.model)}, but must be the name of one.")
        for name, known in (("limit", LIMITS), ("runtime", RUNTIMES)):
            if getattr(self, name) not in known:
                raise UnknownName(name, getattr(self, name), known)
        if self.preset and self.preset not in PRESETS:
            raise UnknownName("preset", self.preset, PRESETS)
        for name in ("most", "bandwidth", "slower"):
            LARGEST.check(name, getattr(self, name))
        Range(0, 100).check("within", self.within)
        if not isinstance(self.finetune, bool):
            raise OutOfRange("finetune", self.finetune, "true or false")
        if self.examples is not None:
            Range(0, 1 << 50).check("examples", self.examples, whole=True)

    def to_dict(self) -> dict[str, Any]:
        """Without what is as it is by default."""
        values = dataclasses.asdict(self)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, data: Any) -> Target:
        """Raises RecipeError for what is no target."""
        if not isinstance(data, dict):
            raise RecipeError(f"A target is a JSON object, and this is a {type(data).__name__}.")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in data:
            if name not in known:
                raise UnknownName("field of a target", name, known)
        if "model" not in data:
            raise RecipeError("A target names its model.")
        return cls(**data)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def trains(self) -> bool:
        """Whether there is anything to fine-tune on."""
        return self.finetune and self.examples != 0


def preset(name: str, model: str) -> Target:
    """Raises UnknownName."""
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return Target(model, preset=name, **PRESETS[name].fields)
