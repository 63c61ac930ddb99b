"""Pruning beside what else makes a network small, each measured on the same test examples.

int8 by ONNX Runtime, half precision, a smaller dense network trained as long, and pruned + int8.
One row for each, plain data, so that a page and `pruning.advice` read it without torch.
"""

from __future__ import annotations

import copy
import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pruning.errors import ModelError, NothingToPrune, OutOfRange, PruningError, Stopped
from pruning.events import Certificate, Finished
from pruning.measurement import Snapshot, answered, logits, take_snapshot
from pruning.measurement.onnx import NotExported
from pruning.measurement.quality import paired
from pruning.measurement.quantised import (
    CALIBRATION,
    Program,
    answers,
    dynamic_int8,
    half_file,
    onnx_float16,
    program,
    program_timings,
    rounded,
    static_int8,
)
from pruning.measurement.speed import timings
from pruning.metrics import Timing
from pruning.outcomes import pack
from pruning.pipeline import run
from pruning.prepare import ready
from pruning.recipe import Recipe
from pruning.studies.weights import Arrays
from pruning.tasks import hits, main_output
from pruning.training.controls import reinitialised
from pruning.training.finetune import finetune
from pruning.types import Batches, Masks, Workpiece

COLUMNS = (
    "id",
    "option",
    "family",
    "level",
    "seed",
    "runtime",
    "recipe",
    "metric",
    "accuracy",
    "low",
    "high",
    "gained",
    "lost",
    "examples",
    "outcomes",
    "accuracy_pruned",
    "format",
    "bytes",
    "compressed",
    "macs",
    "macs_kept",
    "bits",
    "torch_ms",
    "torch_dense_ms",
    "torch_verdict",
    "onnx_ms",
    "onnx_dense_ms",
    "onnx_verdict",
    "epochs",
    "train_examples",
    "calibration",
    "seconds",
    "why",
)
"""Of every row, in this order. None: not measured.

id: of the row among the model's; option: what was done; family: one of FAMILIES; level: share
pruned that was asked for; runtime: that accuracy was measured in, "torch" or "onnx"; recipe: of
what was pruned, as a dictionary; accuracy: on test data, a share (or what the metric says), low
and high: its 95 % interval; gained, lost: test examples that only this one answers correctly, or
only the dense model in PyTorch, of `examples`; outcomes: which of them it answers correctly
(`outcomes.pack`); accuracy_pruned: before fine-tuning; bytes: of the file in its `format`,
compressed: of that file by gzip; macs, macs_kept: multiply-accumulates of one example, all and
without those of zero weights; bits: of each operand; torch_ms, onnx_ms: of one example on one
thread, the dense model's in the same rounds beside them, and what that comes to
(metrics.Timing.verdict); epochs: that it was trained after dense, or from scratch; train_examples:
that it was trained on, calibration: that ranges were taken from; seconds: that making it took;
why: column (or "" for the whole row) -> what stood in the way.
"""

FAMILIES = ("dense", "pruned", "int8", "half", "smaller", "pruned_int8")

SPARSE = "safetensors, zeros left out"
PLAIN = "safetensors"
ONNX = "ONNX"

NO_TORCH = "It is a program of ONNX Runtime, which PyTorch does not run."
NO_ONNX = "It is computed in PyTorch; for ONNX Runtime see its own row."

Row = dict[str, Any]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Plan:
    """Which networks are made. weights, channels: shares pruned; epochs: of fine-tuning.

    scratch: epochs of the smaller dense network; None: as many as the sample model was trained for,
    and `epochs` more, or OWN_SCRATCH where nobody knows that. precision: of fine-tuning's products,
    as a recipe has it.
    """

    weights: tuple[float, ...] = (0.9,)
    channels: tuple[float, ...] = (0.5,)
    seeds: tuple[int, ...] = (0,)
    epochs: int = 5
    scratch: int | None = None
    precision: str = "float32"

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Plan:
        """Raises OutOfRange."""
        names = [each.name for each in fields(cls)]
        asked = {name: spec[name] for name in names if name in spec}
        for name in ("weights", "channels", "seeds"):
            if name in asked:
                asked[name] = _numbers(name, asked[name])
        for name in ("epochs", "scratch"):
            value = asked.get(name)
            if value is not None and (type(value) is not int or not 0 < value <= MOST_EPOCHS):
                raise OutOfRange(name, value, f"a whole number from 1 to {MOST_EPOCHS}")
        return cls(**asked)


