"""Which test examples a model answered correctly, as text that fits into a file of rows.

With it two techniques can be compared on the same examples, long after their weights were deleted.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from pruning.metrics import Paired


def pack(correct: NDArray[np.bool_]) -> str:
    """A bit for each example, compressed: most answers of a good model are right."""
    return base64.b64encode(zlib.compress(np.packbits(correct).tobytes(), 9)).decode()


def unpack(text: str, examples: int) -> NDArray[np.bool_]:
    """(examples,) True where the answer was right."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=examples).astype(bool)


def paired(first: str, second: str, examples: int) -> Paired:
    """Two models' answers to the same examples; gained: those that only the first has right."""
    return Paired.of(unpack(first, examples), unpack(second, examples))
