"""The door: every file from outside is read here, and whatever is wrong with it becomes one FileRefused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats import checkpoint, limits, magic, safe
from pruning.formats.types import Contents, file_name

OUT_OF_MEMORY = f"needs more than the {limits.MEMORY >> 20:,} MiB of memory that reading may take: save only the model's state_dict()."
TOO_LARGE = f"is larger than the {limits.LARGEST >> 20:,} MiB that are read: save only the model's state_dict()."


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a FileRefused whose sentence begins with the file's name."""
    try:
        yield
    except FileRefused as refused:
        raise FileRefused(f"{file_name(name)} {refused}") from None
    except MemoryError:
        raise FileRefused(f"{file_name(name)} {OUT_OF_MEMORY}") from None
    except OSError as error:
        raise FileRefused(
            f"{file_name(name)} could not be read or kept ({error.strerror}): check the disk and try again."
        ) from None
    except (
        Exception
    ) as error:  # whatever a hostile file provokes: one sentence, and the page goes on
        raise FileRefused(
            f"{file_name(name)} could not be read ({type(error).__name__}): save or download it again."
        ) from None


def kind(file: BinaryIO, length: int) -> str:
    """What a file of `length` bytes is, by its first bytes."""
    if length > limits.LARGEST:
        raise FileRefused(TOO_LARGE)
    file.seek(0)
    return magic.kind(file.read(magic.HEAD), length)


def contents(file: BinaryIO, length: int, name: str) -> Contents:
    """What a file of `length` bytes holds. Runs nothing in it, and raises nothing but FileRefused."""
    with guarded(name):
        return (
            checkpoint.contents(file, length)
            if kind(file, length) == magic.TORCH
            else safe.contents(file, length)
        )
    raise AssertionError("guarded either returns or raises")
