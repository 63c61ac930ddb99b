"""Files made to do harm: each is refused in one sentence, and nothing in it runs or grows large."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning import formats
from pruning.errors import FileRefused
from pruning.formats import architecture, guard, limits, numbers, sandbox
from pruning.formats.types import Expected
from tests.long_forms import in_part

Made = Callable[[Path], bytes]


def saved(what: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer, **options)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def around(pickled: bytes, **more: bytes) -> bytes:
    """A torch.save file with this pickle."""
    return zipped(
        {
            "a/data.pkl": pickled,
            "a/version": b"3\n",
            "a/data/0": b"\x00" * 64,
            **{f"a/{n}": b for n, b in more.items()},
        }
    )


def tensor(
    shape: str, strides: str, numbers: int = 16, offset: int = 0, kind: str = "torch\nFloatStorage"
) -> bytes:
    """A pickled {"w": a tensor} that claims what it likes, in pickle's own text."""
    storage = f"(Vstorage\nc{kind}\nV0\nVcpu\nL{numbers}L\ntQ"
    claim = f"({storage}L{offset}L\n({shape}t({strides}tI00\nccollections\nOrderedDict\n(tRt"
    return f"(dVw\nctorch._utils\n_rebuild_tensor_v2\n{claim}Rs.".encode()


def safe(header: object, numbers: bytes = b"", room: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if room is None else room) + text + numbers


def at(start: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


class Planted:
    """What a pickle would run: it makes a file, so that a test can see whether it ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Tampered(nn.Linear):
    """A module whose loading would plant a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def module(folder: Path) -> nn.Module:
    made = Tampered(2, 2)
    made.mark = folder / "planted"  # type: ignore[assignment]
    return nn.Sequential(made)


def script(folder: Path) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(4, 2), torch.zeros(1, 4)), buffer)
    return buffer.getvalue()


def exported(folder: Path) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),)), buffer)
    return buffer.getvalue()


def nest(depth: int = 200) -> bytes:
    """A list of ten of a list of ten of ... : 10^depth leaves in a few bytes."""
    return (
        b"\x80\x02(K\x01K\x01l"
        + b"q\x00((h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00l1" * depth
        + b"h\x00."
    )


def quantised() -> Any:
    return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


PROGRAMS: dict[str, tuple[Made, str]] = {
    "a whole module": (
        lambda f: saved(nn.Linear(2, 2)),
        "holds a whole pickled module (torch.nn.modules.linear.Linear), which is a program",
    ),
    "a module in a checkpoint": (
        lambda f: saved({"model": nn.Linear(2, 2)}),
        "holds a whole pickled module",
    ),
    "a planted module": (lambda f: saved(module(f)), "which is a program: save model.state_dict()"),
    "a planted call": (
        lambda f: saved({"w": torch.ones(2), "x": Planted(f / "planted")}),
        "holds a pickled call of posix.system",
    ),
    "a bare planted pickle": (
        lambda f: pickle.dumps(Planted(f / "planted")),
        "another Python pickle, which is a program",
    ),
    "a planted text pickle": (
        lambda f: pickle.dumps(Planted(f / "planted"), 0),
        "is a text file, not weights",
    ),
    "a planted legacy file": (
        lambda f: saved(module(f), _use_new_zipfile_serialization=False),
        "format from before 1.6",
    ),
    "a legacy state_dict": (
        lambda f: saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "format from before 1.6",
    ),
    "TorchScript": (script, "is TorchScript, which is a program"),
    "an exported program": (exported, "is an exported program (.pt2)"),
    "getattr": (lambda f: around(b"cbuiltins\ngetattr\n."), "a pickled call of builtins.getattr"),
    "an old instance": (
        lambda f: around(b"(Vtouch\niposix\nsystem\n."),
        "a pickled call of posix.system",
    ),
    "an extension": (lambda f: around(b"\x80\x02\x82\x01."), "it uses ext1"),
}

