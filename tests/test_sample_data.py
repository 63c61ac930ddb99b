"""The data of the sample models: fixed splits, safe reading, downloads that report progress."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import sample_models
from pruning.errors import DataError
from sample_models import catalogue, data

# The splits, for ever: a change here would compare new runs with old ones on other examples.
DIGITS_SPLITS = ["df32bddf96bd6179", "7000df3333fe39c5", "59b6ebe40fb9098d"]
MNIST1D_SPLITS = ["903467383eef6d92", "073174795f51fb52", "8de99be3ff9dab15"]
MNIST1D_MEANS = [0.73969943, 0.73901874, 0.74944694]
LARGE_SPLIT = "253326dc3e5871f8"


def digest(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


# Data


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_splits_share_no_example_and_hold_every_class(name: str) -> None:
    parts = data.splits(name)
    assert tuple(len(part.x) for part in parts) == catalogue.dataset(name).sizes
    rows = [{row.numpy().tobytes() for row in part.x} for part in parts]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not rows[a] & rows[b]
    for part in parts:
        counts = part.y.bincount(minlength=10)
        assert len(counts) == 10
        assert counts.max() - counts.min() <= 0.35 * counts.max()
        assert bool(part.x.isfinite().all())
        assert part.x.shape[1:] == catalogue.dataset(name).shape


def test_the_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    rows = data.digits_table()
    assert (rows[:, :64] == theirs.data).all()
    assert (rows[:, 64] == theirs.target).all()
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"scikit-learn, and it is not installed whole.*run\.py"):
        data.digits_table()


def test_the_splits_of_digits_never_change() -> None:
    about = catalogue.dataset("digits")
    parts = data.splits("digits")
    digests = []
    for part in parts:
        pixels = (data.pictures(part.x, about) * 16).round().to(torch.uint8)
        digests.append(digest(pixels, part.y))
    assert digests == DIGITS_SPLITS
    train = parts[0].x
    assert abs(float(train.mean())) < 0.01
    assert float(train.std()) == pytest.approx(1, abs=0.01)


def test_the_splits_of_mnist1d_never_change() -> None:
    """Labels bit by bit; the curves to 5 digits: their sines come from this machine's libraries."""
    parts = data.splits("mnist1d")
    assert [digest(part.y) for part in parts] == MNIST1D_SPLITS
    means = [float(part.x.abs().double().mean()) for part in parts]
    assert means == pytest.approx(MNIST1D_MEANS, rel=1e-5)


def test_the_split_of_mnist_like_labels_never_changes() -> None:
    labels = np.arange(60_000) * 7919 % 10
    first, second = data.order(labels, (55_000, 5_000))
    assert digest(torch.from_numpy(first), torch.from_numpy(second)) == LARGE_SPLIT


def test_a_split_keeps_the_proportions_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    parts = data.order(labels, (50, 30, 20))
    counts = [np.bincount(labels[part]).tolist() for part in parts]
    assert counts == [[30, 15, 5], [18, 9, 3], [12, 6, 2]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    with pytest.raises(DataError, match="add up to 99"):
        data.order(labels, (50, 49))


def test_curves_are_kept_and_computing_them_disturbs_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = np.full((2, 40), 0.5, np.float32)
    labels = np.array([1, 2])
    calls: list[int] = []

    def compute() -> tuple[np.ndarray, np.ndarray]:
        calls.append(1)
        return curves, labels

    monkeypatch.setattr(data, "compute_curves", compute)
    for _ in range(2):
        x, y = data._curves()
        assert (x == curves).all()
        assert (y == labels).all()
    assert len(calls) == 1
    next(home.rglob("*.npz")).write_bytes(b"torn")
    data._curves()
    assert len(calls) == 2


def test_making_curves_leaves_the_random_states(monkeypatch: pytest.MonkeyPatch) -> None:
    import mnist1d.data

    arguments = mnist1d.data.get_dataset_args()
    arguments.num_samples = 20
    monkeypatch.setattr(mnist1d.data, "get_dataset_args", lambda: arguments)
    np.random.seed(3)
    random.seed(3)
    states = np.random.get_state()[1].tolist(), random.getstate()
    x, y = data.compute_curves()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((20, 40), np.float32, (20,), np.int64)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes())


def test_an_idx_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "images"
    write_idx(path, values)
    assert data.read_idx(path).tolist() == values.tolist()
    for torn in (path.read_bytes()[:-1], b"", b"<html>not found</html>", bytes([0, 0, 8])):
        path.write_bytes(torn)
        with pytest.raises(DataError, match=r"images in .* is not a whole idx file: delete it"):
            data.read_idx(path)


def test_mnist_is_looked_for_in_the_named_folder_first(nowhere: Path) -> None:
    folders = {name: nowhere / name / "MNIST" / "raw" for name in ("data", "data-dir")}
    assert data.find("mnist") is None
    for raw in folders.values():
        raw.mkdir(parents=True)
        for file in data.FILES:
            assert data.find("mnist") != raw  # not before all four are there
            (raw / file).touch()
        assert data.find("mnist") == raw


def test_mnist_is_read_as_it_is(nowhere: Path) -> None:
    raw = nowhere / "data-dir" / "MNIST" / "raw"
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 0, :3] = np.stack([np.arange(count) >> shift & 255 for shift in (0, 8, 16)], 1)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    parts = data.splits("mnist")
    about = catalogue.dataset("mnist")
    assert tuple(len(part.x) for part in parts) == about.sizes == (55_000, 5_000, 10_000)
    numbers = []  # of each image, read back from its first three pixels
    for part in parts:
        pixels = (data.pictures(part.x[:, 0, 0, :3], about) * 255).round().long()
        numbers.append(pixels @ torch.tensor([1, 256, 65536]))
        assert torch.equal(numbers[-1] % 10, part.y)
    assert sorted(torch.cat(numbers[:2]).tolist()) == list(range(60_000))


def test_absent_data_is_named_with_the_way_out(nowhere: Path) -> None:
    with pytest.raises(DataError, match=r"MNIST is not on this machine .*PRUNING_DATA.*digits"):
        sample_models.load("mnist-lenet300")
    assert sample_models.load("mnist-lenet300", data=False).test is None
    assert sample_models.card("mnist-lenet300").needs == "download"
    assert not list(nowhere.rglob("raw*"))


def test_a_download_tells_how_far_it_is(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, folder: str, filename: str, md5: str) -> None:
        write_idx(Path(folder) / filename.removesuffix(".gz"), np.zeros((3, 2), np.uint8))

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    seen: list[tuple[str, int, int]] = []
    raw = sample_models.fetch("fashion-mnist", progress=lambda *step: seen.append(step))
    assert raw == nowhere / "data" / "FashionMNIST" / "raw" == data.find("fashion-mnist")
    assert [(done, total) for _, done, total in seen] == [(n, 4) for n in range(5)]
    assert sample_models.fetch("fashion-mnist", progress=None) == raw
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]
