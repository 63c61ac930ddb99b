"""What the engine computes, bit for bit: masks as hashes, sparsities, accuracies, losses.

    .venv/bin/python tests/bench/_record.py before.json               write
    .venv/bin/python tests/bench/_record.py after.json before.json    write and compare

Run before and after a rebuilding that should change no number. Only the public surface is used,
recipes are written as version 1 spelled them, and everything runs in one thread: the same machine
gives the same bits. A record is no test: another processor rounds differently.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pruning
import sample_models
from pruning import registry
from pruning.errors import PruningError

MODELS = ("digits-mlp", "digits-cnn", "digits-resnet")
QUICK = {
    "hutchinson": {"probes": 4},
    "movement": {"steps": 20},
    "synflow": {"rounds": 10},
}
OPTIONS = {
    "block": {"rows": 4, "columns": 4},
    "channel": {"round_to": 4, "normalise": "mean"},
    "head": {"normalise": "max"},
}


def recipes() -> Iterator[dict[str, Any]]:
    """About 60 recipes: every criterion, granularity, scope and schedule, some of them together."""
    for i, criterion in enumerate(registry.names("criterion")):
        options = {
            name: value
            for name, value in QUICK.get(criterion, {}).items()
            if name in _options(criterion)
        }
        structured = "channel" if registry.misfit(criterion, "weight") else "weight"
        for model in (MODELS[i % 3], MODELS[(i + 1) % 3]):
            yield {
                "model": model,
                "criterion": criterion,
                "options": options,
                "granularity": structured,
                "sparsity": 0.8,
            }
    for i, granularity in enumerate(registry.names("granularity")):
        model = "digits-vit" if granularity == "head" else MODELS[1 + i % 2]
        yield {
            "model": model,
            "granularity": granularity,
            "sparsity": 0.4,
            "epochs": 1,
            "steps": 2,
            "schedule": "linear",
        }
        if granularity in OPTIONS:
            yield {
                "model": model,
                "granularity": granularity,
                "granularity_options": OPTIONS[granularity],
                "scope": "per_layer",
                "criterion": "taylor",
                "sparsity": 0.5,
            }
    for scope in ("per_layer", "global", "lamp", "erk", "by_sensitivity", "threshold"):
        for granularity in ("weight", "channel"):
            yield {
                "model": "digits-cnn",
                "scope": scope,
                "granularity": granularity,
                "sparsity": 0.6,
                "epochs": 1,
            }
    for granularity in ("weight", "channel"):
        weights = list(
            pruning.choose(pruning.Recipe(model="digits-cnn"), sample_models.load("digits-cnn"))
        )[:2]
        ratios = dict(zip(weights, (0.25, 0.5), strict=True))
        yield {
            "model": "digits-cnn",
            "scope": "by_hand",
            "granularity": granularity,
            "ratios": ratios,
            "floor": 2,
        }
    yield {
        "model": "digits-mlp",
        "scope": "per_layer",
        "scope_options": {"output": 0.5},
        "sparsity": 0.7,
        "exclude": ["net.1.weight"],
    }
    yield {
        "model": "digits-cnn",
        "scope": "by_sensitivity",
        "scope_options": {"of": "macs", "tolerate": 10.0},
        "sparsity": 0.7,
    }
    yield {
        "model": "digits-resnet",
        "scope": "by_sensitivity",
        "scope_options": {"of": "bytes"},
        "granularity": "channel",
        "sparsity": 0.3,
    }
    for schedule in registry.names("schedule"):
        yield {
            "model": "digits-mlp",
            "schedule": schedule,
            "steps": 3,
            "epochs": 1,
            "sparsity": 0.9,
            "optimizer": "adam",
            "lr": 0.002,
        }
        yield {
            "model": "digits-resnet",
            "schedule": schedule,
            "steps": 2,
            "granularity": "channel",
            "sparsity": 0.3,
            "epochs": 1,
            "recalibrate": True,
            "heal_slim": schedule in ("linear", "cubic"),
        }
    yield {
        "model": "digits-resnet",
        "slimming": 0.001,
        "criterion": "bn_scale",
        "granularity": "channel",
        "epochs": 1,
        "sparsity": 0.4,
    }
    yield {"model": "digits-cnn", "distill": 0.5, "epochs": 2, "sparsity": 0.9}
    lottery = {
        "start": "random",
        "rewind": "init",
        "controls": ["reinit", "random_mask", "one_shot"],
        "schedule": "geometric",
    }
    yield {"model": "digits-mlp", **lottery, "steps": 2, "epochs": 1, "sparsity": 0.8}
    early = {
        "start": "random",
        "rewind": "early",
        "rewind_step": 10,
        "controls": ["random_mask"],
        "schedule": "geometric",
    }
    yield {
        "model": "digits-cnn",
        **early,
        "steps": 2,
        "epochs": 1,
        "sparsity": 0.5,
        "granularity": "channel",
    }


def _options(criterion: str) -> set[str]:
    return {option.name for option in registry.entry("criterion", criterion).options}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def of_recipe(data: dict[str, Any]) -> dict[str, Any]:
    """Masks, the share pruned after each step, losses of each epoch, final accuracy and loss."""
    recipe, work = (
        pruning.Recipe.from_dict({"version": 1, **data}),
        sample_models.load(data["model"]),
    )
    kept: dict[str, Any] = {}

    def keep(model: nn.Module, masks: pruning.Masks) -> None:
        kept["masks"] = _digest(masks)
        kept["weights"] = _digest(dict(model.state_dict()))

    try:
        kept["chosen"] = _digest(pruning.choose(recipe, work))
    except PruningError as error:
        kept["refused"] = type(error).__name__
    steps: list[Any] = []
    try:
        for event in pruning.run(recipe, work, keep=keep):
            name = type(event).__name__
            if name == "Pruned":
                steps.append(
                    [
                        event.step,
                        event.sparsity,
                        [(layer.name, layer.kept) for layer in event.layers],
                    ]
                )
            elif name == "Epoch":
                steps.append(
                    [
                        event.step,
                        event.epoch,
                        event.branch,
                        event.train_loss,
                        event.loss,
                        event.sparsity,
                    ]
                )
            elif name == "Ticket":
                steps.append(
                    [
                        event.step,
                        event.kind,
                        event.kept,
                        event.accuracy.correct,
                        event.overlap,
                        event.shared,
                    ]
                )
            elif name == "Forecast":
                steps.append(
                    [event.step, event.loss, event.drop, event.loss_achieved, event.drop_achieved]
                )
            elif name == "Finished":
                final = event.final
                kept["end"] = [
                    event.sparsity,
                    final.accuracy.correct,
                    final.loss,
                    final.kept,
                    final.macs_kept,
                    final.size.sparse,
                ]
                kept["end"] += [
                    final.size.compressed,
                    final.size.limit,
                    event.dense.accuracy.correct,
                ]
    except PruningError as error:
        kept["stopped"] = f"{type(error).__name__}"
    return {**kept, "steps": steps}


def of_map(model: str, **asked: Any) -> list[Any]:
    """The cells of a sensitivity map."""
    entries = pruning.sensitivity(sample_models.load(model), keep=None, **asked)
    return [
        [
            p.layer,
            p.level,
            p.kept,
            p.accuracy and p.accuracy.correct,
            p.loss,
            p.lost,
            p.won,
            p.interval,
        ]
        for p in entries
    ]


def of_compact(model: str) -> dict[str, Any]:
    """A compact model: its weights and what it answers."""
    work = sample_models.load(model)
    recipe = pruning.Recipe(model=model, granularity="channel", sparsity=0.5)
    masks = pruning.choose(recipe, work)
    pruning.apply(masks, work.model)
    compact = pruning.shrink(work.model, masks, work.example)
    with torch.inference_mode():
        out = compact.eval()(work.example)
    shapes = sorted(tuple(p.shape) for p in compact.parameters())
    return {
        "parameters": sum(p.numel() for p in compact.parameters()),
        "shapes": str(shapes),
        "out": _digest({"out": out}),
    }


def record() -> dict[str, Any]:
    torch.set_num_threads(1)
    entries: dict[str, Any] = {}
    for data in recipes():
        entries[json.dumps(data, sort_keys=True)] = of_recipe(data)
        print(".", end="", flush=True)
    entries["map exact"] = of_map("digits-cnn", levels=(0.5, 0.8, 0.9))
    entries["map channel"] = of_map(
        "digits-resnet", levels=(0.3, 0.6), granularity="channel", tier="progressive"
    )
    entries["map estimate"] = of_map("digits-cnn", levels=(0.5, 0.9), tier="estimate")
    for model in ("digits-mlp", "digits-cnn", "digits-resnet", "digits-depthwise"):
        entries[f"compact {model}"] = of_compact(model)
    print()
    return entries


def main() -> None:
    entries = json.loads(json.dumps(record()))
    Path(sys.argv[1]).write_text(json.dumps(entries, indent=1), encoding="utf-8")
    if len(sys.argv) < 3:
        print(f"{len(entries)} entries.")
        return
    before = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    unlike = [name for name in before if before[name] != entries.get(name)]
    for name in unlike:
        print(f"differs: {name}")
        for key in before[name] if isinstance(before[name], dict) else ():
            if before[name][key] != entries.get(name, {}).get(key):
                old = str(before[name][key])[:200]
                new = str(entries.get(name, {}).get(key))[:200]
                print(f"   {key}: {old} -> {new}")
    print(f"{len(before) - len(unlike)} of {len(before)} entries are equal.")
    sys.exit(1 if unlike else 0)


if __name__ == "__main__":
    main()
