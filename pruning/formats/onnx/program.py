"""A network as plain data: steps over named layers and an allow-list of functions.

    inputs    ("%0", shape of one example, "float32" | "int64" | "bool") each
    steps     ("layer", path, kind, options, arguments, result)
              ("call", function, arguments, options, result)
    outputs   results

Arguments are numbers, texts, lists, "%7" for a result, "$path" for a weight or constant, and
{"batch": [k, c]} for k times the batch, plus c. `module` makes a torch module of it, and nothing
else: what is not on its lists is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pruning.errors import FileRefused
from pruning.formats.onnx.load import Array
from pruning.formats.onnx.naming import Names
from pruning.formats.types import shown

Ref = Any
"""An argument of a step."""


@dataclass
class Program:
    """parameters: trained; buffers: constants. Both by path in the module.

    reshaped: what a result was before it was reshaped, which shapes it again as well; classes: how
    many numbers it answers with for one example, where they lie in a row.
    """

    inputs: list[tuple[str, list[int], str]] = field(default_factory=list)
    steps: list[list[Any]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    parameters: dict[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    notes: list[str] = field(default_factory=list)
    reshaped: dict[str, Ref] = field(default_factory=dict)
    results: int = 0
    classes: int | None = None

    def result(self) -> str:
        self.results += 1
        return f"%{self.results - 1}"

    def call(self, function: str, *arguments: Ref, **options: Ref) -> str:
        """Add a call, and return the name of its result."""
        result = self.result()
        self.steps.append(["call", function, list(arguments), options, result])
        return result

    def layer(self, path: str, kind: str, argument: Ref, options: dict[str, Any]) -> str:
        result = self.result()
        self.steps.append(["layer", path, kind, options, [argument], result])
        return result

    def parameter(self, path: str, array: Array) -> str:
        if not np.isfinite(array).all():
            raise FileRefused(
                f"holds NaN or infinite weights in {shown(path)}, and a mask cannot remove those: "
                "load a checkpoint from before training diverged."
            )
        # Not copied: large weights lie in memory once, and are written as often as they are named.
        self.parameters[path] = np.asarray(array, np.float32, order="C")
        return f"${path}"

    def buffer(self, path: str, array: Array) -> str:
        kinds = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}
        self.buffers[path] = np.ascontiguousarray(array).astype(kinds[array.dtype.kind])
        return f"${path}"

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "steps": self.steps,
            "outputs": self.outputs,
            "parameters": list(self.parameters),
            "buffers": list(self.buffers),
        }
