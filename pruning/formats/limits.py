"""Limits: how much an untrusted file may ask for; what asks for more is refused at once."""

from __future__ import annotations

MIB = 1 << 20

LARGEST = 1024 * MIB  # bytes of a file
HEADER = 8 * MIB  # bytes of a safetensors header: 20,000 tensors with long names need 6
PICKLE = 16 * MIB  # bytes of data.pkl: names and shapes only, the numbers lie beside it
STEPS = 4_000_000  # pickle opcodes: 20,000 tensors need 0.8 million
MEMBERS = 100_000  # members of a zip: with optimizer state there are three storages a tensor
TENSORS = 20_000
RANK = 8
NAME = 255  # characters

MEMORY = 1024 * MIB  # bytes of address space of the reading process
CPU = 60  # seconds of processor time of the reading process
FILES = 64  # that the reading process may have open: imports need a handful
READERS = 2  # reading processes of a server at a time: each may take MEMORY and a processor
WALL = 90.0  # seconds until the reading process is killed
REPORT = 16 * MIB  # bytes of the reading process's answer
