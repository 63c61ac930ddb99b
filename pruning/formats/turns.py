"""Whose turn it is: a few at a time, the others in the order they came, each with its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A queue for a few places. A class because threads share who waits.

    at_once: how many have their turn at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._working: list[Turn] = []
        self._waiting: list[Turn] = []
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, since: float | None = None) -> Iterator[Turn]:
        """A place in the queue, given up at the end of the block whatever happens in it.

        since: monotonic seconds at which it came, for one that was interrupted and comes again.
        """
        turn = Turn(self, time.monotonic() if since is None else since)
        with self._changed:
            self._waiting.append(turn)
            self._waiting.sort(key=lambda one: one.since)
            self._go_on()
        try:
            yield turn
        finally:
            with self._changed:
                (self._working if turn in self._working else self._waiting).remove(turn)
                self._go_on()

    def _go_on(self) -> None:
        """Whose turn it is now; under the lock."""
        while self._waiting and len(self._working) < self.at_once:
            self._working.append(self._waiting.pop(0))
        self._changed.notify_all()

    def place(self, turn: Turn) -> int:
        with self._changed:
            return 0 if turn in self._working else self._waiting.index(turn) + 1

    def wait(self, turn: Turn, seconds: float) -> None:
        with self._changed:
            if turn in self._waiting:
                self._changed.wait(seconds)


class Turn:
    """One place in the queue. since: monotonic seconds at which it was taken."""

    def __init__(self, turns: Turns, since: float) -> None:
        self._turns = turns
        self.since = since

    @property
    def place(self) -> int:
        """0: it is this one's turn; 1: it is next, and so on."""
        return self._turns.place(self)

    def wait(self, seconds: float) -> None:
        """Wait until the queue moves, or for so long."""
        self._turns.wait(self, seconds)
