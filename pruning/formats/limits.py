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

# Of data sets. What somebody uploads, and what whoever starts the server names on its disk.
ONE_PICTURE = 64 * MIB  # bytes of a picture's file
PIXELS = 64_000_000  # of a picture: a camera's largest; a bomb has billions
SIDE = 224  # pixels a side that pictures of different sizes are kept at, at most
PICTURES = 2_000_000
COLUMNS = 10_000  # of a table
CLASSES = 10_000
UPLOADED = (4096 * MIB, 120)  # bytes written at most, seconds of processor time
NAMED = (256 * 1024 * MIB, 4 * 3600)
