"""What an answer depends on, as short hashes: the question, the weights, the code."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
SAMPLES = PACKAGE.parent / "sample_models"


def complete(spec: dict[str, Any], key: str | None, home: Path) -> str:
    """The key of a study: equal for equal questions about equal weights, asked of equal code."""
    parts = [key, spec, weights(str(spec.get("model", "")), home), code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def weights(model: str, home: Path) -> str:
    """A fingerprint of a model's weights file, cheap: size and time of change. "" where the reference says it all."""
    name = model.replace(":", "_").replace("/", "_")
    files = sorted((SAMPLES / "weights").glob(f"{name}*")) if ":" not in model else []
    kind, _, id = model.partition(":")
    if kind == "upload" and id.isalnum():
        files = sorted((home / "uploads" / id).glob("*.safetensors"))
    return ";".join(f"{file.name}:{(seen := file.stat()).st_size}:{seen.st_mtime_ns}" for file in files)


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
