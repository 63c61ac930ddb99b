"""Files that were sound once: bytes changed, and what is inside of them changed and packed again.

    python3 run.py faults mutated                     3,000 of each kind
    PYTHONPATH=tests:. python -m faults.mutations [COUNT] [KIND ...]

Half have bytes changed, cut, doubled or put elsewhere, which most containers notice by their own
sums; the other half lie further inside, under sums that are right. Each goes through the reader
that uploads go through, from a file. It may be read or refused in one sentence, and nothing else
may leave.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save

from pruning.errors import FileRefused
from pruning.formats import guard, numbers
from pruning.formats.datasets import source
from pruning.formats.keras.convert import program as keras_config
from pruning.formats.onnx.convert import program as onnx_graph
from tests import test_datasets, test_keras_in, test_onnx_hostile

Random = random.Random
Mutation = Callable[[Random], bytes]

COUNT = 3000
SLOW = 5.0
"""Seconds of the processor in which a file of a few kilobytes must be read or refused."""

STRANGE: tuple[Any, ...] = (
    None, True, "", "x", -1, 0, 1, 2, 7, 1 << 20, 1 << 31, 1 << 62, -(1 << 62), 0.5, float("nan"),
    float("inf"), [], {}, [None], ["x"] * 3, [[1]], {"class_name": "Dense"}, "../../x", "a" * 5000,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """sound: a file that is read; inside: one whose contents were changed; read: the reader, given
    an empty folder to write into."""

    sound: bytes
    inside: Mutation
    read: Callable[[BinaryIO, Path], object]


# ---------------------------------------------------------------- what is changed inside


def changed(content: bytes, generator: Random) -> bytes:
    """The same with a few bytes changed, or empty."""
    return test_onnx_hostile.mutated(content, generator) if content else b"\0"


def repacked(content: bytes, generator: Random, member: Mutation | None = None) -> bytes:
    """A zip file with a member changed, renamed, doubled, taken out, or exchanged with another.

    member: what a changed member's content becomes, where bytes alone would say little.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(info.filename, file.read(info)) for info in file.infolist()]
    place = generator.randrange(len(members))
    name, inside = members[place]
    what = generator.randrange(8)
    if what < 4:
        members[place] = (name, changed(inside, generator))
    elif what == 4:
        at = generator.randrange(len(name))
        letter = generator.choice("/\\.:~\n\0é% ")
        members[place] = (name[:at] + letter + name[at + 1 :], inside)
    elif what == 5:
        del members[place]
    elif what == 6:
        members.append((name + generator.choice(["", "x", ".png", ".npy"]), inside))
    else:
        other = generator.randrange(len(members))
        members[place], members[other] = (name, members[other][1]), (members[other][0], inside)
    if member is not None and generator.random() < 0.5:
        place = generator.randrange(len(members) or 1)
        members[place : place + 1] = [(name, member(generator)) for name, _ in members[:1]]
    how = generator.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name twice is meant
        for name, inside in members:
            file.writestr(zipfile.ZipInfo(name), inside, how)
    return buffer.getvalue()


