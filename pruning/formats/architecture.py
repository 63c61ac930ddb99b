"""What an architecture's state_dict holds, asked of a process of its own: the page that asks never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from pruning.errors import RunError, UnknownName
from pruning.formats.sandbox import ROOT
from pruning.formats.types import Expected

PATIENCE = 120.0  # seconds; importing torch and torchvision takes 5


_seen: dict[str, Expected] = {}


def ready(model: str) -> bool:
    """Whether `expected` would answer at once."""
    return model in _seen or "torch" in sys.modules


def expected(model: str) -> Expected:
    """Shapes by name of a sample or torchvision architecture; UnknownName for a name that is none."""
    if model not in _seen:
        _judge(model)
        _seen[model] = _look(model) if "torch" in sys.modules else _ask(model)
    return _seen[model]


def _judge(model: str) -> None:
    import sample_models

    samples, others = sample_models.names(), sample_models.torchvision_names()
    if model not in samples and model.removeprefix("torchvision:") not in others:
        raise UnknownName("architecture", model, [*samples, *others])


def _ask(model: str) -> Expected:
    command = [sys.executable, "-m", "pruning.formats.architecture", model]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise RunError(
            f"The architecture {model} could not be built to compare with: try it again, or choose another."
        ) from None
    return Expected(
        {name: tuple(shape) for name, shape in said["shapes"].items()}, frozenset(said["whole"])
    )


def _look(model: str) -> Expected:
    """The same, here: the architecture built untrained, without memory for its weights where it is torchvision's."""
    state = _built(model).state_dict()
    whole = frozenset(name for name, tensor in state.items() if not tensor.is_floating_point())
    return Expected({name: tuple(tensor.shape) for name, tensor in state.items()}, whole)


def _built(model: str) -> Any:
    import torch

    import sample_models

    if model in sample_models.names():
        return sample_models.build(model)
    with torch.device("meta"):
        return sample_models.build(model)


def main() -> None:
    found = _look(sys.argv[1])
    print(json.dumps({"shapes": found.shapes, "whole": sorted(found.whole)}))


if __name__ == "__main__":
    main()
