"""From catalogue to shipped file: train a sample model, write its weights and its card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from pruning.types import Workpiece, prunable
from sample_models.blocks import blocks
from sample_models.cards import CARDS, WEIGHTS
from sample_models.catalogue import Sample, sample
from sample_models.data import splits
from sample_models.loading import build, load
from sample_models.training import correct, train

Say = Callable[[str], None]


def make(name: str, *, seed: int = 0, threads: int = 1, say: Say = print) -> dict[str, Any]:
    """Train, ship and describe one sample model; returns the card's facts.

    Test data is looked at once, at the end.

    Raises UnknownName, DataError.
    """
    kind = sample(name)
    torch.set_num_threads(threads)
    training, validation, _ = splits(kind.dataset)
    model = train(build(name, seed), training, validation, kind.training, seed, say)
    ship(model, kind)
    return describe(kind, seed, threads, say)


def ship(model: nn.Module, kind: Sample) -> Path:
    """Write the weights where `load` reads them."""
    stored = {key: _stored(value, kind.half) for key, value in model.state_dict().items()}
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{kind.name}.safetensors"
    save_file(stored, path)
    return path


def describe(kind: Sample, seed: int, threads: int, say: Say = print) -> dict[str, Any]:
    """Measure the shipped file, as loaded, and write the card."""
    work = load(kind.name)
    facts = measured(work, kind) | {
        "recipe": dataclasses.asdict(kind.training),
        "seed": seed,
        "versions": {"torch": torch.__version__.split("+")[0], "threads": threads},
    }
    CARDS.mkdir(exist_ok=True)
    (CARDS / f"{kind.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    right = facts["accuracy"]["correct"]
    total = facts["accuracy"]["total"]
    accuracy = f"{right}/{total} = {right / total:.2%} on test"
    say(f"{kind.name}: {accuracy}, {facts['shipped']:,} bytes shipped")
    return facts


def measured(work: Workpiece, kind: Sample) -> dict[str, Any]:
    """What is counted on the model as it was shipped."""
    test = work.need("test", "The accuracy on a card")
    example = test.tensors[0][:1]
    return {
        "accuracy": {"correct": correct(work.model, test), "total": len(test.x)},
        "parameters": sum(p.numel() for p in work.model.parameters()),
        "weights": sum(w.numel() for w in prunable(work.model).values()),
        "bytes": len(save(dict(work.model.state_dict()))),
        "shipped": (WEIGHTS / f"{kind.name}.safetensors").stat().st_size,
        "blocks": [dataclasses.asdict(block) for block in blocks(work.model, example)],
    }


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().contiguous()
    if half and value.is_floating_point():
        value = value.half()
        if not value.isfinite().all():
            raise OverflowError(
                "A weight is too large for float16: ship this model as float32 "
                "(half=False in the catalogue)."
            )
    return value
