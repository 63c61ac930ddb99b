"""Everything that was measured of a model, as rows of one shape, wherever it was measured.

Shipped sweeps, shipped alternatives, alternatives that a worker measured, and finished runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import prod
from statistics import fmean
from typing import Any

import sample_models
from pruning import stats
from pruning.advice import shipped
from pruning.events import Finished
from pruning.metrics import Spread
from pruning.recipe import Recipe
from pruning.recorded import recorded
from pruning.runs.results import has_result, load_run, load_study
from pruning.runs.store import Job, Store
from pruning.sweeps import shipped as sweeps
from pruning.sweeps import table
from pruning.sweeps.plan import DENSE, DENSE_LONGER

FAMILIES = {
    "dense": "dense",
    "dense_longer": "dense, trained as long",
    "pruned": "pruning",
    "int8": "int8",
    "half": "half precision",
    "smaller": "a smaller dense network",
    "pruned_int8": "pruning with int8",
}
"""What was done -> its name for people."""

OPTIONS = {
    "dense": "the dense model",
    "onnx": "the dense model in ONNX Runtime",
    "int8-dynamic": "dynamic int8",
    "int8-static": "static int8",
    "onnx-float16": "float16 in ONNX Runtime",
    "float16-file": "a float16 file",
    "torch-float16": "float16 in PyTorch",
    "torch-bfloat16": "bfloat16 in PyTorch",
    "pruned-weights": "weights by LAMP",
    "pruned-channels": "channels (reconstructed)",
    "pruned-weights-int8": "weights by LAMP, then static int8",
    "pruned-channels-int8": "channels (reconstructed), then static int8",
    "smaller-dense": "a smaller dense network",
}
"""Option of a row of alternatives -> its name for people."""


@dataclass(frozen=True)
class Measured:
    """One measured network. None: not measured.

    id: names the run or the shipped row; source: "run", "sweep" or "alternatives"; name: of what
    was done, for people; family: of FAMILIES; recipe: what was pruned, as a dictionary. The others
    are those of `studies.alternatives.COLUMNS`; dense: accuracy of the dense model in the same
    measurement.
    """

    id: str
    source: str
    name: str
    family: str
    level: float | None = None
    seed: int | None = None
    runtime: str = "torch"
    recipe: dict[str, Any] | None = field(default=None, hash=False)
    metric: str | None = None
    accuracy: float | None = None
    dense: float | None = None
    low: float | None = None
    high: float | None = None
    gained: int | None = None
    lost: int | None = None
    examples: int | None = None
    outcomes: str | None = None
    accuracy_pruned: float | None = None
    format: str | None = None
    bytes: int | None = None
    compressed: int | None = None
    macs: int | None = None
    macs_kept: int | None = None
    bits: int = 32
    torch_ms: float | None = None
    torch_dense_ms: float | None = None
    torch_verdict: str | None = None
    onnx_ms: float | None = None
    onnx_dense_ms: float | None = None
    onnx_verdict: str | None = None
    epochs: int | None = None
    train_examples: int | None = None
    calibration: int | None = None
    seconds: float | None = None
    why: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def change(self) -> Spread | None:
        """Accuracy less dense's on the same examples, a share, with its interval."""
        if self.gained is None or self.lost is None or not self.examples:
            return None
        return stats.paired_change(self.lost, self.gained, self.examples)


COLUMNS = {each.name for each in fields(Measured)}


@dataclass(frozen=True)
class Cell:
    """What was done once, with as many seeds as it was measured with."""

    rows: tuple[Measured, ...]

    @property
    def first(self) -> Measured:
        return self.rows[0]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    def mean(self, column: str) -> float | None:
        """Over seeds; None where one was not measured."""
        values = [getattr(row, column) for row in self.rows]
        return None if None in values else fmean(values)

    @property
    def change(self) -> Spread | None:
        """Of accuracy, from dense: over seeds the mean of what each one's test examples allow.

        The examples are the same for all seeds, so that more seeds make this no narrower.
        """
        changes = [row.change for row in self.rows]
        known = [change for change in changes if change is not None]
        if len(known) < len(changes):
            return None
        ends = ("low", "value", "high")
        return Spread(*(fmean(getattr(change, end) for change in known) for end in ends))


def cells(rows: Iterable[Measured]) -> list[Cell]:
    """Rows of one thing with different seeds together, in the order of the rows."""
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for row in rows:
        groups.setdefault((row.source, row.family, row.name, row.level), []).append(row)
    return [Cell(tuple(group)) for group in groups.values()]


# ---------------------------------------------------------------- where rows come from


def of_alternatives(rows: Iterable[Mapping[str, Any]], prefix: str) -> list[Measured]:
    """Rows of the study. prefix: names where they are, before each id."""
    listed = list(rows)
    dense = next((row["accuracy"] for row in listed if row["id"] == "dense"), None)
    made = []
    for row in listed:
        known = {name: value for name, value in row.items() if name in COLUMNS}
        known["id"] = f"{prefix}/{row['id']}"
        known["runtime"] = row["runtime"] or "torch"
        name = OPTIONS.get(row["option"], row["option"])
        made.append(Measured(**known, source="alternatives", name=name, dense=dense))
    return made


