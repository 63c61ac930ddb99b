"""Data sets that people bring: read as data, split, scaled, joined to a model, or refused."""

from __future__ import annotations

import io
import json
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pruning
from pruning import Batches, Recipe, Workpiece, collect
from pruning.cli import main
from pruning.errors import DataError, FileRefused, RecipeError
from pruning.formats import datasets
from pruning.formats.datasets import Settings, batches, images, source
from pruning.formats.datasets.division import divided
from pruning.runs import cache_keys
from pruning.runs.resolve import describe, resolve
from sample_models.data import digits_table

Made = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNING_HOME", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def picture(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def flat(value: int, size: tuple[int, ...] = (8, 8)) -> bytes:
    return picture(np.full(size, value))


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def by_class(count: int = 6, classes: str = "ab", start: str = "") -> dict[str, bytes]:
    return {
        f"{start}{label}/{number}.png": flat(20 * number + 100 * (label == "b"))
        for label in classes
        for number in range(count)
    }


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def direct(content: bytes, folder: Path, target: str = "", most: int = 1 << 30) -> Any:
    """What the reading process does, without the process: most tests need not wait for one."""
    return source.of_file(io.BytesIO(content), target, folder, most)


def values(written: Any, folder: Path) -> np.ndarray:
    return np.fromfile(folder / "x.bin", written.dtype).reshape(-1, *written.shape)


# ---------------------------------------------------------------- reading


def test_pictures_of_a_zip_are_its_pixels_by_class(tmp_path: Path) -> None:
    members = {f"my set/{name}": content for name, content in by_class().items()}
    members |= {"__MACOSX/my set/a/._1.png": b"x", "my set/readme.txt": b"hello"}
    written = direct(zipped(members), tmp_path)
    assert written.classes == ["a", "b"] and written.shape == (1, 8, 8)
    pixels = values(written, tmp_path)[:, 0, 0, 0]
    assert pixels.tolist() == [20 * n for n in range(6)] + [20 * n + 100 for n in range(6)]
    assert np.load(tmp_path / "y.npy").tolist() == [0] * 6 + [1] * 6
    assert not (tmp_path / "part.npy").exists()
    assert written.notes == ["Passed over, being no picture: 1 file."]


def test_folders_that_divide_are_kept_and_deeper_ones_are_the_class(tmp_path: Path) -> None:
    members = by_class(4, start="train/") | by_class(3, start="val/")
    members |= {"train/a/deep/9.png": flat(9)}
    written = direct(zipped(members), tmp_path)
    assert written.classes == ["a", "b"] and written.examples == 15
    assert np.bincount(np.load(tmp_path / "part.npy")).tolist() == [9, 6]


def test_pictures_of_several_sizes_and_modes_become_one(tmp_path: Path) -> None:
    members = by_class(3)
    members |= {
        "a/wide.jpg": picture(np.full((20, 60, 3), 128), "JPEG"),
        "b/16bit.png": _sixteen_bits(),
        "b/clear.png": _transparent(),
    }
    written = direct(zipped(members), tmp_path)
    pixels = values(written, tmp_path)
    assert written.shape == (3, 8, 8) and pixels.dtype == np.uint8
    assert abs(int(pixels[3].mean()) - 128) < 3  # the JPEG, last of class a
    clear = pixels[-1]
    assert (clear == 255).all(), "what is transparent is shown on white"
    assert "scaled and cut to 8 × 8" in " ".join(written.notes)


def _sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def _transparent() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_broken_pictures_are_named_and_passed_over(tmp_path: Path) -> None:
    large = picture(np.random.default_rng(0).integers(0, 256, (60, 60)))
    broken = {"a/torn.png": flat(7)[:40], "b/half.png": large[:2000], "b/no.jpg": b"not a picture"}
    written = direct(zipped(by_class() | broken), tmp_path)
    assert written.examples == 12
    assert "Passed over, being unreadable: a/torn.png, b/half.png, b/no.jpg." in written.notes


