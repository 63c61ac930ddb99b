"""How long work takes and when its turn comes, from this machine's own past times. No torch."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pruning import registry
from pruning.errors import RecipeError
from pruning.recorded import recorded
from pruning.runs import engines
from pruning.runs.store import Job, Store

RECENT = 400
"""Ended jobs that are looked at, newest first: older ones are of another workbench."""


BREAK = 30.0
"""Seconds: a longer time between two runs was a pause, or nobody worked."""


MANY, AGE = 50, 2.0
"""Past jobs beyond which they are read anew only after so many seconds."""


@dataclass(frozen=True)
class Expected:
    """How long jobs like one took here, in seconds: their median, the shortest and the longest.

    times: how many; same_model: of this model, else of any.
    """

    seconds: float
    low: float
    high: float
    times: int
    same_model: bool


@dataclass(frozen=True)
class Wait:
    """Where a job stands. done: seconds it has worked; place: among those that wait, from 1, None
    once it works; begins: seconds until its turn, None where a job before it was never timed.
    """

    expected: Expected | None
    done: float = 0.0
    place: int | None = None
    begins: float | None = 0.0


def expected_seconds(store: Store, kind: str, spec: dict[str, Any]) -> Expected | None:
    """How long a job takes, by finished ones like it: of the same model if there are any.

    Like it: the same kind of study by the same criterion; runs in proportion to their epochs. None:
    nothing like it has been timed on this machine.
    """
    return _expected(_finished(store), kind, spec)


def between_runs(store: Store) -> float:
    """Seconds from a run's end until the next that waits has begun, on the engine that is named:
    their median, 0 while none was seen.

    A run's own time begins when it is taken and ends when it is recorded: this is the rest of what
    a worker spends on it.
    """
    past = _finished(store)
    cluster = engines.named(store.workspace) is not None
    if cluster not in past.between:
        runs = [job for job in past.jobs if job.kind == "run" and _on_cluster(job) is cluster]
        pauses = _pauses(runs)
        past.between[cluster] = median(pauses) if pauses else 0.0
    return past.between[cluster]


def _on_cluster(job: Job) -> bool:
    return (job.owner or "").startswith(engines.OWNER)


def _pauses(runs: Iterable[Job]) -> list[float]:
    """Seconds between an end and the start that it made room for, of one engine's runs.

    Who owns a cluster's runs is its engine, not its worker: each start is taken for that of the
    worker which has been free for longest. A run that came later than that end waited for itself.
    """
    timed = [(job.started, job.ended, job.submitted) for job in runs if job.started and job.ended]
    free: deque[float] = deque()
    ends = deque(sorted(ended for _, ended, _ in timed))
    pauses = []
    for started, _, submitted in sorted(timed):
        while ends and ends[0] <= started:
            free.append(ends.popleft())
        if not free:
            continue
        pause = started - free[0]
        if submitted <= free.popleft() and pause <= BREAK:
            pauses.append(pause)
    return pauses


# ---------------------------------------------------------------- before anything was timed

GRADIENT, FORWARD = 1e-4, 5e-5
"""Seconds that a gradient of one example takes at least, and its answer."""

FLOPS, FORWARD_FLOPS = 1e10, 5e10
"""Operations of a core in a second: of gradients, one example at a time, and of answers, many at
once. On an idle machine a map takes about two thirds of what these say.
"""

CELL = 0.01
"""Seconds that pruning takes, and putting back: for each cell of a map, each unit of a check."""

PARAMETER = 1e-7
"""Seconds for reading and ranking one."""

TRACED, SOLVED = 0.05, 0.03
"""Seconds for each layer: to trace it, and to reconstruct it."""

MAP_LEVELS, REFINED, ESTIMATED, REPAIRED = 9, 500, 512, 1024
"""Of a map: its levels, and images that a progressive map asks a cell of, an estimate looks at, and
a reconstructed cell is asked of."""

CHECK_UNITS, CHECKED, FITTED = 256, 1024, 512
"""Of a criterion check: units, and examples; and examples that reconstruction is fitted to."""


@dataclass(frozen=True)
class Size:
    """What a model's card says that its studies take: 0 for what is not known.

    macs: of one example; validation, test: examples.
    """

    macs: int = 0
    parameters: int = 0
    layers: int = 0
    validation: int = 0
    test: int = 0

    @classmethod
    def of(cls, card: dict[str, Any]) -> Size:
        """card: the plain data of a "card" study; {} while there is none."""
        measured = card.get("measurement") or {}
        validation = int(card.get("validation") or 0)
        accuracy = measured.get("accuracy") or {}
        return cls(
            macs=int(measured.get("macs") or 0),
            parameters=int(card.get("parameters") or 0),
            layers=len(card.get("layers") or ()),
            validation=validation,
            test=int(accuracy.get("total") or validation),
        )

    @property
    def gradient(self) -> float:
        """Seconds for one example's."""
        # A forward and a backward pass are three products, each a multiply and an add.
        return GRADIENT + 6 * self.macs / FLOPS

    @property
    def answer(self) -> float:
        """Seconds for one example's."""
        return FORWARD + 2 * self.macs / FORWARD_FLOPS

    @property
    def half_answer(self) -> float:
        """The same from a layer on, on average over the layers: what comes before it is kept."""
        return FORWARD + self.macs / FORWARD_FLOPS


