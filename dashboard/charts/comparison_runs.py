"""A run beside its comparison runs, as rows of a table. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dashboard import words
from pruning.events import Finished
from pruning.metrics import Paired
from pruning.runs.follow_ups import DENSE, RANDOM, SCRATCH
from pruning.stats import difference

NAMES = {
    DENSE: "Dense, trained as long",
    RANDOM: "Random at the same sparsity",
    SCRATCH: "Same size from scratch",
}
HELP = {
    DENSE: (
        "The same training without pruning. Fine-tuning is more training: only against this does "
        "one see what pruning cost."
    ),
    RANDOM: (
        "The same recipe with a random criterion. Only what is better than this is the criterion's "
        "merit."
    ),
    SCRATCH: (
        "This run's masks on new random weights, trained as long as it was fine-tuned. Only what "
        "is better than this is the merit of the trained weights. (Liu et al., 2019, train longer.)"
    ),
}


@dataclass(frozen=True)
class ComparisonRun:
    """One comparison run. standing: how far it is; end: None until it has finished; answers: this
    run's beside its own on the same test examples, None while they are not paired.
    """

    kind: str
    standing: str
    end: Finished | None = None
    answers: Paired | None = None


def table(this: Finished, others: list[ComparisonRun]) -> pd.DataFrame:
    """A row for this run and for each comparison run."""
    metric = this.final.quality.name if this.final.quality else "accuracy"
    rows = [_row("This run", this, "—", metric)]
    for other in others:
        if other.end is None:
            rows.append(_row(NAMES[other.kind], None, other.standing, metric))
        else:
            rows.append(_row(NAMES[other.kind], other.end, against(this, other), metric))
    return pd.DataFrame(rows)


def _row(name: str, end: Finished | None, against: str, metric: str) -> dict[str, str]:
    final = end.final if end else None
    return {
        "run": name,
        f"{metric}, test": words.percent(final.quality) if final else "",
        "weights kept": words.count(final.kept) if final else "",
        "this run against it": against,
    }


def against(this: Finished, other: ComparisonRun) -> str:
    """How this run's accuracy differs, with its 95 % interval: paired where both answered the same
    examples.
    """
    if other.end is None or not this.final.quality or not other.end.final.quality:
        return words.NOT_MEASURED
    if not this.final.accuracy or not other.end.final.accuracy:
        return words.points(this.final.quality, other.end.final.quality)
    if other.answers is not None:
        change, how = other.answers.change, "same test examples"
    else:
        change = difference(this.final.accuracy.spread, other.end.final.accuracy.spread)
        how = "not paired"
    tie = ", within the interval" if change.crosses_zero else ""
    return f"{words.change(change)}{tie}; {how}"


def finding(this: Finished, others: list[ComparisonRun]) -> str:
    """What the comparison with the dense model says; "" until there is one."""
    for other in others:
        if other.kind == DENSE and other.end is not None and other.end.final.quality:
            accuracy = words.percent(other.end.final.quality)
            return (
                f"Dense, trained as long, reaches {accuracy}. This run against it: "
                f"{against(this, other)}."
            )
    return ""
