"""A choice as cards: radio buttons in groups, each with a small drawing of what it does, a name and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import streamlit as st

HERE = Path(__file__).parent
HTML = '<div class="cards" role="radiogroup"></div>'


@dataclass(frozen=True)
class TechniqueCard:
    """id: what is picked; text: one sentence; more: a second, quieter one; swatch: the colour it has in charts.

    off: why it cannot be picked now, in a sentence; "" where it can.
    drawing: {"kind": "grid", "bars" or "curve", "values": ...} as cards.js draws it, or None.
    """

    id: str
    name: str
    text: str
    more: str = ""
    swatch: str = ""
    drawing: dict[str, Any] | None = None
    off: str = ""


@cache
def _control() -> Any:
    css, js = ((HERE / f"cards.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return st.components.v2.component("choice_cards", html=HTML, css=css, js=js)


def cards(
    label: str,
    groups: Sequence[tuple[str, Sequence[TechniqueCard]]],
    chosen: str,
    on_pick: Callable[[str], None],
    *,
    key: str,
    look: Literal["long", "short", "chips"] = "long",
) -> None:
    """Draw them; `on_pick` is told the id that was picked, before the page is drawn anew.

    groups: (title, cards); look: a sentence on each, or side by side as drawings or as names, with one sentence below.
    """
    drawn = [{"title": title, "cards": [asdict(card) for card in held]} for title, held in groups]
    known = {card.id for _, held in groups for card in held if not card.off}

    def picked() -> None:
        id = st.session_state[key].picked
        if id in known and id != chosen:
            on_pick(id)

    _control()(
        key=key,
        data={"label": label, "chosen": chosen, "look": look, "groups": drawn},
        on_picked_change=picked,
    )