def elsewhere(tree: Any, generator: Random) -> Any:
    """Plain data with one value of it exchanged: for a strange one, or for another of its own."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            keys = list(one) if isinstance(one, dict) else range(len(one))
            places += [(one, key) for key in keys]
            waiting += [one[key] for key in keys]
    holder, key = generator.choice(places)
    if generator.random() < 0.7:
        holder[key] = generator.choice(STRANGE)
    elif generator.random() < 0.5:
        other, its = generator.choice(places)
        holder[key] = json.loads(json.dumps(other[its]))
    else:
        del holder[key]
    return tree


def of_onnx(generator: Random) -> bytes:
    return test_onnx_hostile.renamed(test_onnx_hostile.sound(), generator)


def of_keras(generator: Random) -> bytes:
    """A configuration that says something else, or weights with bytes changed."""
    if generator.random() < 0.7:
        config = json.loads(json.dumps(test_keras_in.config_of(*LAYERS)))
        for _ in range(generator.randint(1, 2)):
            config = elsewhere(config, generator)
        return test_keras_in.keras_file(json.dumps(config), WEIGHTS)
    return test_keras_in.keras_file(test_keras_in.config_of(*LAYERS), changed(WEIGHTS, generator))


def of_npz(generator: Random) -> bytes:
    """Arrays of other types and shapes, and headers that say what they like."""
    if generator.random() < 0.4:
        return repacked(NPZ, generator)
    types = ("<f4", ">f8", "<f2", "u1", "<i8", "?", "<c8", "<U3", "S4", "<M8[s]", "|V8", "O", "x")
    headers = {}
    for name in ("x", "y"):
        shape = tuple(generator.choice([0, 1, 2, 3, 6, 1 << 40, -1]) for _ in range(2))
        header = {"descr": generator.choice(types), "fortran_order": False, "shape": shape}
        if generator.random() < 0.3:
            header = elsewhere(header, generator)
        text = f"{header!r}\n".encode("latin-1", "replace")[:60_000]
        version = generator.choice([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"])
        size = struct.pack("<H", len(text)) if version[:1] != b"\x02" else b""
        size = size or struct.pack("<I", len(text))
        headers[f"{name}.npy"] = b"\x93NUMPY" + version + size + text + generator.randbytes(48)
    return test_datasets.zipped(headers)


def of_pictures(generator: Random) -> bytes:
    """Pictures whose chunks were changed under sums that are right, and other members."""
    return repacked(PICTURES, generator, partial(of_png, test_datasets.flat(9)))


def of_png(content: bytes, generator: Random) -> bytes:
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    place = generator.randrange(len(chunks))
    kind, data = chunks[place]
    kind = generator.choice([kind, kind, kind, b"PLTE", b"acTL", b"iTXt", b"zTXt", b"fdAT"])
    chunks[place] = (kind, changed(data, generator))
    made = content[:8]
    for kind, data in chunks:
        sums = struct.pack(">I", zlib.crc32(kind + data))
        made += struct.pack(">I", len(data)) + kind + data + sums
    return made


def of_table(generator: Random) -> bytes:
    """Rows with cells that are none, too many, quoted, strange."""
    rows = [row.split(b",") for row in TABLE.splitlines()]
    strange = [
        b"",
        b'"',
        b'"a\nb"',
        b"nan",
        b"inf",
        b"1e999",
        b"-",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
    ]
    strange += [b"2024-01-01", b"9" * 400, b"a" * 5000, b"a,b", b"#", b"=1+1", b"True"]
    for _ in range(generator.randint(1, 5)):
        row = generator.choice(rows)
        row[generator.randrange(len(row)) :][:1] = [generator.choice(strange)]
        row[generator.randrange(len(row))] = generator.choice(strange)
    return generator.choice([b"\n", b"\r\n"]).join(b",".join(row) for row in rows)


def of_idx(generator: Random) -> bytes:
    """Sizes and types in the headers of idx files that the numbers do not have."""
    members = test_datasets.idx_files()
    name = generator.choice(list(members))
    content = bytearray(members[name])
    content[generator.randrange(8)] = generator.choice([0, 1, 2, 3, 8, 9, 13, 14, 127, 255])
    members[name] = bytes(content)
    return repacked(test_datasets.zipped(members), generator)


def of_safetensors(generator: Random) -> bytes:
    (size,) = struct.unpack("<Q", SAFE[:8])
    header = elsewhere(json.loads(SAFE[8 : 8 + size]), generator)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + SAFE[8 + size :]


# ---------------------------------------------------------------- the readers


def read_onnx(file: BinaryIO, folder: Path) -> None:
    with guard.guarded("file"):
        program = onnx_graph(file)
    test_keras_in.torch_module(program)


def read_keras(file: BinaryIO, folder: Path) -> None:
    with guard.guarded("file"):
        program = keras_config(file, folder)
    test_keras_in.torch_module(program)


def read_data(file: BinaryIO, folder: Path) -> None:
    with guard.guarded("file"):
        written = source.of_file(file, "", folder, most=1 << 24)
        json.dumps(written.to_json())


def read_weights(file: BinaryIO, folder: Path) -> None:
    contents = guard.contents(file, file.seek(0, io.SEEK_END), "file")
    with guard.guarded("file"):
        numbers.judge(file, contents.entries)


def _layers() -> list[dict[str, Any]]:
    made = test_keras_in.made
    return [
        made("Reshape", target_shape=[2, 2, 1]),
        made("Conv2D", filters=2, kernel_size=[1, 1], strides=[1, 1], padding="same",
             dilation_rate=[1, 1], groups=1, activation="relu", use_bias=True,
             data_format="channels_last"),
        made("BatchNormalization", axis=-1, momentum=0.99, epsilon=0.001, center=True, scale=True),
        made("MaxPooling2D", pool_size=[2, 2], strides=[1, 1], padding="valid",
             data_format="channels_last"),
        made("Flatten", data_format="channels_last"),
        made("Dense", units=3, activation="softmax", use_bias=False),
    ]  # fmt: skip


def _weights(file: Any) -> None:
    file["layers/conv2d/vars/0"] = np.ones((1, 1, 1, 2), np.float32)
    file["layers/conv2d/vars/1"] = np.zeros(2, np.float32)
    for number in range(4):
        file[f"layers/batch_normalization/vars/{number}"] = np.ones(2, np.float32)
    file["layers/dense/vars/0"] = np.ones((2, 3), np.float32)


LAYERS = _layers()
WEIGHTS = test_keras_in.h5(_weights)
NPZ = test_datasets.npz(x=np.ones((6, 3), np.float32), y=np.arange(6) % 2)
PICTURES = test_datasets.zipped(test_datasets.by_class(3))
TABLE = b"a,b,label\n" + b"".join(b"%d,%d,%d\n" % (n, n * n, n % 2) for n in range(9))
SAFE = save({"conv.weight": torch.ones(2, 1, 3, 3), "conv.bias": torch.zeros(2)})


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 3, "state_dict": {"w": torch.ones(3, 2), "b": torch.zeros(3)}}, buffer)
    return buffer.getvalue()


CHECKPOINT = _checkpoint()

KINDS: dict[str, Kind] = {
    "onnx": Kind(test_onnx_hostile.sound().SerializeToString(), of_onnx, read_onnx),
    "keras": Kind(test_keras_in.keras_file(test_keras_in.config_of(*LAYERS), WEIGHTS), of_keras,
                  read_keras),
    "npz": Kind(NPZ, of_npz, read_data),
    "zip of pictures": Kind(PICTURES, of_pictures, read_data),
    "csv": Kind(TABLE, of_table, read_data),
    "idx": Kind(test_datasets.zipped(test_datasets.idx_files()), of_idx, read_data),
    "safetensors": Kind(SAFE, of_safetensors, read_weights),
    "torch.save": Kind(CHECKPOINT, partial(repacked, CHECKPOINT), read_weights),
}  # fmt: skip


# ---------------------------------------------------------------- what comes of them


def outcome(kind: Kind, content: bytes, folder: Path) -> str:
    """ "read", "refused", or "refused unforeseen": by the guard, which catches what no reader did.

    Raises AssertionError for a refusal that cannot be shown, and whatever else leaves.
    """
    place = folder / "file"
    place.write_bytes(content)
    try:
        with place.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # numbers that are none, made on the way
            kind.read(file, folder)
    except FileRefused as refused:
        message = str(refused)
        assert "\n" not in message and 10 < len(message) < 1000, message
        return "refused unforeseen" if "could not be read " in message else "refused"
    return "read"


def mutations(kind: Kind, count: int, seed: int = 0) -> Any:
    generator = random.Random(seed)
    for number in range(count):
        yield kind.inside(generator) if number % 2 else changed(kind.sound, generator)


def sweep(name: str, count: int = COUNT, seed: int = 0) -> Counter[str]:
    """Outcome -> how many of a kind. Raises AssertionError for one that takes too long."""
    kind = KINDS[name]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, content in enumerate(mutations(kind, count, seed)):
            began = time.process_time()
            try:
                result = outcome(kind, content, folder)
            except BaseException as error:
                raise AssertionError(
                    f"{name}, mutation {number} of seed {seed}: {error!r}"
                ) from error
            took = time.process_time() - began
            assert took < SLOW, f"{name}, mutation {number} of seed {seed} took {took:.1f} s"
            counts[result] += 1
    return counts


def described(name: str, counts: Counter[str]) -> str:
    refused = counts["refused"] + counts["refused unforeseen"]
    return f"{name}: {refused:,} refused, {counts['read']:,} read"


def case(name: str) -> str:
    from faults.stage import Broken

    try:
        return described(name, sweep(name))
    except AssertionError as error:
        raise Broken(str(error)) from error


CASES = {f"{COUNT:,} mutated files: {name}": partial(case, name) for name in KINDS}


def main(words: list[str]) -> int:
    count = int(words[0]) if words else COUNT
    for name in words[1:] or KINDS:
        counts = sweep(name, count)
        print(f"{described(name, counts)} ({counts['refused unforeseen']:,} of them by the guard)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