def of_sweep(sweep: sweeps.Shipped, macs: int | None, train_examples: int | None) -> list[Measured]:
    """A shipped sweep's rows. macs: of the dense model, None where nobody counted them."""
    epochs = {point.recipe.id: point.recipe for point in sweep.plan.points()}
    made = []
    for row in sweep.rows:
        if row["state"] != "done" or row["accuracy"] is None:
            continue
        recipe = epochs.get(row["recipe"])
        kept = None if macs is None or row["macs"] is None else round(row["macs"] * macs)
        # Single weights that are zero are multiplied all the same; whole channels are not there.
        whole = row["granularity"] in ("channel", "head")
        made.append(
            Measured(
                id=f"{row['model']}/sweep/{row['recipe']}",
                source="sweep",
                name=_name_of_sweep(row),
                family=_family(row["control"]),
                level=row["sparsity"] or None,
                seed=row["seed"],
                recipe=recipe.to_dict() if recipe else None,
                outcomes=sweep.outcomes.get(row["recipe"]),
                macs=kept if whole else macs,
                macs_kept=kept,
                torch_ms=row["latency_ms"],
                torch_dense_ms=row["dense_latency_ms"],
                epochs=recipe.training_epochs() if recipe else None,
                train_examples=train_examples,
                format="safetensors, zeros left out",
                **{name: row[name] for name in _SHARED},
            )
        )
    return made


_SHARED = (
    "metric",
    "accuracy",
    "dense",
    "low",
    "high",
    "gained",
    "lost",
    "examples",
    "accuracy_pruned",
    "bytes",
    "seconds",
)
"""Columns of a sweep's row that mean the same here."""


def _family(control: str) -> str:
    return {DENSE: "dense", DENSE_LONGER: "dense_longer"}.get(control, "pruned")


def _name_of_sweep(row: Mapping[str, Any]) -> str:
    if row["control"] in (DENSE, DENSE_LONGER):
        return {DENSE: "the dense model", DENSE_LONGER: "dense, trained as long"}[row["control"]]
    return f"{row['granularity']}s by {row['technique']}"


def of_run(run: Job, finished: Finished, train_examples: int | None) -> Measured:
    """A finished run of the store."""
    recipe = recorded(run.spec)
    small = finished.deliverable
    figures = table.figures(finished)
    family = "pruned" if recipe.prunes else "dense_longer" if recipe.epochs else "dense"
    whole = finished.compact is not None
    return Measured(
        id=f"run {run.id[:8]}",
        source="run",
        # Its own name: two runs of one technique may differ in anything else.
        name=run.label or f"{recipe.granularity}s by {recipe.criterion}, run {run.id[:8]}",
        family=family,
        level=recipe.sparsity if recipe.prunes else None,
        seed=recipe.seed,
        recipe=recipe.to_dict(),
        compressed=small.size.compressed,
        macs=small.all_macs if whole else finished.dense.all_macs,
        macs_kept=small.all_macs_kept,
        torch_ms=figures["latency_ms"],
        torch_dense_ms=figures["dense_latency_ms"],
        epochs=recipe.training_epochs(),
        train_examples=train_examples,
        format="safetensors, zeros left out",
        **{name: figures[name] for name in _SHARED},
    )


def shipped_rows(model: str) -> list[Measured]:
    """What comes with a sample model: its alternatives, then its sweep's runs that they lack."""
    return list(_shipped_rows(model))


# A page asks for them with every change of the target.
@lru_cache(maxsize=32)
def _shipped_rows(model: str) -> tuple[Measured, ...]:
    alternatives = shipped.find(model)
    made = of_alternatives(alternatives.rows, model) if alternatives else []
    return (*made, *_of_shipped_sweep(model, made))


def _of_shipped_sweep(model: str, beside: Sequence[Measured]) -> list[Measured]:
    sweep = sweeps.find(model)
    if sweep is None:
        return []
    made = of_sweep(sweep, macs_of(model), train_examples_of(model))
    # One recipe was one run: where alternatives have measured it in more ways, theirs stands.
    measured = {_recipe_id(row) for row in beside if row.family == "pruned"}
    has_dense = any(row.family == "dense" for row in beside)
    return [
        row
        for row in made
        if not (row.family == "dense" and has_dense) and _recipe_id(row) not in measured
    ]


def _recipe_id(row: Measured) -> str | None:
    return Recipe.from_dict(row.recipe).id if row.recipe else None


def train_examples_of(model: str) -> int | None:
    """Of a sample model's own data; None for any other."""
    return sample_models.card(model).train if model in sample_models.names() else None


def macs_of(model: str) -> int | None:
    """Of a sample model and one example, by its card: each weight once for each place of the
    output. None for any other, and where attention multiplies more than weights.
    """
    if model not in sample_models.names():
        return None
    blocks = sample_models.card(model).blocks
    if any(block.kind == "attention" for block in blocks):
        return None
    multiplied = [block for block in blocks if block.kind in ("conv", "depthwise", "linear")]
    # (channels, height, width) of a picture, (channels, length) of a series, (features,) of neither
    return sum(block.weights * prod(block.output[1:]) for block in multiplied)


def rows_of(store: Store, model: str) -> list[Measured]:
    """All that is known of a model: shipped, and in the store, whoever asked for it."""
    made = shipped_rows(model)
    for job in store.jobs("study", ("finished",)):
        if job.spec.get("what") == "alternatives" and job.spec.get("model") == model:
            rows = load_study(job.folder).data["rows"]
            made += of_alternatives(rows, f"run {job.id[:8]}")
    for run in store.jobs("run", ("finished",)):
        if run.spec.get("model") == model and has_result(run.folder):
            made.append(of_run(run, load_run(run.folder).finished, train_examples_of(model)))
    return made
