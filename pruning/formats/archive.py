"""The zip that torch.save writes, judged by its directory: one folder, `data.pkl`, and the numbers as plain members beside it.

torch.save stores and never compresses, so nothing here is ever inflated: a bomb has nowhere to go off.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.magic import WAY

SCRIPT = "is TorchScript, which is a program: where you trust it, load it with torch.jit.load and save its state_dict() with torch.save."
EXPORT = "is an exported program (.pt2), which is not only weights: where you have the model, save model.state_dict() with torch.save."
DAMAGED = "is a damaged zip file: save or download it again."
LOCAL = 30  # bytes of a member's own header before its name


@dataclass(frozen=True)
class Archive:
    """A torch.save file's members. members: name below the folder -> where its own header lies, and its bytes."""

    file: BinaryIO
    length: int
    members: dict[str, tuple[int, int]]

    def place(self, member: str) -> tuple[int, int]:
        """(start, bytes) of what a member holds."""
        if member not in self.members:
            raise FileRefused(
                f"names numbers ({member[:20]!a}) that it does not hold: save or download it again."
            )
        header, size = self.members[member]
        self.file.seek(header)
        local = self.file.read(LOCAL)
        if len(local) < LOCAL or local[:4] != b"PK\x03\x04":
            raise FileRefused(DAMAGED)
        start = header + LOCAL + sum(struct.unpack("<HH", local[26:30]))
        if start + size > self.length:
            raise FileRefused("is cut off: save or download it again.")
        return start, size

    def read(self, member: str, most: int) -> bytes:
        """All of a member of up to `most` bytes."""
        start, size = self.place(member)
        if size > most:
            raise FileRefused(
                f"has {size:,} bytes of {member}, over the {most:,} that are read: save only the model's state_dict()."
            )
        self.file.seek(start)
        return self.file.read(size)


def archive(file: BinaryIO, length: int) -> Archive:
    """The members of a file of `length` bytes; FileRefused for zips that torch.save did not write."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError):
        raise FileRefused(
            "is a zip file that is cut off or damaged: save or download it again."
        ) from None
    if len(infos) > limits.MEMBERS:
        raise FileRefused(
            f"has {len(infos):,} members, over the {limits.MEMBERS:,} that are read: save only the model's state_dict()."
        )
    _judge_kind([info.filename for info in infos])
    _judge_members(infos, length)
    found = {
        info.filename.partition("/")[2]: (info.header_offset, info.file_size) for info in infos
    }
    return Archive(file, length, found)


def _judge_kind(names: list[str]) -> None:
    """Refuses, by name, the other zips that people have models in."""
    below = {name.partition("/")[2] for name in names}
    if "constants.pkl" in below or any(name.startswith("code/") for name in below):
        raise FileRefused(SCRIPT)
    if any(name.startswith("models/") for name in below) or {
        "archive_format",
        "serialized_exported_program.json",
    } & (below | set(names)):
        raise FileRefused(EXPORT)
    if "model.weights.h5" in names:
        raise FileRefused(f"is a Keras file, and that is not read yet: in PyTorch, {WAY}.")
    if names and all(name.endswith(".npy") for name in names):
        raise FileRefused(f"is a NumPy .npz file, and that is not read yet: in PyTorch, {WAY}.")
    if "data.pkl" not in below:
        raise FileRefused(f"is a zip file that torch.save did not write: {WAY}.")


def _judge_members(infos: list[zipfile.ZipInfo], length: int) -> None:
    """One folder, plain names, each once, stored as they are, and no more bytes than the file has."""
    folders = {info.filename.partition("/")[0] for info in infos}
    if len(folders) != 1 or len({info.filename for info in infos}) < len(infos):
        raise FileRefused(
            f"is a zip file that torch.save did not write (its members are not one folder): {WAY}."
        )
    for info in infos:
        parts = info.filename.split("/")
        if (
            ".." in parts
            or "" in parts
            or "\\" in info.orig_filename
            or "\x00" in info.orig_filename
        ):
            raise FileRefused(f"is a zip file with paths in it that lead elsewhere: {WAY}.")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FileRefused(
                "is a compressed zip file, and torch.save never compresses: unpack it, or save it again with torch.save."
            )
        if info.flag_bits & 0x1:
            raise FileRefused("is an encrypted zip file: save it again with torch.save.")
    if sum(info.file_size for info in infos) > length:
        raise FileRefused(DAMAGED)
