"""The names and shapes of an architecture's state_dict.

Asked of a process of its own, because the page that asks never imports torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from pruning.errors import RunError, StoreError, UnknownName
from pruning.formats import safe
from pruning.formats.parent import PARENT, end_with_parent
from pruning.formats.sandbox import ROOT
from pruning.formats.types import WHOLE, Expected
from pruning.storage import SAMPLES, default_workspace, source_hash, write_json

PATIENCE = 120.0
"""Seconds; importing torch and torchvision takes 5."""

ANOTHER = 7
"""A number of classes that no architecture has by itself."""

_cache: dict[str, Expected] = {}
_one_at_a_time = Lock()


def ready(model: str) -> bool:
    """Whether `expected` would answer at once."""
    return model in _cache or "torch" in sys.modules or _kept(model) is not None


def expected(model: str) -> Expected:
    """Shapes by name of a sample or torchvision architecture. Raises UnknownName, RunError.

    Built once for all sessions and processes of a workspace: ten people who bring their weights at
    once would else import torch ten times, and all wait for all of them.
    """
    if model in _cache:
        return _cache[model]
    _check_name(model)
    if "torch" in sys.modules:
        _cache[model] = _build(model)
        return _cache[model]
    with _one_at_a_time, _locked():
        known = _kept(model)
        if known is None:
            known = Expected.from_json(answered("pruning.formats.architecture", model))
            with suppress(StoreError):  # a full disk: then it is built again next time
                write_json(_file(model), known.to_json())
        _cache[model] = known
    return _cache[model]


def _kept(model: str) -> Expected | None:
    """What was built earlier, by this server or another."""
    try:
        return Expected.from_json(json.loads(_file(model).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file(model: str) -> Path:
    """Of these versions of everything that an architecture is made of."""
    made_of = f"{model} {source_hash()} {version('torch')} {version('torchvision')}"
    name = hashlib.sha256(made_of.encode()).hexdigest()[:24]
    return default_workspace() / "architectures" / f"{name}.json"


@contextmanager
def _locked() -> Iterator[None]:
    """Other processes of this workspace wait meanwhile. Without a folder to lock nobody does."""
    with ExitStack() as stack:
        with suppress(OSError):
            folder = default_workspace() / "architectures"
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)  # given up with the file, however the process ends
        yield


@cache
def samples() -> dict[str, Expected]:
    """Of every sample model, read off its weights: nothing is built, so that asking costs nothing.

    Without those whose weights are not here.
    """
    import sample_models

    files = {name: SAMPLES / "weights" / f"{name}.safetensors" for name in sample_models.names()}
    known = {}
    for name, path in files.items():
        if path.is_file():
            with path.open("rb") as file:
                entries = safe.contents(file, path.stat().st_size).entries
            whole = frozenset(entry.name for entry in entries if entry.dtype in WHOLE)
            known[name] = Expected({entry.name: entry.shape for entry in entries}, whole)
    return known


def _check_name(model: str) -> None:
    import sample_models

    samples = sample_models.names()
    others = sample_models.torchvision_names()
    if model not in samples and model.removeprefix("torchvision:") not in others:
        raise UnknownName("architecture", model, [*samples, *others])


def answered(module: str, model: str) -> dict[str, Any]:
    """What a process of its own, in which a module of ours runs, prints of a model.

    Raises RunError where it prints nothing.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-m", module, model],
            cwd=ROOT,
            env={**os.environ, PARENT: str(os.getpid())},
            capture_output=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        # The last line: what is imported may print before it.
        answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise RunError(
            f"{model} could not be built to compare with: try it again, or choose another."
        ) from None
    return answer


def _build(model: str) -> Expected:
    """Builds the architecture untrained, in this process."""
    import sample_models

    if model in sample_models.names():
        return described(sample_models.build(model).state_dict())
    from sample_models import architectures

    name = model.removeprefix(sample_models.PREFIX)
    expected = described(architectures.outline(name).state_dict())
    # Another number of classes changes the shapes of its head, and of nothing else.
    other = architectures.outline(name, classes=ANOTHER).state_dict()
    head = (key for key, shape in expected.shapes.items() if tuple(other[key].shape) != shape)
    return replace(expected, head=frozenset(head))


def described(state: Mapping[str, Any]) -> Expected:
    """What a state_dict holds."""
    # Whole numbers, which a file may not have as floats: BatchNorm's counters, indices.
    whole = (name for name, tensor in state.items() if not tensor.is_floating_point())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Expected(shapes, frozenset(whole))


if __name__ == "__main__":
    end_with_parent()
    print(json.dumps(_build(sys.argv[1]).to_json()))
