"""A tab without a browser: Streamlit's own protocol over a websocket, as its client speaks it.

What a browser does by itself is done here too, because the server pays for it: fragments that are
drawn anew on a timer, the question of an element that waits for jobs, and the cache of messages
that are not sent twice.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

PREFIX = "$$STREAMLIT_INTERNAL_KEY"
FINISHED = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)
WIDGETS = ("button", "button_group", "file_uploader", "number_input", "text_input")
"""Elements of Streamlit's own that a tab can use."""

CHANGED = 200
"""Status of an answer that says that a job changed."""

QUIET, LATEST, APART = 0.6, 4.0, 0.06
"""Seconds, of the same names in components/wait.js: how long news wait for what was pressed."""


@dataclass
class Component:
    """An element of ours on the page. fragment: "" where it belongs to the whole page."""

    id: str
    name: str
    fragment: str
    data: Any


@dataclass
class Tab:
    """One tab. url: of the server, without a slash at the end.

    messages, bytes: that came; reruns: of the script or a part that came to their end; cut: that
    another began before; releases: of its slider; errors: texts of error elements; components: key
    -> element; widgets: Streamlit's own, key -> id; disabled: keys of those that are; session: the
    server's name of this tab.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    messages: int = 0
    bytes: int = 0
    reruns: int = 0
    releases: int = 0
    cut: int = 0
    errors: list[str] = field(default_factory=list)
    components: dict[str, Component] = field(default_factory=dict)
    widgets: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    session: str = ""

    def __post_init__(self) -> None:
        self._cache: dict[str, ForwardMsg] = {}
        self._states: dict[str, WidgetState] = {}
        self._fragments: dict[str, str] = {}
        self._page = ""
        self._query = ""
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._waits: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._watchers: list[tuple[Callable[[str], bool], asyncio.Future[float]]] = []
        self._reader: asyncio.Task[None] | None = None
        self._in_forms: set[str] = set()
        self._drawing = False
        self._pressed = self._began = -math.inf

    async def open(self, query: str) -> None:
        """Open the page with this query of its address, and draw it once."""
        address = urlsplit(self.url)
        self._query = query
        self._socket: ClientConnection = await connect(
            f"ws://{address.netloc}/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            additional_headers={"Origin": self.url, **self.headers},
            max_size=None,
            ping_interval=None,
        )
        self._reader = asyncio.create_task(self._read())
        await self.rerun()

    async def close(self) -> None:
        tasks = [*self._timers.values(), *(task for _, task in self._waits.values())]
        tasks += [self._reader] if self._reader else []
        await self._socket.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def rerun(self, fragment: str = "", *, timer: bool = False, **trigger: Any) -> None:
        """Ask for the page, or the part of that id. trigger: id of a widget -> its JSON."""
        message = self._rerun(fragment, timer=timer)
        for id, value in trigger.items():
            widget = message.rerun_script.widget_states.widgets.add()
            widget.id = id
            widget.json_trigger_value = json.dumps(value)
        await self._socket.send(message.SerializeToString())

    async def pick(self, key: str, value: str) -> None:
        """Press one of a row of buttons."""
        state = WidgetState(id=self.widgets[key])
        state.string_array_value.data.append(value)
        self._states[state.id] = state
        await self.rerun()

    async def press(self, key: str) -> None:
        """Press a button once it can be; one of a form sends what was set in it."""
        await self.until(lambda: key in self.widgets and key not in self.disabled)
        self._pressed = time.monotonic()
        message = self._rerun(self._fragments.get(key, ""))
        widget = message.rerun_script.widget_states.widgets.add()
        widget.id, widget.trigger_value = self.widgets[key], True
        await self._socket.send(message.SerializeToString())

    def set_text(self, key: str, value: str) -> None:
        """Type into a field of a form: it is sent with the form's button."""
        self._states[self.widgets[key]] = WidgetState(id=self.widgets[key], string_value=value)

    async def set_number(self, key: str, value: float) -> None:
        """Type a number and leave its field; one of a form is sent with the form's button."""
        self._states[self.widgets[key]] = WidgetState(id=self.widgets[key], double_value=value)
        if key not in self._in_forms:
            self._pressed = time.monotonic()
            await self.rerun(self._fragments.get(key, ""))

    async def upload(self, key: str, file: Path) -> None:
        """Send a file as the uploader does, and tell the page that it is there."""
        id = str(uuid.uuid4())
        path = f"/_stcore/upload_file/{self.session}/{id}"
        await asyncio.to_thread(send_file, self.url, path, file)
        widget = WidgetState(id=self.widgets[key])
        info = widget.file_uploader_state_value.uploaded_file_info.add()
        info.name, info.size, info.file_id = file.name, file.stat().st_size, id
        urls = info.file_urls
        urls.file_id, urls.upload_url, urls.delete_url = id, path, path
        self._states[widget.id] = widget
        await self.rerun()

    def _rerun(self, fragment: str = "", *, timer: bool = False) -> BackMsg:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self._query
        state.page_script_hash = self._page
        state.fragment_id = fragment
        state.is_auto_rerun = timer
        state.cached_message_hashes.extend(self._cache)
        state.context_info.url = f"{self.url}/"
        state.context_info.color_scheme = "light"
        # A client sends the values of all its widgets with whatever it asks for.
        state.widget_states.widgets.extend(self._states.values())
        return message

    async def trigger(self, key: str, event: str, value: Any) -> None:
        """What `setTriggerValue` of a component does, when somebody moves or presses it."""
        self._pressed = time.monotonic()
        await self._report(key, event, value)

    async def _report(self, key: str, event: str, value: Any) -> None:
        component = self.components[key]
        payload = [{"event": event, "value": value}]
        await self.rerun(component.fragment, **{f"{PREFIX}_{component.id}__events": payload})

    def shows(self, accepts: Callable[[str], bool]) -> asyncio.Future[float]:
        """When (time.perf_counter) a text came that is accepted, and the drawing had ended."""
        future = asyncio.get_running_loop().create_future()
        self._watchers.append((accepts, future))
        return future

    async def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:.0f} s; shown are {[*self.components]}")
            await asyncio.sleep(0.02)

    # ---------------------------------------------------------------- what comes

    async def _read(self) -> None:
        seen: list[asyncio.Future[float]] = []
        async for data in self._socket:
            assert isinstance(data, bytes)
            self.messages += 1
            self.bytes += len(data)
            message = ForwardMsg.FromString(data)
            if message.HasField("ref_hash"):
                message = self._cache[message.ref_hash]
            elif message.metadata.cacheable:
                self._cache[message.hash] = message
            kind = message.WhichOneof("type")
            if kind == "delta":
                self._draw(message.delta, seen)
            elif kind == "new_session":
                self._drawing, self._began = True, time.monotonic()
                self._page = message.new_session.page_script_hash
                self.session = message.new_session.initialize.session_id
            elif kind == "page_info_changed":
                self._query = message.page_info_changed.query_string
            elif kind == "auto_rerun":
                self._start_timer(message.auto_rerun.fragment_id, message.auto_rerun.interval)
            elif kind == "stop_auto_rerun":
                self._stop_timers()
            elif kind == "script_finished":
                self._finish(message.script_finished, seen)

    def _finish(self, how: int, seen: list[asyncio.Future[float]]) -> None:
        self._drawing = False
        if how not in FINISHED:
            self.cut += 1
            return
        self.reruns += 1
        now = time.perf_counter()
        for future in seen:
            if not future.done():
                future.set_result(now)
        seen.clear()

    def _draw(self, delta: Delta, seen: list[asyncio.Future[float]]) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "bidi_component":
            part = element.bidi_component
            key = part.id.rpartition("-")[2] if part.component_name != "wait" else part.id
            data = json.loads(part.json) if part.json else None
            self.components[key] = Component(part.id, part.component_name, delta.fragment_id, data)
            if part.component_name == "wait" and data:
                self._wait(key, data["question"])
        elif kind == "alert" and element.alert.format == element.alert.ERROR:
            self.errors.append(element.alert.body)
            self._note(element.alert.body, seen)
        elif kind == "alert":
            self._note(element.alert.body, seen)
        elif kind in WIDGETS:
            id = getattr(element, str(kind)).id
            key = id.split("-", 2)[2]  # "$$ID-<hash>-<key>"
            self.widgets[key] = id
            self._fragments[key] = delta.fragment_id
            self.disabled.discard(key)
            if getattr(element, str(kind)).disabled:
                self.disabled.add(key)
            if getattr(element, str(kind)).form_id:
                self._in_forms.add(key)
        elif kind == "exception":
            self.errors.append(element.exception.message)
        elif kind == "markdown":
            self._note(element.markdown.body, seen)

    def _note(self, text: str, seen: list[asyncio.Future[float]]) -> None:
        for pair in [pair for pair in self._watchers if pair[0](text)]:
            self._watchers.remove(pair)
            seen.append(pair[1])

    # ---------------------------------------------------------------- what a browser does by itself

    def _start_timer(self, fragment: str, seconds: float) -> None:
        if fragment in self._timers:
            self._timers[fragment].cancel()
        self._timers[fragment] = asyncio.create_task(self._tick(fragment, seconds))

    def _stop_timers(self) -> None:
        for task in self._timers.values():
            task.cancel()
        self._timers.clear()

    async def _tick(self, fragment: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self.rerun(fragment, timer=True)

    def _wait(self, key: str, question: str | None) -> None:
        before = self._waits.get(key)
        if before and before[0] == question:
            return
        if before:
            before[1].cancel()
            del self._waits[key]
        if question:
            self._waits[key] = (question, asyncio.create_task(self._ask(key, question)))

    async def _ask(self, key: str, question: str) -> None:
        """The answer comes when a job changed (200), or after a while (204)."""
        with suppress(OSError, KeyError):
            while await get(self.url, question, self.headers) != CHANGED:
                pass
            await self._quiet()
            await self._report(key, "changed", question)

    async def _quiet(self) -> None:
        """News wait until what was pressed last has had its run, as they do in a browser."""
        until = time.monotonic() + LATEST
        while (now := time.monotonic()) < until:
            waits = self._pressed > self._began and now - self._pressed < QUIET
            if not self._drawing and not waits:
                return
            await asyncio.sleep(APART)


def send_file(url: str, path: str, file: Path) -> None:
    """PUT a file as a form, with the token that Streamlit asks for. Raises RuntimeError."""
    address = urlsplit(url)
    link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
    link.request("GET", "/_stcore/health")
    answer = link.getresponse()
    answer.read()
    cookie = (answer.getheader("set-cookie") or "").split(";")[0]
    token = cookie.partition("=")[2]
    bound = uuid.uuid4().hex
    start = f'--{bound}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
    body = f"{start}\r\n".encode() + file.read_bytes() + f"\r\n--{bound}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={bound}"}
    headers |= {"Cookie": cookie, "X-Xsrftoken": token.strip('"')}
    link.request("PUT", path, body, headers)
    answer = link.getresponse()
    text = answer.read()
    link.close()
    if answer.status >= 300:
        raise RuntimeError(f"the upload was answered with {answer.status}: {text[:200]!r}")


async def get(url: str, path: str, headers: dict[str, str] | None = None) -> int:
    """The status of an answer."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        lines = {"Host": address.netloc, "Connection": "close", **(headers or {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        status = await reader.readline()
        return int(status.split()[1])
    finally:
        writer.close()
