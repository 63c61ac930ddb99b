"""Whose turn it is: a few at a time, the others in the order they came, each with its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A queue for a few places. A class because threads share who waits.

    at_once: how many have their turn at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._queue: list[Turn] = []  # those whose turn it is come first
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A place in the queue, given up at the end of the block whatever happens in it."""
        turn = Turn(self)
        with self._changed:
            self._queue.append(turn)
        try:
            yield turn
        finally:
            with self._changed:
                self._queue.remove(turn)
                self._changed.notify_all()

    def place(self, turn: Turn) -> int:
        """0: it is its turn; 1: it is next."""
        return max(0, self._queue.index(turn) + 1 - self.at_once)

    def wait(self, turn: Turn, seconds: float) -> None:
        """Wait until another's turn ends, or for so long."""
        with self._changed:
            if self.place(turn):
                self._changed.wait(seconds)


class Turn:
    """One place in the queue."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    @property
    def place(self) -> int:
        """0: it is this one's turn; else how many turns must end before."""
        return self._turns.place(self)

    def wait(self, seconds: float) -> None:
        self._turns.wait(self, seconds)
