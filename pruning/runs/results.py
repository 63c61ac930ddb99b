"""What finished jobs left in their folders, as plain numbers. No torch: pages read these.

A run's folder holds `result.json` (its Finished event; of a stopped run, what it had reached),
`final.safetensors`, `masks.npz`, `histograms.npz` and, of a classifier, `answers.npz`; a study's
holds `study.json` and `study.npz`. Each is written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.ranking import Ranking
from pruning.errors import RunError
from pruning.events import Finished, from_dict, to_dict
from pruning.metrics import Histogram
from pruning.stats import Overlap, overlap
from pruning.storage import whole, write_json

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Study:
    """The answer to what a page asked about a model.

    what: the kind of study ("card", "weights", "scores", ...); data: `study.json`.
    """

    folder: Path
    what: str
    model: str
    data: dict[str, Any]

    @cached_property
    def arrays(self) -> Arrays:
        """Every array of `study.npz`, by name; read when first asked for."""
        return _arrays(self.folder / "study.npz")

    @cached_property
    def ranking(self) -> Ranking:
        """The index of a "scores" study: what any sparsity would keep."""
        return _readable(self.folder / "study.npz", Ranking.load)


@dataclass(frozen=True)
class Answers:
    """What a classifier answered to each test example, before and after.

    targets, dense, final: (n,) numbers of classes, in the order of the test data; final: of the
    model that the run is for, compact where there is one.
    """

    targets: NDArray[np.integer[Any]]
    dense: NDArray[np.integer[Any]]
    final: NDArray[np.integer[Any]]

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(n,) True where the run's model is right."""
        right: NDArray[np.bool_] = self.final == self.targets
        return right

    @cached_property
    def dense_right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.dense == self.targets
        return right


@dataclass(frozen=True)
class RunResult:
    """What a finished run left. The weights themselves lie in `weights`, a safetensors file."""

    folder: Path
    finished: Finished

    @property
    def weights(self) -> Path:
        return self.folder / "final.safetensors"

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """Layer name -> its weights before and after."""
        arrays = _arrays(self.folder / "histograms.npz")
        names = json.loads(str(arrays["names"]))
        return {
            name: Histogram(*(arrays[f"{part}_{i}"] for part in HISTOGRAM_PARTS))
            for i, name in enumerate(names)
        }

    @cached_property
    def answers(self) -> Answers | None:
        """None where answers are no classes, and of runs of earlier versions."""
        if not (self.folder / "answers.npz").is_file():
            return None
        arrays = _arrays(self.folder / "answers.npz")
        return Answers(*(arrays[name] for name in ANSWERS))

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Parameter name -> True where the weight was kept, in the parameter's shape."""
        masks = {}
        for name, (bits, shape) in self.packed_masks().items():
            # The bits fill whole bytes, so the count says where they end.
            flat = np.unpackbits(bits, count=int(np.prod(shape)))
            masks[name] = flat.astype(bool).reshape(shape)
        return masks

    def packed_masks(self) -> dict[str, PackedMask]:
        """The same in an eighth of the memory, for what looks at many runs at once."""
        arrays = _arrays(self.folder / "masks.npz")
        shapes = json.loads(str(arrays["shapes"]))
        return {
            name: PackedMask(arrays[f"bits_{i}"], tuple(shape))
            for i, (name, shape) in enumerate(shapes.items())
        }


