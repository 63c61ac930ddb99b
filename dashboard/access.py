"""Who may reach the page: hosts, frames, metrics, and a passphrase where others can reach it.

Streamlit checks the host of websockets alone; everything else of a page is asked for by plain
requests, so that all of them pass here first.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import streamlit as st
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from pruning.storage import default_workspace

Asgi = Callable[..., Awaitable[None]]

PASSPHRASE = "PRUNING_PASSPHRASE"
"""The variable that holds what visitors must enter; run.py sets it. Without it nobody is asked."""

METRICS = "PRUNING_METRICS"
"""The variable that opens Streamlit's metrics, which name what the server holds."""

METRICS_PATH, HEALTH_PATH = "/_stcore/metrics", "/_stcore/health"
ENTER_PATH = "/_workbench/enter"
COOKIE = "workbench"
DAYS = 7.0  # until a visitor is asked again
SECRET = 32  # bytes that sign the cookies
LONGEST_FORM = 4096  # bytes of what is entered

FREE_TRIES = 3  # wrong ones of an address before it has to wait
LONGEST_WAIT = 60.0  # seconds between two tries
MOST_ADDRESSES = 10_000  # whose wrong tries are remembered

HEADERS = {
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
}
"""With every answer: in a frame of another page, a visitor's clicks would be that page's."""

PAGE = Path(__file__).parent / "enter.html"


# ---------------------------------------------------------------- hosts, frames, metrics


