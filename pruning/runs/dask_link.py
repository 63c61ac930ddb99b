"""The wire to a Dask cluster: a thread of its own that talks, so that nobody waits for an answer.

Everything goes through the scheduler, so that nothing but its address needs to be reachable from
here. No torch; Dask is imported once a cluster is named.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pruning.runs import remote
from pruning.runs.engines import Cluster
from pruning.runs.parcels import Parcel

T = TypeVar("T")

ANSWER = 30.0
"""Seconds that a worker has for an answer: it imports torch and trains meanwhile."""

CONNECT = 10.0
"""Seconds that a scheduler has to answer."""


class Place(NamedTuple):
    """host: of a worker; folder: its own there, which another process at its address has not."""

    host: str
    folder: str


class Link:
    """A connection to a scheduler, opened when first used. A class because it keeps its thread.

    Its methods that return a Future begin something and return at once; what went wrong is raised
    by the Future.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client: Any = None
        self.connecting = asyncio.Lock()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="dask")
        self.thread.start()
        logging.getLogger("distributed").setLevel(logging.CRITICAL)

    def begin(self, talk: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(talk, self.loop)

    def close(self, seconds: float = 2.0) -> None:
        """Hang up. Work that was begun goes on until its worker is told otherwise."""
        with suppress(Exception):  # whoever is at the other end may have died
            self.begin(self._hang_up()).result(seconds)
        self.loop.call_soon_threadsafe(self.loop.stop)

    # ---------------------------------------------------------------- with the scheduler

    async def workers(self) -> tuple[str, dict[str, Place]]:
        """(the scheduler's id, address -> where each of its workers is). Raises OSError."""
        client = await self._connected()
        try:
            asked = client.scheduler.identity(n_workers=-1)
            known = await asyncio.wait_for(asked, CONNECT)
        except Exception as error:
            # What was one connection is none any more: the next look begins with a new one.
            await self._hang_up()
            raise OSError(str(error) or "no answer") from error
        places = {
            address: Place(str(about["host"]), str(about["local_directory"]))
            for address, about in known["workers"].items()
        }
        return str(known["id"]), places

    async def submit(self, worker: str, parcel: Parcel) -> Any:
        """Give a worker a run; Dask's own future of it."""
        job = parcel.job
        client = await self._connected()
        return client.submit(
            remote.work,
            parcel,
            key=f"run-{job.id}-{job.attempt}",
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )

    # ---------------------------------------------------------------- with a worker

    async def ask(self, worker: str, question: Callable[..., Any], *words: Any) -> Any:
        """What a function of `remote` answers there, beside what the worker works on."""
        client = await self._connected()
        answers = await asyncio.wait_for(client.run(question, *words, workers=[worker]), ANSWER)
        return answers[worker]

    async def send(self, worker: str, digest: str, file: Path, heard: Callable[[], None]) -> None:
        """A file, in pieces. heard: called whenever the worker has answered."""
        offset = 0
        while True:
            piece = await asyncio.to_thread(_read, file, offset)
            if offset and not piece:
                return
            await self.ask(worker, remote.put, digest, offset, piece)
            heard()
            offset += len(piece)
            if not piece:
                return

    async def fetch(
        self, worker: str, id: str, name: str, size: int, heard: Callable[[], None]
    ) -> bytes | None:
        """A file of a run there; None where it has made way for a newer one meanwhile."""
        pieces: list[bytes] = []
        got = 0
        while got < size:
            piece = await self.ask(worker, remote.fetch, id, name, got)
            heard()
            if not piece:
                return None
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)

    # ---------------------------------------------------------------- inside

    async def _connected(self) -> Any:
        async with self.connecting:
            if self.client is None:
                from distributed import Client

                self.client = await Client(
                    self.cluster.scheduler,
                    asynchronous=True,
                    security=_security(self.cluster),
                    timeout=CONNECT,
                    set_as_default=False,
                )
            return self.client

    async def _hang_up(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await client.close(timeout=1)


def _security(cluster: Cluster) -> Any:
    """Certificates as they were named; Dask's own configuration says the rest."""
    from distributed.security import Security

    named = {
        "tls_ca_file": cluster.ca,
        "tls_client_cert": cluster.certificate,
        "tls_client_key": cluster.key,
    }
    files = {name: file for name, file in named.items() if file}
    if cluster.scheduler.startswith("tls://"):
        return Security(require_encryption=True, **files)
    return Security(**files)


def _read(file: Path, offset: int) -> bytes:
    with file.open("rb") as content:
        content.seek(offset)
        return content.read(remote.PIECE)
