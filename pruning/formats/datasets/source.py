"""Which kind of data set a file or folder is, by its content alone, and its reader."""

from __future__ import annotations

import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats.datasets import arrays, idx, images
from pruning.formats.datasets.images import File
from pruning.formats.datasets.writer import Written, capped

HEAD = 4096  # bytes that are looked at
HOW = "bring a zip of pictures in a folder for each class, an npz with x and y, or a CSV"

DAMAGED = "is a zip file that is cut off or damaged: save or download it again."

UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x93NUMPY", "one NumPy array without targets"),
    (0, b"\x1f\x8b", "a gzip or tar.gz file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip file"),
    (0, b"Rar!", "a RAR file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"\x89PNG", "one picture"),
    (0, b"\xff\xd8\xff", "one picture"),
    (257, b"ustar", "a tar file"),
)
"""(offset, bytes, what it is), for files that people have examples in and that are not read."""

PICKLES = ("data_batch_1", "test_batch", "batches.meta")
"""Files of CIFAR as torchvision keeps it."""


def of_file(file: BinaryIO, target: str, folder: Path, most: int) -> Written:
    """Read a file. target: of a table; most: bytes that are written. Raises FileRefused."""
    file.seek(0)
    head = file.read(HEAD)
    if not head:
        raise FileRefused("is empty: choose the file again, or save it again.")
    if head.startswith(b"PK"):
        return _of_zip(file, folder, most)
    for offset, mark, name in UNREAD:
        if head[offset : offset + len(mark)] == mark:
            raise FileRefused(f"is {name}, and that is not read: {HOW}.")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise FileRefused(f"is a Python pickle, which is a program: {HOW}.")
    if b"\x00" in head:
        raise FileRefused(f"is no data set that is known here: {HOW}.")
    # pandas takes half of the time and of the memory that reading pictures needs.
    from pruning.formats.datasets import tables

    return tables.read(file, target, folder, most)


def _of_zip(file: BinaryIO, folder: Path, most: int) -> Written:
    try:
        with zipfile.ZipFile(file) as opened:
            _judge(opened.infolist())
            members = [info.filename for info in opened.infolist() if not info.is_dir()]
            if members and all(name.endswith(".npy") for name in members):
                return arrays.read(opened, folder, most)
            if "[Content_Types].xml" in members:
                raise FileRefused("is an Office document: save the table as CSV (UTF-8).")
            files, notes = images.of_zip(opened)
            return _of_files(files, notes, folder, most)
    except (zipfile.BadZipFile, zlib.error, LZMAError, NotImplementedError, EOFError):
        raise FileRefused(DAMAGED) from None
    except OSError as error:
        if error.errno is not None:
            raise  # of the disk; bz2 raises one without a number for damaged data
        raise FileRefused(DAMAGED) from None


def _judge(members: list[zipfile.ZipInfo]) -> None:
    """Raises BadZipFile for members that zipfile lists and cannot open: bytes before them are gone,
    or their names are."""
    if any(info.header_offset < 0 or not info.filename for info in members):
        raise zipfile.BadZipFile("members without a place or a name")


def of_folder(source: Path, folder: Path, most: int) -> Written:
    """Read a folder of whoever started the server or the shell. Raises FileRefused."""
    files, notes = images.of_folder(source)
    return _of_files(files, notes, folder, most)


def _of_files(files: list[File], notes: list[str], folder: Path, most: int) -> Written:
    pickled = [file.path for file in files if file.path.name in PICKLES]
    if pickled:
        raise FileRefused(
            f"holds {capped(str(pickled[0]))}, one of CIFAR's Python pickles, which are programs: "
            "where you trust them, load them with torchvision and save numpy.savez('cifar.npz', "
            "x=dataset.data, y=dataset.targets)."
        )
    if any(idx.is_idx(file) for file in files):
        written = idx.read([file for file in files if idx.is_idx(file)], folder, most)
        written.notes += notes
        return written
    pictures, more = images.classified(files)
    return images.read(pictures, [*notes, *more], folder, most)
