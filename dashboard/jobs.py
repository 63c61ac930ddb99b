"""The queue of runs, studies and sensitivity maps, as pages use it. Imports no torch.

Pages ask here and get an answer at once; workers do the work in processes of their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import streamlit as st

from dashboard import example, rooms, state, visitors
from dashboard.charts.prune import RunHistory
from dashboard.charts.prune import history as run_history
from pruning import describe, recorded
from pruning.describe import RunFacts
from pruning.errors import DiskFull, PruningError, RunError, StoreError
from pruning.events import Event, Finished, Halted, Point, Pruned, Ticket
from pruning.recipe import Recipe
from pruning.runs import database, engines, own_models, shipped
from pruning.runs import store as store_file
from pruning.runs.results import (
    PackedMask,
    RunResult,
    Study,
    has_result,
    load_run,
    load_study,
    overlap_of,
)
from pruning.runs.store import (
    DAMAGED,
    MOMENT,
    PARKED,
    SWEEP,
    UNWATCHED,
    Job,
    Store,
)
from pruning.runs.waits import (
    Expected,
    Size,
    Wait,
    expected_seconds,
    gradients,
    study_seconds,
    wait_of,
)
from pruning.stats import Overlap
from pruning.storage import default_workspace
from pruning.sweeps import driver

LIVE = ("queued", "running")
FAILED = store_file.FAILED
LEAST_ROOM = 1 << 20
"""Bytes that must be free on the workspace's disk."""

BEGUN_ANEW = (
    "{place} was deleted or moved while the workbench was running, so an empty store was begun "
    "there. To have the old one again, close the workbench and put it back."
)
SET_ASIDE = "The damaged store is kept as {aside}, and a new one was begun."
NO_ROOM = (
    "The disk of {place} is full: nothing can be saved or started. Free some space: what works "
    "waits a minute for it, and then fails."
)

NOT_YOURS = (
    "Run {id} is somebody else's: they can stop and delete it, and whoever started the server."
)

OTHERS_WANT = (
    "Others of the class asked for run {id} as well: who teaches it can stop and delete it."
)

_lock = RLock()
_notices: list[tuple[float, str]] = []
"""What happened to the workspace: monotonic seconds, and a sentence that every tab shows once."""

NEWS = 600.0
"""Seconds for which tabs that are opened later show it, too."""


def store() -> Store:
    """The workspace's store; a new one where it was deleted under this server.

    Raises StoreError.
    """
    place = str(default_workspace())
    with _lock:
        current = _store(place)
        if current.database.deleted():
            _begin_anew(BEGUN_ANEW.format(place=place))
        return _store(place)


# Not Streamlit's cache, which takes longer to find it than most questions take to be answered.
@lru_cache(maxsize=4)
def _store(place: str) -> Store:
    return Store(Path(place))


def _begin_anew(notice: str) -> None:
    """Forget everything of a store that is no more, and tell every tab."""
    _store.cache_clear()
    _ensure.clear()
    _notices.append((time.monotonic(), notice))


def set_aside() -> None:
    """Rename the store, which cannot be read, and begin a new one."""
    try:
        aside = store_file.set_aside(default_workspace())
    except PruningError as error:
        state.warn(str(error))
    else:
        with _lock:
            _begin_anew(SET_ASIDE.format(aside=aside))


def notices() -> list[str]:
    """What happened to the workspace since this server started."""
    return [text for _, text in _notices]


def old_notices() -> int:
    """How many of them are no news any more, for a tab that was just opened."""
    return sum(time.monotonic() - at > NEWS for at, _ in _notices)


def trouble() -> StoreError | None:
    """What is wrong with the workspace as a whole; None where all is well."""
    try:
        current = store()
        current.check()
        # The first page needs no workers, and they take a core while it is drawn: they start a
        # moment later, or with the first job that waits.
        if str(default_workspace()) in _wanted:
            ensure()
    except StoreError as error:
        return error
    if not current.writable:
        return StoreError(database.READ_ONLY.format(file=current.file))
    free = shutil.disk_usage(current.workspace).free
    return DiskFull(NO_ROOM.format(place=current.workspace)) if free < LEAST_ROOM else None


