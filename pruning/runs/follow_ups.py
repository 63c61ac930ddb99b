"""Recipes of runs that follow on a run: going on with a stopped one, and comparison runs. No torch.

Comparison runs are the controls of a claim about pruning: the same training without pruning, the
same size without a criterion, the same size without the trained weights. (`Recipe.controls` are
those of lottery tickets, trained inside their run.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pruning import registry
from pruning.events import Halted
from pruning.recipe import Recipe
from pruning.recorded import refusal

DENSE = "dense"
RANDOM = "random"
SCRATCH = "scratch"

UNPRUNED: dict[str, Any] = {
    "sparsity": 0.0,
    "criterion": "magnitude",
    "options": {},
    "scope": "global",
    "scope_options": {},
    "ratios": {},
    "removed": {},
    "exclude": (),
    "min_units": 1,
    "schedule": "one_shot",
    "schedule_options": {},
}
"""Fields of recipes that prune nothing: equal ones are one run, whatever they are compared with."""


def continued(recipe: Recipe, id: str, halted: Halted) -> Recipe | None:
    """What was left to do when run `id` was stopped, starting from what it had reached.

    None where it left no weights, where all was done, or where it rewinds: the weights that a
    rewind returns to are no longer known. Within the last step the learning rate begins anew.
    """
    if refusal(recipe):
        return None
    if halted.result is None or halted.done >= halted.planned or recipe.rewind != "none":
        return None
    epochs = recipe.epochs
    # The steps that had not begun, and the one that had not ended.
    steps = recipe.steps - halted.step + (halted.epoch < epochs)
    if halted.step == recipe.steps:
        epochs -= halted.epoch
    steps = min(steps, recipe.steps)
    return replace(recipe, model=f"run:{id}", start="trained", steps=steps, epochs=epochs)


def dense_run(recipe: Recipe) -> Recipe:
    """The dense model, trained as long: the same for every criterion, amount and granularity."""
    return replace(
        recipe, **UNPRUNED, granularity="weight", granularity_options={}, finetune_compact=False
    )


def comparison_runs(recipe: Recipe, id: str) -> dict[str, Recipe]:
    """The comparison runs of run `id`, by kind; none where nothing is pruned and then trained.

    DENSE: the dense model, trained as long. The same for every criterion, amount and granularity,
    so runs of one model share it.
    RANDOM: as much of each layer or of all of them as the scope says, chosen at random.
    SCRATCH: the run's own masks on new random weights, trained as long: Liu et al., 2019,
    https://arxiv.org/abs/1810.05270. Of a structured run that is the compact model's shape.
    """
    # A lottery trains its own controls, and its dense network, inside the run.
    if not recipe.prunes or not recipe.epochs or recipe.rewind != "none":
        return {}
    runs = {DENSE: dense_run(recipe)}
    if recipe.criterion != "random" and not registry.misfit("random", recipe.granularity):
        # A scope without a budget goes by the scores' size: it would prune another share.
        # Units that are named are no choice of a criterion, and ratios beside them no amount.
        if recipe.budgeted or (recipe.scope == "manual" and not recipe.removed):
            runs[RANDOM] = replace(recipe, criterion="random", options={}, removed={})
    # Granularity stays: it says whether the masks are a smaller shape.
    scratch = replace(recipe, **UNPRUNED, model=f"run:{id}", start="random", slimming=0.0)
    runs[SCRATCH] = replace(scratch, steps=recipe.training_epochs() // recipe.epochs)
    return runs