MOST, MOST_EPOCHS = 5, 500
OWN_SCRATCH = 30
"""Epochs of the smaller dense network where nobody knows how long the model was trained."""


def _numbers(name: str, values: Any) -> tuple[Any, ...]:
    numbers = isinstance(values, (list, tuple)) and all(type(v) in (int, float) for v in values)
    if not numbers or len(values) > MOST:
        raise OutOfRange(name, values, f"up to {MOST} numbers")
    return tuple(values)


def alternatives(
    spec: dict[str, Any], work: Workpiece, stop: Stop | None = None
) -> tuple[dict[str, Any], Arrays]:
    """spec: what Plan.of reads. json: "rows", as COLUMNS says.

    Raises DataError without test data, OutOfRange, Stopped.
    """
    plan = Plan.of(spec)
    return {"rows": [row for group in groups(work, plan, stop) for row in group]}, {}


def groups(
    work: Workpiece, plan: Plan, stop: Stop | None = None, done: Sequence[str] = ()
) -> Iterator[list[Row]]:
    """The rows, those that are timed in the same rounds together.

    done: ids of rows whose groups are left out, since they were measured before.
    Raises DataError, Stopped.
    """
    dense = _Dense.of(ready(work))
    _raise_if(stop)
    if "dense" not in done:
        yield as_it_is(dense)
    for seed in plan.seeds:
        for granularity, levels in (("weight", plan.weights), ("channel", plan.channels)):
            for level in levels:
                _raise_if(stop)
                if f"{granularity}s-{level:g}-{seed}" not in done:
                    yield pruned(dense, plan, granularity, level, seed, stop)


def _raise_if(stop: Stop | None) -> None:
    if stop is not None and stop():
        raise Stopped("Stopped before all alternatives were measured.")


@dataclass
class _Dense:
    """The dense model, and what everything is measured beside.

    snapshot: with its outputs for all test examples.
    """

    work: Workpiece
    test: Batches
    snapshot: Snapshot

    @classmethod
    def of(cls, work: Workpiece) -> _Dense:
        work = work.reference
        return cls(work, work.need("test", "Measuring alternatives"), take_snapshot(work))

    @cached_property
    def program(self) -> Program | NotExported:
        """In ONNX, or why it is not there. Exporting takes seconds."""
        return exported(self.work)

    def row(self, id: str, option: str, family: str, outputs: Tensor | None, **own: Any) -> Row:
        """A row with what these outputs say beside the dense model's."""
        values: Row = dict.fromkeys(COLUMNS)
        values |= {"id": id, "option": option, "family": family, "bits": 32, "why": {}}
        measured = self.snapshot.measurement
        values |= {"macs": measured.all_macs, "macs_kept": measured.all_macs}
        if outputs is not None:
            values |= self._quality(outputs)
        return values | own

    def _quality(self, outputs: Tensor) -> Row:
        accuracy, _, score = answered(outputs, self.test, self.work.loss, self.work.metric)
        judged = score or accuracy
        if judged is None:
            return {}
        spread = judged.spread
        pair = paired(outputs, self.snapshot.logits, self.test, self.work.metric)
        return {
            "metric": judged.name,
            "accuracy": round(float(judged.value), 6),
            "low": round(spread.low, 6) if spread else None,
            "high": round(spread.high, 6) if spread else None,
            "gained": pair.gained if pair else None,
            "lost": pair.lost if pair else None,
            "examples": self.test.examples,
            "outcomes": self._outcomes(outputs) if pair else None,
        }

    def _outcomes(self, outputs: Tensor) -> str:
        return pack(hits(outputs, self.test.y.cpu()).cpu().numpy())


def exported(work: Workpiece) -> Program | NotExported:
    """The model in ONNX, or why it cannot be."""
    if work.example is None:
        return NotExported("has no example, and is not exported")
    try:
        return program(work.model, work.example)
    except NotExported as why:
        return why


# ---------------------------------------------------------------- as it is, in fewer bits