def damaged() -> dict[str, str]:
    """Id -> why its row cannot be read, of the jobs that are not shown for that."""
    try:
        return dict(store().damaged)
    except StoreError:
        return {}


_wanted: set[str] = set()
"""Workspaces whose pool was wanted since this server started: from then on one that dies is
replaced by the next page.
"""


def ensure() -> None:
    """See that the worker pool runs, and what drives searches. Raises StoreError."""
    _wanted.add(str(default_workspace()))
    _ensure(str(default_workspace()))


def ensure_anew() -> None:
    """The same, also where that was seen a moment ago: there is something new to drive."""
    _ensure.clear()
    ensure()


# The entry expires: a pool that died is replaced by the next page that asks.
@st.cache_resource(ttl=5, max_entries=4)
def _ensure(place: str) -> bool:
    from pruning.runs import pool

    pool.ensure()
    driver.ensure(store())
    return True


# ---------------------------------------------------------------- runs


def start(recipe: Recipe) -> str:
    """Queue a run; its id. A press is a run of its own, unless it repeats one of a moment ago.

    In a class equal recipes are one run, whoever of it pressed first.
    """
    if rooms.room_of(visitors.me()) is not None:
        return start_once(recipe)
    _check(recipe)
    ensure()
    spec = recipe.to_dict()
    return store().submit("run", spec, within=MOMENT, visitor=visitors.me())


def start_once(recipe: Recipe) -> str:
    """Queue a run, unless one of an equal recipe waits, works or is finished; its id."""
    same = run_of(recipe)
    if same is not None:
        if same.state == "queued":
            store().want(same.id)  # it may wait for a sweep, even a paused one
        rooms.note_run(visitors.me(), same.id)
        return same.id
    _check(recipe)
    ensure()
    # The key settles a race of two tabs.
    key = f"run:{recipe.id}"
    id = store().submit("run", recipe.to_dict(), key=key, visitor=visitors.me())
    rooms.note_run(visitors.me(), id)
    return id


def _check(recipe: Recipe) -> None:
    """Raises RecipeError for a recipe that this server runs for nobody."""
    recorded.check(recipe)
    own_models.check(recipe.model)


def run_of(recipe: Recipe) -> Job | None:
    """The newest run of an equal recipe that waits, works or is finished with its files there."""
    for job in store().jobs_of("run", recipe.to_dict()):
        if _answers(job):
            return job
    return None


def start_set(recipes: Sequence[Recipe]) -> str:
    """Queue runs that belong together; the set's id. In a class equal sets are one."""
    in_class = rooms.room_of(visitors.me()) is not None
    id = _equal_set(recipes) if in_class else None
    if id is None:
        for recipe in recipes:
            _check(recipe)
        ensure()
        specs = [recipe.to_dict() for recipe in recipes]
        id = store().submit_set(specs, within=MOMENT, visitor=visitors.me())
    if in_class:
        for run in runs_of_set(id):
            rooms.note_run(visitors.me(), run.id)
    return id


def _equal_set(recipes: Sequence[Recipe]) -> str | None:
    """A set of the same runs, none of which has failed or was stopped."""
    specs = [recipe.to_dict() for recipe in recipes]
    for job in store().jobs_of("run", specs[0]) if specs else ():
        runs = runs_of_set(job.batch) if job.batch else []
        if [run.spec for run in runs] == specs and all(map(_answers, runs)):
            return job.batch
    return None


def _answers(run: Job) -> bool:
    """Whether a run waits, works or is finished with its files there."""
    return run.state in LIVE or (run.state == "finished" and has_result(run.folder))


def runs_of_set(id: str) -> list[Job]:
    """The runs of a set, in the order they were queued; none for an id the store does not have."""
    return store().jobs("run", batch=id)[::-1]


