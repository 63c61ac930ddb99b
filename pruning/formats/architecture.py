"""The names and shapes of an architecture's state_dict.

Asked of a process of its own, because the page that asks never imports torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

from pruning.errors import RunError, UnknownName
from pruning.formats import safe
from pruning.formats.parent import PARENT, end_with_parent
from pruning.formats.sandbox import ROOT
from pruning.formats.types import WHOLE, Expected
from pruning.storage import SAMPLES

PATIENCE = 120.0
"""Seconds; importing torch and torchvision takes 5."""

_cache: dict[str, Expected] = {}


def ready(model: str) -> bool:
    """Whether `expected` would answer at once."""
    return model in _cache or "torch" in sys.modules


def expected(model: str) -> Expected:
    """Shapes by name of a sample or torchvision architecture. Raises UnknownName, RunError."""
    if model not in _cache:
        _check_name(model)
        _cache[model] = _build(model) if "torch" in sys.modules else _ask(model)
    return _cache[model]


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


def _ask(model: str) -> Expected:
    try:
        process = subprocess.run(
            [sys.executable, "-m", "pruning.formats.architecture", model],
            cwd=ROOT,
            env={**os.environ, PARENT: str(os.getpid())},
            capture_output=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        # The last line: what is imported may print before it.
        answer = json.loads(process.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise RunError(
            f"The architecture {model} could not be built to compare with: "
            "try it again, or choose another."
        ) from None
    return Expected.from_json(answer)


def _build(model: str) -> Expected:
    """Builds the architecture untrained, in this process."""
    import torch

    import sample_models

    if model in sample_models.names():
        state = sample_models.build(model).state_dict()
    else:
        # On the meta device weights take no memory: torchvision's largest have a gigabyte.
        with torch.device("meta"):
            state = sample_models.build(model).state_dict()
    # Whole numbers, which a file may not have as floats: BatchNorm's counters, indices.
    whole = (name for name, tensor in state.items() if not tensor.is_floating_point())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Expected(shapes, frozenset(whole))


if __name__ == "__main__":
    end_with_parent()
    print(json.dumps(_build(sys.argv[1]).to_json()))
