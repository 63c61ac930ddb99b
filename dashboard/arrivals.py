"""Uploads on their way in: how many bytes of them lie in the server's memory at once.

Streamlit keeps a whole upload in memory until the page has copied it to disk. A class that brings
its files in one minute would fill the memory, so that uploads take turns before they are read.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from starlette.responses import PlainTextResponse
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

Asgi = Callable[..., Awaitable[None]]

PATH = "/_stcore/upload_file/"
MB = 1 << 20

TOGETHER = 150 * MB
"""Bytes of uploads that arrive or lie in memory together, of different tabs; a larger one alone."""

MOST = 1500 * MB
"""The same whatever they belong to: one tab's files, as the shards of a model are, stay in memory
until the last of them is there."""

LONGEST_WAIT = 60.0
"""Seconds after which an upload no longer waits for tabs that do not take theirs."""

SILENT = 30.0
"""Seconds without a byte after which an upload is given up, so that it keeps nobody waiting."""

LOOK = 0.1
"""Seconds between two looks at what is there."""

TOO_MUCH = (
    "Uploads of more than {most:.0f} MB would lie in this server's memory at once: try again when "
    "others are done, or give larger files by path, with python3 run.py."
)


@dataclass(frozen=True)
class Arrival:
    """An upload that was asked for. session: of its tab; size: bytes; since: monotonic seconds."""

    session: str
    size: int
    since: float


def in_memory() -> dict[str, int]:
    """Session -> bytes of its uploads in memory."""
    manager = runtime.get_instance().uploaded_file_mgr
    if not isinstance(manager, MemoryUploadedFileManager):
        return {}
    kept = {
        session: sum(len(file.data) for file in list(files.values()))
        for session, files in list(manager.file_storage.items())
    }
    # What a page has copied stays in its session, too, until it was checked and the page drawn.
    with _lock:
        return kept | {TAKEN: sum(_taken.values())}


TAKEN = ""
"""Stands for the sessions whose uploads are being checked."""

_taken: WeakKeyDictionary[object, int] = WeakKeyDictionary()
"""Copy on disk -> bytes, as long as a page holds on to it."""

_lock = Lock()


def note_taken(copy: object, size: int) -> None:
    """A page has copied an upload of so many bytes. copy: what it holds until that was checked."""
    with _lock:
        _taken[copy] = size


class UploadMiddleware:
    """Lets uploads in one after the other where they are too much at once.

    A class because requests share the queue. Whoever waits is not read from, so that it costs a
    connection and no memory. largest: bytes of an upload that does not say its size.
    """

    def __init__(
        self, app: Asgi, largest: int, in_memory: Callable[[], Mapping[str, int]] = in_memory
    ) -> None:
        self.app = app
        self.largest = largest
        self.in_memory = in_memory
        self.waiting: deque[Arrival] = deque()
        self.arriving: list[Arrival] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        uploads = scope["type"] == "http" and scope["method"] == "PUT"
        if not uploads or not scope["path"].startswith(PATH):
            await self.app(scope, receive, send)
            return
        arrival = self._arrival(scope)
        if not await self._let_in(arrival):
            text = TOO_MUCH.format(most=MOST / MB)
            await PlainTextResponse(text, 503)(scope, receive, send)
            return
        try:
            await self.app(scope, _lively(receive), send)
        finally:
            self.arriving.remove(arrival)

    def _arrival(self, scope: Any) -> Arrival:
        session = scope["path"].removeprefix(PATH).partition("/")[0]
        length = dict(scope["headers"]).get(b"content-length", b"")
        size = int(length) if length.isdigit() and len(length) < 16 else self.largest
        return Arrival(session, min(size, self.largest), time.monotonic())

    async def _let_in(self, arrival: Arrival) -> bool:
        """Wait for its turn; False where even then there is no room."""
        self.waiting.append(arrival)
        try:
            while True:
                late = time.monotonic() - arrival.since > LONGEST_WAIT
                # In their order, or a large one would never find room.
                if late or self.waiting[0] is arrival:
                    room = self._room_at_all(arrival)
                    if room and (late or self._room_beside(arrival)):
                        self.arriving.append(arrival)
                        return True
                    if late:
                        return False
                await asyncio.sleep(LOOK)
        finally:
            self.waiting.remove(arrival)

    def _room_beside(self, arrival: Arrival) -> bool:
        """Whether it fits beside what arrives, and what of other tabs lies in memory."""
        others = sum(n for id, n in self.in_memory().items() if id != arrival.session)
        others += sum(other.size for other in self.arriving)
        return not others or others + arrival.size <= TOGETHER

    def _room_at_all(self, arrival: Arrival) -> bool:
        every = sum(self.in_memory().values()) + sum(other.size for other in self.arriving)
        return every + arrival.size <= MOST


def _lively(receive: Any) -> Any:
    """The request's messages; one that falls silent ends as if its browser had gone away."""

    async def received() -> Any:
        try:
            return await asyncio.wait_for(receive(), SILENT)
        except TimeoutError:
            return {"type": "http.disconnect"}

    return received
