"""Cache keys: what an answer depends on, hashed. The question, the weights, the data, the code."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from pruning.errors import PruningError
from pruning.formats.datasets.types import parted
from pruning.runs import own_models, server_device
from pruning.storage import PACKAGE, SAMPLES, source_hash

_PLAIN = re.compile(r"[\w.-]{1,100}")


def complete(spec: dict[str, Any], key: str | None, workspace: Path) -> str:
    """The key of a study: equal for equal questions about equal weights, data and code."""
    model = str(spec.get("model", ""))
    parts = [key, spec, facts(model, workspace), source_hash(), server_device.name()]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def facts(model: str, workspace: Path) -> str:
    """A cheap fingerprint of what a model's name stands for on this machine: weights and data."""
    model, data = parted(model)
    files = _weights(model, workspace)
    if data is not None and _PLAIN.fullmatch(data):
        # Its settings, and its numbers: another folder's where the settings were changed.
        files += sorted((workspace / "datasets" / data).glob("*.json"))
    return ";".join([_state(file) for file in files] + _data())


def _weights(model: str, workspace: Path) -> list[Path]:
    if own_models.is_own(model):
        return _own(model, workspace)
    kind, colon, id = model.rpartition(":")
    # Names come from outside: only plain ones, which a file can have, may become paths.
    if not _PLAIN.fullmatch(id):
        return []
    if kind == "upload" and id.isalnum():
        kept = sorted((workspace / "uploads" / id).glob("*.safetensors"))
        return kept + _base(id, workspace)
    if kind == "torchvision" and id.isidentifier():
        return sorted(hub().glob(f"{id}-*"))
    sample = SAMPLES / "weights" / f"{model}.safetensors"
    return [sample] if not colon and sample.is_file() else []


def _base(id: str, workspace: Path) -> list[Path]:
    """The files of somebody's own code that an upload's weights are of."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        about = json.loads((workspace / "uploads" / id / "upload.json").read_bytes())
        architecture = str(about["architecture"])
        return _own(architecture, workspace) if own_models.is_own(architecture) else []
    return []


def _own(model: str, workspace: Path) -> list[Path]:
    """The files of a model that was named here; none of another, which is never looked at."""
    with suppress(PruningError):
        return own_models.files(own_models.known(model, workspace))
    return []


def _state(file: Path) -> str:
    # Size and time, not content: this is asked at every page, and weights may take a gigabyte.
    stat = file.stat()
    return f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}"


def _data() -> list[str]:
    """The data files that are here: with more of them, more can be measured of a model."""
    files = [file for root in data_folders() for file in sorted(root.glob("*/raw/*-ubyte"))]
    return [f"{file.parent.parent.name}/{file.name}" for file in files]


def data_folders() -> list[Path]:
    """Where downloaded data lies: the first that has it counts."""
    roots = [Path("data")]
    if os.environ.get("PRUNING_DATA"):
        roots.insert(0, Path(os.environ["PRUNING_DATA"]).expanduser())
    return roots


def hub() -> Path:
    """Where torch keeps weights it downloaded."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    torch_home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(torch_home).expanduser() / "hub" / "checkpoints"


def stamp() -> int:
    """Changes whenever a source file does: a process that imported an older one makes way."""
    return hash(tuple(sorted((str(file), file.stat().st_mtime_ns) for file in _sources())))


def _sources() -> list[Path]:
    # Code of one's own too: what it imported of an older version stays in the process.
    own = [file for each in own_models.named() for file in own_models.files(each)]
    return [*PACKAGE.rglob("*.py"), *SAMPLES.glob("*.py"), *own]
