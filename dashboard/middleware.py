"""What every request to the server passes: old addresses, styles, scripts, questions about jobs.

Imports nothing heavy: the server answers before the pages are loaded.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboard.components import base, wait

Asgi = Callable[..., Awaitable[None]]
PATIENCE = 25.0  # seconds until a question is answered in any case: proxies end silent ones
SOON = 1.0  # seconds within which a job may begin without an answer
FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.5  # seconds between two looks at the store for a question
APART, FARTHEST = 0.6, 5.0  # seconds between two answers to a tab that say how far a run came
SHARED = 0.25  # seconds between two looks for tabs that begin to follow a run
SPREAD = 2.0  # seconds over which a class is told, one after the other, of what concerns it
CLASS = 30  # tabs of one, at least: a few that wait for the same are told sooner
DRAWINGS = 6.0  # such answers a second, to all tabs together: each draws a part of a page anew
STYLE = Path(__file__).parent / "page.css"


class ScriptMiddleware:
    """Serves the scripts of components, which a browser keeps: their names change with them."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(base.PATH):
            await self.app(scope, receive, send)
            return
        text = base.served(scope["path"])
        keep = {"cache-control": "public, max-age=31536000, immutable"}
        answer = Response(status_code=404)
        if text is not None:
            answer = Response(text, media_type="text/javascript", headers=keep)
        await answer(scope, receive, send)


@dataclass(eq=False)
class Question:
    """A page that waits. known: ids -> the states it knows; follows: whether it also asks how far
    they came, which is told from `turn` on; begun, due: when it came, and when it is looked at
    next, in monotonic seconds; answer: whether something changed.
    """

    known: dict[str, str]
    follows: bool
    begun: float
    due: float
    turn: float
    answer: asyncio.Future[bool]


class ChangedMiddleware:
    """Answers a page that waits for jobs once one of them is in another state.

    states: ids -> their states. 200: something changed; 204: nothing did in a while, ask again.
    Where a state is `<state>.<how far>`, another state is told at once, and how far it came in
    turn: the more tabs follow a run, the farther apart, so that they cost the others nothing.

    All questions share their looks: thirty tabs that wait would look sixty times a second. What
    concerns many is told to one after the other: all of a class that draw at once keep whoever
    presses something meanwhile waiting until the last of them is done.
    """

    def __init__(self, app: Asgi, states: Callable[[Iterable[str]], dict[str, str]]) -> None:
        self.app, self.states = app, states
        self.followers = 0
        self.questions: set[Question] = set()
        self.looking: asyncio.Task[None] | None = None
        self.asked = asyncio.Event()
        # Id -> when the last tab was told of it, or will be, in monotonic seconds.
        self.turns: dict[str, float] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != wait.PATH:
            await self.app(scope, receive, send)
            return
        known = wait.asked(Request(scope).query_params.get(wait.JOBS, ""))
        changed = await self._changed(known, receive)
        if changed is not None:
            await Response(status_code=200 if changed else 204)(scope, receive, send)

    async def _changed(self, known: dict[str, str], receive: Any) -> bool | None:
        """Whether a job's state changed in time; None when the browser went away."""
        away = asyncio.ensure_future(_disconnected(receive))
        question = self._ask(known)
        try:
            ends: list[asyncio.Future[Any]] = [away, question.answer]
            await asyncio.wait(ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if question.answer.done():
                return question.answer.result()
            return None if away.done() else False
        finally:
            self.questions.discard(question)
            self.followers -= question.follows
            away.cancel()

    def _ask(self, known: dict[str, str]) -> Question:
        now = time.monotonic()
        follows = any("." in state for state in known.values())
        self.followers += follows
        # Tabs that follow a run ask anew with each drawing: those of one moment share a look.
        due = _next(now, SHARED) if follows else now
        turn = now + self._apart() if follows else now
        answer = asyncio.get_running_loop().create_future()
        question = Question(known, follows, now, due, turn, answer)
        self.questions.add(question)
        self.asked.set()
        if self.looking is None or self.looking.done():
            self.looking = asyncio.create_task(self._look_for_all())
        return question

    async def _look_for_all(self) -> None:
        """As long as somebody waits, look whenever a question is due."""
        while self.questions:
            self.asked.clear()
            soonest = min(question.due for question in self.questions)
            pause = min(PATIENCE, soonest - time.monotonic())
            if pause > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.asked.wait(), pause)
                continue
            await self._look_once()

    async def _look_once(self) -> None:
        """One look at the store for all questions that are due."""
        now = time.monotonic()
        due = [question for question in self.questions if question.due <= now]
        ids = list(dict.fromkeys(id for question in due for id in question.known))
        try:
            states = await asyncio.to_thread(self.states, ids)
            now = time.monotonic()
            self.turns = {id: when for id, when in self.turns.items() if when > now - SPREAD}
            for question in sorted(due, key=lambda question: question.begun):
                self._compare(question, states, now)
        except Exception as error:  # of the store: each page asks again
            for question in due:
                self.questions.discard(question)
                if not question.answer.done():
                    question.answer.set_exception(error)

    def _compare(self, question: Question, states: dict[str, str], now: float) -> None:
        """Answer a question, or say when it is looked at again."""
        if now < question.begun + SOON:
            # A worker took it at once, which is what the page says of it already.
            question.known = {id: _begun(state, states[id]) for id, state in question.known.items()}
        early = now < question.turn
        changed = [id for id, state in question.known.items() if _differ(state, states[id], early)]
        if changed:
            # It is not looked at again: what it is told of may be another state by then.
            question.due = math.inf
            asyncio.get_running_loop().call_later(self._turn(changed, now) - now, _tell, question)
            return
        longest = LONGEST_PAUSE if question.follows else (now - question.begun) / 10
        question.due = _next(now, min(LONGEST_PAUSE, max(FIRST_PAUSE, longest)))

    def _turn(self, changed: list[str], now: float) -> float:
        """When a tab is told that these have changed: after those that were told of the same."""
        waiting = [sum(id in question.known for question in self.questions) for id in changed]
        apart = SPREAD / max(CLASS, *waiting)
        turn = max([now, *(self.turns[id] + apart for id in changed if id in self.turns)])
        self.turns |= dict.fromkeys(changed, turn)
        return turn

    def _apart(self) -> float:
        """Seconds until a tab is told how far a run came."""
        return min(FARTHEST, max(APART, self.followers / DRAWINGS))


