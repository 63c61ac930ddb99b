"""QR codes: an address that people open by a camera. segno makes them, offline.

`python -m dashboard.qr ADDRESS` prints one.
"""

from __future__ import annotations

import io
import sys
from functools import lru_cache

import segno

BORDER = 4
"""Modules of white around it, without which cameras do not find it."""


@lru_cache(maxsize=8)  # the page of who teaches shows it again with each report of a learner
def svg(text: str) -> str:
    """A picture of its own, black on white in both themes: many cameras read no inverted one."""
    code = segno.make(text, error="m", micro=False)
    return str(code.svg_inline(scale=8, border=BORDER, dark="#000", light="#fff", omitsize=True))


def terminal(text: str) -> str:
    """Two modules to a character of the terminal."""
    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, border=2, compact=True)
    return out.getvalue()


if __name__ == "__main__":
    print(terminal(sys.argv[1]))