def test_channels_of_an_npz_come_first_and_parts_are_kept(tmp_path: Path) -> None:
    x = np.arange(12 * 8 * 9 * 3, dtype=np.uint8).reshape(12, 8, 9, 3)
    y = np.arange(12) % 2
    content = npz(x_train=x[:8], y_train=y[:8], x_test=x[8:], y_test=y[8:], other=np.zeros(3))
    written = direct(content, tmp_path)
    assert written.shape == (3, 8, 9) and written.dtype == "uint8"
    assert (values(written, tmp_path) == x.transpose(0, 3, 1, 2)).all()
    assert np.load(tmp_path / "part.npy").tolist() == [0] * 8 + [2] * 4
    assert "Not used: other.npy." in written.notes


@pytest.mark.parametrize(
    "y, classes",
    [
        (np.array([3, 5, 7] * 3), ["3", "5", "7"]),
        (np.eye(3)[[0, 1, 2] * 3], ["0", "1", "2"]),
        (np.linspace(0, 1, 9), []),
        (np.random.default_rng(0).random((9, 2)), []),
    ],
)
def test_targets_of_an_npz(y: np.ndarray, classes: list[str], tmp_path: Path) -> None:
    written = direct(npz(x=np.ones((9, 4), np.float64), y=y), tmp_path)
    stored = np.load(tmp_path / "y.npy")
    assert written.classes == classes and written.dtype == "float32"
    assert stored.dtype == (np.int64 if classes else np.float32)
    if classes:
        assert stored.tolist() == [0, 1, 2] * 3
    else:
        assert np.allclose(stored, y.reshape(9, -1))


def test_a_table_of_numbers_and_words(tmp_path: Path) -> None:
    rows = ["size;colour;kind;price", "1;red;x;10.5", "2;blue;y;20", ";red;x;30.25", "4;red;y;"]
    written = direct("\n".join(rows).encode(), tmp_path, "Price")
    assert written.classes == [] and written.examples == 3
    # size, colour=blue, colour=red, kind=x, kind=y; the empty size is the mean of 1 and 2.
    expected = [[1, 0, 1, 1, 0], [2, 1, 0, 0, 1], [1.5, 0, 1, 1, 0]]
    assert values(written, tmp_path).tolist() == expected
    assert np.load(tmp_path / "y.npy").tolist() == [[10.5], [20.0], [30.25]]
    notes = " ".join(written.notes)
    assert "without a target: 1 row" in notes and "1 empty or infinite cell" in notes


def test_a_table_of_classes_without_a_header(tmp_path: Path) -> None:
    rows = "\n".join(f"{n},{n * n},{'cat' if n % 2 else 'dog'}" for n in range(8))
    written = direct(f"a,b,label\n{rows}".encode(), tmp_path)
    assert written.classes == ["cat", "dog"]
    bare = "\n".join(f"{n},{n * n},{n % 2}" for n in range(8))
    written = direct(bare.encode(), tmp_path)
    assert written.examples == 8 and written.classes == ["0", "1"]


def idx_file(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def idx_files() -> dict[str, bytes]:
    x, y = np.arange(12 * 64).reshape(12, 8, 8) % 251, np.arange(12) % 3
    return {
        "MNIST/raw/train-images-idx3-ubyte": idx_file(x[:9]),
        "MNIST/raw/train-labels-idx1-ubyte": idx_file(y[:9]),
        "MNIST/raw/t10k-images-idx3-ubyte": idx_file(x[9:]),
        "MNIST/raw/t10k-labels-idx1-ubyte": idx_file(y[9:]),
    }


def test_idx_files_as_torchvision_has_them(tmp_path: Path) -> None:
    written = direct(zipped(idx_files()), tmp_path)
    assert written.kind == "idx" and written.shape == (1, 8, 8)
    assert (values(written, tmp_path)[10].ravel() == np.arange(640, 704) % 251).all()
    assert np.load(tmp_path / "part.npy").tolist() == [0] * 9 + [2] * 3


# ---------------------------------------------------------------- hostile


def _object_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{}, {}], dtype=object), y=np.array([0, 1]))
    return buffer.getvalue()


