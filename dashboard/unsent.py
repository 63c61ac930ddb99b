"""What Streamlit has not sent yet of a page, when a part of the page is drawn anew.

Streamlit 1.67 drops what it has not sent of that part: the part sends all of it again. But what was
sent of the rest, and that the page is finished, reaches the browser first. It clears the place of
the part, moves up what stands below, and draws the part over that: the lower half of the page is
missing. Where a part stands in another, the browser even shows an error in the place of the page.
So nothing is dropped here: the part is sent twice, and the browser draws the second.
"""

from __future__ import annotations

from typing import Any

from streamlit.runtime.forward_msg_queue import ForwardMsgQueue


class Queue(ForwardMsgQueue):
    """Messages to a browser, in their order."""

    def clear(
        self,
        retain_lifecycle_msgs: bool = False,
        fragment_ids_this_run: list[str] | None = None,
    ) -> None:
        """Drop what the next messages replace.

        fragment_ids_this_run: the parts that are drawn anew; None before a whole page, and once
        the messages are sent.
        """
        if retain_lifecycle_msgs and fragment_ids_this_run:
            # What is new goes behind what is old, and not into its places, which come too early.
            self._delta_index_map.clear()
        else:
            super().clear(retain_lifecycle_msgs, fragment_ids_this_run)


def keep() -> None:
    """For every session that begins from now on."""
    from streamlit.runtime import app_session

    module: Any = app_session
    module.ForwardMsgQueue = Queue
