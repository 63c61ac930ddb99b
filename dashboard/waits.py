"""What a page says while it waits: how long that takes here, and whose turn is next. Pure."""

from __future__ import annotations

from dataclasses import replace

from dashboard import words
from pruning.runs.waits import Expected, Wait

LONGEST = 600.0
"""Seconds for which there are sentences; the last one stays."""

UNKNOWN = "not timed on this machine yet"


def takes(expected: Expected | None) -> str:
    """How long something takes, as a part of a sentence: `about 40 s`."""
    if expected is None:
        return UNKNOWN
    if expected.same_model:
        return f"about {words.seconds(expected.seconds)}"
    shortest, longest = words.seconds(expected.low), words.seconds(expected.high)
    if shortest == longest:
        return f"{UNKNOWN} for this model; another one took {longest}"
    return f"{UNKNOWN} for this model; others took {shortest} to {longest}"


def in_words(wait: Wait) -> str:
    """`about 40 s, 12 s done`, or the place in the queue with the time until its turn."""
    expected = wait.expected
    if wait.place is not None:
        return f"{_turn(wait)}; then {takes(expected)}"
    done = words.seconds(wait.done)
    if expected and expected.same_model and wait.done > expected.seconds:
        longest = words.seconds(expected.seconds)
        return f"longer than before on this machine: {done} so far, {longest} then"
    return f"{takes(expected)}, {done} done"


def place(wait: Wait) -> str:
    """`next in the queue`, with the time until its turn where that is known."""
    return _turn(wait)


def share_done(wait: Wait) -> float | None:
    """For a bar, in [0, 1]; None where nothing says how long this model takes."""
    expected = wait.expected
    if wait.place is not None or expected is None or not expected.same_model:
        return None
    # Never full while it works: past its time it is nearly done, whatever nearly means.
    return min(0.97, wait.done / max(0.1, expected.seconds))


def times(wait: Wait) -> list[tuple[float, str, float | None]]:
    """What to say while it lasts: (seconds from now, sentence, share done), ever further apart.

    One sentence for what has to wait for its turn: when that comes, the page is drawn anew.
    """
    if wait.place == 1 and wait.begins is not None and wait.begins < 1:
        wait = replace(wait, place=None)  # it begins before anybody has read that it will
    spoken: list[tuple[float, str, float | None]] = []
    at = 0.0
    while at < LONGEST and (not spoken or wait.place is None):
        then = replace(wait, done=wait.done + at)
        time = in_words(then)
        spoken.append((at, f"{time[0].upper()}{time[1:]}.", share_done(then)))
        at += max(1.0, round(at / 2))
    return spoken


def _turn(wait: Wait) -> str:
    where = "next in the queue" if wait.place == 1 else f"number {wait.place} in the queue"
    if wait.begins is None:
        return f"{where}, waiting time {UNKNOWN}"
    if wait.begins < 1:
        return f"{where}, about to begin"
    return f"{where}, its turn in about {words.seconds(wait.begins)}"