def as_it_is(dense: _Dense) -> list[Row]:
    """The dense model in PyTorch and ONNX Runtime, in int8 and in half precision."""
    plain = save(_state(dense.work.model))
    rows = [dense.row("dense", "dense", "dense", dense.snapshot.logits, **_file(plain, PLAIN))]
    rows[0] |= {"runtime": "torch"}
    programs = _programs(dense, rows)
    rows += _halves(dense, rows[0])
    _time_programs(dense, programs)
    return rows


def _programs(dense: _Dense, rows: list[Row]) -> list[tuple[Row, Program]]:
    """Adds a row for each program of ONNX Runtime; those that there are, beside their rows."""
    made: list[tuple[Row, Program]] = []
    train = dense.work.train
    wanted: list[tuple[str, str, dict[str, Any], Callable[[Program], Program]]] = [
        ("onnx", "dense", {}, lambda source: source),
        ("int8-dynamic", "int8", {"bits": 8}, dynamic_int8),
        ("onnx-float16", "half", {"bits": 16}, onnx_float16),
    ]
    if train is not None:
        used = min(train.examples, CALIBRATION)
        static = {"bits": 8, "calibration": used}
        wanted.insert(2, ("int8-static", "int8", static, lambda source: static_int8(source, train)))
    for id, family, own, make in wanted:
        row, file = _of_program(dense, id, family, dense.program, make)
        rows.append(row | own)
        if file is not None:
            made.append((rows[-1], file))
    return made


def _of_program(
    dense: _Dense,
    id: str,
    family: str,
    source: Program | NotExported,
    make: Callable[[Program], Program],
    **own: Any,
) -> tuple[Row, Program | None]:
    """A row of what `make` makes of a program, and that; None where it could not be made."""
    began = time.perf_counter()
    option = own.pop("option", id)
    try:
        if isinstance(source, NotExported):
            raise source
        file = make(source)
        outputs = answers(file, dense.test)
    except NotExported as why:
        return dense.row(id, option, family, None, why={"": f"It {why}."}, **own), None
    row = dense.row(
        id,
        option,
        family,
        outputs,
        runtime="onnx",
        format=ONNX,
        bytes=file.bytes,
        compressed=file.compressed,
        seconds=round(time.perf_counter() - began, 2),
        **own,
    )
    row["why"] = {"torch_ms": NO_TORCH}
    return row, file


def _halves(dense: _Dense, first: Row) -> list[Row]:
    """Numbers stored in 16 bits, and computed in them.

    first: the dense model's row, which is timed along.
    """
    model, test = dense.work.model, dense.test
    rows = []
    stored = rounded(model, torch.float16)
    outputs = logits(stored, test)
    file = _file(half_file(model, torch.float16), f"{PLAIN}, float16")
    rows.append(dense.row("float16-file", "float16-file", "half", outputs, **file))
    timed: list[tuple[Row, nn.Module]] = [(rows[0], stored)]
    for name in ("float16", "bfloat16"):
        dtype = getattr(torch, name)
        row = dense.row(f"torch-{name}", f"torch-{name}", "half", None, bits=16)
        row |= _file(half_file(model, dtype), f"{PLAIN}, {name}")
        try:
            halved = Halved(model, dtype)
            timed.append((row, halved))
            seconds = _pass_seconds(halved, test)
            if seconds <= PATIENCE:
                row |= dense._quality(logits(halved, test))
            else:
                why = f"All test examples would take about {seconds:.0f} s in {name} here."
                row["why"] = {"accuracy": why}
        except Exception as error:  # a layer without a product of that kind on this processor
            row["why"] = {"": f"PyTorch does not compute it in {name} ({type(error).__name__})."}
        rows.append(row)
    for row in rows:
        row["runtime"] = "torch"
        row["why"] = {"onnx_ms": NO_ONNX, **row["why"]}
    _time_models(dense, [(first, model), *timed])
    return rows


PATIENCE = 60.0
"""Seconds of a pass over the test data in half precision: some processors have no fast products of
that kind, and emulate them."""


def _pass_seconds(model: nn.Module, test: Batches) -> float:
    """About how long all test examples take, by the first few."""
    few = test.head(FEW)
    began = time.perf_counter()
    logits(model, few)
    return (time.perf_counter() - began) * test.examples / few.examples


FEW = 32


