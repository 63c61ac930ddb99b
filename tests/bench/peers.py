"""Masks of torchvision's ResNet-18 against torch.nn.utils.prune's, at ten ratios: equal, and in how long."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import torch
from test_peers import RATIOS, RECIPES, agree, peers, untied

import sample_models
from pruning import masks


def main() -> int:
    torch.set_num_threads(1)
    for how in RECIPES:
        work = sample_models.load("torchvision:resnet18", weights="random")
        work = replace(work, model=untied(work.model, how.startswith("ln")))
        agree(work, how)
        began = time.perf_counter()
        units = masks.rank(RECIPES[how], work)
        ranked = time.perf_counter() - began
        masks.verdict(units, units.ranking.drops(replace(RECIPES[how], sparsity=0.9)), work.model)
        chosen = time.perf_counter() - began - ranked
        began = time.perf_counter()
        peers(work.model, how, 0.9)
        theirs = time.perf_counter() - began
        print(
            f"{how:8} equal at {len(RATIOS)} ratios; ours {ranked:.2f} s once and {chosen:.2f} s a mask, theirs {theirs:.2f} s a mask"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
