"""Uploads that arrive at once: through the middleware itself, without a browser."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from pages import awaited
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from dashboard import arrivals
from dashboard.arrivals import MB, UploadMiddleware
from dashboard.views import _uploading

LARGEST = 600 * MB


class Memory:
    """Streamlit as it keeps uploads: until the page takes them. most: bytes at once, ever."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self.most = 0
        self.read: list[str] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["path"].split("/")[3]
        if (await receive())["type"] == "http.disconnect":
            return
        await asyncio.sleep(0.005)
        self.kept[session] = self.kept.get(session, 0) + scope["size"]
        self.most = max(self.most, sum(self.kept.values()))
        self.read.append(session)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await asyncio.sleep(0)


async def silent() -> Any:
    await asyncio.sleep(60)


async def body() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def put(
    door: UploadMiddleware, session: str, size: int, receive: Any = body, tell: bool = True
) -> tuple[int | None, str]:
    """(status, text) of one upload; no status where it was cut off."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-length", str(size).encode())] if tell else []
    path = f"/_stcore/upload_file/{session}/file"
    scope = {"type": "http", "method": "PUT", "path": path, "headers": headers, "size": size}
    await door(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return (sent[0]["status"] if sent else None), text


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def door(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> UploadMiddleware:
    monkeypatch.setattr(arrivals, "LOOK", 0.001)
    return UploadMiddleware(memory.app, LARGEST, lambda: dict(memory.kept))


def test_ten_uploads_at_once_take_turns(memory: Memory, door: UploadMiddleware) -> None:
    async def one(session: str) -> int | None:
        status, _ = await put(door, session, 47 * MB)
        await asyncio.sleep(0.01)  # until the tab's page has copied it to disk
        memory.kept.pop(session)
        return status

    async def everybody() -> list[int | None]:
        return await asyncio.gather(*(one(f"tab{i}") for i in range(10)))

    assert awaited(everybody()) == [204] * 10
    assert memory.read == [f"tab{i}" for i in range(10)]  # in their order
    assert 2 * 47 * MB <= memory.most <= arrivals.TOGETHER
    assert not door.waiting and not door.arriving


def test_an_upload_is_copied_to_disk_from_the_bytes_that_are_there() -> None:
    """Each further copy would be as large as the upload, for every tab."""
    record = UploadedFileRec("id", "a.safetensors", "", bytes(8 * MB))
    file = UploadedFile(record, FileURLs(file_id="id"))
    tracemalloc.start()
    try:
        copy = _uploading.spooled(file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert copy.path.stat().st_size == 8 * MB and most < 2 * MB
    # It counts until the page lets go of it, after it was checked.
    assert sum(arrivals._taken.values()) == 8 * MB
    del copy
    assert not arrivals._taken


def test_a_large_one_goes_alone_and_the_shards_of_one_tab_together(
    memory: Memory, door: UploadMiddleware
) -> None:
    async def shards() -> list[int | None]:
        return [(await put(door, "tab", LARGEST))[0] for _ in range(2)]

    assert awaited(shards()) == [204, 204]


def test_what_would_be_too_much_is_refused_in_a_sentence(
    memory: Memory, door: UploadMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LONGEST_WAIT", 0.02)
    memory.kept["other"] = 1000 * MB
    # One that does not say its size may be the largest.
    status, text = awaited(put(door, "tab", MB, tell=False))
    assert status == 503 and "more than 1500 MB" in text and memory.read == []
    # Somebody who does not take his upload keeps nobody out for long.
    assert awaited(put(door, "tab", 47 * MB))[0] == 204


def test_an_upload_that_falls_silent_keeps_nobody_waiting(
    memory: Memory, door: UploadMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SILENT", 0.01)
    assert awaited(put(door, "tab", LARGEST, silent)) == (None, "")
    assert not door.arriving and awaited(put(door, "other", MB))[0] == 204


def test_everything_else_passes(memory: Memory, door: UploadMiddleware) -> None:
    async def other(method: str, path: str) -> None:
        scope = {"type": "http", "method": method, "path": path, "headers": [], "size": 0}
        await door(scope, body, body_of)

    async def body_of(message: Any) -> None:
        return None

    memory.kept["other"] = 5000 * MB
    awaited(other("DELETE", "/_stcore/upload_file/tab/file"))
    awaited(other("PUT", "/a/b/tab/file"))
    assert memory.read == ["tab", "tab"]
