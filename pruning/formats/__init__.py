"""Files in: untrusted weights, read safely. Nothing here imports torch until weights are loaded.

A file passes: first bytes (magic) → in a fresh process under limits (sandbox, reader_process): the
zip's directory (archive), the pickle as data (pickles), or the header (safe) → names, shapes and
bytes judged (checkpoint, names) → matched with an architecture (match) → every number read, judged
and written as safetensors (numbers) → kept (uploads). Everything later reads only that.
An ONNX file brings its graph along: `onnx` converts it, in the same process.
"""

from __future__ import annotations

from pruning.formats.types import Listed, Reading
from pruning.formats.uploads import (
    Spooled,
    Upload,
    accept,
    architectures_of,
    inspect,
    load_network,
    load_upload,
    sweep,
    turn,
    uploads,
)

__all__ = [
    "Listed",
    "Reading",
    "Spooled",
    "Upload",
    "accept",
    "architectures_of",
    "inspect",
    "load_network",
    "load_upload",
    "sweep",
    "turn",
    "uploads",
]