class Halved(nn.Module):
    """A copy that computes in `dtype`, and takes and gives what the model did.

    The conversions are timed along: whoever computes so has float32 examples too.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = (x.to(self.dtype) if x.is_floating_point() else x for x in inputs)
        main = main_output(self.model(*parts))
        assert main is not None, "what has no outputs was refused before"
        return main.float()


# ---------------------------------------------------------------- pruned, and smaller dense


def pruned(
    dense: _Dense, plan: Plan, granularity: str, level: float, seed: int, stop: Stop | None
) -> list[Row]:
    """A network pruned and fine-tuned, the same in int8, and for channels the same widths trained
    from scratch.
    """
    place = f"{level:g}-{seed}"
    id = f"{granularity}s-{place}"
    recipe = recipe_of(dense.work.name, granularity, level, seed, plan)
    common = {"level": level, "seed": seed, "recipe": recipe.to_dict()}
    common |= {"epochs": plan.epochs, "train_examples": _train_examples(dense.work)}
    option = f"pruned-{granularity}s"
    began = time.perf_counter()
    try:
        result = _prune(dense.work, recipe, stop)
        small = result.work
        if granularity == "channel" and not result.compact:
            raise ModelError("It has no compact model: no channel could be left out of it.")
    except Stopped:
        raise
    except (PruningError, NothingToPrune) as error:
        return [dense.row(id, option, "pruned", None, **common, why={"": str(error)})]
    row = _of_model(dense, id, option, "pruned", small, SPARSE, **common)
    row["accuracy_pruned"] = result.accuracy_pruned
    row["seconds"] = round(time.perf_counter() - began, 2)
    rows, timed = [row], [(row, small.model)]
    files = [exported(small)]
    quantised: list[tuple[Row, Program]] = []
    if not isinstance(files[0], NotExported):
        quantised.append((row, files[0]))
    train = dense.work.train
    if train is not None:
        own = {**common, "bits": 8, "calibration": min(train.examples, CALIBRATION)}
        own |= {"macs": row["macs"], "macs_kept": row["macs_kept"], "option": f"{option}-int8"}

        def static(source: Program) -> Program:
            return static_int8(source, train)

        name = f"{granularity}s-int8-{place}"
        both, file = _of_program(dense, name, "pruned_int8", files[0], static, **own)
        rows.append(both)
        if file is not None:
            quantised.append((both, file))
    if granularity == "channel":
        smaller, epochs = from_scratch(dense.work, small.model, plan, seed, stop)
        own = {**common, "recipe": None, "epochs": epochs}
        id = f"smaller-{place}"
        row = _of_model(dense, id, "smaller-dense", "smaller", smaller, PLAIN, **own)
        rows.append(row)
        timed.append((row, smaller.model))
        file_of_smaller = exported(smaller)
        if not isinstance(file_of_smaller, NotExported):
            quantised.append((row, file_of_smaller))
    _time_models(dense, timed)
    _time_programs(dense, quantised)
    return rows


def recipe_of(model: str, granularity: str, level: float, seed: int, plan: Plan) -> Recipe:
    """What is pruned: single weights by LAMP, or every layer's channels, solved anew and fine-tuned
    as a compact model, whose layers then have the widths of a smaller dense network.
    """
    plain = Recipe(
        model=model, sparsity=level, seed=seed, epochs=plan.epochs, precision=plan.precision
    )
    if granularity == "weight":
        return replace(plain, scope="lamp")
    return replace(
        plain, granularity="channel", scope="per_layer", reconstruct=True, finetune_compact=True
    )


class _Result(NamedTuple):
    """What a run came to: the compact model where there is one."""

    work: Workpiece
    compact: bool
    accuracy_pruned: float | None


def _prune(work: Workpiece, recipe: Recipe, stop: Stop | None) -> _Result:
    kept: list[nn.Module] = []
    compact: list[nn.Module] = []

    def keep(model: nn.Module, masks: Masks) -> None:
        kept.append(model)

    def keep_compact(model: nn.Module, certificate: Certificate) -> None:
        compact.append(model)

    events = list(run(recipe, work, stop=stop, keep=keep, keep_compact=keep_compact))
    end = events[-1]
    if not isinstance(end, Finished):
        raise Stopped("Stopped before all alternatives were measured.")
    before = end.pruned.quality if end.pruned else None
    small = replace(work, model=(compact or kept)[0], dense=None, masks=None)
    return _Result(small, bool(compact), round(float(before.value), 6) if before else None)


def from_scratch(
    work: Workpiece, small: nn.Module, plan: Plan, seed: int, stop: Stop | None
) -> tuple[Workpiece, int]:
    """A network of the same widths on random weights, trained; and for how many epochs.

    A sample model's by the very loop that trained it; others by the one that fine-tunes.
    """
    import sample_models

    model = reinitialised(small, seed)
    smaller = replace(work, model=model, dense=None, masks=None)
    train = work.need("train", "Training a smaller network")
    if work.name in sample_models.names():
        from sample_models.catalogue import sample
        from sample_models.training import train as train_sample

        own = sample(work.name).training
        epochs = plan.scratch or own.epochs + plan.epochs

        def watched(line: str) -> None:
            _raise_if(stop)

        validation = work.need("validation", "Training a smaller network")
        train_sample(model, train, validation, replace(own, epochs=epochs), seed, watched)
        return smaller, epochs
    epochs = plan.scratch or OWN_SCRATCH
    recipe = Recipe(epochs=epochs, seed=seed, augment=work.augment is not None, weight_decay=5e-4)
    for _ in finetune(smaller, {}, recipe, stop=stop):
        pass
    return smaller, epochs


def _of_model(
    dense: _Dense, id: str, option: str, family: str, work: Workpiece, format: str, **own: Any
) -> Row:
    """A row of a network in PyTorch."""
    snapshot = take_snapshot(work)
    measured = snapshot.measurement
    size = measured.size
    if format == SPARSE:
        file = {"format": SPARSE, "bytes": size.sparse, "compressed": size.compressed}
    else:
        file = _file(save(_state(work.model)), format)
    macs = {"macs": measured.all_macs, "macs_kept": measured.all_macs_kept}
    shared = {"runtime": "torch", **macs, **file}
    return dense.row(id, option, family, snapshot.logits, **shared, **own)


def _train_examples(work: Workpiece) -> int | None:
    return work.train.examples if work.train else None


# ---------------------------------------------------------------- files and times


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Each tensor by itself: tied weights share memory, which safetensors refuses."""
    return {name: value.clone().contiguous() for name, value in model.state_dict().items()}


