"""The leader board of a class: one fixed rule, judged by the server from the store's results alone.

What a member can do is to press Run and to be listed. Which runs are theirs was noted by the server
when they were started; what those came to is what the workers measured on test data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from dashboard import jobs, models, rooms, words
from dashboard.rooms import BEST, SMALLEST, Member, Room, Rule
from pruning.errors import PruningError
from pruning.events import Finished
from pruning.metrics import Accuracy
from pruning.runs.store import Job

KINDS = {
    BEST: "Best accuracy",
    SMALLEST: "Fewest bytes",
}


@dataclass(frozen=True)
class Try:
    """A finished run of the rule's model. sparsity: share of its weights pruned; bytes: of the
    sparse file, or of the compact model's where that is what the run is for.
    """

    run: str
    accuracy: Accuracy
    sparsity: float
    bytes: int


@dataclass(frozen=True)
class Place:
    """A member on the board. number: equal results share one; tries: of the rule's model that have
    finished; best: the one that counts, None where none does.
    """

    number: int | None
    name: str
    best: Try | None
    tries: int
    mine: bool


def sentence(rule: Rule) -> str:
    """The rule, as the board says it."""
    on = f"on {models.title(rule.model)}"
    least = f"{100 * rule.least:.1f}".removesuffix(".0")
    if rule.kind == BEST:
        return f"Best test accuracy {on} with at least {least} % of the weights pruned."
    return f"Fewest bytes {on} with at least {least} % of the test examples right."


def places(room: Room, visitor: str | None) -> list[Place]:
    """Who is listed, the first place on top; who has no run that counts comes last, by name.

    visitor: who looks.
    """
    rule = room.rule
    if rule is None:
        return []
    listed = [member for member in rooms.members(room.id) if member.listed]
    judged = [(member, tries(rule, rooms.runs_of(member.visitor))) for member in listed]
    return ranked(rule, judged, visitor)


def ranked(
    rule: Rule, judged: Iterable[tuple[Member, list[Try]]], visitor: str | None
) -> list[Place]:
    """The same of tries that are known."""
    counted: list[Place] = []
    without: list[Place] = []
    for member, every in judged:
        best = _best(rule, every)
        one = Place(None, member.name, best, len(every), member.visitor == visitor)
        (without if best is None else counted).append(one)
    value = _value(rule)

    def key(place: Place) -> float:
        assert place.best is not None
        return value(place.best)

    result: list[Place] = []
    ordered = sorted(counted, key=lambda place: (key(place), place.name.casefold()))
    for _, equal in groupby(ordered, key):
        number = len(result) + 1
        result += [Place(number, one.name, one.best, one.tries, one.mine) for one in equal]
    return result + sorted(without, key=lambda place: place.name.casefold())


def _best(rule: Rule, every: Iterable[Try]) -> Try | None:
    """The try that counts; of equal ones the earliest."""
    allowed = [one for one in every if _reaches(rule, one)]
    return min(allowed, key=_value(rule), default=None)


def _reaches(rule: Rule, one: Try) -> bool:
    if rule.kind == SMALLEST:
        return one.accuracy.value >= rule.least
    # To a tenth of a percent, as it is shown: 90 % of 1,234 weights are 1,111, a little more.
    return one.sparsity >= rule.least - 5e-4


def _value(rule: Rule) -> Callable[[Try], float]:
    """What the rule counts: smaller is better."""
    if rule.kind == SMALLEST:
        return lambda one: float(one.bytes)
    return lambda one: -one.accuracy.value


def tries(rule: Rule, ids: Iterable[str]) -> list[Try]:
    """Of these runs those of the rule's model that have finished, in their order."""
    finished = []
    for id in ids:
        try:
            job = jobs.job(id)
        except PruningError:  # deleted
            continue
        one = _try(rule, job)
        if one is not None:
            finished.append(one)
    return finished


def _try(rule: Rule, job: Job) -> Try | None:
    if job.state != "finished" or job.spec.get("model") != rule.model:
        return None
    end: Finished | None = jobs.result(job)
    measured = end.deliverable if end is not None else None
    if end is None or measured is None or measured.accuracy is None:
        return None
    return Try(job.id, measured.accuracy, end.sparsity, measured.size.sparse)


def live(room: Room) -> list[str]:
    """Runs on their way that may change the board."""
    listed = [member.visitor for member in rooms.members(room.id) if member.listed]
    ids = dict.fromkeys(id for visitor in listed for id in rooms.runs_of(visitor))
    states = jobs.states(ids)
    return [id for id, state in states.items() if state in jobs.LIVE]


def caution(shown: list[Place]) -> str:
    """What the board's differences are worth, in a sentence; "" where nothing is on it."""
    first = next((place.best for place in shown if place.best is not None), None)
    if first is None:
        return ""
    return (
        f"Judged by the server on {first.accuracy.total:,} test examples, "
        f"{words.percent(first.accuracy)} for the first place: what lies within that interval is "
        "no real difference, and the best of many tries looks better than it is."
    )
