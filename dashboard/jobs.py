"""Client of the run queue: pages ask here, workers do the work in processes of their own. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import streamlit as st

from dashboard import state
from pruning.errors import PruningError, RunError
from pruning.events import Event, Finished, Point, Ticket
from pruning.recipe import Recipe
from pruning.runs.results import RunResult, Study, load_run, load_study
from pruning.runs.store import Job, Store
from pruning.storage import default_workspace

LIVE = ("queued", "running")


class Pending(PruningError):
    """A study that is not there yet; pages draw its skeleton."""


def store() -> Store:
    return _store(str(default_workspace()))


@st.cache_resource(max_entries=4)
def _store(place: str) -> Store:
    return Store(Path(place))


def ensure() -> None:
    """See that a worker pool is there; asked again now and then, so that a dead one is replaced."""
    _ensure(str(default_workspace()))


@st.cache_resource(ttl=15, max_entries=4)
def _ensure(place: str) -> bool:
    from pruning.runs import pool

    pool.ensure()
    return True


# ---------------------------------------------------------------- runs


def start(recipe: Recipe) -> str:
    """Queue a run; the new job's id. Each press is a run of its own."""
    ensure()
    return store().submit("run", recipe.to_dict())


def start_set(recipes: Sequence[Recipe]) -> str:
    """Queue runs that belong together; the set's id."""
    ensure()
    id = secrets.token_hex(5)
    for recipe in recipes:
        store().submit("run", recipe.to_dict(), batch=id)
    return id


def runs_of_set(id: str) -> list[Job]:
    """The runs of a set, in the order they were asked for; none for an id the store does not have."""
    return store().jobs("run", batch=id)[::-1]


def tickets(held: Job) -> list[Ticket]:
    """What a lottery has drawn so far; each event is read once."""
    read = _tickets(held.id, held.attempt)
    fresh = store().events(held.id, read["last"])
    read["last"] = max([read["last"], *(number for number, _ in fresh)])
    read["found"] = list(
        dict.fromkeys([*read["found"], *(event for _, event in fresh if isinstance(event, Ticket))])
    )
    return list(read["found"])


@st.cache_resource(max_entries=256)
def _tickets(id: str, attempt: int) -> dict[str, Any]:
    return {"last": 0, "found": []}


def stop(id: str) -> None:
    store().stop(id)


def delete(id: str) -> None:
    store().delete(id)


def job(id: str) -> Job:
    """Raises PruningError for an id the store does not have."""
    return store().job(id)


def events(id: str, after: int = 0) -> list[tuple[int, Event]]:
    """(number, event) of the run's current attempt, past number `after`."""
    return store().events(id, after)


def runs(limit: int = 200) -> list[Job]:
    """Newest first."""
    return store().jobs("run", limit=limit)


def live() -> list[Job]:
    """Runs that wait or work, newest first."""
    return store().jobs("run", LIVE)


def recipe_of(held: Job) -> Recipe:
    return Recipe.from_dict(held.spec)


def finished(limit: int = 200) -> list[Job]:
    """Runs with a result, newest first."""
    return store().jobs("run", ("finished",), limit=limit)


def result(held: Job) -> Finished | None:
    """What a finished run ended with; None when its files are gone."""
    try:
        return run_files(held).finished
    except RunError:
        return None


def run_files(held: Job) -> RunResult:
    """What a finished run left: `.finished`, `.histograms`, `.masks()`. Raises RunError when its files are gone."""
    return _run_files(str(held.folder), held.attempt)


@st.cache_resource(max_entries=128)
def _run_files(folder: str, attempt: int) -> RunResult:
    return load_run(Path(folder))


# ---------------------------------------------------------------- studies


def study(what: str, **spec: Any) -> Study | None:
    """What a page needs to know about a model, worked out once and kept: None while it is worked on.

    what: "card", "weights" or "scores". Raises PruningError, with the worker's sentence, when it failed.
    """
    asked = {"what": what, **spec}
    key = _key(asked)
    held = _asked(key, asked)
    if held.state == "finished":
        return _study(str(held.folder), held.id, held.attempt)
    if held.state in LIVE:
        state.expect(held.id)
        return None
    raise PruningError(held.message or "The work ended without saying why: try again.")


# ---------------------------------------------------------------- maps


def sensitivity_map(spec: dict[str, Any]) -> Job:
    """The sensitivity map that `spec` asks for (see pruning.runs.map_study): begun unless it is there or on its way."""
    asked = {"what": "map", **spec}
    return _asked(_key(asked), asked, priority=-1)  # behind what pages wait for


def mark_watched(held: Job) -> None:
    """Somebody looks at this map: it need not make way for another."""
    held.folder.mkdir(parents=True, exist_ok=True)
    (held.folder / "watched").touch()


def maps_of(recipe: Recipe) -> list[Job]:
    """Maps of this model by this score, whoever asked for them, the surest first."""
    same = ("model", "criterion", "options", "granularity", "granularity_options", "seed")
    held = [job for job in store().jobs("study") if job.spec.get("what") == "map"]
    fits = [
        job for job in held if all(job.spec.get(name) == getattr(recipe, name) for name in same)
    ]
    return sorted(
        fits,
        key=lambda job: (job.state == "finished", job.spec.get("tier") == "exact"),
        reverse=True,
    )


def points(held: Job) -> list[Point]:
    """What is known of a map's cells by now: of each the last that was said."""
    return _gathered(str(default_workspace()), held.id, held.attempt).now(store())


class _Gathered:
    """The points of one map, read as they come. A class because it remembers how far it has read, for every tab."""

    def __init__(self, id: str) -> None:
        self.id, self.last, self.cells, self.lock = id, 0, dict[tuple[str, float], Point](), Lock()

    def now(self, place: Store) -> list[Point]:
        with self.lock:
            for number, event in place.events(self.id, self.last):
                self.last = number
                if isinstance(event, Point):
                    self.cells[event.layer, event.level] = event
            return list(self.cells.values())


@st.cache_resource(max_entries=32)
def _gathered(place: str, id: str, attempt: int) -> _Gathered:
    return _Gathered(id)


# ---------------------------------------------------------------- studies, once asked for


def was_requested(what: str, **spec: Any) -> bool:
    """Whether that study was asked for before, here or in another session: `study` then begins nothing."""
    asked = {"what": what, **spec}
    key = _key(asked)
    return key in _ids() or store().known(asked, key)


def forget(what: str, **spec: Any) -> None:
    """Forget that a study or a map failed or was stopped: the next request starts it again."""
    _ids().pop(_key({"what": what, **spec}), None)


def any_ended(ids: set[str]) -> bool:
    """Whether any of these jobs no longer waits or works."""
    found = {held.id for held in store().jobs("study", LIVE)}
    return bool(ids - found)


def _asked(key: str, spec: dict[str, Any], priority: int = 0) -> Job:
    ids = _ids()
    if key in ids:
        try:
            return store().job(ids[key])
        except PruningError:  # deleted meanwhile
            del ids[key]
    ensure()
    ids[key] = store().submit("study", spec, key=key, priority=priority)
    return store().job(ids[key])


def _key(spec: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps([str(default_workspace()), spec], sort_keys=True).encode()
    ).hexdigest()[:24]


@st.cache_resource
def _ids() -> dict[str, str]:
    """Study key -> job id, for this server."""
    return {}


@st.cache_resource(max_entries=64)
def _study(folder: str, id: str, attempt: int) -> Study:
    return load_study(Path(folder))