def study_seconds(store: Store, spec: dict[str, Any], size: Size) -> float | None:
    """How long a study takes: by past ones of the same model, else estimated from what it does.

    None where nothing is known.
    """
    expected = expected_seconds(store, "study", spec)
    if expected is not None and expected.same_model:
        return expected.seconds
    estimate = ESTIMATES.get(spec["what"])
    return estimate(spec, size) or None if estimate else None


def _scores(spec: dict[str, Any], size: Size) -> float:
    return gradients(spec) * size.gradient + PARAMETER * size.parameters


def _map(spec: dict[str, Any], size: Size) -> float:
    if spec.get("tier") == "estimate":
        return min(size.validation, ESTIMATED) * size.gradient
    cells = size.layers * len(spec.get("levels") or range(MAP_LEVELS))
    if spec.get("reconstruct"):
        images = min(size.validation, REPAIRED)
        return cells * (_reconstruction(spec, size) + images * size.answer)
    images = size.validation
    if spec.get("tier") == "progressive":
        images = min(images, REFINED)
    return cells * (CELL + images * size.half_answer)


def _reconstruction(spec: dict[str, Any], size: Size) -> float:
    return SOLVED * size.layers + FITTED * size.gradient


def _criterion_check(spec: dict[str, Any], size: Size) -> float:
    examples = min(size.validation, spec.get("examples", CHECKED))
    return float(spec.get("units", CHECK_UNITS) * (CELL + examples * size.half_answer))


def _profiles(spec: dict[str, Any], size: Size) -> float:
    """Units are left out as long as the time lasts; what they respond to takes two passes."""
    left_out = min(_criterion_check(spec, size), float(spec.get("seconds") or math.inf))
    return left_out + 2 * CHECKED * size.answer


ESTIMATES: dict[str, Callable[[dict[str, Any], Size], float]] = {
    "weights": lambda spec, size: PARAMETER * size.parameters,
    "structure": lambda spec, size: TRACED * size.layers,
    "scores": _scores,
    "units": _scores,
    "criterion_check": _criterion_check,
    "map": _map,
    "profiles": _profiles,
    "surgery": lambda spec, size: 2 * size.test * size.answer + _scores(spec, size),
    "pair": lambda spec, size: 2 * size.test * size.answer,
    "reconstruction": _reconstruction,
}
"""Study -> seconds that it takes on an idle core, without its criterion where it is a map."""


def gradients(spec: dict[str, Any]) -> float:
    """Of a study by a criterion, how many gradients of one example that takes."""
    try:
        count = registry.gradients("criterion", spec["criterion"], spec.get("options") or {})
        if "scope" in spec:  # one that measures
            count += registry.gradients("scope", spec["scope"], {})
    except (KeyError, RecipeError):  # of no criterion, or of one that is no longer there
        return 0.0
    return count