def stop(id: str) -> None:
    """Ask a job to stop; why it could not be asked is a warning, since buttons call this."""
    try:
        _check_own(id)
        store().stop(id)
    except PruningError as error:
        state.warn(str(error))


def delete(id: str) -> None:
    """Delete a job and its files; why it could not be is a warning."""
    try:
        _check_own(id)
        store().delete(id)
    except PruningError as error:
        state.warn(str(error))


def trash(ids: Iterable[str]) -> None:
    """Delete runs, so that they can be restored; why one could not be is a warning."""
    for id in ids:
        _change(store().trash, id)


def restore(ids: Iterable[str]) -> None:
    """Undo `trash`; why one could not be is a warning."""
    for id in ids:
        _change(store().restore, id)


def trashed() -> list[Job]:
    """Deleted runs that who looks can restore, the last deleted first."""
    return [run for run in _with_recipe(store().trashed()) if may_change(run)]


def label(id: str, text: str) -> None:
    """Call a run by a name; a warning where that cannot be."""
    _change(store().label, id, text)


def tag(id: str, tags: Sequence[str]) -> None:
    _change(store().tag, id, tags)


def note(id: str, text: str) -> None:
    _change(store().note, id, text)


def _change(change: Callable[..., None], id: str, *args: Any) -> None:
    try:
        _check_own(id)
        change(id, *args)
    except PruningError as error:
        state.warn(str(error))


def may_change(job: Job) -> bool:
    """Whether who looks may stop and delete it."""
    return visitors.may_change(job.visitor) and not _others_want(job.id)


def _others_want(id: str) -> bool:
    """Whether others of a class asked for the same run: then it is its teacher's to stop."""
    others = set(rooms.who_asked(id)) - {visitors.me()}
    return bool(others) and rooms.room_of_teacher(visitors.me()) is None


def _check_own(id: str) -> None:
    """Raises RunError for a job of somebody else's: a button may be pressed in an old tab."""
    if not visitors.may_change(store().visitor_of(id)):
        raise RunError(NOT_YOURS.format(id=id[:6]))
    if _others_want(id):
        raise RunError(OTHERS_WANT.format(id=id[:6]))


def job(id: str) -> Job:
    """Raises PruningError for an id the store does not have."""
    return store().job(id)


def exists(id: str) -> bool:
    try:
        store().job(id)
    except PruningError:
        return False
    return True


def runs(limit: int = 200) -> list[Job]:
    """Newest first."""
    return _listed(None, limit)


def live() -> list[Job]:
    """Runs that wait or work, newest first; without those of paused sweeps, which do neither."""
    return _unparked(_listed(LIVE))


def _unparked(runs: list[Job]) -> list[Job]:
    return [run for run in runs if run.priority != PARKED or run.state == "running"]


def of_sweep(run: Job) -> bool:
    """Whether only a sweep asked for it, and no person."""
    return run.priority in (SWEEP, PARKED)


def sweep_of(run: Job) -> str | None:
    """A sweep that a run is part of; None where it is part of none."""
    return next(iter(store().sweeps_of_run(run.id)), None)


def _listed(states: Sequence[str] | None, limit: int = 200) -> list[Job]:
    """The runs that lists show to who looks: their own and what is shipped, newest first.

    The owner of the server sees all. Others' are opened by a link.
    """
    jobs = store().jobs
    if visitors.is_owner():
        return _with_recipe(jobs("run", states, limit=limit))
    me = visitors.me()
    listed = jobs("run", states, limit=limit, batch=example.BATCH)
    listed += jobs("run", states, limit=limit, visitor=me) if me else []
    known = {job.id for job in listed}
    # Of a class, that somebody else started with an equal recipe.
    for id in rooms.runs_of(me)[-limit:]:
        with suppress(PruningError):  # deleted
            shared = store().job(id)
            if id not in known and (states is None or shared.state in states):
                listed.append(shared)
    listed.sort(key=lambda job: job.submitted, reverse=True)
    return _with_recipe(listed[:limit])


def recipe_of(run: Job) -> Recipe:
    """Also one that today would be refused: what a run measured is shown in any case."""
    return recorded.recorded(run.spec)


