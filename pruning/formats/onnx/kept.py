"""A program and its weights as one safetensors file: the program is text in its metadata.

Neither onnx nor torch is needed to read it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits, safe
from pruning.formats.types import Shape
from pruning.storage import safetensors_header

if TYPE_CHECKING:
    from pruning.formats.onnx.program import Program

KEY = "program"
WORDS = {"float32": "F32", "int64": "I64", "bool": "BOOL"}
"""numpy's word for a dtype -> safetensors'."""


def rows(program: Program) -> list[tuple[str, str, Shape, int]]:
    """(name, dtype, shape, bytes) of every weight and constant."""
    arrays = {**program.parameters, **program.buffers}
    return [(n, WORDS[str(a.dtype)], a.shape, a.nbytes) for n, a in arrays.items()]


def write(program: Program, path: Path) -> None:
    metadata = {"format": "pt", KEY: json.dumps(program.to_json(), separators=(",", ":"))}
    header = safetensors_header(rows(program), metadata)
    if len(header) > limits.HEADER:
        raise FileRefused("has more layers than are read: simplify it first, e.g. with onnxslim.")
    with path.open("wb") as out:
        out.write(header)
        for array in (*program.parameters.values(), *program.buffers.values()):
            array.tofile(out)
        out.flush()
        os.fsync(out.fileno())


def read(file: BinaryIO, length: int) -> tuple[dict[str, Any], dict[str, Shape]]:
    """The program, and the shapes of all its weights and constants.

    FileRefused where it is no sound file, ValueError where it holds no program or one that names
    other weights.
    """
    entries = safe.contents(file, length).entries
    file.seek(0)
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    program = json.loads(header["__metadata__"][KEY])
    shapes = {entry.name: entry.shape for entry in entries}
    if {*program["parameters"], *program["buffers"]} != set(shapes):
        raise ValueError("the program names other weights than lie beside it")
    return program, shapes
