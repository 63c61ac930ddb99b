"""A part that is drawn anew before the page has been sent takes nothing of the page with it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import app_session
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue

from dashboard import unsent

PAGE = (([0, 0], ""), ([0, 1], "outer"), ([0, 1, 0], "inner"), ([0, 2], ""))
"""Places and parts: a part with a part in it, and what stands below them."""


def drawn(queue: ForwardMsgQueue, whole: bool, text: str) -> None:
    """The messages of a page, or of its outer part alone, with its end."""
    for path, part in PAGE:
        if whole or part:
            message = ForwardMsg()
            message.metadata.delta_path.extend(path)
            message.delta.fragment_id = part
            message.delta.new_element.text.body = text
            queue.enqueue(message)
    end = ForwardMsg()
    statuses = ForwardMsg.ScriptFinishedStatus
    end.script_finished = (
        statuses.FINISHED_SUCCESSFULLY if whole else statuses.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    )
    queue.enqueue(end)


def sent(queue: ForwardMsgQueue) -> list[tuple[str, list[int]]]:
    """Text and place of each message; the end of a drawing has no place."""
    return [
        (message.delta.new_element.text.body, list(message.metadata.delta_path))
        for message in queue.flush()
    ]


WHOLE = [("page", path) for path, _ in PAGE] + [("", [])]
PART = [("part", path) for path, part in PAGE if part] + [("", [])]


def page_then_part(queue: ForwardMsgQueue, *parts: str) -> Sequence[tuple[str, list[int]]]:
    drawn(queue, whole=True, text="page")
    queue.clear(retain_lifecycle_msgs=True, fragment_ids_this_run=list(parts))
    drawn(queue, whole=False, text="part")
    return sent(queue)


def test_the_page_is_sent_whole_and_then_its_part() -> None:
    queue = unsent.Queue()
    for _ in range(2):  # what was sent leaves nothing behind
        assert page_then_part(queue, "outer") == WHOLE + PART
    assert page_then_part(queue, "outer", "inner") == WHOLE + PART


def test_streamlit_itself_still_drops_what_the_page_needs() -> None:
    """Once this fails, `dashboard/unsent.py` can be deleted."""
    assert page_then_part(ForwardMsgQueue(), "outer") != WHOLE + PART


def test_a_new_page_replaces_what_was_not_sent_of_the_old() -> None:
    queue = unsent.Queue()
    drawn(queue, whole=True, text="old")
    queue.clear(retain_lifecycle_msgs=True)
    drawn(queue, whole=True, text="page")
    assert sent(queue) == [("", []), *WHOLE]


def test_sessions_have_such_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ForwardMsgQueue()" in inspect.getsource(app_session.AppSession.__init__)
    monkeypatch.setattr(app_session, "ForwardMsgQueue", ForwardMsgQueue)
    unsent.keep()
    assert vars(app_session)["ForwardMsgQueue"] is unsent.Queue
