"""What is known of a data set: plain values, read by the page without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isclose
from typing import Any

from pruning.errors import OutOfRange, UnknownName
from pruning.ranges import Range

LESS = "bring fewer or smaller examples, or start the server with --data PATH"
"""What to do where a data set is too large to read."""

JOINED = "@data:"
"""Between the name of a model and the id of the data set that it is worked on with."""

NORMALISATIONS = {
    "auto": "as the model's own data was, where that is known; else by the training examples",
    "data": "mean 0 and deviation 1 over the training examples",
    "imagenet": "as torchvision's trained models expect it",
    "unit": "from 0 to 1",
    "symmetric": "from -1 to 1",
    "none": "as the file has them (pictures: 0 to 255)",
}
"""How inputs are scaled -> in words."""

SHARE = Range(0, 1)
SEED = Range(0, 2**31 - 1)
SIDE = Range(0, 1024)

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Settings:
    """What may be adjusted of a data set.

    train, validation, test: shares of the examples, of each class alike; seed: of the split;
    size: pixels a side, 0: as the model takes them; normalisation: of NORMALISATIONS; target: the
    column of a table that is predicted, "": the last one, or the one called target, label, class
    or y. Raises OutOfRange, UnknownName.
    """

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15
    seed: int = 0
    size: int = 0
    normalisation: str = "auto"
    target: str = ""

    def __post_init__(self) -> None:
        for name in PARTS:
            SHARE.check(name, getattr(self, name))
        together = self.train + self.validation + self.test
        if not isclose(together, 1, abs_tol=1e-6):
            raise OutOfRange("The sum of train, validation and test", round(together, 6), "1")
        if min(self.train, self.validation, self.test) <= 0:
            raise OutOfRange("The smallest share of the split", 0, "above 0")
        SEED.check("seed", self.seed, whole=True)
        SIDE.check("size", self.size, whole=True)
        if self.normalisation not in NORMALISATIONS:
            raise UnknownName("normalisation", self.normalisation, NORMALISATIONS)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """From plain values, as a form or a shell gives them. Raises UnknownName, OutOfRange."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownName("setting of a data set", name, known)
        plain: dict[str, Any] = dict(values)
        if "target" in plain:
            plain["target"] = str(plain["target"])  # a column may be called 64
        return cls(**plain)


@dataclass(frozen=True)
class DataSet:
    """A data set that is kept.

    name: what its owner calls it, made safe to show; kind: "images", "arrays", "table" or "idx";
    examples: how many; shape: of one input, channels first; dtype: "uint8" or "float32"; classes:
    their names, () where targets are numbers; counts: examples of train, validation and test;
    by_class: examples of each class; notes: what was done to it, a sentence each; divided: whether
    it brought its own parts, so that the split's shares are theirs; arrays: the id of the folder
    that holds its numbers.
    """

    id: str
    name: str
    kind: str
    examples: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    by_class: tuple[int, ...]
    notes: tuple[str, ...]
    divided: bool
    accepted: float
    arrays: str
    settings: Settings = field(default_factory=Settings)

    @property
    def pictures(self) -> bool:
        return len(self.shape) == 3

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataSet:
        lists = ("shape", "classes", "counts", "by_class", "notes")
        plain = {name: tuple(data[name]) for name in lists}
        return cls(**{**data, **plain, "settings": Settings(**data["settings"])})


def joined(model: str, data: str | None) -> str:
    """A model's name with the id of a data set, in place of the one that it had; None: its own."""
    own, _ = parted(model)
    return own if data is None else f"{own}{JOINED}{data}"


def parted(model: str) -> tuple[str, str | None]:
    """(the model's own name, the id of its data set or None)."""
    own, mark, id = model.partition(JOINED)
    return own, id if mark else None


def described(data: DataSet) -> str:
    """What it holds, in a line: `1,797 pictures of 1 × 8 × 8, 10 classes`."""
    shape = " × ".join(map(str, data.shape))
    nouns = {"images": "pictures", "idx": "pictures", "table": "rows", "arrays": "examples"}
    targets = f"{len(data.classes):,} classes" if data.classes else "values to predict"
    return f"{data.examples:,} {nouns[data.kind]} of {shape}, {targets}"
