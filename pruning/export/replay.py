"""replay.py of a bundle: the recipe once more, and whether it reaches the same numbers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapted import unadapted
from pruning.export.result import Result

SCRIPT = '''"""Runs recipe.json again with the Pruning Workbench's engine, and compares the figures.

    python replay.py        where `import pruning` works

The same recipe, machine and thread count give the same numbers; another processor or version of
torch may round otherwise, which this says.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

import pruning
from pruning.errors import PruningError
from pruning.export.replay import digest
from pruning.pipeline import machine
from pruning.prepare import plain
from pruning.runs.resolve import resolve

HERE = Path(__file__).resolve().parent


def main() -> int:
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    text = (HERE / "recipe.json").read_text(encoding="utf-8")
    recipe = pruning.Recipe.from_dict(json.loads(text))
    torch.set_num_threads(expected["machine"].get("threads") or 1)
    try:
        work = resolve(recipe.model)
    except PruningError as error:  # in another workspace than the run was made in
        if not (HERE / "start.safetensors").is_file():
            print(f"{error} Run this where the workspace of the run lies, or set PRUNING_HOME.")
            return 1
        work = started(resolve(expected["base"]))
    if digest(work.model) != expected["start"]:
        print(f"{recipe.model} has other weights here than the run started from: "
              "fetch those (with a network, torchvision downloads them), and start again")
        return 1
    for event in pruning.run(recipe, work):
        print(f"  {type(event).__name__}", flush=True)
    final = event.final
    quality = final.quality
    reached = {"kept": final.kept, "quality": asdict(quality) if quality else None}
    wanted = {name: expected[name] for name in reached}
    print(f"expected {wanted}")
    print(f"reached  {reached}")
    if json.loads(json.dumps(reached)) == wanted:
        print("the same numbers")
        return 0
    here = machine()
    others = [
        f"{name}: {value} then, {here.get(name)} now"
        for name, value in expected["machine"].items()
        if here.get(name) != value
    ]
    why = "; ".join(others) or "nothing of the machine differs, so please report this"
    print(f"other numbers than expected ({why})")
    return 1


def started(work):
    """The workpiece with the weights, and the masks, that the run started from."""
    parts = {"model": {}, "dense": {}, "mask": {}}
    for name, tensor in load_file(HERE / "start.safetensors").items():
        part, _, own = name.partition("/")
        parts[part][own] = tensor
    model = plain(work.model)
    model.load_state_dict(parts["model"])
    work = replace(work, model=model)
    if parts["mask"]:
        dense = plain(work.model)
        dense.load_state_dict(parts["dense"])
        work = replace(work, dense=dense, masks=parts["mask"])
    return work


if __name__ == "__main__":
    sys.exit(main())
'''


def expected(result: Result) -> dict[str, Any]:
    """What `replay.py` compares with."""
    assert result.finished is not None
    final = result.finished.final
    return {
        "base": result.base,
        "machine": result.machine,
        "start": digest((result.start or result.work.reference).model),
        "kept": final.kept,
        "quality": asdict(final.quality) if final.quality else None,
    }


def digest(model: nn.Module) -> str:
    """A hash of a model's weights, by name."""
    made = hashlib.sha256()
    for name, value in sorted(unadapted(model).state_dict().items()):
        raw = value.detach().reshape(-1).contiguous().view(torch.uint8)
        made.update(name.encode() + raw.numpy().tobytes())
    return made.hexdigest()[:16]


def start_state(result: Result) -> dict[str, Tensor]:
    """The weights that the run started from, and of a model that was pruned before its masks.

    Each name begins with what it is of: `model/`, `dense/` or `mask/`. Tied ones stand twice.
    """
    start = result.start
    if start is None or not result.base:
        return {}
    state = {f"model/{n}": t for n, t in unadapted(start.model).state_dict().items()}
    if start.masks is not None:
        dense = unadapted(start.reference.model)
        state |= {f"dense/{name}": tensor for name, tensor in dense.state_dict().items()}
        state |= {f"mask/{name}": keep for name, keep in start.masks.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
