"""What an answer depends on, as short hashes: the question, the weights, the data, the code."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
SAMPLES = PACKAGE.parent / "sample_models"


def complete(spec: dict[str, Any], key: str | None, workspace: Path) -> str:
    """The key of a study: equal for equal questions about equal weights and data, asked of equal code."""
    parts = [key, spec, facts(str(spec.get("model", "")), workspace), code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def facts(model: str, workspace: Path) -> str:
    """A cheap fingerprint of what a model's name stands for on this machine: weights files (size and time), data that is here."""
    kind, colon, id = model.rpartition(":")
    files: list[Path] = []
    if kind == "upload" and id.isalnum():
        files = sorted((workspace / "uploads" / id).glob("*.safetensors"))
    elif kind == "torchvision" and id.isidentifier():
        files = sorted(_hub().glob(f"{id}-*"))
    elif not colon:
        files = [file for file in (SAMPLES / "weights" / f"{model}.safetensors",) if file.is_file()]
    seen = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    return ";".join(seen + _data())


def _data() -> list[str]:
    """The data files that are here: more of them, and there is more to say of a model."""
    roots = [Path(given).expanduser() for given in (os.environ.get("PRUNING_DATA"),) if given]
    return [
        f"{file.parent.parent.name}/{file.name}"
        for root in (*roots, Path("data"))
        for file in sorted(root.glob("*/raw/*-ubyte"))
    ]


def _hub() -> Path:
    """Where torch keeps weights it downloaded."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (
        Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub" / "checkpoints"
    )


@cache
def code() -> str:
    """A hash of the sources that make studies, so that a new version asks anew. Read once by each process."""
    engine = [file for file in PACKAGE.rglob("*.py") if file.parent.name not in ("runs", "formats")]
    return _hash(tuple(sorted([*engine, *SAMPLES.glob("*.py")])))


def stamp() -> int:
    """Changes whenever a source file of the engine does: a process that imported an older one should make way."""
    files = [*PACKAGE.rglob("*.py"), *SAMPLES.glob("*.py")]
    return hash(tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files)))


def _hash(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