def _lying_npz() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    y = io.BytesIO()
    np.save(y, np.zeros(10**3))
    return zipped({"x.npy": header.getvalue() + bytes(64), "y.npy": y.getvalue()})


def _bomb_png() -> bytes:
    """A few bytes that claim 60,000 × 60,000 pixels."""
    content = bytearray(flat(1))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def _links() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for label in "ab":
            for number in range(4):
                info = zipfile.ZipInfo(f"{label}/{number}.png")
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _lying_sizes() -> bytes:
    """The directory claims that a member has four gigabytes."""
    content = zipped(by_class(3), zipfile.ZIP_STORED)
    place = content.rindex(b"PK\x01\x02")
    return content[: place + 20] + struct.pack("<II", 2**32 - 2, 2**32 - 2) + content[place + 28 :]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "zip-slip": (zipped({"../../etc/a/1.png": flat(1)}), "lead elsewhere"),
    "absolute": (zipped({"/a/1.png": flat(1)}), "lead elsewhere"),
    "backslash": (zipped({"..\\a\\1.png": flat(1)}), "lead elsewhere"),
    "links": (_links(), "holds no pictures"),
    "bomb": (zipped({f"{c}/{n}.png": _bomb_png() for c in "ab" for n in range(3)}), "none could"),
    "one class": (zipped(by_class(4, "a")), "one class"),
    "few": (zipped(by_class(4) | {"c/1.png": flat(1)}), "has 1 example of class 'c'"),
    "no folders": (zipped({f"{n}.png": flat(n) for n in range(4)}), "class is not known"),
    "text": (zipped({"readme.txt": b"hello"}), "holds no pictures"),
    "mostly broken": (
        zipped(by_class(2) | {f"a/x{n}.png": b"no" for n in range(9)}),
        "9 of 13 pictures that cannot be read",
    ),
    "cifar": (zipped({"cifar-10-batches-py/data_batch_1": pickle.dumps(1)}), "Python pickles"),
    "pickle": (pickle.dumps({"x": 1}), "Python pickle, which is a program"),
    "office": (zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "Office document"),
    "objects": (_object_array(), "Python objects in x.npy"),
    "lying shape": (_lying_npz(), "its header claims the shape"),
    "no x": (npz(a=np.ones(3), b=np.ones(3)), "no arrays x and y"),
    "lengths": (npz(x=np.ones((4, 2)), y=np.zeros(5, int)), "4 inputs in x.npy but 5 targets"),
    "nan": (npz(x=np.full((4, 2), np.nan), y=np.arange(4) % 2), "NaN or infinite"),
    "fortran": (npz(x=np.asfortranarray(np.ones((4, 2))), y=np.zeros(4)), "Fortran"),
    "words": (npz(x=np.array(["a", "b"]), y=np.zeros(2)), "save whole numbers or floats"),
    "cut off": (zipped(by_class())[:-30], "cut off or damaged"),
    "bzip2": (
        zipped(idx_files(), zipfile.ZIP_BZIP2).replace(b"BZh9", b"BZh0"),
        "cut off or damaged",
    ),
    "begins late": (b"PK" + npz(x=np.ones((4, 2)), y=np.arange(4) % 2)[20:], "cut off or damaged"),
    "no names": (zipped({"N.png": flat(1)}).replace(b"N.png", b"\0.png"), "cut off or damaged"),
    "lying size": (_lying_sizes(), ""),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "tar": (b"\x1f\x8b" + bytes(99), "tar.gz"),
    "binary": (bytes(range(256)) * 9, "no data set that is known"),
    "one column": (b"a\n1\n2\n3\n", "has one column"),
    "ragged": (b"a,b\n1,2\n1,2,3,4\n", "no table that can be read"),
    "wider rows": (b"a,b\n1,2,0\n1,2,1\n1,2,1\n", "rows of more cells than the 2"),
    "huge targets": (b"a,b\n1,1e99\n2,2\n3,3\n", "holds targets over 3e+38"),
    "infinite targets": (b"a,b\n1,inf\n2,2\n3,3\n", "holds targets that are infinite"),
    "no targets": (b"a,b\n1,\n2,\n3,\n", "has one class"),
    "latin": ("a,b\n1,ü\n2,ö\n3,ä\n".encode("latin-1"), "UTF-8"),
    "few rows": (b"a,b\n1,2\n", "has 1 row of examples"),
    "wide": (("a," * 20_000 + "b\n").encode(), "20,001 columns"),
    "idx torn": (
        zipped({n: c[:-5] for n, c in idx_files().items()}),
        "no whole idx file",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_useless_files_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    from pruning.formats import guard

    content, why = HOSTILE[kind]
    if kind == "lying size":  # read to its true end, or refused: never four gigabytes
        try:
            with guard.guarded("file"):
                assert direct(content, tmp_path).examples <= 6
        except FileRefused:
            pass
        return
    with pytest.raises(FileRefused) as refused, guard.guarded("file.zip"):
        direct(content, tmp_path)
    message = str(refused.value)
    assert message.startswith("file.zip ") and why in message and "\n" not in message
    assert len(message) < 500


def test_a_bomb_among_pictures_is_passed_over(tmp_path: Path) -> None:
    written = direct(zipped(by_class() | {"a/bomb.png": _bomb_png()}), tmp_path)
    assert written.examples == 12 and "a/bomb.png" in " ".join(written.notes)


def test_more_numbers_than_may_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="--data PATH"):
        direct(npz(x=np.zeros((1000, 1000), np.uint8), y=np.arange(1000) % 2), tmp_path, most=10**5)