def _with_recipe(runs: list[Job]) -> list[Job]:
    """Without runs whose recipe cannot be followed, which would take every list down with them."""
    return [run for run in runs if _has_recipe(run)]


def _has_recipe(run: Job) -> bool:
    if run.id not in _readable:
        try:
            recipe_of(run)
        except PruningError as error:
            why = DAMAGED.format(id=run.id, file=store().file, reason=str(error).rstrip("."))
            store().damaged[run.id] = why
            return False
        _readable.add(run.id)
    return True


_readable: set[str] = set()
"""Runs whose recipe was read before: a run's never changes."""


def finished(limit: int = 200) -> list[Job]:
    """Runs with a result, newest first."""
    return _listed(("finished",), limit)


def with_result(limit: int = 200) -> list[Job]:
    """Runs with a result, newest first: finished ones, and stopped ones that kept what they had
    reached.
    """
    return [job for job in _listed(("finished", "stopped"), limit) if result(job)]


def linked(ids: Iterable[str]) -> list[Job]:
    """Runs with a result that an address names, whoever they are of."""
    linked = []
    for id in ids:
        with suppress(PruningError):  # deleted: who opened the link is told
            linked.append(store().job(id))
    return [job for job in _with_recipe(linked) if job.kind == "run" and result(job)]


def result(run: Job) -> Finished | None:
    """What a run ended with; of a stopped one, what it had reached. None without its files."""
    try:
        return run_files(run).finished
    except RunError:
        return None


def facts(run: Job) -> RunFacts | None:
    """What a run did by now, as its masks say; None before its first pruning."""
    if run.state in LIVE:
        return _facts(run)
    return _facts_at_end(str(default_workspace()), run.id, run.attempt, run)


def _facts(run: Job) -> RunFacts | None:
    reached = history(run)
    steps = [step for _, step in reached.steps]
    # A run that was stopped ends with an earlier step's model, where the last was not trained.
    if reached.halted is not None:
        steps = [step for step in steps if step.step == reached.halted.step][:1]
    return describe.facts(recipe_of(run), steps[-1]) if steps else None


# A page asks this of every run that it lists.
@st.cache_resource(max_entries=2048)
def _facts_at_end(place: str, id: str, attempt: int, _run: Job) -> RunFacts | None:
    if _run.state == "finished":
        # A list has hundreds of runs, and only this event of each is read for it.
        last = store().last(id, Pruned)
        if isinstance(last, Pruned):
            return describe.facts(recipe_of(_run), last)
    return _facts(_run)


def run_files(run: Job) -> RunResult:
    """What a finished run wrote: `.finished`, `.histograms`, `.masks()`.

    Raises RunError when its files were deleted.
    """
    return _run_files(str(run.folder), run.attempt)


# The attempt is part of the key: a second attempt writes into the same folder.
@st.cache_resource(max_entries=128)
def _run_files(folder: str, attempt: int) -> RunResult:
    return load_run(Path(folder))


def overlaps(runs: Sequence[Job]) -> dict[tuple[str, str], Overlap | None]:
    """For each pair of runs, by id, how many of the same weights both keep; None where they have
    other layers, or lost their files.
    """
    place = str(default_workspace())
    return _overlaps(place, tuple((run.id, run.attempt) for run in runs), runs)


@st.cache_resource(max_entries=32)
def _overlaps(
    place: str, ids: tuple[tuple[str, int], ...], _runs: Sequence[Job]
) -> dict[tuple[str, str], Overlap | None]:
    masks: dict[str, dict[str, PackedMask]] = {}
    for run in _runs:
        with suppress(RunError):
            masks[run.id] = run_files(run).packed_masks()
    pairs = combinations([run.id for run in _runs], 2)
    return {
        (one, other): overlap_of(masks.get(one, {}), masks.get(other, {})) for one, other in pairs
    }


# ---------------------------------------------------------------- waits