BOMBS: dict[str, tuple[Made, str]] = {
    "stride 0": (
        lambda f: saved({"w": torch.zeros(1).expand(10**6, 10**6)}),
        "describes w as larger than the numbers it holds",
    ),
    "64 GiB asked": (
        lambda f: around(tensor("L17179869184L\n", "L1L\n", 1 << 34)),
        "describes w falsely",
    ),
    "64 GiB viewed": (
        lambda f: around(tensor("L17179869184L\n", "L1L\n")),
        "describes w as larger",
    ),
    "a far offset": (
        lambda f: around(tensor("L4L\n", "L1L\n", offset=13)),
        "describes w as larger",
    ),
    "an offset before": (
        lambda f: around(tensor("L4L\n", "L1L\n", offset=-1)),
        "describes w falsely",
    ),
    "strides backwards": (
        lambda f: around(tensor("L4L\n", "L-1L\n")),
        "a shape that is not a list of sizes",
    ),
    "huge strides": (
        lambda f: around(tensor("L2L\nL2L\n", f"L{1 << 40}L\nL1L\n")),
        "describes w as larger",
    ),
    "fewer strides": (lambda f: around(tensor("L2L\nL2L\n", "L1L\n")), "describes w falsely"),
    "rank 10,000": (
        lambda f: around(tensor("L1L\n" * 10_000, "L1L\n" * 10_000)),
        "10,000 dimensions",
    ),
    "names for one storage": (
        lambda f: saved({f"w{i}": w for w in [torch.zeros(10_000)] for i in range(500)}),
        "more numbers than it holds",
    ),
    "a deflated zip": (
        lambda f: zipped(
            {"a/data.pkl": tensor("L4L\n", "L1L\n"), "a/data/0": bytes(100 << 20)},
            zipfile.ZIP_DEFLATED,
        ),
        "is a compressed zip file",
    ),
    "a large pickle": (
        lambda f: around(b"\x80\x02" + b"N0" * (limits.PICKLE // 2) + b"N."),
        "bytes of data.pkl",
    ),
    "10^200 leaves": (lambda f: around(nest()), "holds a list, not a state_dict"),
    "10^200 as a key": (
        lambda f: around(b"\x80\x02}" + b")q\x00" + b"(h\x00h\x00h\x00tq\x00" * 50 + b"Ns."),
        "broken pickle",
    ),
    "10^200 as a name": (
        lambda f: around(b"\x80\x04)q\x00" + b"(h\x00h\x00h\x00tq\x00" * 50 + b"h\x00h\x00\x93."),
        "broken pickle",
    ),
    "itself inside itself": (
        lambda f: around(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."),
        "holds no state_dict",
    ),
    "a meta tensor": (
        lambda f: saved({"w": torch.empty(10**6, 10**6, device="meta")}),
        "w, a tensor without numbers",
    ),
    "a sparse tensor": (
        lambda f: saved({"w": torch.sparse_coo_tensor(size=(10**6, 10**6))}),
        "w, a sparse tensor",
    ),
    "a quantised tensor": (lambda f: saved({"w": quantised()}), "w, a quantised tensor"),
    "complex numbers": (
        lambda f: saved({"w": torch.ones(2, dtype=torch.complex64)}),
        "w in a number format that is not read (C64)",
    ),
    "many tensors": (
        lambda f: saved({f"w{i}": w for w in [torch.ones(1)] for i in range(20_001)}),
        "20,001 tensors",
    ),
    "paths": (
        lambda f: zipped({"a/data.pkl": b"N.", "a/../../../etc/passwd": b""}),
        "paths in it that lead elsewhere",
    ),
    "two folders": (lambda f: zipped({"a/data.pkl": b"N.", "b/data/0": b""}), "are not one folder"),
    "another zip": (
        lambda f: zipped({"word/document.xml": b"<x/>"}),
        "a zip file that torch.save did not write",
    ),
    "NumPy": (
        lambda f: zipped({"w.npy": b"\x93NUMPY"}),
        "a NumPy .npz file, and that is not read yet",
    ),
    "Keras": (
        lambda f: zipped({"config.json": b"{}", "model.weights.h5": b""}),
        "weights that are no HDF5 file",
    ),
    "no numbers": (
        lambda f: zipped({"a/data.pkl": tensor("L4L\n", "L1L\n")}),
        "names numbers ('data/0') that it does not hold",
    ),
    "a storage elsewhere": (
        lambda f: around(tensor("L4L\n", "L1L\n").replace(b"V0\n", b"V../../x\n")),
        "that it does not hold",
    ),
    "big-endian": (lambda f: around(tensor("L4L\n", "L1L\n"), byteorder=b"big"), "big-endian"),
}

SAFE: dict[str, tuple[Made, str]] = {
    "overlap": (
        lambda f: safe({"a": at(0, 4), "b": at(0, 4)}, bytes(4)),
        "b shares its bytes with another tensor",
    ),
    "a gap": (lambda f: safe({"a": at(0, 4), "b": at(8, 12)}, bytes(12)), "b lies after a gap"),
    "cut off": (lambda f: safe({"a": at(0, 4)}, bytes(3)), "is cut off"),
    "more behind": (lambda f: safe({"a": at(0, 4)}, bytes(5)), "has bytes after its last tensor"),
    "a header over the end": (lambda f: safe(b"{}", room=500), "is cut off: its header"),
    "a huge header": (lambda f: safe(b"{}", room=1 << 39), "has a header of 549,755,813,888 bytes"),
    "a deep header": (lambda f: safe(b'{"a":' * 100_000), "a header that is not JSON"),
    "no JSON": (lambda f: safe(b"{a:1}"), "a header that is not JSON"),
    "a name twice": (lambda f: safe(b'{"a":{},"a":{}}'), "lists a name twice"),
    "a path": (
        lambda f: safe({"../../etc/passwd": at(0, 4)}, bytes(4)),
        "an unusable name (..?..?etc?passwd)",
    ),
    "markup": (
        lambda f: safe({"<img src=x onerror=alert(1)>": at(0, 4)}, bytes(4)),
        "an unusable name (?img?src?x?onerror?alert?1??)",
    ),
    "control characters": (
        lambda f: safe({"a\x1b[2J\n": at(0, 4)}, bytes(4)),
        "an unusable name (a??2J?)",
    ),
    "a long name": (lambda f: safe({"a" * 256: at(0, 4)}, bytes(4)), "names are up to 255 letters"),
    "rank 10,000": (lambda f: safe({"a": at(0, 4, [1] * 10_000)}, bytes(4)), "10,000 dimensions"),
    "many tensors": (
        lambda f: safe({f"w{i}": at(0, 0, [0]) for i in range(20_001)}),
        "lists 20,001 tensors",
    ),
    "a false size": (
        lambda f: safe({"a": at(0, 4, [10**6, 10**6])}, bytes(4)),
        "another number of bytes than its shape takes",
    ),
    "negative sizes": (lambda f: safe({"a": at(0, 4, [-1, -1])}, bytes(4)), "not a list of sizes"),
    "sizes that are no numbers": (
        lambda f: safe({"a": at(0, 4, [True, 1.0])}, bytes(4)),
        "not a list of sizes",
    ),
    "an unknown dtype": (
        lambda f: safe({"a": at(0, 4, dtype="F1")}, bytes(4)),
        "a number format that is not read (F1)",
    ),
    "a dtype not read": (
        lambda f: safe({"a": at(0, 4, [4], "F8_E4M3")}, bytes(4)),
        "a number format that is not read (F8_E4M3)",
    ),
    "NaN": (
        lambda f: safe({"a": at(0, 4), "b": at(4, 8)}, struct.pack("<ff", 1, float("nan"))),
        "NaN or infinite weights in b",
    ),
    "no tensors": (lambda f: safe({"__metadata__": {"format": "pt"}}), "holds no tensors"),
    "a list": (lambda f: safe({"a": [1]}), "does not say dtype, shape and place of a"),
    "offsets that are none": (
        lambda f: safe({"a": {**at(0, 4), "data_offsets": [0, "4"]}}, bytes(4)),
        "does not say where a lies",
    ),
}

OTHER: dict[str, tuple[Made, str]] = {
    "empty": (lambda f: b"", "is empty"),
    "text": (lambda f: "Größe, 12 Gewichte\n".encode() * 99, "is a text file, not weights"),
    "HTML": (lambda f: b"<!doctype html><title>404</title>", "is a text file, not weights"),
    "noise": (lambda f: bytes(range(255, 0, -1)) * 9, "no file of weights that is known here"),
    "HDF5": (
        lambda f: b"\x89HDF\r\n\x1a\n" + bytes(600),
        "HDF5 (Keras .h5) file, and that is not read yet",
    ),
    "ONNX in a set": (lambda f: b"\x08\x08\x12\x07pytorch" + bytes(600), "is an ONNX file"),
    "TensorFlow": (lambda f: b"\x08\x01\x12\x07serving" + bytes(600), "a TensorFlow file"),
    "tar": (lambda f: bytes(257) + b"ustar\x0000" + bytes(600), "is a tar file"),
    "gzip": (lambda f: b"\x1f\x8b\x08\x00" + bytes(600), "is a gzip file"),
    "half a checkpoint": (
        lambda f: saved({"w": torch.ones(1000)})[:3000],
        "a zip file that is cut off or damaged",
    ),
    "an empty zip": (lambda f: zipped({}), "an empty or damaged zip file"),
}


SOME = ["a planted module", "a planted call", "TorchScript", "64 GiB asked", "a deflated zip"]
SOME += ["10^200 leaves", "itself inside itself"]
"""What would run, fill the memory or never end, each in one of its ways."""


@pytest.mark.filterwarnings("ignore")  # torch's own, about making such files
@pytest.mark.parametrize("name", [*PROGRAMS, *BOMBS])
def test_programs_and_bombs_are_refused_and_nothing_runs(
    name: str, tmp_path: Path, read_here: None
) -> None:
    """By what is read, before any limit of the reading process acts."""
    judge_refusal(name, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", in_part([*PROGRAMS, *BOMBS], SOME))
def test_the_reading_process_refuses_them_alike(name: str, tmp_path: Path) -> None:
    judge_refusal(name, tmp_path)


def judge_refusal(name: str, tmp_path: Path) -> None:
    make, words = {**PROGRAMS, **BOMBS}[name]
    path = tmp_path / "file.pt"
    path.write_bytes(make(tmp_path))
    began = time.monotonic()
    reading = formats.inspect(path)
    judge_sentence(reading.refusal, words)
    assert time.monotonic() - began < 30 and reading.size == path.stat().st_size
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", [*SAFE, *OTHER])
def test_what_is_no_sound_file_of_weights_is_refused(name: str, tmp_path: Path) -> None:
    make, words = {**SAFE, **OTHER}[name]
    content = make(tmp_path)
    with pytest.raises(FileRefused) as refused:
        file = io.BytesIO(content)
        contents = guard.contents(file, len(content), "file.pt")
        with guard.guarded("file.pt"):
            numbers.judge(file, contents.entries)
    judge_sentence(str(refused.value), words)


def judge_sentence(sentence: str | None, words: str) -> None:
    """What it is, then the way out, fit to be shown."""
    assert sentence is not None and words in sentence, sentence
    assert sentence.startswith("file.pt ") and sentence.endswith(".") and ": " in sentence
    assert len(sentence) < 300 and sentence.isprintable() and "weights_only" not in sentence


def test_what_is_planted_would_have_run(tmp_path: Path) -> None:
    """So that the test above shows something."""
    pickle.loads(pickle.dumps(Planted(tmp_path / "planted")))
    assert (tmp_path / "planted").exists()
    assert (
        len(BOMBS["stride 0"][0](tmp_path)) < 2000
        and len(BOMBS["a deflated zip"][0](tmp_path)) < 200_000
    )


def test_refusing_keeps_nothing_and_needs_no_architecture(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(model: str) -> Expected:
        raise AssertionError("the architecture was built for a file that is refused anyway")

    monkeypatch.setattr(architecture, "ready", lambda model: False)
    monkeypatch.setattr(architecture, "expected", never)
    home.mkdir()
    path = home / "file.pt"
    path.write_bytes(saved(nn.Linear(2, 2)))
    with pytest.raises(FileRefused, match=r"^my model\.pt holds a whole pickled module"):
        formats.accept(path, "small", home, "my model.pt")
    assert list((home / "uploads").iterdir()) == []


def test_a_pickle_of_too_many_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STEPS", 1000)
    content = around(b"\x80\x02" + b"N0" * 1000 + b"N.")
    with pytest.raises(FileRefused, match="over 1,000 steps to describe"):
        guard.contents(io.BytesIO(content), len(content), "file.pt")


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(limits.LARGEST + 1)
    assert formats.inspect(tmp_path / "large.pt").refusal == f"large.pt {guard.TOO_LARGE}"


def test_folders_pipes_and_nothing_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("pipe", "not a plain file"),
        (".", "is a folder without one model's weights"),
        ("missing", "missing is not there: check the path."),
    ):
        assert words in (formats.inspect(tmp_path / name).refusal or "")
    with pytest.raises(FileRefused, match="missing is not there"):
        formats.accept(tmp_path / "missing", "small", tmp_path)


def test_a_reading_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.pt").write_bytes(saved(OrderedDict(w=torch.ones(2))))
    monkeypatch.setattr(limits, "WALL", 0.02)
    began = time.monotonic()
    assert "took longer to read" in (formats.inspect(tmp_path / "slow.pt").refusal or "")
    assert time.monotonic() - began < 5


def test_an_answer_is_short_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.pt").write_bytes(saved(OrderedDict(w=torch.ones(2))))
    monkeypatch.setattr(limits, "REPORT", 20)
    assert "describes too much to list" in (formats.inspect(tmp_path / "long.pt").refusal or "")


def test_the_reading_process_binds_itself() -> None:
    """Memory: 2 GiB are refused. Time, size of files and dumps: as set."""
    code = """
import resource
from pruning.formats.reader_process import bind
bind()
try:
    bytearray(2 << 30)
except MemoryError:
    print("refused")
for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE):
    print(*resource.getrlimit(what))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    memory, cpu = limits.MEMORY, limits.CPU
    assert done.stdout.split() == [
        "refused",
        str(memory),
        str(memory),
        str(cpu),
        str(cpu),
        "0",
        "0",
    ]
    assert resource.getrlimit(resource.RLIMIT_CORE) is not None


def test_a_full_disk_is_said_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the writing fails at its end, when the record is put beside the weights."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    home.mkdir()
    (home / "file.pt").write_bytes(saved(OrderedDict(w=torch.ones(2))))
    monkeypatch.setattr(architecture, "expected", lambda model: Expected({"w": (2,)}))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        FileRefused,
        match=r"^file\.pt could not be kept, because the disk is full: free some space",
    ):
        formats.accept(home / "file.pt", "small", home)
    assert list((home / "uploads").iterdir()) == []


def test_a_reading_process_that_dies_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.pt").write_bytes(saved(OrderedDict(w=torch.ones(2))))
    monkeypatch.setattr(sandbox, "_run", lambda command, file, wall: -11)
    assert formats.inspect(tmp_path / "file.pt").refusal == f"file.pt {guard.OUT_OF_MEMORY}"