def test_links_and_special_files_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name, content in by_class().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "a" / "secret.png").symlink_to("/etc/passwd")
    (folder / "c").symlink_to(folder / "a")
    files, notes = images.of_folder(folder)
    assert len(files) == 12 and notes == ["Passed over: 2 links. Only plain files are read."]


# ---------------------------------------------------------------- split and settings


def test_the_split_has_each_class_in_proportion_and_follows_the_seed() -> None:
    targets = np.repeat([0, 1, 2], [100, 20, 3])
    parts = divided(targets, None, Settings())
    counts = [np.bincount(targets[part], minlength=3).tolist() for part in parts]
    assert counts == [[70, 14, 1], [15, 3, 1], [15, 3, 1]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(123))
    again = divided(targets, None, Settings())
    other = divided(targets, None, Settings(seed=1))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert not (parts[2] == other[2]).all()


def test_parts_that_the_owner_made_stay() -> None:
    targets = np.arange(100) % 2
    own = np.repeat([0, 2], [80, 20])
    train, validation, test = divided(targets, own, Settings())
    assert test.tolist() == list(range(80, 100))
    assert len(validation) == 14 and len(train) == 66  # 15 of the 85 shares that are no test's
    values = np.linspace(0, 1, 100)[:, None].astype(np.float32)
    assert [len(part) for part in divided(values, None, Settings())] == [70, 15, 15]