def expected(kind: str, spec: dict[str, Any]) -> Expected | None:
    """How long a job would take, from past ones on this machine; None where none was like it."""
    return expected_seconds(store(), kind, spec)


def wait(job: Job) -> Wait:
    """How long a job takes, how much of that is done, and its place in the queue."""
    return wait_of(store(), job, slots=slots())


def slots() -> int:
    """Runs that work at a time, on this machine or on a cluster."""
    return engines.slots(default_workspace())


def cluster_trouble() -> str:
    """Why the cluster that runs are worked on begins none, or fewer; "" where all is well."""
    return engines.trouble(default_workspace())


# ---------------------------------------------------------------- events, read as they come


class _Reader:
    """What pages show of one attempt's events. A class because all tabs share how far it has read.

    Each event is read and parsed once for all of them: a run of twenty minutes has thousands, and
    every tab of a class looks at it each second.
    """

    def __init__(self, id: str, attempt: int) -> None:
        self.id = id
        self.attempt = attempt
        self.last = 0  # number of the last event read
        self.points: dict[tuple[str, float], Point] = {}
        self.tickets: list[Ticket] = []
        self.history = RunHistory()
        self.lock = Lock()

    def read(self) -> _Reader:
        """Read what came since the last time. What was read before is not changed in place."""
        # While another tab reads, what it reads comes with the next look: thirty that queue up for
        # the same rows would each find none. Only the very first look has nothing else to show.
        if not self.lock.acquire(blocking=self.last == 0):
            return self
        try:
            new = store().events(self.id, self.last, self.attempt)
            if new:
                self._add([event for _, event in new])
                self.last = new[-1][0]
        finally:
            self.lock.release()
        return self

    def _add(self, events: list[Event]) -> None:
        points = [event for event in events if isinstance(event, Point)]
        if points:
            # Of a map's cell only the last counts, which is the most exact.
            self.points = self.points | {(point.layer, point.level): point for point in points}
        self.tickets = self.tickets + [event for event in events if isinstance(event, Ticket)]
        self.history = run_history(events, self.history)


@st.cache_resource(max_entries=128)
def _reader(place: str, id: str, attempt: int) -> _Reader:
    return _Reader(id, attempt)


def _read(job: Job) -> _Reader:
    return _reader(str(default_workspace()), job.id, job.attempt).read()


def points(map: Job) -> list[Point]:
    """The cells of a map that are measured by now."""
    return list(_read(map).points.values())


def tickets(run: Job) -> list[Ticket]:
    """The networks of a lottery that a run has trained so far."""
    return _read(run).tickets


def history(run: Job) -> RunHistory:
    """What a run did by now. Shared by all tabs: not to be changed."""
    return _read(run).history


# ---------------------------------------------------------------- news of work


WORK = "work"
"""Stands for all runs that wait or work, where single jobs are named."""

FOLLOWED = "news-"
"""Begins the name of a job whose events are followed, not its state alone."""

SEARCHED = "search-"
"""Begins the name of a search, by its sweep: what came of it is news, not its runs alone."""

WAITING = 2.0
"""Seconds after which there is another time to tell of a job that waits, and of a study."""


def news(ids: Sequence[str]) -> dict[str, str]:
    """What a part of a page asks to be told about these jobs: their states, and each new event.

    The values are `<state>.<how far>`, as `states` answers them. An id may be WORK, or begin with
    SEARCHED.
    """
    named = (WORK, SEARCHED)
    return states([id if id.startswith(named) else f"{FOLLOWED}{id}" for id in ids])


def _news(name: str) -> str:
    if name.startswith(SEARCHED):
        sweep = name.removeprefix(SEARCHED)
        return f"search.{driver.changed(default_workspace(), sweep)}"
    if name != WORK:
        try:
            return _news_of([store().job(name.removeprefix(FOLLOWED))])
        except PruningError:
            return "deleted"
    # Of everybody's: whoever asks is a connection here, and no visitor.
    return _news_of(_unparked(_with_recipe(store().jobs("run", LIVE))))


