"""Any bytes at all: the guard returns Contents or raises one FileRefused, and nothing else."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from contextlib import suppress
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from pruning.errors import FileRefused
from pruning.formats import diagnosis, fingerprints, guard, names, numbers, pickles, shards
from pruning.formats.match import match
from pruning.formats.types import Contents, Expected, Shape, shape_text

TABLE = fingerprints.table()
STRANGER = Expected({"a.weight": (7, 3), "a.bias": (7,)}, head=frozenset({"a.weight", "a.bias"}))
PICKLE_CODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


def read(content: bytes) -> Contents | None:
    """What the reading process does with a file, here: None when it is refused."""
    file = io.BytesIO(content)
    try:
        contents = guard.contents(file, len(content), "file.pt")
        with guard.guarded("file.pt"):
            numbers.judge(file, contents.entries)
            shapes = {entry.name: entry.shape for entry in contents.entries}
            # Whatever the names, they are matched with a stranger and called something or nothing.
            fingerprints.recognised(contents.entries, TABLE)
            diagnosis.diagnosed(contents.entries, "file-00001-of-00002.pt")
            with suppress(FileRefused):
                match(contents, STRANGER, "a stranger")
            fit = match(contents, Expected(shapes), "itself")
            out = io.BytesIO()
            numbers.write(file, fit.tensors, out)
        assert guard.contents(out, len(out.getvalue()), "out.safetensors").entries, (
            "what is written is sound"
        )
    except FileRefused as refused:
        assert str(refused).startswith("file.pt ") and str(refused).isprintable()
        return None
    return contents


@cache
def sound() -> tuple[bytes, ...]:
    """Files that are read, to start from."""
    state = {
        "a.weight": torch.arange(6.0).view(2, 3),
        "a.bias": torch.ones(2).half(),
        "b.weight": torch.ones(2, 3).t(),
    }
    made = []
    for protocol in (2, 4):
        buffer = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 1}, buffer, pickle_protocol=protocol)
        made.append(buffer.getvalue())
    return *made, save({name: tensor.contiguous() for name, tensor in state.items()})


def test_what_the_fuzz_starts_from_is_read() -> None:
    assert all(read(content) is not None for content in sound())


@given(st.binary(max_size=600))
def test_any_bytes(content: bytes) -> None:
    read(content)


@given(
    st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x1f\x8b", b"\x89HDF"]),
    st.binary(max_size=300),
)
def test_any_bytes_behind_a_known_beginning(start: bytes, content: bytes) -> None:
    read(start + content)


@settings(max_examples=300)
@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_sound_files_with_bytes_changed(which: int, changes: list[tuple[float, bytes]]) -> None:
    content = bytearray(sound()[which])
    for where, what in changes:
        at = int(where * (len(content) - 1))
        content[at : at + len(what)] = what
    read(bytes(content))


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4),
    st.lists(st.integers(-9, 9), max_size=3),
)
def test_sets_with_bytes_and_borders_changed(
    which: list[int], changes: list[tuple[float, bytes]], moved: list[int]
) -> None:
    lengths = [len(sound()[one]) for one in which]
    content = bytearray(b"".join(sound()[one] for one in which))
    for where, what in changes:
        at = int(where * (len(content) - 1))
        content[at : at + len(what)] = what
    lengths = [
        length + by for length, by in zip_longest(lengths, moved[: len(lengths)], fillvalue=0)
    ]
    try:
        shards.contents(io.BytesIO(bytes(content)), lengths, "file.pt")
    except FileRefused as refused:
        assert str(refused).startswith("file.pt ") and str(refused).isprintable()


@given(st.integers(0, 2), st.floats(0, 1), st.binary(max_size=20))
def test_sound_files_cut_or_stretched(which: int, where: float, what: bytes) -> None:
    content = sound()[which]
    at = int(where * len(content))
    read(content[:at])
    read(content[:at] + what + content[at:])


@given(
    st.integers(0, 1),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(PICKLE_CODES) | st.binary(max_size=3)),
        min_size=1,
        max_size=4,
    ),
)
def test_sound_zips_with_another_pickle(which: int, changes: list[tuple[float, bytes]]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sound()[which])) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = bytearray(old.read(info))
            if info.filename.endswith("data.pkl"):
                for where, what in changes:
                    at = int(where * len(content))
                    content[at : at + 1] = what
            new.writestr(info.filename, bytes(content))
    read(out.getvalue())


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(PICKLE_CODES)
        | st.binary(max_size=2)
        | st.sampled_from([b"ctorch\nSize\n", b"X\x01\x00\x00\x00a", b"K\x01"]),
        max_size=40,
    )
)
def test_any_opcodes(codes: list[bytes]) -> None:
    with suppress(FileRefused):
        pickles.load(b"".join(codes) + b".")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
described = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "U16"]) | anything,
        "shape": st.lists(st.integers(0, 3), max_size=3) | anything,
        "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2) | anything,
    }
)


@given(
    st.dictionaries(st.text(max_size=8), described | anything, max_size=4), st.binary(max_size=64)
)
def test_any_safetensors_header(header: dict[str, Any], numbers: bytes) -> None:
    text = json.dumps(header).encode()
    read(struct.pack("<Q", len(text)) + text + numbers)


@given(st.text(max_size=300))
def test_any_name(name: str) -> None:
    try:
        kept = names.judge_name(name)
    except FileRefused as refused:
        assert str(refused).isascii() and str(refused).isprintable()
    else:
        assert (
            kept == name
            and name.isascii()
            and not set(name) & set("/\\<>&\"'`*[]() ")
            and ".." not in name
        )


@given(
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int16]),
    st.randoms(),
)
def test_any_layout_is_read_as_torch_reads_it(
    shape: Shape, dtype: torch.dtype, generator: Any
) -> None:
    """Transposed, sliced, expanded or stepped: the same numbers in the same order."""
    order = list(range(len(shape)))
    generator.shuffle(order)
    tensor = torch.randn([n + 2 for n in shape]).mul(9).to(dtype).permute(order)
    tensor = tensor[
        tuple(slice(generator.randrange(2), None, generator.choice([1, 2])) for _ in order)
    ]
    buffer = io.BytesIO()
    torch.save({"w": tensor}, buffer)
    (entry,) = guard.contents(buffer, len(buffer.getvalue()), "w.pt").entries
    got = [number for piece in numbers.pieces(buffer, entry) for number in piece.tolist()]
    assert entry.shape == tuple(tensor.shape) and shape_text(entry.shape)
    assert got == (tensor.float() if dtype.is_floating_point else tensor).flatten().tolist()
