"""A choice as cards: radio buttons, each with a drawing of what it does, a name and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboard import state
from dashboard.components.base import control


@dataclass(frozen=True)
class TechniqueCard:
    """id: what is picked; text: one sentence; more: a second, quieter one; swatch: its colour;
    mark: its marker in charts, by plotly's name.

    off: why it cannot be picked now, in a sentence; "" where it can.
    drawing: {"kind": "grid", "bars" or "curve", "values": ...} as cards.js draws it, or None.
    """

    id: str
    name: str
    text: str
    more: str = ""
    swatch: str = ""
    mark: str = ""
    drawing: dict[str, Any] | None = None
    off: str = ""


def cards(
    label: str,
    groups: Sequence[tuple[str, Sequence[TechniqueCard]]],
    chosen: str,
    on_pick: Callable[[str], None],
    *,
    key: str,
    look: Literal["long", "short", "chips"] = "long",
) -> None:
    """Draw them; `on_pick` gets the id that was picked, before the page is drawn anew.

    groups: (title, cards).
    look: "long", a sentence on each; "short" or "chips", side by side as drawings or as names, with
    one sentence below.
    """
    sections = [
        {"title": title, "cards": [vars(card) for card in members]} for title, members in groups
    ]
    pickable = {card.id for _, members in groups for card in members if not card.off}

    def picked() -> None:
        id = state.widget_value(key).picked
        if id in pickable and id != chosen:  # from the browser: it may be anything
            on_pick(id)

    data = {"label": label, "chosen": chosen, "look": look, "groups": sections}
    control("cards")(key=key, data=data, on_picked_change=picked)