@pytest.mark.parametrize(
    "values",
    [
        {"train": 0.9},
        {"train": 1.0, "validation": 0.0, "test": 0.0},
        {"normalisation": "other"},
        {"size": 5000},
        {"seed": -1},
        {"unknown": 1},
        {"train": "much"},
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Settings.of(values)


# ---------------------------------------------------------------- kept, joined, pruned


def digits_zip(folder: Path, count: int = 600) -> Path:
    members = {}
    for number, row in enumerate(digits_table()[:count]):
        pixels = row[:64].reshape(8, 8) * 255 / 16
        members[f"digits/{int(row[64])}/{number}.png"] = picture(pixels)
    file = folder / "digits.zip"
    file.write_bytes(zipped(members))
    return file


@pytest.fixture
def digits(tmp_path: Path) -> Iterator[datasets.DataSet]:
    yield datasets.accept(digits_zip(tmp_path))


def test_a_zip_is_read_in_its_process_kept_and_joined_to_a_sample(
    digits: datasets.DataSet, tmp_path: Path, workspace: Path
) -> None:
    assert digits.classes == tuple("0123456789") and digits.examples == 600
    assert sum(digits.counts) == 600 and sum(digits.by_class) == 600
    again = datasets.accept(tmp_path / "digits.zip")
    assert again.accepted == digits.accepted  # known: not read again
    model = datasets.joined("digits-cnn", digits.id)
    work = resolve(model)
    # Scaled as the sample's own data was, so that the shipped weights see what they know.
    assert pruning.measure(work).accuracy.value > 0.95
    assert work.name == "digits-cnn on digits.zip" and work.augment is None
    assert describe(model)["data"]["examples"] == 600

    shown, labels = datasets.examples(digits, 10)
    assert shown.shape == (10, 8, 8) and labels == list("0123456789")

    other = datasets.adjusted(digits.id, replace(digits.settings, seed=1, normalisation="unit"))
    assert other.id != digits.id and datasets.get(other.id) == other
    unit = resolve(datasets.joined("digits-cnn", other.id))
    assert float(unit.train.x.min()) == 0 and float(unit.train.x.max()) == 1
    assert datasets.adjusted(other.id, digits.settings).id == digits.id
    names = [model, datasets.joined("digits-cnn", other.id), "digits-cnn"]
    assert len({cache_keys.facts(name, workspace) for name in names}) == 3

    # A model of three channels and other sizes takes the same pictures.
    grown = replace(work, model=Colour(), example=torch.zeros(2, 3, 12, 12), classes=())
    fitted = batches.joined(grown, digits)
    assert fitted.train.x.shape[1:] == (3, 12, 12) and fitted.classes == digits.classes
    flat_one = replace(work, model=nn.Linear(64, 10), example=torch.zeros(2, 64))
    assert batches.joined(flat_one, digits).train.x.shape[1:] == (64,)

    few = replace(work, model=Colour(classes=3), example=torch.zeros(2, 3, 8, 8), classes=())
    with pytest.raises(DataError, match="3 outputs, and the data has 10 classes"):
        batches.joined(few, digits)
    with pytest.raises(DataError, match="takes inputs of shape 7"):
        batches.joined(replace(work, example=torch.zeros(2, 7)), digits)


class Colour(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def test_what_does_not_fit_into_memory_is_mapped_and_equal(
    digits: datasets.DataSet, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = resolve(datasets.joined("digits-mlp", digits.id))
    monkeypatch.setattr(batches, "IN_MEMORY", 1000)
    mapped = batches.joined(resolve("digits-mlp"), digits, batches.scale_of(0.3053, 0.3758))
    file = next((workspace / "datasets" / digits.id).glob("x-*.f32"))
    assert file.stat().st_size == 600 * 64 * 4
    usual = batches.joined(resolve("digits-mlp"), digits, batches.scale_of(0.3053, 0.3758))
    assert torch.equal(mapped.test.x, usual.test.x)
    assert mapped.test.x.shape == work.test.x.shape and mapped.test.x.std() > 0.5


def test_the_shell_prunes_on_a_folder_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(digits_zip(tmp_path, 300)) as file:
        file.extractall(tmp_path)
    folder = str(tmp_path / "digits")
    settings = ["--data-settings", "seed=3"]
    args = ["run", "--model", "digits-mlp", "--data", folder, "--sparsity", "0.5", "--json"]
    assert main([*args, *settings]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["accuracy_after"]["value"] > 0.8
    assert main(["data", folder, *settings, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["settings"]["seed"] == 3
    assert main(["run", "--model", f"digits-mlp@data:{about['id']}", "--data-settings", "size=x"])
    assert "size is 'x'" in capsys.readouterr().err
    assert main(["measure", "--model", "digits-mlp", "--data", str(tmp_path / "no")]) == 2
    assert "check the path" in capsys.readouterr().err
    assert main(["run", "--model", "digits-mlp@data:../../etc"]) == 2
    assert "no data set" in capsys.readouterr().err


def test_values_of_a_table_are_learnt_by_their_own_metric(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((90, 5))
    np.savetxt(tmp_path / "t.csv", np.c_[x, x.sum(1)], delimiter=",", fmt="%.5f")
    data = datasets.accept(tmp_path / "t.csv")
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    work = batches.joined(Workpiece("net", net), data)
    assert work.train.x.mean().abs() < 1e-5 and work.metric.name == "mean absolute error"
    end = list(pruning.run(Recipe(sparsity=0.5, epochs=1), work))[-1]
    assert end.final.loss is not None


def test_a_process_that_reads_a_hostile_file_answers(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(_object_array())
    with pytest.raises(FileRefused, match=r"bad\.npz holds Python objects"):
        datasets.accept(tmp_path / "bad.npz")
    with pytest.raises(FileRefused, match="not a plain file"):
        datasets.accept(tmp_path)  # a folder, and nobody who started this named it


def test_changed_numbers_on_the_disk_are_refused(digits: datasets.DataSet, workspace: Path) -> None:
    (workspace / "datasets" / digits.id / "x.bin").write_bytes(b"short")
    with pytest.raises(FileRefused, match="changed on disk"):
        resolve(datasets.joined("digits-mlp", digits.id))


# ---------------------------------------------------------------- from code


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index >= 10:
            raise IndexError
        return {"a": torch.full((3,), index), "b": np.ones(2), "labels": index % 2}


def test_loaders_and_data_sets_are_read_once() -> None:
    x, y = torch.randn(20, 4), torch.arange(20) % 2
    for given_as in (DataLoader(TensorDataset(x, y), 8), TensorDataset(x, y), (x, y)):
        data = Batches.of(given_as)
        assert torch.equal(data.x, x) and torch.equal(data.y, y)
    assert Batches.of(DataLoader(TensorDataset(x, y), 8)).batch == 8
    several = Batches.of(Pairs())
    assert isinstance(several.x, tuple) and several.x[0][9].tolist() == [9] * 3
    assert several.y.tolist() == [0, 1] * 5
    loader = DataLoader(TensorDataset(x, y), 8)
    work = Workpiece("net", nn.Linear(4, 2), train=loader, validation=loader, test=loader)  # type: ignore[arg-type]
    end = list(pruning.run(Recipe(sparsity=0.5), work))[-1]
    assert end.final.accuracy.total == 20


def test_a_loader_that_does_not_fit_into_memory_is_mapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = torch.randn(20, 4), torch.arange(20)
    monkeypatch.setattr(collect, "_free_memory", lambda: 100)
    data = Batches.of(DataLoader(TensorDataset(x, y), 8, drop_last=True))
    assert torch.equal(data.x, x[:16]) and torch.equal(data.y, y[:16])


@pytest.mark.parametrize(
    "source, why",
    [
        (3, "is no data"),
        ([torch.zeros(3)], "could not be stacked|without targets"),
        ([(Image.new("L", (2, 2)), 0)], "ToTensor"),
        ([(torch.zeros(2), 0), (torch.zeros(3), 1)], "one size"),
        (DataLoader(TensorDataset(torch.zeros(0, 2), torch.zeros(0))), "no examples"),
        ([{"a": 1, "b": 2}], "call its targets labels"),
    ],
)
def test_what_is_no_data_is_refused(source: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        Batches.of(source)
