"""Who may reach the page: through the middleware itself, without a browser."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import streamlit as st
from pages import awaited

from dashboard import access, launch
from dashboard.access import HostMiddleware, PassphraseMiddleware, Tries
from pruning.runs.store import Store

WORD = "a long passphrase"
PAGE = {"accept": "text/html"}


class Answer:
    """What came of a request. status: None for a websocket that was passed on to the page."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        first = sent[0]
        self.type = first["type"]
        self.status = first.get("status")
        self.headers = {name.decode(): value.decode() for name, value in first.get("headers", [])}
        self.text = b"".join(message.get("body", b"") for message in sent[1:]).decode()


async def page(scope: Any, receive: Any, send: Any) -> None:
    """What stands behind: Streamlit."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"content-type", b"text/html"), (b"X-Frame-Options", b"ALLOWALL")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"the page"})


def asked(
    app: Any,
    path: str = "/",
    *,
    kind: str = "http",
    host: str = "localhost:8501",
    form: dict[str, str] | None = None,
    client: str = "10.0.0.1",
    scheme: str = "http",
    **headers: str,
) -> Answer:
    plain, _, query = path.partition("?")
    lines = {"host": host, **headers}
    scope = {
        "type": kind,
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "method": "GET" if form is None else "POST",
        "client": (client, 1),
        "server": ("127.0.0.1", 8501),
        "scheme": scheme,
    }
    body = urlencode(form or {}).encode()
    incoming = [{"type": "websocket.connect"}] if kind == "websocket" else []
    incoming += [{"type": "http.request", "body": body}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    awaited(app(scope, receive, send))
    return Answer(sent)


# ---------------------------------------------------------------- hosts, frames, metrics


@pytest.fixture
def hosts() -> Any:
    # As .streamlit/config.toml has it, whatever folder the tests were started in.
    before = st.get_option("server.allowedHosts")
    st.config._set_option("server.allowedHosts", ["localhost", "127.0.0.1", "::1"], "test")
    yield HostMiddleware(page)
    st.config._set_option("server.allowedHosts", before, "test")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", ["evil.example:8501", "localhost.evil.example", "10.0.0.7", ""])
def test_a_rebinding_host_is_refused(hosts: Any, kind: str, host: str) -> None:
    answer = asked(hosts, "/_stcore/stream", kind=kind, host=host)
    if kind == "websocket":
        assert answer.type == "websocket.close"
    else:
        assert answer.status == 403 and "localhost" in answer.text


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501", "LOCALHOST"])
def test_this_machines_own_names_are_let_in(hosts: Any, host: str) -> None:
    assert asked(hosts, host=host).text == "the page"
    own = {"kind": "websocket", "host": host, "origin": f"http://{host}"}
    assert asked(hosts, "/_stcore/stream", **own).type == "websocket.accept"


def test_another_page_of_this_machine_is_not_ours(hosts: Any) -> None:
    other = {"kind": "websocket", "host": "127.0.0.1:8501", "origin": "http://127.0.0.1:9999"}
    assert asked(hosts, "/_stcore/stream", **other).type == "websocket.close"
    # Behind a proxy, which opens it by other names, Streamlit's own check decides.
    st.config._set_option("server.allowedHosts", ["*"], "test")
    assert asked(hosts, "/_stcore/stream", **other).type == "websocket.accept"


def test_no_answer_may_be_framed(hosts: Any) -> None:
    for answer in (asked(hosts), asked(hosts, host="evil.example"), asked(hosts, "/nowhere")):
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "X-Frame-Options" not in answer.headers  # what stood there before is replaced


def test_metrics_are_closed_unless_asked_for(hosts: Any, monkeypatch) -> None:
    assert asked(hosts, access.METRICS_PATH).status == 404
    monkeypatch.setenv(access.METRICS, "1")
    assert asked(hosts, access.METRICS_PATH).text == "the page"


def test_the_configuration_names_this_machine_alone() -> None:
    text = (Path(__file__).parents[1] / "dashboard" / ".streamlit" / "config.toml").read_text()
    assert 'allowedHosts = ["localhost", "127.0.0.1", "::1"]' in text


# ---------------------------------------------------------------- the passphrase


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(clock: Clock) -> PassphraseMiddleware:
    return PassphraseMiddleware(page, WORD, lambda: b"s" * 32, clock)


def entered(app: Any, word: str, then: str = "/", **more: Any) -> Answer:
    return asked(app, access.ENTER_PATH, form={"passphrase": word, "then": then}, **more)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].split(";")[0]


def test_without_a_passphrase_nobody_is_asked() -> None:
    app = PassphraseMiddleware(page, "", lambda: b"")
    assert asked(app, **PAGE).text == "the page"
    assert asked(app, "/_stcore/stream", kind="websocket").type == "websocket.accept"


def test_a_stranger_sees_one_page_and_reaches_nothing_else(guarded: Any) -> None:
    answer = asked(guarded, "/?room=prune&r=abc", **PAGE)
    assert answer.status == 401 and "Passphrase" in answer.text
    assert 'value="/?room=prune&amp;r=abc"' in answer.text
    for path in ("/static/x.js", "/_workbench/changed?jobs=a:b", "/_stcore/upload_file/a/b"):
        assert asked(guarded, path).status == 401
    assert asked(guarded, "/_stcore/stream", kind="websocket").type == "websocket.close"
    # run.py asks for it to know when the page can be opened.
    assert asked(guarded, access.HEALTH_PATH).text == "the page"


def test_a_link_opens_after_the_passphrase_and_from_then_on(guarded: Any, clock: Clock) -> None:
    answer = entered(guarded, WORD, "/?room=prune&r=abc")
    assert (answer.status, answer.headers["location"]) == (303, "/?room=prune&r=abc")
    attributes = answer.headers["set-cookie"].lower()
    assert "httponly" in attributes and "samesite=lax" in attributes and "secure" not in attributes
    assert "secure" in entered(guarded, WORD, scheme="https").headers["set-cookie"].lower()
    cookie = cookie_of(answer)
    assert asked(guarded, "/?set=1", cookie=cookie, **PAGE).text == "the page"
    stream = asked(guarded, "/_stcore/stream", kind="websocket", cookie=cookie)
    assert stream.type == "websocket.accept"
    clock.now += 86_400 * access.DAYS + 1
    assert asked(guarded, cookie=cookie, **PAGE).status == 401


def test_a_cookie_cannot_be_made_or_kept_past_its_passphrase(guarded: Any, clock: Clock) -> None:
    cookie = cookie_of(entered(guarded, WORD))
    name, _, value = cookie.partition("=")
    until, _, signature = value.partition(".")
    later = f"{int(until) + 1}.{signature}"
    for wrong in ("", "1", ".", later, f"{until}.", f"{until}.é", "9" * 400):
        assert asked(guarded, cookie=f"{name}={wrong}", **PAGE).status == 401
    for other in (
        PassphraseMiddleware(page, "another passphrase", lambda: b"s" * 32, clock),
        PassphraseMiddleware(page, WORD, lambda: b"t" * 32, clock),
    ):
        assert asked(other, cookie=cookie, **PAGE).status == 401


@pytest.mark.parametrize(
    "then", ["//evil.example", "/\\evil.example", "https://evil.example", "x", "/\n"]
)
def test_it_leads_nowhere_else(guarded: Any, then: str) -> None:
    assert entered(guarded, WORD, then).headers["location"] == "/"
    assert "<script" not in entered(guarded, "wrong", '/"><script>').text


def test_wrong_tries_wait_ever_longer_each_address_for_itself(guarded: Any, clock: Clock) -> None:
    for _ in range(access.FREE_TRIES):
        assert entered(guarded, "wrong").status == 401
    assert entered(guarded, WORD).status == 429  # not even compared
    assert entered(guarded, WORD, client="10.0.0.2").status == 303
    clock.now += 1.0
    assert entered(guarded, "wrong").status == 401
    clock.now += 1.0
    assert entered(guarded, WORD).status == 429
    clock.now += 1.0
    assert entered(guarded, WORD).status == 303
    assert entered(guarded, "wrong").status == 401  # begins anew


def test_tries_are_bounded_in_time_and_number(clock: Clock, monkeypatch) -> None:
    monkeypatch.setattr(access, "MOST_ADDRESSES", 5)
    tries = Tries(clock)
    for _ in range(100):
        tries.note("a")
    assert tries.wait("a") == access.LONGEST_WAIT
    for other in "bcdefg":
        tries.note(other)
    assert len(tries._wrong) == 5


def test_one_visitors_many_addresses_are_one(guarded: Any) -> None:
    for last in range(access.FREE_TRIES):
        entered(guarded, "wrong", client=f"2001:db8:1:2::{last}")
    assert entered(guarded, WORD, client="2001:db8:1:2:ffff::9").status == 429


def test_a_form_of_any_size_is_a_wrong_try(guarded: Any) -> None:
    assert entered(guarded, "x" * 100_000).status == 401
    assert asked(guarded, access.ENTER_PATH).status == 303  # somebody opened its address


def test_the_secret_is_the_workspaces_own_and_stays(home: Path) -> None:
    access.secret.cache_clear()
    first = access.secret()
    assert len(first) == access.SECRET and (home / "secret").read_bytes() == first
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    access.secret.cache_clear()
    assert access.secret() == first
    access.secret.cache_clear()


# ---------------------------------------------------------------- run.py and the disk


def test_another_host_wants_a_passphrase_or_a_proxy() -> None:
    for own in ("127.0.0.1", "127.0.0.2", "localhost", "::1"):
        assert launch.guarded_by(own, "", None) is None
    for other in ("0.0.0.0", "::", "192.168.1.5", "workbench.example"):
        with pytest.raises(launch.Trouble, match=r"--passphrase WORD.*--behind-proxy NAME"):
            launch.guarded_by(other, "", None)
        assert "not encrypted" in launch.guarded_by(other, WORD, None)
        assert "nginx" in launch.guarded_by(other, "", "nginx")
    with pytest.raises(launch.Trouble, match="under 8 characters"):
        launch.guarded_by("127.0.0.1", "short", None)
    assert launch.PASSPHRASE == access.PASSPHRASE


def modes(folder: Path) -> tuple[int, set[int]]:
    files = {stat.S_IMODE(file.stat().st_mode) for file in folder.glob("runs.sqlite*")}
    return stat.S_IMODE(folder.stat().st_mode), files


def test_a_workspace_is_its_owners_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    store.submit("run", {"model": "tiny"})
    assert modes(tmp_path / "new") == (0o700, {0o600})
    # One of an earlier version is closed to others; its group, which may share it, keeps it.
    old = tmp_path / "new"
    old.chmod(0o775)
    (old / "runs.sqlite").chmod(0o664)
    Store(old)
    assert modes(old)[0] == 0o770
    assert stat.S_IMODE((old / "runs.sqlite").stat().st_mode) == 0o660
    # Somebody's own folder with other things in it is not ours to close.
    full = tmp_path / "home"
    full.mkdir(mode=0o755)
    (full / "letter").touch()
    Store(full)
    assert modes(full)[0] == 0o755 and modes(full)[1] == {0o600}
