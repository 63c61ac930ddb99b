"""Data sets in: somebody's examples, read as data, kept as plain arrays, joined to any model.

A folder or zip of images by class, an npz, a CSV, or the idx files of MNIST pass: the first bytes
(source) → in a fresh process under limits (reader_process): images, arrays, tables or idx, written
as raw numbers (writer) → judged and kept under an id, with a split and a normalisation (kept) →
read as `Batches` that fit a model (batches, which needs torch).

A recipe names it behind its model: `upload:<id>@data:<id>`. Other settings are another id, so that
a link to a run is a link to exactly its examples.
"""

from __future__ import annotations

from pruning.formats.datasets.kept import accept, adjusted, examples, get, kept
from pruning.formats.datasets.types import (
    JOINED,
    NORMALISATIONS,
    DataSet,
    Settings,
    described,
    joined,
    parted,
)

__all__ = [
    "JOINED",
    "NORMALISATIONS",
    "DataSet",
    "Settings",
    "accept",
    "adjusted",
    "described",
    "examples",
    "get",
    "joined",
    "kept",
    "parted",
]
