"""The zip that torch.save writes, judged by its directory.

It is one folder with `data.pkl`, and the numbers as plain members beside it. torch.save stores and
never compresses, so nothing here is ever decompressed: a zip bomb has nothing to expand.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.magic import HOW_TO_SAVE

SCRIPT = (
    "is TorchScript, which is a program: where you trust it, load it with torch.jit.load "
    "and save its state_dict() with torch.save."
)
EXPORT = (
    "is an exported program (.pt2), which is not only weights: "
    "where you have the model, save model.state_dict() with torch.save."
)
COMPRESSED = (
    "is a compressed zip file, and torch.save never compresses: "
    "unpack it, or save it again with torch.save."
)
DAMAGED = "is a damaged zip file: save or download it again."
CUT_OFF = "is cut off: save or download it again."

EXPORT_MEMBERS = {"archive_format", "serialized_exported_program.json"}

LOCAL = 30
"""Bytes of a member's own header before its name."""


@dataclass(frozen=True)
class Archive:
    """A torch.save file's members.

    members: name below the folder -> where its own header lies in the file, and its bytes.
    """

    file: BinaryIO
    length: int
    members: dict[str, tuple[int, int]]

    def place(self, member: str) -> tuple[int, int]:
        """(start, bytes) of a member's content."""
        if member not in self.members:
            raise FileRefused(
                f"names numbers ({member[:20]!a}) that it does not hold: save or download it again."
            )
        # The directory at the file's end says where a member's own header lies, not its content.
        header, size = self.members[member]
        if not 0 <= header < self.length:
            raise FileRefused(DAMAGED)
        self.file.seek(header)
        local = self.file.read(LOCAL)
        if len(local) < LOCAL or local[:4] != b"PK\x03\x04":
            raise FileRefused(DAMAGED)
        # Two lengths at the header's end: of the name and of the extra field, which follow it.
        start = header + LOCAL + sum(struct.unpack("<HH", local[26:30]))
        if start + size > self.length:
            raise FileRefused(CUT_OFF)
        return start, size

    def read(self, member: str, most: int) -> bytes:
        """All of a member of up to `most` bytes."""
        start, size = self.place(member)
        if size > most:
            raise FileRefused(
                f"has {size:,} bytes of {member}, over the {most:,} that are read: "
                "save only the model's state_dict()."
            )
        self.file.seek(start)
        return self.file.read(size)


def archive(file: BinaryIO, length: int) -> Archive:
    """The members of a file of `length` bytes; FileRefused for zips not written by torch.save."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError):
        raise FileRefused(
            "is a zip file that is cut off or damaged: save or download it again."
        ) from None
    # zipfile has made an object for each by now, which the process's limit of memory bounds.
    if len(infos) > limits.MEMBERS:
        raise FileRefused(
            f"has {len(infos):,} members, over the {limits.MEMBERS:,} that are read: "
            "save only the model's state_dict()."
        )
    _judge_kind([info.filename for info in infos])
    _judge_folder(infos)
    for info in infos:
        _judge_member(info)
    # Members may lie on top of each other: together they must still fit.
    if sum(info.file_size for info in infos) > length:
        raise FileRefused(DAMAGED)
    members = {_below(info.filename): (info.header_offset, info.file_size) for info in infos}
    return Archive(file, length, members)


def _below(name: str) -> str:
    """A member's name below its folder."""
    return name.partition("/")[2]


def _judge_kind(names: list[str]) -> None:
    """Refuses, by name, the other zips that people have models in."""
    below = {_below(name) for name in names}
    # TorchScript has a data.pkl too, so it must be told apart before that is looked for.
    if "constants.pkl" in below or any(name.startswith("code/") for name in below):
        raise FileRefused(SCRIPT)
    exported = EXPORT_MEMBERS & (below | set(names))
    if exported or any(name.startswith("models/") for name in below):
        raise FileRefused(EXPORT)
    if "model.weights.h5" in names:
        raise FileRefused(
            "is a Keras file that was packed anew: save it with Keras's model.save()."
        )
    if names and all(name.endswith(".npy") for name in names):
        raise FileRefused(
            f"is a NumPy .npz file, and that is not read yet: in PyTorch, {HOW_TO_SAVE}."
        )
    if "data.pkl" not in below:
        raise FileRefused(f"is a zip file that torch.save did not write: {HOW_TO_SAVE}.")


def _judge_folder(infos: list[zipfile.ZipInfo]) -> None:
    """One folder, and each name once."""
    names = {info.filename for info in infos}
    folders = {name.partition("/")[0] for name in names}
    if len(folders) != 1 or len(names) < len(infos):
        raise FileRefused(
            "is a zip file that torch.save did not write (its members are not one folder): "
            f"{HOW_TO_SAVE}."
        )


def _judge_member(info: zipfile.ZipInfo) -> None:
    """A plain name, and content stored as it is."""
    parts = info.filename.split("/")
    # The original name too: zipfile cuts names at a NUL, and turns backslashes on Windows.
    odd = "\\" in info.orig_filename or "\x00" in info.orig_filename
    if odd or ".." in parts or "" in parts:
        raise FileRefused(f"is a zip file with paths in it that lead elsewhere: {HOW_TO_SAVE}.")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise FileRefused(COMPRESSED)
    if info.flag_bits & 0x1:
        raise FileRefused("is an encrypted zip file: save it again with torch.save.")
