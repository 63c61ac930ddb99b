"""Which torchvision architecture a file's names and shapes are, without building any.

A line of the table is an architecture's name, the names of its head, and a digest of all its other
names and shapes. Made by `python -m pruning.formats.fingerprints > sample_models/fingerprints.txt`,
again with another torchvision.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pruning.formats import architecture
from pruning.formats.types import COUNTER, Entry, Shape
from pruning.storage import SAMPLES

TABLE = SAMPLES / "fingerprints.txt"

NESTED = 4
"""Wrappers around a model whose prefixes are removed, one inside the other."""


@dataclass(frozen=True)
class Fingerprint:
    """An architecture, recognised by all but its head. head: names of tensors."""

    name: str
    head: tuple[str, ...]
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {','.join(self.head)} {self.digest}"


def fingerprint(name: str, shapes: Mapping[str, Shape], head: Iterable[str]) -> Fingerprint:
    """Of an architecture whose state_dict has these shapes."""
    names = tuple(sorted(head))
    return Fingerprint(name, names, _digest(shapes, names))


def table() -> list[Fingerprint]:
    """All that are known."""
    rows = (line.split() for line in TABLE.read_text(encoding="utf-8").splitlines())
    return [Fingerprint(name, tuple(head.split(",")), digest) for name, head, digest in rows]


def recognised(entries: Iterable[Entry], known: Iterable[Fingerprint]) -> list[str]:
    """Names of the architectures that a file's tensors are, whatever prefix stands before them."""
    known = list(known)
    names: list[str] = []
    for shapes in _stripped({entry.name: entry.shape for entry in entries}):
        digests = {head: _digest(shapes, head) for head in {one.head for one in known}}
        names += [
            one.name
            for one in known
            if digests[one.head] == one.digest and all(name in shapes for name in one.head)
        ]
    return list(dict.fromkeys(names))


def _digest(shapes: Mapping[str, Shape], head: Iterable[str]) -> str:
    skipped = set(head)
    lines = sorted(
        f"{name} {'x'.join(map(str, shape))}"
        for name, shape in shapes.items()
        if name not in skipped and name.rpartition(".")[2] != COUNTER
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _stripped(shapes: dict[str, Shape]) -> Iterable[dict[str, Shape]]:
    """The tensors as they are, then those below the first attribute of most names, and so on."""
    for _ in range(NESTED):
        yield shapes
        firsts = Counter(name.partition(".")[0] for name in shapes)
        first, count = firsts.most_common(1)[0]
        inside = {
            rest: shape
            for name, shape in shapes.items()
            for top, _, rest in [name.partition(".")]
            if top == first and rest
        }
        if 2 * count <= len(shapes) or not inside:
            return
        shapes = inside


def main() -> None:
    """Prints the table of the torchvision that is installed."""
    import sample_models

    for name in sample_models.torchvision_names():
        built = architecture.expected(f"{sample_models.PREFIX}{name}")
        print(fingerprint(name, built.shapes, built.head))


if __name__ == "__main__":
    main()
