"""The guard: every untrusted file is read here, and what is wrong with it becomes a FileRefused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats import checkpoint, limits, magic, safe
from pruning.formats.types import Contents, file_name
from pruning.storage import is_full

TOO_MUCH_MEMORY = f"needs more than the {limits.MEMORY >> 20:,} MiB of memory that reading may take"
LESS = "save only the model's state_dict()"
OUT_OF_MEMORY = f"{TOO_MUCH_MEMORY}: {LESS}."
DISK_FULL = "could not be kept, because the disk is full: free some space and try again."
TOO_LARGE = (
    f"is larger than the {limits.LARGEST >> 20:,} MiB that are read: "
    "save only the model's state_dict()."
)


@contextmanager
def guarded(name: str, less: str = LESS) -> Iterator[None]:
    """Whatever fails inside becomes a FileRefused that begins with the file's name.

    less: what to do where memory does not do.
    """
    try:
        yield
    except FileRefused as refused:
        reason = str(refused)
    except MemoryError:
        reason = f"{TOO_MUCH_MEMORY}: {less}."
    except OSError as error:
        if is_full(error):
            reason = DISK_FULL
        else:
            reason = f"could not be read or kept ({error.strerror}): check the disk and try again."
    # Whatever else a hostile file provokes: one sentence, and the page goes on.
    except Exception as error:
        reason = f"could not be read ({type(error).__name__}): save or download it again."
    else:
        return
    # Outside of the handlers, so that no traceback of the reader hangs on to the refusal.
    raise FileRefused(f"{file_name(name)} {reason}")


def kind(file: BinaryIO, length: int) -> str:
    """What a file of `length` bytes is, by its first bytes."""
    if length > limits.LARGEST:
        raise FileRefused(TOO_LARGE)
    file.seek(0)
    return magic.kind(file.read(magic.HEAD), length)


def contents(file: BinaryIO, length: int, name: str) -> Contents:
    """What a file of `length` bytes holds. Runs nothing in it; raises nothing but FileRefused."""
    # By content alone: what a file is called says nothing of what it is.
    with guarded(name):
        what = kind(file, length)
        if what == magic.TORCH:
            return checkpoint.contents(file, length)
        if what in magic.NETWORKS:
            which = "an ONNX" if what == magic.ONNX else "a Keras"
            raise FileRefused(f"is {which} file: bring it by itself, not as a part of a set.")
        return safe.contents(file, length)
    raise AssertionError("guarded either returns or raises")