class PackedMask(NamedTuple):
    """bits: (bytes,) a bit for each weight, zeros after the last; shape: of the parameter."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]

    @property
    def weights(self) -> int:
        return int(np.prod(self.shape))


def overlap_of(one: Mapping[str, PackedMask], other: Mapping[str, PackedMask]) -> Overlap | None:
    """How many of the same weights two runs keep, of the layers that both may prune.

    Vectors are biases and norms, which count as no weights anywhere. None where they share none, or
    one has another shape: then it is another network's.
    """
    shared = {name for name in one.keys() & other.keys() if len(one[name].shape) > 1}
    if not shared or any(one[name].shape != other[name].shape for name in shared):
        return None

    def count(bits: NDArray[np.uint8]) -> int:
        return int(np.bitwise_count(bits).sum(dtype=np.int64))

    def layer(name: str) -> tuple[int, int, int, int]:
        a, b = one[name].bits, other[name].bits
        return one[name].weights, count(a), count(b), count(a & b)

    return overlap(map(layer, shared))


HISTOGRAM_PARTS = ("edges", "dense", "final")
"""The fields of a Histogram, as `histograms.npz` names them, in order."""

ANSWERS = tuple(field.name for field in fields(Answers))
"""The arrays of `answers.npz`."""


def load_study(folder: Path) -> Study:
    """Raises RunError when the folder holds no whole study."""
    data = _readable(folder / "study.json", _json)
    return Study(folder, data["what"], data["model"], data)


def has_result(folder: Path) -> bool:
    """Whether a run left a result: it finished, or was stopped after a whole epoch or step."""
    return (folder / "result.json").is_file()


def load_run(folder: Path) -> RunResult:
    """Raises RunError when the folder holds no result: the run did not finish, or was deleted."""
    data = _readable(folder / "result.json", _json)
    finished = from_dict({**data, "event": "finished"})
    assert isinstance(finished, Finished)
    return RunResult(folder, finished)


# ---------------------------------------------------------------- writers, for workers


def save_study(folder: Path, data: dict[str, Any], arrays: Arrays | Ranking) -> None:
    # `study.json` last: where it is, all is.
    with whole(folder / "study.npz") as draft:
        if isinstance(arrays, Ranking):
            arrays.save(draft)
        else:
            np.savez(draft, allow_pickle=False, **arrays)
    write_json(folder / "study.json", data)


def save_masks(folder: Path, masks: dict[str, NDArray[np.bool_]]) -> None:
    """A bit for each weight, compressed."""
    shapes = {name: list(keep.shape) for name, keep in masks.items()}
    bits: dict[str, Any] = {f"bits_{i}": np.packbits(keep) for i, keep in enumerate(masks.values())}
    with whole(folder / "masks.npz") as draft:
        np.savez_compressed(draft, shapes=np.array(json.dumps(shapes)), **bits)


def save_answers(folder: Path, answers: Answers) -> None:
    """In as few bytes as numbers of classes need: ten thousand examples are some 10 kB."""
    most = max(int(getattr(answers, name).max(initial=0)) for name in ANSWERS)
    # Targets that name no class are negative, as in data with examples to ignore.
    least = int(answers.targets.min(initial=0))
    width = np.min_scalar_type(most) if least >= 0 else np.dtype(np.int64)
    arrays: dict[str, Any] = {name: getattr(answers, name).astype(width) for name in ANSWERS}
    with whole(folder / "answers.npz") as draft:
        np.savez_compressed(draft, **arrays)


def save_histograms(folder: Path, histograms: dict[str, Histogram]) -> None:
    # By number: a layer's name could be no name of a zip member.
    arrays: dict[str, Any] = {
        f"{part}_{i}": getattr(histogram, part)
        for i, histogram in enumerate(histograms.values())
        for part in HISTOGRAM_PARTS
    }
    names = np.array(json.dumps(list(histograms)))
    with whole(folder / "histograms.npz") as draft:
        np.savez(draft, allow_pickle=False, names=names, **arrays)


def save_result(folder: Path, finished: Finished) -> None:
    write_json(folder / "result.json", to_dict(finished))


# ---------------------------------------------------------------- readers


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _arrays(file: Path) -> Arrays:
    def read(file: Path) -> Arrays:
        # A file from elsewhere must not bring a pickle, which is a program.
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)

    return _readable(file, read)


def _readable(file: Path, read: Callable[[Path], T]) -> T:
    """What `read` makes of the file. Raises RunError where it is missing or damaged."""
    try:
        return read(file)
    except FileNotFoundError:
        raise RunError(
            f"{file.parent.name} has no {file.name}: the work did not finish, or was deleted; "
            "start it again."
        ) from None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(
            f"{file.name} of {file.parent.name} cannot be read ({error}): "
            "delete that job and start it again."
        ) from error