def _next(now: float, pause: float) -> float:
    """When to look again, about so many seconds from now: at times that all questions share."""
    if pause <= 0:
        return now
    # Half of the longest pause, a quarter of it ... : so that the looks of short pauses fall
    # together with those of long ones.
    grid = LONGEST_PAUSE / 2 ** max(0, math.ceil(math.log2(LONGEST_PAUSE / pause)))
    return grid * (math.floor(now / grid) + 1)


def _tell(question: Question) -> None:
    if not question.answer.done():
        question.answer.set_result(True)


def _differ(known: str, now: str, early: bool) -> bool:
    """early: how far it came does not count yet."""
    if early:
        known, now = known.partition(".")[0], now.partition(".")[0]
    return known != now


def _begun(known: str, now: str) -> str:
    """The state that counts as known: that a job begins soon is nothing to draw a page anew for."""
    return now if (known, now) == ("queued", "running") else known


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class RedirectMiddleware:
    """Redirects a page that is opened by its own path to the start page, which opens it.

    Opened at /inspect, Streamlit's client looks for its server below /inspect first, and each try
    ends as an error in the browser's console. Opened at /?room=inspect, it finds it at once.
    """

    def __init__(self, app: Asgi, pages: tuple[str, ...]) -> None:
        self.app, self.pages = app, pages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        page = scope.get("path", "").strip("/")
        if scope["type"] == "http" and scope["method"] == "GET" and page in self.pages:
            url = Request(scope).url.replace(path="/").include_query_params(room=page)
            await RedirectResponse(f"/?{url.query}", status_code=307)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class StyleMiddleware:
    """Puts page.css into the head of the start page.

    Drawn by the script it would come after the first picture, too late for what it is for: to hold
    places that Streamlit's client fills a second later.

    lengths: in pixels, by the names of the variables that page.css reads.
    """

    def __init__(self, app: Asgi, lengths: Mapping[str, int]) -> None:
        self.app = app
        values = "".join(f"--{name}: {pixels}px; " for name, pixels in lengths.items())
        style = f":root {{ {values}}}\n{STYLE.read_text(encoding='utf-8')}"
        self.head = f"<style>{style}</style></head>".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        # Without these the answer is neither compressed nor "not modified": its text is changed.
        left_out = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")
        headers = [(name, value) for name, value in scope["headers"] if name not in left_out]
        start: dict[str, Any] = {}
        body = bytearray()

        async def keep(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(b"</head>", self.head, 1)
            kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*kept, (b"content-length", str(len(page)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self.app({**scope, "headers": headers}, receive, keep)
