"""Reads a sparse file with safetensors, numpy and, for torch's tensors, torch:

    from read_sparse import read_sparse

    model.load_state_dict(read_sparse("sparse.safetensors.gz"))

In the place of a pruned tensor NAME stand NAME.bitmask (a bit for each weight, 1 = kept) and
NAME.values (the weights kept, in order); its shape is in the metadata, under NAME.shape.
"""

import gzip
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def read_sparse(file: str | Path, framework: str = "torch") -> dict[str, Any]:
    """All tensors by name, whole again. framework: "torch", or "numpy" (which has no bfloat16)."""
    data = Path(file).read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors: dict[str, Any] = import_module(f"safetensors.{framework}").load(data)
    for key, text in head.get("__metadata__", {}).items():
        name = key.removesuffix(".shape")
        shape = tuple(map(int, text.split(",")))
        bits, values = np.asarray(tensors.pop(f"{name}.bitmask")), tensors.pop(f"{name}.values")
        whole = import_module(framework).zeros(shape, dtype=values.dtype)
        flat = whole.reshape(-1)  # the same numbers, in a row
        flat[np.flatnonzero(np.unpackbits(bits, count=len(flat)))] = values
        tensors[name] = whole
    return tensors
