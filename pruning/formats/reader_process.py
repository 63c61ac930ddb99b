"""The reading process: `python -m pruning.formats.reader_process FOLDER NAME`, the file as stdin.

It sets limits on itself first, and gives up the network and all other files where it can.
FOLDER/ask.json says what to do: {} describes; {"numbers": true} also judges every number;
{"network": true} converts a graph with its weights, and writes it so;
{"model", "shapes", "whole", "head", "others", "known"} matches, judges and writes
FOLDER/model.safetensors; where that fails, "fits" of the answer names the others that would have
matched, as it does of a question without "shapes". "parts" are the lengths of the files that lie
end to end in it, where it is a set. The answer is FOLDER/answer.json: plain JSON, never a pickle.
Nothing of torch is imported: it would not be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.confine import confine
from pruning.formats.parent import end_with_parent
from pruning.formats.types import Contents, Expected

if TYPE_CHECKING:
    from pruning.formats.match import Match


def bind(
    wall: float = limits.WALL, cpu: int = limits.CPU, written: int = 4 * limits.LARGEST
) -> None:
    """Limits on this process: memory, processor time, time on the clock, what it may write, how
    many files it may have open; and it starts no other.

    wall, cpu: seconds; written: bytes.
    """
    # Later than the parent's own clock, which is all there is where a system has no limits.
    if hasattr(signal, "alarm"):
        signal.alarm(int(wall) + 5)
    with contextlib.suppress(ImportError):
        import resource

        bounds = {
            resource.RLIMIT_AS: limits.MEMORY,
            resource.RLIMIT_CPU: cpu,
            resource.RLIMIT_FSIZE: written,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: limits.FILES,
            resource.RLIMIT_NPROC: 0,
        }
        for what, most in bounds.items():
            with contextlib.suppress(ValueError, OSError):  # macOS refuses some
                resource.setrlimit(what, (most, most))


def answer(file: BinaryIO, name: str, folder: Path) -> dict[str, Any]:
    """What was found, as plain data; a refusal is an answer too."""
    question = json.loads((folder / "ask.json").read_bytes())
    result: dict[str, Any] = {}
    try:
        _read(file, name, folder, question, result)
    except FileRefused as refused:
        # Beside what was found until then: a page lists the tensors of a refused file too.
        result["refusal"] = str(refused)
    return result


def _read(
    file: BinaryIO, name: str, folder: Path, question: dict[str, Any], result: dict[str, Any]
) -> None:
    # Imported here, under the limits, like all that reads.
    from pruning.formats import guard, magic, numbers, shards
    from pruning.formats.diagnosis import diagnosed

    with guard.guarded(name):
        kind = guard.kind(file, os.fstat(file.fileno()).st_size)
        if kind in magic.NETWORKS and not question.get("parts"):
            _read_network(kind, file, folder, question, result)
            return
    if question.get("parts"):
        contents = shards.contents(file, question["parts"], name)
    else:
        contents = guard.contents(file, os.fstat(file.fileno()).st_size, name)
    result |= _description(contents)
    with guard.guarded(name):
        if "shapes" in question:
            matched = _matched(contents, question, result, name)
            _write(file, matched, folder / "model.safetensors")
            result |= {"notes": matched.notes, "classes": matched.classes}
        elif "others" in question:
            result["fits"] = _others(contents, question)
            reason = diagnosed(contents.entries, name) if not result["fits"] else None
            if reason is not None:
                raise FileRefused(reason)
        elif question.get("numbers"):
            numbers.judge(file, contents.entries)


def _read_network(
    kind: str, file: BinaryIO, folder: Path, question: dict[str, Any], result: dict[str, Any]
) -> None:
    """A graph with its weights; with "network" of the question, written as what is kept of it."""
    from pruning.formats import magic
    from pruning.formats.onnx import kept

    result["format"] = kind
    try:
        if kind == magic.KERAS:
            from pruning.formats.keras import convert as keras
        else:
            from pruning.formats.onnx import convert as onnx
    except ModuleNotFoundError as missing:
        # They are no dependencies of the installed package, but of its extras.
        raise FileRefused(
            f"needs the package {missing.name}, which is not installed: `pip install "
            f"{missing.name}`, then open it again."
        ) from None
    program = keras.program(file, folder) if kind == magic.KERAS else onnx.program(file)
    tensors = [[name, shape, dtype, size] for name, dtype, shape, size in kept.rows(program)]
    result |= {"tensors": tensors, "notes": program.notes, "classes": program.classes}
    if question.get("network"):
        kept.write(program, folder / "model.safetensors")


def _description(contents: Contents) -> dict[str, Any]:
    """What the file holds, its tensors without the prefixes that all names share."""
    from pruning.formats.names import prefixes

    shared = prefixes([entry.name for entry in contents.entries])
    prefix = "".join(shared)
    tensors = [
        [entry.name.removeprefix(prefix), entry.shape, entry.dtype, entry.bytes]
        for entry in contents.entries
    ]
    return {
        "format": contents.format,
        "tensors": tensors,
        "wrappers": [*contents.wrappers, *shared],
        "notes": contents.notes,
    }


def _matched(
    contents: Contents, question: dict[str, Any], result: dict[str, Any], name: str
) -> Match:
    """The file under the architecture's names; where it does not fit, "fits" of the result names
    the others that it does fit.
    """
    from pruning.formats.diagnosis import diagnosed
    from pruning.formats.match import match

    try:
        return match(contents, Expected.from_json(question), question["model"])
    except FileRefused as refused:
        result["fits"] = _others(contents, question)
        # What it is says more than what it lacks.
        reason = diagnosed(contents.entries, name) if not result["fits"] else None
        raise FileRefused(reason or str(refused)) from None


def _others(contents: Contents, question: dict[str, Any]) -> list[str]:
    """Other samples and torchvision architectures that the file fits."""
    from pruning.formats.fingerprints import Fingerprint, recognised
    from pruning.formats.match import match

    fits = []
    for name, shapes in question.get("others", {}).items():
        with contextlib.suppress(FileRefused):
            match(contents, Expected.from_json(shapes), name)
            fits.append(name)
    known = [Fingerprint(name, tuple(head), digest) for name, head, digest in question["known"]]
    names = [f"torchvision:{name}" for name in recognised(contents.entries, known)]
    return fits + [name for name in names if name != question["model"]]


def _write(file: BinaryIO, matched: Match, out_file: Path) -> None:
    """Write the weights under the architecture's names."""
    from pruning.formats import numbers

    with out_file.open("wb") as out:
        numbers.write(file, matched.tensors, out)
        out.flush()
        os.fsync(out.fileno())


def main() -> None:
    end_with_parent()
    bind()
    folder = Path(sys.argv[1])
    confine(folder)
    leave(folder, answer(sys.stdin.buffer, sys.argv[2], folder))


def leave(folder: Path, result: dict[str, Any]) -> None:
    """Write the answer where who asked looks for it."""
    try:
        (folder / "answer.json").write_text(json.dumps(result))
    except OSError as error:
        # There may be no room even for that; without an answer it would count as out of memory.
        sys.exit(error.errno)


if __name__ == "__main__":
    main()