def _news_of(runs: Sequence[Job]) -> str:
    states = [f"{run.id} {run.state} {run.stopping}" for run in runs]
    state = hashlib.sha256("\n".join(states).encode()).hexdigest()[:12]
    return f"{state}.{sum(map(_reached, runs))}"


def _reached(job: Job) -> int:
    """A number that grows when there is something new to say of a job that waits or works."""
    passed = int(time.time() / WAITING)
    if job.state == "queued":
        return passed
    # A page that is drawn marks its map as watched, also while one cell takes long.
    return _read(job).last + (passed if job.kind == "study" else 0)


# ---------------------------------------------------------------- studies

STARTS_BY_ITSELF = 20.0
"""Seconds up to which a study is worked out because a page shows it: a link asks for no more."""

WAIT_FOR_A_PRESS = {
    "scores": "Scoring units",
    "units": "Scoring units",
    "criterion_check": "Removing units one at a time",
    "map": "Measuring the map",
    "weights": "Reading the weights",
    "structure": "Tracing channels",
    "profiles": "Leaving out each unit of this layer",
    "surgery": "Measuring the model without these units",
    "pair": "Pairing the answers of two runs",
}
"""Study -> what it does, where that waits for a press if it takes long."""

START_IN_ANY_CASE = ("card", "examples")
"""Studies without which nothing is known of a model, nor how long its others take; and those that
ask no model anything."""

HAVE_A_BUTTON = ("reconstruction", "runtimes", "take_home", "alternatives")
"""Studies that a page asks for only once their own button was pressed, or not before it has looked
at `seconds` itself. A study that is in none of the three is refused: each says how it starts."""

WATCHED_EVERY = 2.0
"""Seconds after which a look at a study is noted again, for the pool."""


BEGINS, ENDS, LOOK = 0.15, 0.5, 0.01
"""Seconds within which a worker begins with what is waited for, and has done it; between looks."""


class Costly(Exception):
    """A study that takes so long that it waits for a press. No error: `guarded` draws a button."""

    def __init__(self, spec: dict[str, Any], seconds: float) -> None:
        super().__init__(f"{spec['what']} takes {seconds:.0f} s")
        self.spec = spec
        self.seconds = seconds

    @property
    def doing(self) -> str:
        """What it does, as the beginning of a sentence."""
        return WAIT_FOR_A_PRESS[self.spec["what"]]


class NoCard(Exception):
    """How long a study takes is not known before its model's card is there. job: that card's."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


class StudyEnded(PruningError):
    """A study that failed or was stopped; `guarded` draws a button that starts it again."""

    def __init__(self, message: str, spec: dict[str, Any]) -> None:
        super().__init__(message)
        self.spec = spec


def study(what: str, **spec: Any) -> Study | None:
    """What a page needs to know about a model, computed once and kept: None until it is there.

    what: "card", "weights", "scores" ... Raises StudyEnded, with the worker's sentence, when it
    failed; Costly where it waits for a press.
    """
    asked = {"what": what, **spec}
    try:
        job = _request(asked)
    except NoCard as first:
        state.expect(first.job.id)
        return None
    if job.state == "finished":
        return _study(str(job.folder), job.id, job.attempt)
    if job.state in LIVE:
        state.expect(job.id)
        return None
    raise StudyEnded(job.message or "The work ended without saying why: try again.", asked)


def study_soon(what: str, **spec: Any) -> Study | None:
    """The same of one that takes a warm worker a moment, which is waited for: the page is drawn
    once, with the answer, and not twice. Nothing is waited for where no worker begins at once.
    """
    there = study(what, **spec)
    job = request(what, **spec)
    if there is not None or job.spec["what"] != what:
        return there
    begin = time.monotonic()
    while job.state in LIVE:
        if time.monotonic() - begin > (ENDS if job.state == "running" else BEGINS):
            return None
        time.sleep(LOOK)
        job = store().job(job.id)
    state.unexpect(job.id)
    return study(what, **spec)


@st.cache_resource(max_entries=64)
def _study(folder: str, id: str, attempt: int) -> Study:
    return load_study(Path(folder))


def request(what: str, **spec: Any) -> Job:
    """The job of a study, for what a page says while it waits; queued unless it is there.

    The card's, where it has to be there before. Raises Costly where it waits for a press.
    """
    try:
        return _request({"what": what, **spec})
    except NoCard as first:
        return first.job


def press(spec: dict[str, Any]) -> None:
    """Somebody wants this study, whatever it costs; what else asks for the same scores goes on."""
    _pressed().add(_question(spec))
    if spec["what"] == "map":
        _pressed().add(_question(_scoring(spec)))


def _question(spec: dict[str, Any]) -> str:
    """What makes a study costly: equal for all that asks for the same criterion's scores."""
    if spec["what"] == "surgery":  # whichever units are removed next: each takes as long
        return json.dumps({name: spec[name] for name in ("what", "model")}, sort_keys=True)
    scores = spec.get("criterion") and spec["what"] != "map"
    asked = {name: spec.get(name) for name in ("model", "criterion", "options")}
    return json.dumps(asked if scores else spec, sort_keys=True)


