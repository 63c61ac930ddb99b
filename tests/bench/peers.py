"""Masks of torchvision's ResNet-18 against torch.nn.utils.prune's, at ten ratios."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import torch
from test_peers import RATIOS, RECIPES, agree, peers, untied

import sample_models
from pruning.allocation.ranked import rank


def main() -> int:
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        work = sample_models.load("torchvision:resnet18", weights="random")
        work = replace(work, model=untied(work.model, name.startswith("ln")))
        agree(work, name)
        start = time.perf_counter()
        units = rank(recipe, work)
        ranked = time.perf_counter()
        units.masks(units.ranking.drops(replace(recipe, sparsity=0.9)), work.model)
        chosen = time.perf_counter()
        peers(work.model, name, 0.9)
        theirs = time.perf_counter() - chosen
        print(
            f"{name:8} equal at {len(RATIOS)} ratios; ours {ranked - start:.2f} s once and "
            f"{chosen - ranked:.2f} s a mask, theirs {theirs:.2f} s a mask"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