def wait_of(store: Store, job: Job, slots: int) -> Wait:
    """Where a job stands now. slots: workers that take runs; one more takes studies alone."""
    past = _finished(store)
    now = time.time()
    expected = _expected(past, job.kind, job.spec)
    if job.state != "queued":
        # A clock that was set back makes it less than nothing.
        return Wait(expected, max(0.0, (job.ended or now) - (job.started or now)))
    queue, ahead = store.ahead(job.id)
    place = 1 + sum(other.state == "queued" for other in ahead)
    # Long studies are worked on one at a time; studies have the one worker for certain.
    workers = slots if queue == "run" else 1
    free = [0.0] * workers
    for other in ahead:
        takes = _expected(past, other.kind, other.spec)
        if takes is None:
            return Wait(expected, place=place, begins=None if len(ahead) >= workers else 0.0)
        worked = now - other.started if other.started else 0.0
        # Each worker is free once its job is over, and then takes the next that waits. A job that
        # takes longer than ever before may end at any moment.
        free[free.index(min(free))] += max(0.0, takes.seconds - worked)
    return Wait(expected, place=place, begins=min(free))


@dataclass(frozen=True)
class _Past:
    """Finished jobs as they were read last. newest: what tells whether more have finished; read:
    when, in monotonic seconds.

    answers: (kind, spec as text) -> what they say of it; between: whether on a cluster -> seconds
    between two runs.
    """

    newest: tuple[int, float | None]
    jobs: list[Job]
    read: float
    answers: dict[tuple[str, str], Expected | None] = field(default_factory=dict)
    between: dict[bool, float] = field(default_factory=dict)


_past: dict[Path, _Past] = {}
"""Store -> its past: pages ask at each move of a slider, and jobs finish seldom."""


def _finished(store: Store) -> _Past:
    newest = store.newest("finished")
    past = _past.get(store.file)
    # One more among many changes no median: a class finishes several a second.
    if past is not None and len(past.jobs) > MANY and time.monotonic() - past.read < AGE:
        return past
    if past is None or past.newest != newest:
        past = _Past(newest, store.jobs(states=("finished",), limit=RECENT), time.monotonic())
        _past.clear()  # of one store at a time: a process has one
        _past[store.file] = past
    return past


def _expected(past: _Past, kind: str, spec: dict[str, Any]) -> Expected | None:
    asked = (kind, json.dumps(spec, sort_keys=True))
    if asked not in past.answers:
        past.answers[asked] = _by_past(past.jobs, kind, spec)
    return past.answers[asked]


def _by_past(past: Iterable[Job], kind: str, spec: dict[str, Any]) -> Expected | None:
    alike = [job for job in past if job.kind == kind and job.started and job.ended]
    for same_model in (True, False):
        scaled = [_scaled(job, spec, same_model) for job in alike]
        times = [seconds for seconds in scaled if seconds is not None]
        if times:
            return Expected(median(times), min(times), max(times), len(times), same_model)
    return None


def _scaled(job: Job, spec: dict[str, Any], same_model: bool) -> float | None:
    """Seconds that `job` would have taken as `spec`; None where it says nothing of it."""
    assert job.started is not None and job.ended is not None
    seconds = job.ended - job.started
    if (job.spec.get("model") == spec.get("model")) is not same_model:
        return None
    if job.kind == "study":
        names = ("what", "criterion", "tier", "scope", "reconstruct")
        if any(job.spec.get(name) != spec.get(name) for name in names):
            return None
        # Of a thousand probes a few say how long they take.
        asked, before = gradients(spec), gradients(job.spec)
        return seconds * asked / before if asked and before else seconds
    # The last attempt at a run that went on from a checkpoint took less than all of it.
    if job.attempt > 1:
        return None
    # Runs of a set share the machine with each other: their times say nothing of one alone. And an
    # epoch of another model says nothing of one of this.
    if job.batch is not None or not same_model:
        return None
    try:
        earlier, recipe = recorded(job.spec), recorded(spec)
    except RecipeError:  # of a technique that is no longer there
        return None
    epochs, trained = recipe.training_epochs(), earlier.training_epochs()
    if bool(epochs) is not bool(trained):
        return None
    if not epochs:
        return seconds if earlier.criterion == recipe.criterion else None
    if (earlier.batch, earlier.optimizer) != (recipe.batch, recipe.optimizer):
        return None
    return seconds * epochs / trained