def _scoring(map: dict[str, Any]) -> dict[str, Any]:
    """The scores that a map begins with."""
    return {**map, "what": "scores"}


@st.cache_resource
def _pressed() -> set[str]:
    return set()


def let_make_way(id: str) -> None:
    """End a study that still waits, because nobody looks at it any more."""
    with suppress(PruningError):  # deleted, or begun meanwhile
        job = store().job(id)
        if job.state == "queued":
            store().end(job, "stopped", UNWATCHED, Halted(0, 0))


def was_requested(what: str, **spec: Any) -> bool:
    """Whether that study was requested before, here or in another session: it costs nothing now."""
    spec = {"what": what, **spec}
    key = _key(spec)
    return key in _ids() or store().known(spec, key)


def forget(what: str, **spec: Any) -> None:
    """Forget that a study or a map failed or was stopped: the next request starts it again."""
    _ids().pop(_key({"what": what, **spec}), None)


def states(ids: Iterable[str]) -> dict[str, str]:
    """The state of each of these jobs; "deleted" where the store no longer has it.

    Of names that `news` makes, what it answers.
    """
    return {id: _news(id) if _is_news(id) else _state(id) for id in ids}


def _is_news(id: str) -> bool:
    return id == WORK or id.startswith((FOLLOWED, SEARCHED))


def _state(id: str) -> str:
    """Asked while a page waits: so the job is watched."""
    try:
        job = store().job(id)
        _note_watched(job)
    except PruningError:
        return "deleted"
    return job.state


_noted: dict[str, float] = {}
"""Study -> monotonic seconds at which it was last noted that somebody looks at it."""


def _note_watched(job: Job) -> None:
    now = time.monotonic()
    if job.kind != "study" or job.state not in LIVE:
        _noted.pop(job.id, None)
    elif now - _noted.get(job.id, -WATCHED_EVERY) >= WATCHED_EVERY:
        _noted[job.id] = now
        with suppress(OSError):  # of a full disk or a read-only folder the page tells elsewhere
            store().mark_watched(job.id)


# ---------------------------------------------------------------- alternatives


def measure_alternatives(model: str) -> None:
    """Queue what is measured beside pruning, again where it failed; why it cannot is a warning.

    It trains for minutes: behind what pages wait for, and in the queue of long studies.
    """
    spec = {"what": "alternatives", "model": model}
    try:
        forget(**spec)
        _request(spec, priority=-1)
    except PruningError as error:
        state.warn(str(error))


# ---------------------------------------------------------------- maps


def sensitivity_map(spec: dict[str, Any]) -> tuple[Job, Costly | None]:
    """The job of the map that `spec` describes, started unless it is there already.

    Where the map waits for a press, its estimate's, and the map with what it would take. Raises
    Costly where there is no estimate, or where that takes long too.
    """
    asked = {"what": "map", **spec}
    try:
        return _request(asked, priority=-1), None  # behind what pages wait for
    except Costly as costly:
        if spec.get("reconstruct"):
            raise
        return _request({**asked, "tier": "estimate"}, priority=-1), costly


