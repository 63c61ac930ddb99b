"""What finished jobs left in their folders, as plain numbers. No torch: pages read these.

A run's folder holds `result.json` (its Finished event), `final.safetensors`, `masks.npz` and `histograms.npz`;
a study's holds `study.json` and `study.npz`. Each is written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.ranking import Ranking
from pruning.errors import RunError
from pruning.events import Finished, from_dict, to_dict
from pruning.metrics import Histogram
from pruning.storage import whole, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """What a page needs to know about a model. what: "card", "weights" or "scores"; data: `study.json`."""

    folder: Path
    what: str
    model: str
    data: dict[str, Any]

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array of `study.npz`, by name; read when first asked for."""
        return _arrays(self.folder / "study.npz")

    @cached_property
    def ranking(self) -> Ranking:
        """The index of a "scores" study: what any ratio would leave."""
        return _readable(self.folder / "study.npz", Ranking.load)


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
        """Layer -> its weights before and after."""
        held = _arrays(self.folder / "histograms.npz")
        names = json.loads(str(held["names"]))
        return {
            name: Histogram(held[f"edges_{i}"], held[f"dense_{i}"], held[f"final_{i}"])
            for i, name in enumerate(names)
        }

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Parameter name -> True where the weight was kept, in the parameter's shape."""
        held = _arrays(self.folder / "masks.npz")
        shapes = json.loads(str(held["shapes"]))
        return {
            name: _unpack(held[f"bits_{i}"], tuple(shape))
            for i, (name, shape) in enumerate(shapes.items())
        }

    def mask(self, name: str) -> NDArray[np.bool_]:
        """One parameter's mask."""
        return self.masks()[name]


def load_study(folder: Path) -> Study:
    """Raises RunError when the folder holds no whole study."""
    data = _readable(
        folder / "study.json", lambda file: json.loads(file.read_text(encoding="utf-8"))
    )
    return Study(folder, data["what"], data["model"], data)


def load_run(folder: Path) -> RunResult:
    """Raises RunError when the folder holds no result: the run did not finish, or was deleted."""
    data = _readable(
        folder / "result.json", lambda file: json.loads(file.read_text(encoding="utf-8"))
    )
    finished = from_dict({**data, "event": "finished"})
    assert isinstance(finished, Finished)
    return RunResult(folder, finished)


# ---------------------------------------------------------------- writers, for workers


def save_study(
    folder: Path, data: dict[str, Any], arrays: dict[str, NDArray[Any]] | Ranking
) -> None:
    """Arrays first, `study.json` last: where it is, all is."""
    with whole(folder / "study.npz") as draft:
        if isinstance(arrays, Ranking):
            arrays.save(draft)
        else:
            np.savez(draft, allow_pickle=False, **arrays)
    write_json(folder / "study.json", data)


def save_masks(folder: Path, masks: dict[str, NDArray[np.bool_]]) -> None:
    """A bit for each weight, deflated."""
    shapes = {name: list(keep.shape) for name, keep in masks.items()}
    bits: dict[str, Any] = {f"bits_{i}": np.packbits(keep) for i, keep in enumerate(masks.values())}
    with whole(folder / "masks.npz") as draft:
        np.savez_compressed(draft, shapes=np.array(json.dumps(shapes)), **bits)


def save_histograms(folder: Path, histograms: dict[str, Histogram]) -> None:
    parts: dict[str, Any] = {}
    for i, held in enumerate(histograms.values()):
        parts |= {f"edges_{i}": held.edges, f"dense_{i}": held.dense, f"final_{i}": held.final}
    with whole(folder / "histograms.npz") as draft:
        np.savez(draft, allow_pickle=False, names=np.array(json.dumps(list(histograms))), **parts)


def save_result(folder: Path, finished: Finished) -> None:
    write_json(folder / "result.json", to_dict(finished))


def _unpack(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    def read(place: Path) -> dict[str, NDArray[Any]]:
        with np.load(place, allow_pickle=False) as held:
            return dict(held)

    return _readable(file, read)


def _readable(file: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(file)
    except FileNotFoundError:
        raise RunError(
            f"{file.parent.name} has no {file.name}: the work did not finish, or was deleted; start it again."
        ) from None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(
            f"{file.name} of {file.parent.name} cannot be read ({error}): delete that job and start it again."
        ) from error
