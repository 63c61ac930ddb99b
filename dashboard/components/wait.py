"""What a page waits for, and how long that takes, on the browser's own clock; and the waiting.

One question that the server answers when there is something to tell: a page that asks again and
again sends hundreds of messages for one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from dashboard.components.base import control

PATH = "/_workbench/changed"
JOBS = "jobs"
MOST = 64
"""Jobs in one question; the page asks again once any of them changed."""


def question(states: Mapping[str, str]) -> str:
    """The address that answers once any of these jobs (id -> state) is in another state."""
    asked = sorted(states.items())[:MOST]
    return f"{PATH}?{urlencode({JOBS: ','.join(f'{id}:{state}' for id, state in asked)})}"


def asked(text: str) -> dict[str, str]:
    """The jobs of a question, as its query has them; it comes from outside."""
    pairs = [part.partition(":") for part in text.split(",")[:MOST]]
    return {id: state for id, colon, state in pairs if id and colon}


def wait(
    states: Mapping[str, str],
    on_change: Callable[[], None],
    *,
    key: str,
    text: str = "",
    times: Sequence[tuple[float, str, float | None]] = (),
    numbers: Sequence[str] = (),
) -> None:
    """Draw it. on_change: called when a job changed; then what this stands in is drawn anew.

    text: what is waited for; times: (seconds from now, how long it takes, share done or None), in
    order; numbers: labels of what is not measured yet.
    """
    data = {
        "question": question(states) if states else None,
        "text": text,
        "times": [list(time) for time in times],
        "numbers": list(numbers),
    }
    control("wait")(key=key, data=data, on_changed_change=on_change)