def _file(content: bytes, format: str) -> Row:
    compressed = len(gzip.compress(content, mtime=0))
    return {"format": format, "bytes": len(content), "compressed": compressed}


def _time_models(dense: _Dense, rows: Sequence[tuple[Row, nn.Module]]) -> None:
    """Adds milliseconds in PyTorch, all in the same rounds."""
    if dense.work.example is None:
        return
    try:
        with _one_thread():
            timed = timings([dense.work.model, *(model for _, model in rows)], dense.work.example)
    except Exception as error:  # a model that takes no batch of one, say: no row is lost for it
        for row, _ in rows:
            row["why"]["torch_ms"] = f"It could not be timed ({type(error).__name__})."
        return
    first = timed[0][0]
    for (row, _), own in zip(rows, timed[1:], strict=True):
        _note(row, "torch", own[0], first)


def _time_programs(dense: _Dense, rows: Sequence[tuple[Row, Program]]) -> None:
    """Adds milliseconds in ONNX Runtime, all in the same rounds."""
    reference = dense.program
    if isinstance(reference, NotExported) or dense.work.example is None or not rows:
        return
    try:
        with _one_thread():
            timed = program_timings([reference, *(file for _, file in rows)], dense.work.example)
    except NotExported as error:
        for row, _ in rows:
            row["why"]["onnx_ms"] = f"It {error}."
        return
    for (row, _), own in zip(rows, timed[1:], strict=True):
        _note(row, "onnx", own, timed[0])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Rows of trainings on more threads are timed as all others are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _note(row: Row, runtime: str, own: Timing, first: Timing) -> None:
    if own.latency is not None and first.latency is not None:
        row[f"{runtime}_ms"] = round(own.latency.median, 5)
        row[f"{runtime}_dense_ms"] = round(first.latency.median, 5)
        row[f"{runtime}_verdict"] = own.verdict
    else:
        row["why"][f"{runtime}_ms"] = own.why or first.why