def mark_watched(map: Job) -> None:
    """Somebody looks at this map: it need not make way for another."""
    store().mark_watched(map.id)


def maps_of(recipe: Recipe) -> list[Job]:
    """Maps of this model by this criterion, whoever requested them, the most exact first."""
    same = ("model", "criterion", "options", "granularity", "granularity_options", "seed")

    def matches(job: Job) -> bool:
        # A reconstructed cell says nothing of what pruning alone costs.
        if job.spec.get("what") != "map" or job.spec.get("reconstruct"):
            return False
        return all(job.spec.get(name) == getattr(recipe, name) for name in same)

    def exactness(job: Job) -> tuple[bool, bool]:
        return job.state == "finished", job.spec.get("tier") == "exact"

    return sorted(filter(matches, store().jobs("study")), key=exactness, reverse=True)


# ---------------------------------------------------------------- requests


def _request(spec: dict[str, Any], priority: int = 0) -> Job:
    """The job with this spec; queued unless somebody requested it before."""
    own_models.check(str(spec.get("model", "")))
    ids, key = _ids(), _key(spec)
    # Other tabs share them, and may forget one between two lines.
    known = ids.get(key)
    if known is not None:
        try:
            job = store().job(known)
            _note_watched(job)
            # It made way for other work, and somebody came back to it.
            if job.message != UNWATCHED:
                return job
        except PruningError:  # deleted meanwhile
            pass
        ids.pop(key, None)
    _ask_first(spec, key)
    id = ids[key] = shipped.submit(store(), spec, key, priority)
    job = store().job(id)
    if job.state in LIVE:
        ensure()
    return job


def _ask_first(spec: dict[str, Any], key: str) -> None:
    """Raises Costly for a study that takes long and that nobody has asked for, NoCard while it is
    not known whether it does.
    """
    what = spec["what"]
    if what in START_IN_ANY_CASE or what in HAVE_A_BUTTON:
        return
    assert what in WAIT_FOR_A_PRESS, f"Say how a study {what!r} starts."
    if _question(spec) in _pressed():
        return
    card = _card_job(spec["model"])
    if card is not None and card.state in LIVE and _hangs_on_size(spec):
        if not store().known(spec, key):
            raise NoCard(card)
        return
    taken = seconds(spec)
    if taken > STARTS_BY_ITSELF and not store().known(spec, key):
        raise Costly(spec, taken)


NEED_DATA = ("map", "criterion_check", "pair", "profiles", "surgery")
"""Studies that run the model on many examples."""


def _hangs_on_size(spec: dict[str, Any]) -> bool:
    """Whether a study may take very long with a large model, so that its card comes first."""
    return spec["what"] in NEED_DATA or bool(gradients(spec))


def seconds(spec: dict[str, Any]) -> float:
    """How long a study takes here, as far as that is known: by past ones, else estimated."""
    size = _size(spec["model"])
    taken = study_seconds(store(), spec, size) or 0.0
    if spec["what"] == "map" and _question(_scoring(spec)) not in _pressed():
        # The criterion's scores come before the first cell.
        taken = max(taken, study_seconds(store(), _scoring(spec), size) or 0.0)
    return taken


def _size(model: str) -> Size:
    job = _card_job(model)
    if job is None or job.state != "finished":
        return Size()
    try:
        return Size.of(_study(str(job.folder), job.id, job.attempt).data)
    except PruningError:  # its own part of the page says why
        return Size()


def _card_job(model: str) -> Job | None:
    """The job of a model's card; None where it cannot be asked for."""
    try:
        return _request({"what": "card", "model": model})
    except PruningError:  # its own part of the page says why
        return None


def _key(spec: dict[str, Any]) -> str:
    """A digest of a spec and the workspace."""
    text = json.dumps([str(default_workspace()), spec], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@st.cache_resource
def _ids() -> dict[str, str]:
    """Key of a request -> job id, for this server."""
    return {}