class HostMiddleware:
    """Refuses requests that a page of somewhere else made by another name for this machine."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif not _is_for_us(HTTPConnection(scope)):
            await _refuse(scope, receive, send, 403, WRONG_HOST)
        elif scope["path"] == METRICS_PATH and not os.environ.get(METRICS):
            await _refuse(scope, receive, send, 404, f"Not open: start it with {METRICS}=1.")
        else:
            await self.app(scope, receive, _with_headers(send))


WRONG_HOST = (
    "This workbench answers to the names of its own machine alone: open it as localhost, or start "
    "it with run.py --host."
)


def _is_for_us(request: HTTPConnection) -> bool:
    """Whether the name it was asked by is allowed; of a websocket, whether our own page asks."""
    host = request.headers.get("host")
    if not is_host_allowed(host):
        return False
    allowed = st.get_option("server.allowedHosts")
    origin = request.headers.get("origin")
    if request.scope["type"] != "websocket" or origin is None or not allowed or "*" in allowed:
        return True
    # Streamlit takes every port of this machine for its own, though another page may be there.
    return urlsplit(origin).netloc == host


async def _refuse(scope: Any, receive: Any, send: Any, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # its opening, which a close before it is accepted answers with 403
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await PlainTextResponse(text, status)(scope, receive, _with_headers(send))


def _with_headers(send: Any) -> Any:
    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            others = [pair for pair in message["headers"] if pair[0].lower() not in HEADERS]
            message = {**message, "headers": [*others, *HEADERS.items()]}
        await send(message)

    return sent


# ---------------------------------------------------------------- the passphrase


class PassphraseMiddleware:
    """Shows visitors one page that asks for the passphrase, until they have entered it.

    passphrase: "" lets everybody in. secret: signs the cookies; now: Unix seconds.
    """

    def __init__(
        self,
        app: Asgi,
        passphrase: str,
        secret: Callable[[], bytes],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.passphrase = passphrase
        self.secret = secret
        self.now = now
        self.tries = Tries(now)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        open_to_all = scope["type"] not in ("http", "websocket") or not self.passphrase
        if open_to_all or scope["path"] == HEALTH_PATH:
            await self.app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] == ENTER_PATH:
            await (await self._entered(Request(scope, receive)))(scope, receive, send)
            return
        request = HTTPConnection(scope)
        if self._valid(request.cookies.get(COOKIE, "")):
            await self.app(scope, receive, send)
        elif scope["type"] == "http" and "text/html" in request.headers.get("accept", ""):
            answer = _asking(_path_of(request), "")
            await answer(scope, receive, send)
        else:
            await _refuse(
                scope, receive, send, 401, "Open the start page and enter the passphrase."
            )

    async def _entered(self, request: Request) -> Response:
        """What came of a try."""
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        then = _inside(form.get("then", ["/"])[0])
        if request.method != "POST":
            return RedirectResponse("/", status_code=303)
        address = network_of(request.client.host if request.client else "")
        wait = self.tries.wait(address)
        if wait > 0:
            text = f"Too many wrong tries from your address: try again in {wait:.0f} s."
            return _asking(then, text, 429)
        entered = form.get("passphrase", [""])[0]
        if not hmac.compare_digest(_digest(entered), _digest(self.passphrase)):
            self.tries.note(address)
            return _asking(then, "That is not the passphrase.")
        self.tries.forget(address)
        answer = RedirectResponse(then, status_code=303)
        answer.set_cookie(
            COOKIE,
            self._signed(self.now() + 86_400 * DAYS),
            max_age=int(86_400 * DAYS),
            secure=request.url.scheme == "https",
            httponly=True,  # no script reads it
            samesite="lax",  # a link from elsewhere opens the page, its forms do not reach it
        )
        return answer

    def _signed(self, until: float) -> str:
        """A cookie that is valid until then: `<Unix seconds>.<signature>`."""
        text = str(int(until))
        # Another passphrase makes every older cookie invalid.
        key = hashlib.sha256(self.secret() + self.passphrase.encode()).digest()
        return f"{text}.{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"

    def _valid(self, cookie: str) -> bool:
        text = cookie.partition(".")[0]
        if not text.isdecimal() or len(text) > 12 or int(text) < self.now():
            return False
        return hmac.compare_digest(self._signed(int(text)).encode(), cookie.encode())


class Tries:
    """Wrong tries by address. A class because requests share them. now: in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._wrong: dict[str, tuple[int, float]] = {}  # how many, and when the next is allowed

    def wait(self, address: str) -> float:
        """Seconds until the next try; each wrong one doubles them."""
        return max(0.0, self._wrong.get(address, (0, 0.0))[1] - self.now())

    def note(self, address: str) -> None:
        count = self._wrong.pop(address, (0, 0.0))[0] + 1
        wait = min(LONGEST_WAIT, 2.0 ** (count - FREE_TRIES)) if count >= FREE_TRIES else 0.0
        self._wrong[address] = (count, self.now() + wait)
        if len(self._wrong) > MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]  # the one that was silent longest

    def forget(self, address: str) -> None:
        self._wrong.pop(address, None)


@cache
def secret() -> bytes:
    """This workspace's secret: cookies outlive a restart of the server."""
    file = default_workspace() / "secret"
    with suppress(OSError):
        kept = file.read_bytes()
        if len(kept) == SECRET:
            return kept
    made = secrets.token_bytes(SECRET)
    with suppress(OSError):  # a workspace that may only be read: then it is this server's alone
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(made)
    return made


def _asking(then: str, text: str, status: int = 401) -> HTMLResponse:
    """The page that asks. then: where to go afterwards; text: what was wrong before."""
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("{then}", html.escape(then, quote=True)).replace(
        "{text}", html.escape(text)
    )
    return HTMLResponse(page, status, headers={"cache-control": "no-store"})


def _digest(text: str) -> bytes:
    # Of one length, so that comparing takes as long whatever was entered.
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _path_of(request: HTTPConnection) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def _inside(path: str) -> str:
    """A path of this server; the start page for what leads elsewhere."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/"


def network_of(host: str) -> str:
    """Whoever tries, by address; of IPv6 the network: one visitor has very many addresses in it."""
    return ":".join(host.split(":")[:4]) if ":" in host else host


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_FORM:
            return b""
    return body
