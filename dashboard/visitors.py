"""Who looks at the page: somebody that a random token in the browser stands for.

On a server that others can reach, what a visitor started is theirs: they alone may stop and delete
it, and who started the server, once its owner's link was opened. On one for a single machine
everybody is its owner.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import streamlit as st
from starlette.requests import Request
from starlette.responses import RedirectResponse

from dashboard import access
from pruning.storage import default_workspace, write_json

Asgi = Callable[..., Awaitable[None]]

OWNER = "PRUNING_OWNER"
"""The variable that holds the owner's token, where others can reach the server; run.py sets it."""

COOKIE, OWNER_COOKIE = "workbench-visitor", "workbench-owner"
LINK = "owner"
"""What the owner's link has in its address: `/?owner=TOKEN`."""

TOKEN = re.compile(r"[0-9a-f]{32}")
DAYS = 365
NAMES = "visitors.json"
LONGEST_NAME = 40


class VisitorMiddleware:
    """Gives each browser a token with its first page, and the owner's to who opens its link.

    owner: "" where everybody is the owner.
    """

    def __init__(self, app: Asgi, owner: str) -> None:
        self.app = app
        self.owner = owner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if _same(request.query_params.get(LINK, ""), self.owner):
            # Out of the address at once: it would be in every link that is copied from there.
            rest = request.url.remove_query_params(LINK).query
            answer = RedirectResponse(f"/?{rest}" if rest else "/", status_code=303)
            answer.headers.append("set-cookie", _cookie(OWNER_COOKIE, self.owner, request))
            await answer(scope, receive, send)
            return
        if TOKEN.fullmatch(request.cookies.get(COOKIE, "")):
            await self.app(scope, receive, send)
            return
        cookie = _cookie(COOKIE, secrets.token_hex(16), request).encode("latin-1")

        async def sent(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"set-cookie", cookie)]}
            await send(message)

        await self.app(scope, receive, sent)


def _cookie(name: str, value: str, request: Request) -> str:
    """No script reads it, and forms of other pages do not send it."""
    words = [f"{name}={value}", "Path=/", f"Max-Age={86_400 * DAYS}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*words, "Secure"] if request.url.scheme == "https" else words)


def _same(token: str, owner: str) -> bool:
    return bool(owner) and hmac.compare_digest(token.encode(), owner.encode())


# ---------------------------------------------------------------- in a page's script


def cookies() -> Mapping[str, str]:
    """Of the browser that this tab is in."""
    return st.context.cookies


def me() -> str | None:
    """Who looks, as the store names them; None for a browser that keeps no cookies."""
    token = _kept(COOKIE)
    return named(token) if TOKEN.fullmatch(token) else None


def address() -> str:
    """From where who looks asks; "" where that is not known."""
    host = st.context.ip_address
    return access.network_of(host) if isinstance(host, str) else ""


def named(token: str) -> str:
    """The visitor of a token. Not the token itself: who reads the store could be anybody in it."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _kept(name: str) -> str:
    """A cookie; "" without it, and in a page that no browser asked for."""
    value = cookies().get(name)
    return value if isinstance(value, str) else ""


def shared() -> bool:
    """Whether others than its owner can reach this server."""
    return bool(os.environ.get(OWNER))


def is_owner() -> bool:
    """Whether this visitor may see, stop and delete everything."""
    return not shared() or _same(_kept(OWNER_COOKIE), os.environ[OWNER])


def may_change(visitor: str | None) -> bool:
    """Whether who looks may stop and delete what that visitor started."""
    return is_owner() or (visitor is not None and visitor == me())


# ---------------------------------------------------------------- names, if people like

_lock = Lock()


def name_of(visitor: str | None) -> str:
    """The name that somebody gave themselves; "" without one."""
    return _names().get(visitor or "", "")


def who(visitor: str | None) -> str:
    """Whoever asked for something, for who looks: `you`, their name, or `visitor 3f2a`.

    "" where that is nobody in particular, and on a server for one machine. A name is text of
    strangers, and nothing keeps two from taking the same.
    """
    if visitor is None or not shared():
        return ""
    if visitor == me():
        return "you"
    return name_of(visitor) or f"visitor {visitor[:4]}"


def by_another(visitor: str | None) -> str:
    """`by Anna`; "" of one's own, and where `who` is nobody."""
    other = who(visitor)
    return f"by {other}" if other not in ("", "you") else ""


def set_name(name: str) -> None:
    """Call whoever looks so; "" takes the name away. Raises StoreError."""
    visitor = me()
    if visitor is None:
        return
    # Marks that turn a line round, say, would reach into what stands beside a name.
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    kept = " ".join(shown.split())[:LONGEST_NAME].strip()
    with _lock:
        names = {**_names(), visitor: kept}
        if not kept:
            del names[visitor]
        write_json(default_workspace() / NAMES, names)


def _names() -> dict[str, str]:
    file = default_workspace() / NAMES
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return {}
    return _read_names(file, changed)


# A list asks for the name of each row.
@lru_cache(maxsize=4)
def _read_names(file: Path, changed: int) -> dict[str, str]:
    with suppress(OSError, ValueError):
        names = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(names, dict):
            return {who: name for who, name in names.items() if isinstance(name, str)}
    return {}
