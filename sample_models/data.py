"""The data sets as tensors, with splits that never change: train, validation, test.

Validation is for choosing, test for reporting. digits comes with scikit-learn and mnist1d is
computed; MNIST and Fashion-MNIST are read from a folder laid out as torchvision does, or come by
torchvision's own download.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruning.errors import DataError
from pruning.types import Batches
from sample_models.catalogue import FOLDERS, Dataset, dataset

Progress = Callable[[str, int, int], None]
"""(what is being fetched, how much is done, of how much)"""

Splits = tuple[Batches, Batches, Batches]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PATIENCE = 20.0  # seconds without an answer before a server counts as unreachable


def splits(name: str, *, progress: Progress | None = None) -> Splits:
    """Train, validation and test of a data set, normalised.

    Raises UnknownName, and DataError when the data is not here and cannot be fetched.
    """
    data = dataset(name)
    if name in FOLDERS:
        return _idx(name, find(name) or fetch(name, progress=progress))
    return _digits() if data.name == "digits" else _mnist1d()


def find(name: str) -> Path | None:
    """The folder with all four files of an MNIST-like set: in `PRUNING_DATA`, then in ./data."""
    roots = [Path("data")]
    if folder := os.environ.get("PRUNING_DATA"):
        roots.insert(0, Path(folder).expanduser())
    for root in roots:
        raw = (root / FOLDERS[name] / "raw").absolute()
        if all((raw / file).is_file() for file in FILES):
            return raw
    return None


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Download an MNIST-like set into ./data, as torchvision does, and return its folder.

    Raises DataError, with the way out.
    """
    raw = Path("data").absolute() / FOLDERS[name] / "raw"
    fresh = raw.with_name(f"raw-{os.getpid()}")  # beside it, so that nobody reads half a file
    try:
        _download(name, fresh, progress or (lambda *_: None))
        raw.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            (fresh / file).replace(raw / file)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return raw


def _download(name: str, folder: Path, progress: Progress) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    source = getattr(datasets, FOLDERS[name])
    title = dataset(name).title
    total = len(source.resources)
    for done, (file, md5) in enumerate(source.resources):
        progress(f"{title}: {file}", done, total)
        problem: Exception | None = None
        for mirror in source.mirrors:
            try:
                with patience(PATIENCE):
                    url = f"{mirror}{file}"
                    download_and_extract_archive(url, str(folder), filename=file, md5=md5)
                break
            except (OSError, RuntimeError, EOFError) as error:
                problem = error
        else:
            raise _unreachable(name, problem)
    progress(title, total, total)


def _unreachable(name: str, problem: Exception | None) -> DataError:
    return DataError(
        f"{dataset(name).title} is not on this machine and could not be downloaded ({problem}): "
        f"connect to the internet, or put {FOLDERS[name]}/raw/{FILES[0]} and its three companions "
        "into ./data or into the folder named by PRUNING_DATA, or choose a digits or mnist1d "
        "model, which need no download."
    )


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Downloads inside give up after so long without an answer; the default is minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_idx(path: Path) -> Tensor:
    """A file of the idx format (unsigned bytes) as a uint8 tensor.

    Raises DataError when it is torn or something else.
    """
    # Two zeros, 8 for unsigned bytes, the number of dimensions; each size in four bytes; values.
    raw = np.fromfile(path, dtype=np.uint8)
    is_idx = len(raw) >= 4 and raw[:3].tolist() == [0, 0, 8]
    dims = int(raw[3]) if is_idx else 0
    start = 4 + 4 * dims
    shape: list[int] = []
    if dims and len(raw) >= start:
        shape = raw[4:start].view(">u4").astype(int).tolist()
    if not shape or len(raw) != start + int(np.prod(shape)):
        raise DataError(
            f"{path.name} in {path.parent} is not a whole idx file: delete it, and load again to "
            "have it downloaded."
        )
    return torch.from_numpy(raw[start:].reshape(shape))


def order(labels: np.ndarray, sizes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Indices cut into parts of these sizes, each with the classes in the same proportions.

    Fixed by the seed.

    Raises DataError when the sizes do not add up to the number of labels.
    """
    if sum(sizes) != len(labels):
        raise DataError(
            f"The parts {sizes} add up to {sum(sizes):,}, but there are {len(labels):,} examples."
        )
    # RandomState and not default_rng: its stream is frozen for ever.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    rank = np.empty(len(labels))  # an example's place inside its class, from 0 to 1
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Sorted by that place, any stretch has the classes in proportion.
    queue = shuffled[np.argsort(rank[shuffled], kind="stable")]
    return [np.sort(part) for part in np.split(queue, np.cumsum(sizes)[:-1])]


def normalised(x: Tensor, data: Dataset) -> Tensor:
    """Values in [0, 1] as the models want them."""
    return (x - data.mean) / data.std


def pictures(x: Tensor, data: Dataset) -> Tensor:
    """The way back: normalised inputs as values to look at (in [0, 1] for pictures)."""
    return x * data.std + data.mean


@lru_cache(maxsize=1)
def _digits() -> Splits:
    data = dataset("digits")
    rows = digits_table()
    x = normalised(torch.from_numpy(rows[:, :64]).float().view(-1, *data.shape) / 16, data)
    y = rows[:, 64].astype(np.int64)
    train, validation, test = (_part(x, y, part) for part in order(y, data.sizes))
    return train, validation, test


def digits_table() -> np.ndarray:
    """(1797, 65): 64 pixels from 0 to 16, then the digit.

    The file of scikit-learn's load_digits, without the second that importing it takes. Raises
    DataError when scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    folders = (package.submodule_search_locations or []) if package else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    raise DataError(
        "The digits come with scikit-learn, and it is not installed whole: start with "
        "`python3 run.py`, which installs it."
    )


@lru_cache(maxsize=1)
def _mnist1d() -> Splits:
    """Test: the last 1,000 of the authors' 5,000, as in their own split."""
    x, y = _curves()
    data = dataset("mnist1d")
    train, validation = order(y[:4000], data.sizes[:2])
    curves = torch.from_numpy(x).float().unsqueeze(1)  # (5000, 1, 40): one channel
    test = np.arange(4000, 5000)
    return _part(curves, y, train), _part(curves, y, validation), _part(curves, y, test)


def _curves() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 40) float32 and (5000,) int64, computed once and kept in the workspace."""
    workspace = Path(os.environ.get("PRUNING_HOME") or "workspace")
    cache = workspace / "data" / "mnist1d-seed42.npz"
    if cache.is_file():
        try:
            with np.load(cache, allow_pickle=False) as file:
                return file["x"], file["y"]
        except (OSError, ValueError, KeyError, EOFError):
            cache.unlink(missing_ok=True)  # torn by a full disk: compute it again
    x, y = compute_curves()
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
    np.savez(fresh, x=x, y=y)
    fresh.replace(cache)
    return x, y


def compute_curves() -> tuple[np.ndarray, np.ndarray]:
    """The authors' make_dataset with their own arguments and seed.

    It seeds the global generators of random and numpy, which stay as they were.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    python_state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        curves = make_dataset(get_dataset_args())
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
    x = np.concatenate([curves["x"], curves["x_test"]]).astype(np.float32)
    y = np.concatenate([curves["y"], curves["y_test"]]).astype(np.int64)
    return x, y


@lru_cache(maxsize=1)
def _idx(name: str, raw: Path) -> Splits:
    data = dataset(name)
    x, y, x_test, y_test = (read_idx(raw / file) for file in FILES)
    labels = y.numpy()
    train, validation = order(labels, data.sizes[:2])
    x, x_test = (normalised(part.float().div_(255).unsqueeze(1), data) for part in (x, x_test))
    test = Batches(x_test, y_test.long(), batch=256)
    return _part(x, labels, train), _part(x, labels, validation), test


def _part(x: Tensor, y: np.ndarray, indices: np.ndarray) -> Batches:
    inputs = x[torch.from_numpy(indices)].contiguous()
    return Batches(inputs, torch.from_numpy(y[indices]).long(), batch=256)
